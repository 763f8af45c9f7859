"""What happens when buffers, or memory as a whole, are used up. tcp_mem, tcp_rmem, RFC 2018 8."""

from __future__ import annotations

import time

import pytest
from engine.rawpeer import IRS, RawPeer, Reader

from tunstack.engine.receiver import OUT_OF_ORDER_MAX
from tunstack.engine.state import CLOSED
from tunstack.wire.segment import ACK, FIN, RST

PAGE = 4096


def test_what_waits_to_be_read_or_acknowledged_is_counted_and_given_back() -> None:
    """M-33: pages of all connections together."""
    peer = RawPeer()
    reading, writing = peer.open(1000), peer.open(1001)
    reading.pause(peer.now)
    for _ in range(8):
        peer.bring(peer.segment(reading, data=bytes(1460)))
    writing.send(bytes(100_000), peer.now)
    peer.poll()
    memory = peer.stack.memory
    assert (reading.pages, writing.pages) == (8 * 1460 // PAGE, 100_000 // PAGE)
    assert memory.pages == reading.pages + writing.pages
    reading.resume(peer.now)
    peer.bring(peer.segment(reading, data=b"x"))
    peer.wait(100_000)
    assert reading.pages == 0 and memory.pages == writing.pages
    writing.abort(peer.now)
    assert memory.pages == 0


def test_under_pressure_windows_stay_narrow_and_widen_again_after() -> None:
    """M-33: TCPMemoryPressures from above tcp_mem[1] until at tcp_mem[0]."""
    peer = RawPeer(tcp_mem=(10, 20, 1000))
    hog, other = peer.open(1000), peer.open(1001)
    wide = other.rx.rcv_ssthresh
    hog.send(bytes(30 * PAGE), peer.now)
    peer.poll()
    counters = peer.stack.counters
    assert peer.stack.memory.is_pressed and counters.TCPMemoryPressures == 1
    for _ in range(10):
        peer.bring(peer.segment(other, data=bytes(1460)))
    assert other.rx.rcv_ssthresh == 4 * other.rx.advmss < wide
    peer.now += 250_000
    hog.abort(peer.now)
    for _ in range(20):
        peer.bring(peer.segment(other, data=bytes(1460)))
    assert not peer.stack.memory.is_pressed and other.rx.rcv_ssthresh > 4 * other.rx.advmss
    assert (counters.TCPMemoryPressures, counters.TCPMemoryPressuresChrono) == (1, 250)


@pytest.mark.parametrize("fast_path", [True, False])
def test_pressure_ends_with_the_connection_that_made_it(fast_path: bool) -> None:
    """M-33: whichever way it ends, and though nothing else happens."""
    peer = RawPeer(tcp_mem=(10, 20, 1000))
    peer.stack.fast_path = fast_path
    counters = peer.stack.counters
    for count, ending in enumerate(("abort", "reset", "last ACK"), 1):
        hog = peer.open(1000 + count)
        hog.send(bytes(30 * PAGE), peer.now)
        peer.poll()
        assert peer.stack.memory.is_pressed
        if ending == "abort":
            hog.abort(peer.now)
        elif ending == "reset":
            peer.bring(peer.segment(hog, flags=RST))
        else:
            peer.bring(peer.segment(hog, flags=ACK | FIN))
            hog.close(peer.now)
            for _ in range(100):
                peer.poll()
                peer.bring(peer.segment(hog))
        peer.poll()
        assert hog.state is CLOSED and not peer.stack.memory.is_pressed, ending
        assert counters.TCPMemoryPressures == count


def test_above_the_last_threshold_nothing_more_is_held() -> None:
    """M-33: neither out of order nor for an application that does not read; one that reads goes on."""
    peer = RawPeer(tcp_mem=(10, 20, 30))
    hog, slow, fast = peer.open(1000), peer.open(1001), peer.open(1002)
    hog.send(bytes(40 * PAGE), peer.now)
    peer.poll()
    assert peer.stack.memory.is_exhausted
    slow.pause(peer.now)
    peer.bring(peer.segment(slow, data=bytes(1000)))
    nxt = slow.rx.rcv_nxt
    peer.bring(peer.segment(slow, data=bytes(1000)))
    assert slow.rx.rcv_nxt == nxt
    peer.bring(peer.segment(fast, seq=fast.rx.rcv_nxt + 1000, data=bytes(1000)))
    assert not fast.rx.pieces
    peer.bring(peer.segment(fast, data=b"goes on"))
    sink = fast.sink
    assert isinstance(sink, Reader) and sink.data == b"goes on"
    counters = peer.stack.counters
    assert (counters.TCPRcvQDrop, counters.TCPOFODrop, counters.RcvPruned) == (1, 1, 2)


def test_above_the_last_threshold_an_orphan_is_reset() -> None:
    """M-53: whoever has more to send than the least buffer, TCPAbortOnMemory."""
    peer = RawPeer(tcp_mem=(10, 20, 30))
    hog = peer.open(1000)
    hog.send(bytes(40 * PAGE), peer.now)
    peer.poll()
    hog.close(peer.now)
    (*_, reset) = peer.poll()
    assert reset.flags & 4 and hog.is_over and peer.stack.counters.TCPAbortOnMemory == 1
    assert peer.stack.memory.pages == 0


def test_what_fills_the_hole_finds_room_in_a_full_buffer() -> None:
    """M-33: the last of what lies behind it is dropped, and asked for again (RFC 2018 8)."""
    peer = RawPeer(tcp_rmem=(4096, 65536, 65536))
    conn = peer.open(1000)
    conn.pause(peer.now)
    start = conn.rx.rcv_nxt
    peer.bring(peer.segment(conn, data=bytes(1000)))
    offset = 2000
    while not conn.rx.is_full:  # a piece each, with holes between
        peer.bring(peer.segment(conn, seq=start + offset, data=bytes(100)))
        offset += 120
        assert offset < 32_000
    held = len(conn.rx.pieces)
    (ack,) = peer.bring(peer.segment(conn, seq=start + 1000, data=bytes(1000)))
    assert ack.ack == (start + 2100) & 0xFFFFFFFF
    counters = peer.stack.counters
    assert counters.PruneCalled == counters.OfoPruned == 1 and counters.TCPRcvQDrop == 0
    assert len(conn.rx.pieces) < held and not conn.rx.is_full


def test_contiguous_pieces_are_joined_before_any_is_dropped() -> None:
    """M-33, TCPRcvCollapsed: specks cost more than their octets."""
    peer = RawPeer(tcp_rmem=(4096, 65536, 65536))
    conn = peer.open(1000)
    start = conn.rx.rcv_nxt
    offset = 5000
    while not conn.rx.is_full:
        peer.bring(peer.segment(conn, seq=start + offset, data=bytes((offset & 0xFF,) * 10)))
        offset += 10
    octets = offset - 5000
    (ack,) = peer.bring(peer.segment(conn, seq=start + 2000, data=bytes(10)))
    counters = peer.stack.counters
    assert counters.TCPRcvCollapsed > 50 and counters.OfoPruned == counters.TCPOFODrop == 0
    assert [len(piece.data) for piece in conn.rx.pieces] == [10, octets]
    assert ack.sack[0] == (start + 2000, start + 2010)
    filling = bytes(2000) + b"".join(bytes(((i * 10) & 0xFF,) * 10) for i in range(2000 // 10, 500))
    peer.bring(peer.segment(conn, seq=start, data=filling[:1460]))
    peer.bring(peer.segment(conn, seq=start + 1460, data=filling[1460:2900]))
    peer.bring(peer.segment(conn, seq=start + 2900, data=filling[2900:4300]))
    peer.bring(peer.segment(conn, seq=start + 4300, data=filling[4300:5000]))
    assert conn.rx.rcv_nxt == start + offset
    sink = conn.sink
    assert isinstance(sink, Reader)
    assert bytes(sink.data[5000:]) == b"".join(bytes(((5000 + 10 * i) & 0xFF,) * 10) for i in range(octets // 10))


@pytest.mark.parametrize("rcvbuf", [131_072, 8 << 20], ids=["octets", "pieces"])
def test_a_peer_that_fills_the_buffer_with_specks_does_not_buy_time(rcvbuf: int) -> None:
    """M-33, CVE-2018-5390: each segment lies before all that is held, and finds the buffer full; pruning must not look at all each time."""
    peer = RawPeer(tcp_rmem=(4096, rcvbuf, rcvbuf))
    conn = peer.open(1000)
    start = conn.rx.rcv_nxt
    began = time.process_time()
    for offset in range(30_000, 2, -2):
        peer.bring(peer.segment(conn, seq=start + offset, data=b"x"))
    spent = time.process_time() - began
    assert len(conn.rx.pieces) <= OUT_OF_ORDER_MAX
    prunes = peer.stack.counters.PruneCalled
    assert 0 < prunes < 15_000 / 20, f"{prunes} prunes of 15,000 segments, {spent:.1f} s"
    assert conn.rx.irs == IRS and conn.state.name == "ESTABLISHED"
    assert peer.bring(peer.segment(conn, ACK, data=b"ok"))
