"""connect() into a four-tuple that is in TIME-WAIT. tcp_tw_reuse, RFC 6191; what is allowed was measured of Linux 6.18."""

from __future__ import annotations

import errno

import pytest
from engine.rawpeer import LOCAL, REMOTE, RawPeer

from tunstack.engine.connection import Connection
from tunstack.engine.errors import socket_error
from tunstack.engine.sink import NullSink
from tunstack.wire.segment import ACK, FIN, SYN, Segment

PORT = 5000


def connect(peer: RawPeer, local_port: int = 0) -> Connection:
    return peer.stack.connect(REMOTE, PORT, NullSink(), peer.now, local_port=local_port)


def use(peer: RawPeer, local_port: int = 0, ts_val: int | None = 1000) -> tuple[Connection, Segment]:
    """Open a connection, and close it first; return it, in TIME-WAIT, and its SYN."""
    conn = connect(peer, local_port)
    (syn,) = peer.poll()
    peer.bring(Segment(conn.flow_in, 7000, syn.seq + 1 & 0xFFFFFFFF, SYN | ACK, 65535, (), 0, ts_val, syn.ts_val or 0, mss=1460))
    conn.close(peer.now)
    peer.poll()
    peer.bring(peer.segment(conn, FIN | ACK))
    assert peer.stack.flows[conn.flow_in].state.name == "TIME_WAIT"
    return conn, syn


def test_when_ports_are_used_up_one_in_time_wait_is_taken_after_the_delay() -> None:
    """M-55: with tcp_tw_reuse = 1, after tcp_tw_reuse_delay; the ISN lies beyond all that was sent."""
    peer = RawPeer(ip_local_port_range=(40000, 40003), tcp_tw_reuse=1)
    old = [use(peer)[0] for _ in range(4)]
    assert {conn.local[1] for conn in old} == {40000, 40001, 40002, 40003}
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EADDRNOTAVAIL):
        connect(peer)
    peer.wait(1_001_000)
    conn, syn = use(peer)
    (was,) = (each for each in old if each.flow == conn.flow)
    assert (syn.seq - was.tx.snd_nxt) & 0xFFFFFFFF == 65537
    assert syn.ts_val is not None and was.ts_ok
    assert peer.stack.counters.TWRecycled == 1
    assert len(peer.stack.time_wait) == 4


@pytest.mark.parametrize("reuse", [0, 2])
def test_by_default_only_loopback_reuses(reuse: int) -> None:
    """M-55: tcp_tw_reuse = 2, Linux's default; 0 never."""
    peer = RawPeer(ip_local_port_range=(40000, 40000), tcp_tw_reuse=reuse)
    use(peer)
    peer.wait(10_000_000)
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EADDRNOTAVAIL):
        connect(peer)


@pytest.mark.parametrize("reuse", [0, 1, 2])
def test_a_port_that_the_application_chose_is_taken_at_once(reuse: int) -> None:
    """M-55: Linux asks neither for tcp_tw_reuse nor for the delay then."""
    peer = RawPeer(tcp_tw_reuse=reuse)
    use(peer, 40000)
    use(peer, 40000)
    assert peer.stack.counters.TWRecycled == 1


def test_without_timestamps_nothing_is_reused() -> None:
    """M-55: nothing would tell the old connection's segments from the new one's."""
    peer = RawPeer(ip_local_port_range=(40000, 40000), tcp_tw_reuse=1)
    use(peer, ts_val=None)
    peer.wait(10_000_000)
    for port in (0, 40000):
        with pytest.raises(OSError, check=lambda error: error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE)):
            connect(peer, port)


def test_a_connection_that_lives_is_not_taken() -> None:
    """M-55: nor is an orphan in FIN_WAIT_2."""
    peer = RawPeer(tcp_tw_reuse=1)
    conn = connect(peer, 40000)
    (syn,) = peer.poll()
    peer.bring(Segment(conn.flow_in, 7000, syn.seq + 1 & 0xFFFFFFFF, SYN | ACK, 65535, (), 0, 1000, syn.ts_val or 0, mss=1460))
    expected = socket_error("EADDRINUSE").errno
    for step in ("open", "orphan"):
        if step == "orphan":
            conn.close(peer.now)
            peer.poll()
            peer.bring(peer.segment(conn))
            assert peer.stack.flows[conn.flow_in].state.name == "FIN_WAIT_2"
        with pytest.raises(OSError, check=lambda error: error.errno == expected):
            connect(peer, 40000)
    assert conn.local == (LOCAL, 40000)
