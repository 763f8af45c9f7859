"""Kernel-style knobs by their full names, `net.ipv4.tcp_sack`, as the configuration and the command line write them.

The knobs themselves, their defaults and units are `tunstack.engine.sysctl`; here are the names, and the checks of types and bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tunstack.daemon.errors import UserError
from tunstack.daemon.kinds import describe, quote, suggest

if TYPE_CHECKING:
    from tunstack.engine.sysctl import Sysctl

Value = bool | int | str | tuple[int, ...]

_LARGEST = 2**31 - 1  # Linux's knobs are C ints
_BOUNDS = {
    "ip_default_ttl": (1, 255),
    "ip_local_port_range": (1, 65535),
    "somaxconn": (0, 65535),
    "min_pmtu": (68, 65535),
    "mtu_expires": (1, _LARGEST),
    "tcp_adv_win_scale": (-31, 31),
    "tcp_base_mss": (0, 65535),
    "tcp_ecn": (0, 2),
    "tcp_fin_timeout": (1, _LARGEST),
    "tcp_hystart": (0, 2),
    "tcp_initial_cwnd": (1, 1000),
    "tcp_initial_ssthresh": (0, 1000000),
    "tcp_keepalive_intvl": (1, 32767),
    "tcp_keepalive_probes": (1, 127),
    "tcp_keepalive_time": (1, 32767),
    "tcp_min_snd_mss": (48, 65535),
    "tcp_mtu_probe_floor": (0, 65535),
    "tcp_mtu_probing": (0, 2),
    "tcp_retries1": (0, 255),
    "tcp_retries2": (0, 255),
    "tcp_rmem": (1, _LARGEST),
    "tcp_syn_retries": (1, 127),
    "tcp_synack_retries": (0, 255),
    "tcp_wmem": (1, _LARGEST),
}
_FOLDERS = {"min_pmtu": "net.ipv4.route.", "mtu_expires": "net.ipv4.route.", "somaxconn": "net.core."}  # others: net.ipv4.


def full_name(field: str) -> str:
    """Return the dotted name of a field of Sysctl."""
    return _FOLDERS.get(field, "net.ipv4.") + field


def defaults() -> dict[str, Value]:
    """Return every knob by its dotted name, with its default."""
    knobs = build({})
    return {full_name(field.name): getattr(knobs, field.name) for field in fields(knobs)}


def check(name: str, value: object) -> Value:
    """Return the value that a knob takes; ValueError if there is no such knob or it does not take this.

    `value` is what TOML has (boolean, integer, string or array) or, from the command line, always a string;
    several numbers are written `4096 131072 6291456`, as Linux does.
    """
    known = defaults()
    if name == "net.ipv4.tcp_available_congestion_control":
        raise ValueError("can only be read (a daemon's /status has it); to choose, set net.ipv4.tcp_congestion_control")
    if name not in known:
        raise ValueError(f"there is no such knob{suggest_knob(name, known)}")
    default = known[name]
    field = name.rpartition(".")[2]
    if isinstance(default, bool):
        return _boolean(value)
    if isinstance(default, tuple):
        return _ordered(field, value, len(default))
    if isinstance(default, int):
        return _number(field, value)
    if field == "tcp_fastopen_key":
        return _keys(value)
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,14}", value):
        raise ValueError(f"{value!r} is not a name" if isinstance(value, str) else f"must be a string, not {describe(value)}")
    return value


def suggest_knob(name: str, known: Mapping[str, Value]) -> str:
    """Return a hint at the knob that was probably meant."""
    last = name.rpartition(".")[2]
    for knob in known:
        if knob.endswith("." + last):
            return f" (did you mean {knob}?)"
    return suggest(last, (knob.rpartition(".")[2] for knob in known)) if last else ""


def build(settings: Mapping[str, Value]) -> Sysctl:
    """Return the knobs with these settings, checked before by `check`; UserError for an algorithm that there is not."""
    from tunstack.engine import Sysctl, congestion_controls  # the whole engine: not for every `--help`

    knobs = Sysctl()
    for name, value in settings.items():
        setattr(knobs, name.rpartition(".")[2], value)
    if knobs.tcp_congestion_control not in congestion_controls():
        raise UserError(
            f"net.ipv4.tcp_congestion_control: there is no {knobs.tcp_congestion_control!r}; there is {', '.join(congestion_controls())}"
        )
    return knobs


def to_toml(value: Value) -> str:
    """Write a knob's value as it would stand in a file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return quote(value) if isinstance(value, str) else str(value)


def _boolean(value: object) -> bool:
    if isinstance(value, str) and value in ("0", "1"):
        return value == "1"
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"{_show(value)} is neither 0 nor 1")


def _number(field: str, value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,10}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{_show(value)} is not a whole number")
    low, high = _BOUNDS.get(field, (0, _LARGEST))
    if not low <= value <= high:
        raise ValueError(f"{value} is not between {low} and {high}")
    return value


def _ordered(field: str, value: object, count: int) -> tuple[int, ...]:
    items: list[Any] = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    if len(items) != count:
        raise ValueError(f"must be {count} whole numbers, such as {to_toml(defaults()[full_name(field)])}")
    numbers = tuple(_number(field, item) for item in items)
    if list(numbers) != sorted(numbers):
        raise ValueError(f"{' '.join(map(str, numbers))}: the numbers must not fall from one to the next")
    return numbers


def _keys(value: object) -> str:
    """Return the text of Fast Open keys; a mistake in it is told without it, for it is a secret."""
    from tunstack.engine.fastopencookie import parse_keys

    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {describe(value)}")
    parse_keys(value)
    return value.strip()


def _show(value: object) -> str:
    return repr(value) if isinstance(value, str) else to_toml(value) if isinstance(value, bool | int) else describe(value)
