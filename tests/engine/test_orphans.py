"""How many orphans there may be, and which go first. tcp_max_orphans, tcp_orphan_retries, tcp_mem."""

from __future__ import annotations

import pytest
from engine.rawpeer import RawPeer

from tunstack.engine.connection import Connection
from tunstack.wire.segment import FIN, RST


def closed(peer: RawPeer, port: int, octets: int = 100) -> Connection:
    """Return a connection with data that the peer does not acknowledge, closed."""
    conn = peer.open(port)
    conn.send(bytes(octets), peer.now)
    peer.poll()
    conn.close(peer.now)
    peer.poll()
    return conn


def test_one_orphan_too_many_is_reset() -> None:
    """M-53: at once, with a RST, counted TCPAbortOnMemory; those before it stay."""
    peer = RawPeer(tcp_max_orphans=2)
    kept = [closed(peer, 1000), closed(peer, 1001)]
    assert [seg.flags & FIN for seg in peer.sent] == [FIN]
    last = closed(peer, 1002)
    assert [seg.flags & RST for seg in peer.sent] == [RST]
    assert last.is_over and not any(conn.is_over for conn in kept)
    assert peer.stack.counters.TCPAbortOnMemory == 1 and len(peer.stack.orphans) == 2


def test_a_connection_that_is_held_is_no_orphan() -> None:
    """M-53."""
    peer = RawPeer(tcp_max_orphans=0)
    conns = [peer.open(1000 + i) for i in range(5)]
    for conn in conns:
        conn.shutdown_write(peer.now)
        peer.poll()
    assert not len(peer.stack.orphans) and not any(conn.is_over for conn in conns)


def test_an_orphan_leaves_the_count_with_its_last_acknowledgement() -> None:
    """M-53: and by a RST, or when the peer closed first."""
    peer = RawPeer()
    conn = closed(peer, 1000)
    peer.bring(peer.segment(conn))
    assert not len(peer.stack.orphans)
    conn = closed(peer, 1001)
    peer.bring(peer.segment(conn, RST))
    assert not len(peer.stack.orphans)
    conn = peer.open(1002)
    peer.bring(peer.segment(conn, FIN | 16))
    conn.close(peer.now)
    assert len(peer.stack.orphans) == 1
    peer.poll()
    peer.bring(peer.segment(conn))
    assert not len(peer.stack.orphans) and conn.is_over


def test_orphans_that_nobody_answers_go_when_their_timer_finds_too_many() -> None:
    """M-53: the limit was lowered; each goes with its next retransmission, not later than it would have."""
    peer = RawPeer()
    conns = [closed(peer, 1000 + i) for i in range(8)]
    peer.stack.sysctl.tcp_max_orphans = 3
    left = peer.wait(1_000_000)
    assert len(peer.stack.orphans) == 3 and sum(conn.is_over for conn in conns) == 5
    assert peer.stack.counters.TCPAbortOnMemory == 5
    assert sum(bool(seg.flags & RST) for seg in left) == 5


@pytest.mark.parametrize(("retries", "seconds"), [(0, 102.2), (3, 3.0)])
def test_an_orphan_is_given_up_sooner_than_who_is_held(retries: int, seconds: float) -> None:
    """M-53: tcp_orphan_retries, 0 meaning 8; the first timeout so long after the first retransmission. tcp_retries2 is 15 minutes."""
    peer = RawPeer(tcp_orphan_retries=retries)
    conn = closed(peer, 1000)
    held = peer.open(1001)
    held.send(bytes(100), peer.now)
    peer.poll()
    peer.wait(round(seconds * 1e6))
    assert not conn.is_over
    peer.wait(round((seconds + 0.4) * 1e6))
    assert conn.is_over and not held.is_over
    assert peer.stack.counters.TCPAbortOnTimeout == 1
