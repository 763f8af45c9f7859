"""The table of knobs: every one documented, checked access with Linux's errors (M-62)."""

from __future__ import annotations

import errno
import random
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from tunstack.device.tun import TXQUEUELEN
from tunstack.engine import Stack, Sysctl
from tunstack.engine.config import StackConfig
from tunstack.engine.knob import Knob, parse_ports, to_text
from tunstack.engine.sysctl import KNOBS

PACKAGE = Path(__file__).parents[2] / "tunstack"


def refusal(name: str, value: object, knobs: Sysctl | None = None) -> tuple[int | None, str]:
    with pytest.raises(OSError) as caught:
        (knobs or Sysctl()).set(name, value)
    return caught.value.errno, caught.value.strerror


def test_every_knob_says_what_it_is() -> None:
    """M-62."""
    for name, knob in KNOBS.items():
        assert knob.doc and "\n" not in knob.doc and not knob.doc.endswith("."), name
        assert knob.low <= knob.high and knob.effect in ("at once", "new connections", "new listeners", "start", "never"), name
        if knob.effect != "never":
            assert knob.take(to_text(knob.default)) == knob.default, name


def test_every_knob_is_read_somewhere() -> None:
    """M-62: none does nothing, but for the one that does nothing in Linux either."""
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    unread = {knob.field for knob in KNOBS.values() if knob.effect != "never" and not re.search(rf"\.{knob.field}\b", source)}
    assert unread == {"tcp_adv_win_scale"}


def test_a_field_that_is_not_declared_as_a_knob_is_a_mistake() -> None:
    """M-62: a knob without documentation and range cannot come in."""

    @dataclass(slots=True)
    class Bare:
        tcp_bare: int = 3

    entry = fields(Bare)[0]
    with pytest.raises(TypeError, match=r"tcp_bare.*knob\(\)"):
        Knob.of(entry.name, entry.default, entry.metadata)


def test_a_knob_is_a_slot() -> None:
    """Hot code reads them."""
    assert not hasattr(Sysctl(), "__dict__")
    assert {knob.field for knob in KNOBS.values() if knob.effect != "never"} | {"algorithms", "version"} == set(Sysctl.__slots__)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("net.ipv4.tcp_sack", "0", False),
        ("net/ipv4/tcp_sack", " 0\n", False),
        ("net.ipv4.tcp_sack", True, True),
        ("net.ipv4.tcp_retries2", "0x10", 16),
        ("net.ipv4.tcp_retries2", "010", 8),
        ("net.ipv4.tcp_retries2", 8, 8),
        ("net.ipv4.tcp_adv_win_scale", "-0x2", -2),
        ("net.ipv4.tcp_rmem", "4096\t87380  6291456\n", (4096, 87380, 6291456)),
        ("net.ipv4.tcp_rmem", [1, 2, 3], (1, 2, 3)),
        ("net.ipv4.tcp_congestion_control", "reno\n", "reno"),
        ("net.ipv4.route.min_pmtu", "1000", 1000),
        ("net.core.somaxconn", "65536", 65536),
    ],
)
def test_value_is_taken_as_linux_takes_it(name: str, value: object, expected: object) -> None:
    """M-62."""
    knobs = Sysctl()
    knobs.set(name, value)
    assert knobs.get(name) == expected
    assert getattr(knobs, name.replace("/", ".").rpartition(".")[2]) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("net.ipv4.tcp_sack", "2", (errno.EINVAL, "'2' is neither 0 nor 1")),
        ("net.ipv4.tcp_sack", "", (errno.EINVAL, "'' is neither 0 nor 1")),
        ("net.ipv4.tcp_retries2", "256", (errno.EINVAL, "256 is not between 0 and 255")),
        ("net.ipv4.tcp_retries2", "-1", (errno.EINVAL, "-1 is not between 0 and 255")),
        ("net.ipv4.tcp_retries2", "08", (errno.EINVAL, "'08' is not a whole number")),
        ("net.ipv4.tcp_retries2", "1_0", (errno.EINVAL, "'1_0' is not a whole number")),
        ("net.ipv4.tcp_retries2", "٣", (errno.EINVAL, "'٣' is not a whole number")),
        ("net.ipv4.tcp_retries2", "9" * 5000, (errno.EINVAL, f"'{'9' * 5000}' is not a whole number")),
        ("net.ipv4.tcp_retries2", True, (errno.EINVAL, "true is not a whole number")),
        ("net.ipv4.tcp_retries2", 2.5, (errno.EINVAL, "a number is not a whole number")),
        ("net.ipv4.tcp_retries2", None, (errno.EINVAL, "null is not a whole number")),
        ("net.ipv4.tcp_rmem", "1 2", (errno.EINVAL, "must be 3 whole numbers, such as 4096 131072 6291456")),
        ("net.ipv4.tcp_rmem", "3 2 1", (errno.EINVAL, "3 2 1: the numbers must not fall from one to the next")),
        ("net.ipv4.ip_local_port_range", "1000 2000", (errno.EINVAL, "1000 is not between 1024 and 65535")),
        ("net.ipv4.tcp_congestion_control", "re no", (errno.EINVAL, "'re no' is not a name")),
        ("net.ipv4.tcp_congestion_control", 3, (errno.EINVAL, "must be a string, not an integer")),
        ("net.ipv4.tcp_sak", "1", (errno.ENOENT, "there is no such knob (did you mean tcp_sack?)")),
        ("net.ipv4.somaxconn", "1", (errno.ENOENT, "there is no such knob (did you mean net.core.somaxconn?)")),
        ("tcp_sack", "1", (errno.ENOENT, "there is no such knob (did you mean net.ipv4.tcp_sack?)")),
        ("net.ipv4.algorithms", "1", (errno.ENOENT, "there is no such knob")),
        ("", "1", (errno.ENOENT, "there is no such knob")),
    ],
)
def test_wrong_value_is_refused_with_linux_errno_and_changes_nothing(name: str, value: object, expected: tuple[int, str]) -> None:
    """M-62."""
    knobs = Sysctl()
    assert refusal(name, value, knobs) == expected
    assert knobs == Sysctl()


