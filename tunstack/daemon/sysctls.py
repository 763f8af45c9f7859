"""Kernel-style knobs as the configuration and the command line write them; what they are is `tunstack.engine.sysctl`.

The table is fetched when a knob is first named: `--help` needs none of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunstack.daemon.errors import UserError
from tunstack.daemon.kinds import quote

if TYPE_CHECKING:
    from tunstack.engine.sysctl import Sysctl

Value = bool | int | str | tuple[int, ...]


def defaults() -> dict[str, Value]:
    """Return every knob that can be set by its full name, with its default."""
    from tunstack.engine.sysctl import KNOBS

    return {name: knob.default for name, knob in KNOBS.items() if knob.effect != "never"}


def check(name: str, value: object) -> Value:
    """Return the value that a knob takes; ValueError if there is no such knob or it does not take this.

    `value` is what TOML has or, from the command line, always a string.
    """
    from tunstack.engine.sysctl import Sysctl

    knobs = Sysctl()
    try:
        knobs.set(name, value)
    except OSError as error:
        raise ValueError(error.strerror) from error
    return knobs.get(name)


def build(settings: Mapping[str, Value]) -> Sysctl:
    """Return the knobs with these settings, checked before by `check`; UserError for an algorithm that there is not."""
    from tunstack.engine import Sysctl, congestion_controls

    knobs = Sysctl()
    for name, value in settings.items():
        knobs.set(name, value)
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
