"""Socket options by Linux's numbers; their defaults against the kernel's own."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from aio.recorder import connected

from tunstack.engine.sockopt import TCP_UTO

SOL, TCP, IP = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP
TCP_USER_TIMEOUT, TCP_CONGESTION = 18, 13
SO_MAX_PACING_RATE = 47


@pytest.mark.parametrize(
    ("level", "option", "value"),
    [
        (SOL, socket.SO_TYPE, socket.SOCK_STREAM),
        (SOL, socket.SO_DOMAIN, socket.AF_INET),
        (SOL, socket.SO_PROTOCOL, socket.IPPROTO_TCP),
        (SOL, socket.SO_ERROR, 0),
        (SOL, socket.SO_ACCEPTCONN, 0),
        (SOL, socket.SO_KEEPALIVE, 0),
        (SOL, socket.SO_LINGER, 0),
        (SOL, socket.SO_OOBINLINE, 0),
        (TCP, socket.TCP_NODELAY, 1),
        (TCP, socket.TCP_CORK, 0),
        (TCP, socket.TCP_QUICKACK, 1),
        (TCP, socket.TCP_KEEPIDLE, 7200),
        (TCP, socket.TCP_KEEPINTVL, 75),
        (TCP, socket.TCP_KEEPCNT, 9),
        (TCP, socket.TCP_SYNCNT, 6),
        (TCP, TCP_USER_TIMEOUT, 0),
        (IP, socket.IP_TOS, 0),
        (IP, socket.IP_TTL, 64),
    ],
)
async def test_default(world, level, option, value):
    near, _, server = await connected(world)
    assert near.transport.get_extra_info("socket").getsockopt(level, option) == value
    near.transport.close()
    server.close()


@pytest.mark.parametrize(
    ("level", "option", "value", "told"),
    [
        (SOL, socket.SO_KEEPALIVE, 5, 1),
        (SOL, socket.SO_OOBINLINE, 5, 1),
        (SOL, socket.SO_RCVBUF, 50_000, 100_000),
        (SOL, socket.SO_SNDBUF, 50_000, 100_000),
        (SOL, socket.SO_RCVBUF, 1, 2304),
        (SOL, socket.SO_SNDBUF, 1, 4608),
        (TCP, socket.TCP_NODELAY, 0, 0),
        (TCP, socket.TCP_CORK, 1, 1),
        (TCP, socket.TCP_KEEPIDLE, 30, 30),
        (TCP, socket.TCP_KEEPINTVL, 5, 5),
        (TCP, socket.TCP_KEEPCNT, 3, 3),
        (TCP, socket.TCP_SYNCNT, 3, 3),
        (TCP, TCP_USER_TIMEOUT, 30_000, 30_000),
        (IP, socket.IP_TOS, 0x10, 0x10),
        (IP, socket.IP_TOS, 0xBB, 0xB8),  # the ECN bits are TCP's own
        (IP, socket.IP_TTL, 3, 3),
    ],
)
async def test_set_and_get(world, level, option, value, told):
    near, _, server = await connected(world)
    sock = near.transport.get_extra_info("socket")
    sock.setsockopt(level, option, value)
    assert sock.getsockopt(level, option) == told
    assert sock.getsockopt(level, option, 4) == struct.pack("i", told)
    sock.setsockopt(level, option, struct.pack("i", value))
    assert sock.getsockopt(level, option) == told
    near.transport.abort()
    server.close()


@pytest.mark.parametrize(
    ("level", "option", "value", "error"),
    [
        (TCP, 9999, 1, errno.ENOPROTOOPT),
        (TCP, socket.TCP_KEEPIDLE, 0, errno.EINVAL),
        (TCP, socket.TCP_KEEPIDLE, 40_000, errno.EINVAL),
        (TCP, socket.TCP_KEEPINTVL, 0, errno.EINVAL),
        (TCP, socket.TCP_KEEPCNT, 128, errno.EINVAL),
        (TCP, TCP_USER_TIMEOUT, -1, errno.EINVAL),
        (TCP, socket.TCP_NODELAY, b"\0", errno.EINVAL),
        (TCP, TCP_CONGESTION, b"nonsense", errno.ENOENT),
        (SOL, socket.SO_LINGER, b"\0\0\0\0", errno.EINVAL),
        (SOL, 9999, 1, errno.ENOPROTOOPT),
        (IP, socket.IP_TTL, 300, errno.EINVAL),
    ],
)
async def test_bad_option_gives_the_errno_of_a_socket(world, level, option, value, error):
    near, _, server = await connected(world)
    with pytest.raises(OSError) as caught:
        near.transport.get_extra_info("socket").setsockopt(level, option, value)
    assert caught.value.errno == error
    near.transport.close()
    server.close()


async def test_unknown_option_cannot_be_read(world):
    near, _, server = await connected(world)
    with pytest.raises(OSError) as caught:
        near.transport.get_extra_info("socket").getsockopt(TCP, 9999)
    assert caught.value.errno == errno.ENOPROTOOPT
    near.transport.close()
    server.close()


async def test_linger_is_a_structure(world):
    near, _, server = await connected(world)
    sock = near.transport.get_extra_info("socket")
    sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 7))
    assert sock.getsockopt(SOL, socket.SO_LINGER, 8) == struct.pack("ii", 1, 7)
    sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 0, 7))
    assert sock.getsockopt(SOL, socket.SO_LINGER, 8)[:4] == bytes(4)
    near.transport.close()
    server.close()


@pytest.mark.parametrize(
    "value", [None, 1_000_000, 0, -1, struct.pack("Q", 5_000_000_000), struct.pack("I", 7), struct.pack("Q", (1 << 64) - 1)]
)
async def test_pacing_rate_is_told_as_the_kernel_tells_it(world, value):
    """M-39: SO_MAX_PACING_RATE, set from four octets or eight, and read in four or eight."""
    near, _, server = await connected(world)
    with socket.socket() as kernel:
        told = []
        for sock in (kernel, near.transport.get_extra_info("socket")):
            if value is not None:
                sock.setsockopt(SOL, SO_MAX_PACING_RATE, value)
            told.append([sock.getsockopt(SOL, SO_MAX_PACING_RATE, *length) for length in ((), (4,), (8,))])
    assert told[1] == told[0]
    near.transport.close()
    server.close()


async def test_congestion_control_is_a_name(world):
    near, _, server = await connected(world)
    sock = near.transport.get_extra_info("socket")
    sock.setsockopt(TCP, TCP_CONGESTION, b"reno")
    assert sock.getsockopt(TCP, TCP_CONGESTION, 16) == b"reno".ljust(16, b"\0")
    near.transport.close()
    server.close()


async def test_unknown_congestion_control_is_enoent(world):
    """M-38: and what runs goes on."""
    near, _, server = await connected(world)
    sock = near.transport.get_extra_info("socket")
    sock.setsockopt(TCP, TCP_CONGESTION, b"reno")
    for name in (b"none such", b"Reno", b"\0"):
        with pytest.raises(OSError) as caught:
            sock.setsockopt(TCP, TCP_CONGESTION, name)
        assert caught.value.errno == errno.ENOENT
    assert sock.getsockopt(TCP, TCP_CONGESTION, 16) == b"reno".ljust(16, b"\0")
    assert sock.getsockopt(TCP, TCP_CONGESTION, 3) == b"ren"
    sock.setsockopt(TCP, TCP_CONGESTION, b"reno".ljust(40, b"\0"))
    near.transport.close()
    server.close()


async def test_congestion_control_is_told_as_it_is_whatever_later_connections_get(ours):
    """M-38."""
    near, far, server = await connected(ours)
    sock = near.transport.get_extra_info("socket")
    near.transport.get_extra_info("socket")._conn.stack.sysctl.tcp_congestion_control = "tahoe"
    assert sock.getsockopt(TCP, TCP_CONGESTION, 6) == b"cubic\0"
    sock.setsockopt(TCP, TCP_CONGESTION, b"reno")
    assert sock._conn.info().congestion == "reno"
    assert far.transport.get_extra_info("socket").getsockopt(TCP, TCP_CONGESTION, 6) == b"cubic\0"
    near.transport.close()
    server.close()


async def test_listener_sets_the_congestion_control_of_what_it_accepts(ours):
    """M-38."""
    from aio.recorder import Recorder

    far = Recorder()
    server = await ours.create_server(lambda: far, 80)
    server.sockets[0].setsockopt(TCP, TCP_CONGESTION, b"tahoe")
    assert server.sockets[0].getsockopt(TCP, TCP_CONGESTION, 6) == b"tahoe\0"
    transport, _ = await ours.create_connection(Recorder, ours.host, 80)
    await far.until("made")
    assert far.transport.get_extra_info("socket").getsockopt(TCP, TCP_CONGESTION, 6) == b"tahoe\0"
    transport.close()
    server.close()


async def test_segment_size_is_the_connections(ours):
    near, _, server = await connected(ours)
    assert near.transport.get_extra_info("socket").getsockopt(TCP, socket.TCP_MAXSEG) == 1448
    near.transport.close()
    server.close()


async def test_listener_sets_what_connections_start_with(ours):
    from aio.recorder import Recorder

    far = Recorder()
    server = await ours.create_server(lambda: far, 80)
    (sock,) = server.sockets
    assert sock.getsockopt(SOL, socket.SO_ACCEPTCONN) == 1 and sock.fileno() == -1
    sock.setsockopt(TCP, socket.TCP_KEEPIDLE, 33)
    with pytest.raises(OSError):
        sock.setsockopt(TCP, socket.TCP_KEEPIDLE, 0)
    with pytest.raises(OSError):
        sock.getpeername()
    transport, _ = await ours.create_connection(Recorder, ours.host, 80)
    await far.until("made")
    assert far.transport.get_extra_info("socket").getsockopt(TCP, socket.TCP_KEEPIDLE) == 33
    transport.close()
    server.close()


async def test_socket_is_not_blocking_and_has_no_descriptor(ours):
    near, far, server = await connected(ours)
    sock = near.transport.get_extra_info("socket")
    assert sock.fileno() == -1 and sock.gettimeout() == 0
    sock.setblocking(False)
    sock.settimeout(0)
    with pytest.raises(ValueError):
        sock.setblocking(True)
    with pytest.raises(ValueError):
        sock.settimeout(1)
    near.transport.abort()
    with pytest.raises(OSError) as caught:
        sock.getpeername()
    assert caught.value.errno == errno.ENOTCONN
    await far.until("lost ConnectionResetError")
    server.close()


async def test_the_uto_option_is_asked_for_by_a_number_of_our_own(ours):
    """M-14: Linux has none."""
    near, _, server = await connected(ours)
    sock = near.transport.get_extra_info("socket")
    assert sock.getsockopt(TCP, TCP_UTO) == 0
    sock.setsockopt(TCP, TCP_UTO, 600)
    assert sock.getsockopt(TCP, TCP_UTO) == 600
    assert near.transport.get_extra_info("connection").options.user_timeout_advertise == 600
    near.transport.close()
    server.close()