def test_text_has_the_form_that_is_declared() -> None:
    key = Knob("k", "", "a key", "", 0, 0, "net.ipv4.", "at once", True, "", check=parse_ports, form="ports", secret=True)
    assert key.kind == "ports" and key.take(" 1,2-3\n") == "1,2-3"
    with pytest.raises(OSError, match="neither a port nor a range of ports"):
        key.take("1," + "9" * 5000)


def test_tw_recycle_is_refused_with_the_reason() -> None:
    """M-55: there is no tcp_tw_recycle."""
    number, text = refusal("net.ipv4.tcp_tw_recycle", "1")
    assert number == errno.ENOENT and "NAT" in text and "4.12" in text
    with pytest.raises(FileNotFoundError, match="NAT"):
        Sysctl().get("net.ipv4.tcp_tw_recycle")


def test_length_of_the_interfaces_queue_is_set_before_there_is_a_stack() -> None:
    """M-62: netdev_max_backlog is the interface's txqueuelen, for which a running daemon has no right any more."""
    knobs = Sysctl()
    assert knobs.netdev_max_backlog == TXQUEUELEN
    knobs.set("net.core.netdev_max_backlog", "300")
    Stack(StackConfig((bytes(4),), 1500, sysctl=knobs), random.Random(1), bytes(16))
    number, text = refusal("net.core.netdev_max_backlog", "400", knobs)
    assert number == errno.EACCES and "configuration" in text and knobs.netdev_max_backlog == 300


def test_algorithms_are_those_of_the_stack() -> None:
    """M-62, M-38: what there is can be read and not written; an algorithm that is not there is ENOENT, as in Linux."""
    knobs = Sysctl()
    Stack(StackConfig((bytes(4),), 1500, sysctl=knobs), random.Random(1), bytes(16))
    assert knobs.get("net.ipv4.tcp_available_congestion_control") == "bbr cubic reno tahoe"
    number, text = refusal("net.ipv4.tcp_available_congestion_control", "reno", knobs)
    assert number == errno.EACCES and "can only be read" in text
    assert refusal("net.ipv4.tcp_congestion_control", "vegas", knobs) == (
        errno.ENOENT,
        "there is no 'vegas'; there is bbr, cubic, reno, tahoe",
    )
    assert knobs.tcp_congestion_control == "cubic"
    assert replace(knobs, tcp_sack=False).algorithms is None  # another stack's


def test_each_change_makes_another_version() -> None:
    """Who works something out from knobs sees by it that it is stale, however they were written."""
    sysctl = Sysctl(tcp_sack=False)
    versions = [sysctl.version]
    sysctl.tcp_rmem = (4096, 8192, 16384)
    versions.append(sysctl.version)
    sysctl.set("net.ipv4.tcp_sack", "1")
    versions.append(sysctl.version)
    assert sorted(set(versions)) == versions
    assert Sysctl() == Sysctl(tcp_sack=True)  # it is no setting: two that say the same are equal
    assert sysctl != Sysctl()
