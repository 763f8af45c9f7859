"""The receive buffer follows what the application takes in a round trip (dynamic right-sizing), and the window opens with what comes.

M-31, M-41. The figures are near those that Linux 6.18 tells in TCP_INFO for the same events; its segments cost a little more memory.
"""

from __future__ import annotations

import random

import pytest
from engine.notation import Play

from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.receivewindow import held
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.seq import MASK
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, PSH, SYN, Batch, Segment

US, THEM = pack_address("10.0.0.2"), pack_address("10.0.0.1")
FLOW = pack_flow(THEM, 40000, US, 80)
START = 1_000_000_000
ROUND = 100_000  # us
MSS = 1448


class Sender:
    """A peer that sends full segments, as many as it is told and the window takes, to a stack of which it sees the ACKs."""

    def __init__(self, options: SocketOptions | None = None, timestamps: bool = True, isn: int = 0xFFFF0000, **sysctl: object) -> None:
        self.now = START
        self.sysctl = Sysctl(**sysctl)  # type: ignore[arg-type]
        self.stack = Stack(StackConfig((US,), sysctl=self.sysctl), random.Random(1), bytes(16))
        accepted: list[Listener] = []
        self.stack.listen(US, 80, on_acceptable=accepted.append, options=options)
        self.timestamps = timestamps
        self.seq = isn
        self.edge = 0
        self.field = 0
        self.wscale = 0
        self.acks = 0
        self.echo = 0
        self._send(SYN, 0, mss=1460, wscale=7, sack_ok=True)
        self.seq = (isn + 1) & MASK
        self._send(ACK, 0)
        conn = accepted[0].accept()
        assert conn is not None
        self.conn: Connection = conn
        self.acks = 0

    def _segment(self, flags: int, length: int, **more: object) -> Segment:
        stamp = {"ts_val": self.now // 1000 & MASK, "ts_ecr": self.echo} if self.timestamps else {}
        ack = (self.conn.tx.snd_nxt if hasattr(self, "conn") else self.echo_ack) if flags & ACK else 0
        return Segment(FLOW, self.seq, ack, flags, 60000, (memoryview(bytes(length)),), length, **stamp, **more)  # type: ignore[arg-type]

    def _send(self, flags: int, length: int, **more: object) -> None:
        batch = Batch()
        batch.segments.append(self._segment(flags, length, **more))
        self.stack.receive(batch, self.now)
        self.seq = (self.seq + length) & MASK
        self._hear()

    def batch(self, count: int) -> None:
        """Send full segments that the stack finds in one batch."""
        batch = Batch()
        for _ in range(count):
            batch.segments.append(self._segment(ACK, MSS))
            self.seq = (self.seq + MSS) & MASK
        self.stack.receive(batch, self.now)
        self._hear()

    def _hear(self) -> None:
        while (out := self.stack.poll_transmit(self.now)) is not None:
            assert isinstance(out, Segment)
            self.acks += 1
            self.echo = out.ts_val or 0
            if out.flags & SYN:
                self.wscale = out.wscale or 0
                self.echo_ack = (out.seq + 1) & MASK
                self.edge = (out.ack + out.window) & MASK
            else:
                edge = (out.ack + (out.window << self.wscale)) & MASK
                assert (edge - self.edge) & MASK < 1 << 31, "the right edge was taken back"
                self.edge = edge

    @property
    def window(self) -> int:
        return (self.edge - self.seq) & MASK

    def round(self, count: int, read: bool = True, flags: int = ACK) -> int:
        """Send up to `count` segments at once, then let a round trip pass; return how many the window took."""
        sent = 0
        while sent < count and self.window >= MSS:
            self._send(flags, MSS)
            sent += 1
            if read and sent % 10 == 0:
                self.read()
        if read:
            self.read()
        self.now += ROUND
        return sent

    def read(self, size: int = 1 << 30) -> int:
        got = len(self.conn.read(size, self.now))
        self._hear()
        return got


@pytest.mark.parametrize("timestamps", [True, False])
def test_the_window_opens_as_fast_as_a_sender_in_slow_start(timestamps: bool) -> None:
    """From 64 KB on, the window is never what holds a sender back that doubles what it sends each round trip."""
    peer = Sender(timestamps=timestamps)
    count = 20
    while count * MSS < 2_000_000:
        assert peer.round(count) == count
        count *= 2
    info = peer.conn.info()
    assert info.rcv_rtt == pytest.approx(ROUND, rel=0.02)
    assert info.rcv_wnd > 2_500_000
    assert peer.conn.rx.rcvbuf <= peer.sysctl.tcp_rmem[2]


def test_the_buffer_is_twice_what_is_taken_in_a_round_trip_and_grows_no_more_when_that_does_not() -> None:
    peer = Sender()
    for _ in range(20):
        peer.round(150)
    info = peer.conn.info()
    sizes = (peer.conn.rx.rcvbuf, info.rcv_wnd, info.rcv_space)
    assert info.rcv_space == pytest.approx(150 * MSS, rel=0.15)
    for _ in range(20):
        peer.round(150)
    info = peer.conn.info()
    assert (peer.conn.rx.rcvbuf, info.rcv_wnd, info.rcv_space) == sizes


def test_a_reader_that_is_the_bottleneck_gets_no_larger_buffer() -> None:
    """Who reads 20 segments a round trip has no use for more than the first 64 KB."""
    peer = Sender()
    size = peer.conn.rx.rcvbuf
    for _ in range(40):
        peer.round(1000, read=False)
        peer.read(20 * MSS)
    assert peer.conn.rx.rcvbuf == size
    assert peer.conn.readable > 30_000


@pytest.mark.parametrize("options", [{"rcvbuf": 30_000}, {"tcp_moderate_rcvbuf": False}])
def test_a_fixed_buffer_stays(options: dict[str, object]) -> None:
    """SO_RCVBUF, doubled, or the sysctl says so."""
    peer = Sender(SocketOptions(rcvbuf=30_000)) if "rcvbuf" in options else Sender(**options)
    for _ in range(20):
        peer.round(1000)
    assert peer.conn.rx.rcvbuf == (60_000 if "rcvbuf" in options else 131_072)


def test_the_buffer_ends_at_tcp_rmem() -> None:
    peer = Sender(tcp_rmem=(4096, 131072, 500_000))
    for count in (40, 80, 160, 320, 640, 1000, 1000):
        peer.round(count)
    assert peer.conn.rx.rcvbuf == 500_000
    assert peer.conn.info().rcv_wnd < 500_000


def test_a_clamp_bounds_the_window_from_the_syn_on() -> None:
    """TCP_WINDOW_CLAMP; set later, it does not take the edge back."""
    peer = Sender(SocketOptions(window_clamp=20_000))
    assert peer.window <= 20_000
    later = Sender()
    later.conn.set_option("window_clamp", 20_000, later.now)
    assert later.window > 60_000
    for _ in range(3):
        later.round(20)
        later.round(30)
    assert later.window <= 20_000 + (1 << later.wscale)


@pytest.mark.parametrize("length", [1, 50, 1448])
def test_what_is_held_is_bounded_by_what_it_costs(length: int) -> None:
    """A sender that fills a buffer that nobody reads with segments of any size, in order and beyond holes."""
    peer = Sender(tcp_rmem=(4096, 131072, 131072))
    rx = peer.conn.rx
    for index in range(6000):
        if peer.window < 2 * length:
            break
        if index % 3 == 2:
            peer.seq += length  # a hole, filled below
        peer._send(ACK, length)
        assert held(rx) <= rx.rcvbuf + 4096
    assert held(rx) > 1000
    assert peer.conn.readable + sum(len(piece.data) for piece in rx.pieces) < rx.rcvbuf


@pytest.mark.parametrize("sack", [True, False])
def test_a_batch_beyond_a_hole_has_one_ack_once_three_have_told_of_it(sack: bool) -> None:
    """M-33, M-34: with SACK; without, each counts. D-SACKs are never left out."""
    peer = Sender(tcp_sack=sack)
    peer.seq += MSS
    for expected in (3, 1) if sack else (10, 10):
        peer.acks = 0
        peer.batch(10)
        assert peer.acks == expected
    assert peer.stack.counters.TCPAckCompressed == (16 if sack else 0)


@pytest.mark.parametrize("read", [True, False])
def test_a_pushed_segment_is_acknowledged_when_it_was_read(read: bool) -> None:
    """M-33, Linux's tcp_cleanup_rbuf: the quick ACKs of the beginning are over, and this is no conversation."""
    peer = Sender()
    peer.conn.rx.quick = 0
    peer.conn.rx.ato = 40_000
    peer.conn.rx.mss = MSS
    peer.conn.rx.rcv_ssthresh = peer.conn.rx.window_clamp
    peer._send(ACK | PSH, 100)
    assert peer.acks == 0
    if read:
        assert peer.read() == 100
    assert peer.acks == read


def test_an_application_that_takes_at_once_has_pushed_segments_acknowledged_at_once(play: Play) -> None:
    """M-33. In a conversation they wait for the answer."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   resume
        +0   setsockopt quickack 0
        +0   < P. 1:101(100) ack 1 win 30000
        +.04 > . 1:1(0) ack 101
        +.01 < P. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 201
        """
    )


def test_quickack_sends_what_is_pending(play: Play) -> None:
    """M-33: TCP_QUICKACK = 1 in the middle of the delay; it is not remembered."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   setsockopt quickack 0
        +0   < P. 1:101(100) ack 1 win 30000
        +.01 read 100
        +0   idle
        +0   setsockopt quickack 1
        +0   > . 1:1(0) ack 101
        """
    )
