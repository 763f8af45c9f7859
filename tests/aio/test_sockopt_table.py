"""Each socket option, set and read on a kernel's socket and on ours, with values in and out of range: the same result or the same errno.

M-33, M-41, M-42. The two stacks have another MTU, so what follows from the MSS is compared by its errors alone.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aio.recorder import connected
from aio.worlds import Kernel, Ours, World

from tunstack.engine import signopt
from tunstack.engine import sockopt as so
from tunstack.engine.sysctl import Sysctl
from tunstack.engine.tcpinfo import LAYOUT
from tunstack.sim.loop import VirtualLoop

NUMBERS = (-5, -1, 0, 1, 2, 3, 7, 87, 88, 100, 120, 121, 127, 128, 255, 256, 1000, 32767, 32768, 65536, 300_000, 5_000_000, 0x7FFFFFFF)
OCTETS = (b"", b"\1", b"\2\0", b"\3\0\0", b"\4\0\0\0", b"\5\0\0\0\0\0\0\0")
VALUES: tuple[int | bytes, ...] = (*NUMBERS, *OCTETS)

SOL, TCP, IP = so.SOL_SOCKET, so.IPPROTO_TCP, so.IPPROTO_IP
UNKNOWN = ((SOL, 9999), (TCP, 9999), (IP, 9999), (17, 1), (SOL, so.SO_SNDLOWAT))
OF_THE_MSS = ((TCP, so.TCP_MAXSEG), (IP, so.IP_MTU), (TCP, so.TCP_INFO), (TCP, so.TCP_CC_INFO))
NAMED = ((TCP, so.TCP_CONGESTION), (TCP, so.TCP_UTO))  # the one takes names, the other is ours
TCP_AO = ((TCP, signopt.TCP_AO_ADD_KEY), (TCP, signopt.TCP_AO_DEL_KEY), (TCP, signopt.TCP_AO_INFO))  # few kernels are built with it
SETTABLE = sorted(option for option in so.TABLE if option not in (*OF_THE_MSS, *NAMED, *TCP_AO))

Row = tuple[Any, ...]


def name_of(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


def attempt(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except OSError as error:
        return name_of(error)


def rows(sock: Any, level: int, option: int, values: tuple[int | bytes, ...]) -> list[Row]:
    """Set each value, one after the other, and read what the option is then."""
    return [
        (value, attempt(lambda value=value: sock.setsockopt(level, option, value)), attempt(lambda: sock.getsockopt(level, option, 16)))
        for value in values
    ]


def in_both(ask: Callable[[Any, Any], Any]) -> list[Any]:
    """Return what `ask` gets of a connection's socket and a listener's: from the kernel, and from us."""
    answers = []
    for world in (Kernel(), Ours("virtual", VirtualLoop)):

        async def main(world: World = world) -> None:
            if world.kind == "kernel":  # its own default varies with its version and its memory
                Path("/proc/sys/net/ipv4/tcp_rmem").write_text(" ".join(map(str, Sysctl().tcp_rmem)))
            near, _, server = await connected(world)
            answers.append(ask(near.transport.get_extra_info("socket"), server.sockets[0]))
            near.transport.abort()
            server.close()

        world.run(main())
    return answers


@pytest.mark.parametrize(("level", "option"), [*SETTABLE, *UNKNOWN])
def test_a_connection_takes_and_tells_what_the_kernels_does(level: int, option: int) -> None:
    kernel, ours = in_both(lambda sock, listener: rows(sock, level, option, VALUES))
    assert ours == kernel


@pytest.mark.parametrize(("level", "option"), [*SETTABLE, *UNKNOWN])
def test_a_listener_takes_and_tells_what_the_kernels_does(level: int, option: int) -> None:
    kernel, ours = in_both(lambda sock, listener: rows(listener, level, option, VALUES))
    assert ours == kernel


@pytest.mark.parametrize(("level", "option"), OF_THE_MSS)
def test_what_follows_from_the_mss_has_the_kernels_errors(level: int, option: int) -> None:
    def errors(sock: Any, listener: Any) -> list[Any]:
        return [[row[:2] for row in rows(each, level, option, VALUES)] for each in (sock, listener)]

    kernel, ours = in_both(errors)
    assert ours == kernel


def test_an_untouched_socket_tells_what_the_kernels_does() -> None:
    """Not what follows from the MSS, nor what asyncio sets itself: on its listener SO_REUSEADDR, on ours TCP_NODELAY."""
    of_the_mss = ((SOL, so.SO_SNDBUF), (TCP, so.TCP_WINDOW_CLAMP), (SOL, so.SO_REUSEADDR), (TCP, so.TCP_NODELAY))
    asked = [option for option in SETTABLE if option not in of_the_mss]
    kernel, ours = in_both(
        lambda sock, listener: [
            (
                option,
                attempt(lambda option=option: sock.getsockopt(*option, 16)),
                attempt(lambda option=option: listener.getsockopt(*option, 16)),
            )
            for option in asked
        ]
    )
    assert ours == kernel


@pytest.mark.parametrize("value", [b"reno", b"reno\0", b"nonsense", b"", b"a" * 40, 7])
def test_congestion_control_by_name(value: bytes | int) -> None:
    kernel, ours = in_both(lambda sock, listener: attempt(lambda: sock.setsockopt(TCP, so.TCP_CONGESTION, value)))
    assert ours == kernel


def test_maxseg_of_a_listener_is_told_as_set() -> None:
    def ask(sock: Any, listener: Any) -> list[int]:
        found = [listener.getsockopt(TCP, so.TCP_MAXSEG)]
        for value in (1100, 0):
            listener.setsockopt(TCP, so.TCP_MAXSEG, value)
            found.append(listener.getsockopt(TCP, so.TCP_MAXSEG))
        return found

    kernel, ours = in_both(ask)
    assert ours == kernel == [536, 1100, 536]


@pytest.mark.parametrize("size", [1, 3, 8, 104, 240])
def test_a_value_is_cut_to_what_the_caller_has_room_for(size: int) -> None:
    kernel, ours = in_both(
        lambda sock, listener: [
            len(sock.getsockopt(*option, size)) for option in ((TCP, so.TCP_INFO), (TCP, so.TCP_NODELAY), (SOL, so.SO_LINGER))
        ]
    )
    assert ours == kernel


def test_tcp_info_is_the_struct() -> None:
    """State and options of a connection that has moved nothing, the first eight octets of the layout."""

    def ask(sock: Any, listener: Any) -> list[Any]:
        info = sock.getsockopt(TCP, so.TCP_INFO, 1024)
        of_listener = listener.getsockopt(TCP, so.TCP_INFO, 1024)
        return [info[:6], of_listener[0], struct.unpack_from("=I", of_listener, 24)]

    kernel, ours = in_both(ask)
    assert ours == kernel
    assert LAYOUT.size >= 240
