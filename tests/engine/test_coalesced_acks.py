"""A sender that gets bare ACKs coalesced comes to the same as one that gets each of them (wire/gro.py). RFC 9293 3.4, RFC 5681."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from tunstack.engine import Stack, StackConfig, pack_address
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.phase import OPEN, RECOVERY
from tunstack.engine.sink import NullSink
from tunstack.wire import codec
from tunstack.wire.flow import pack_flow
from tunstack.wire.segment import ACK, SYN, Segment

US, PEER = pack_address("10.77.0.2"), pack_address("10.77.0.1")
FLOW = pack_flow(PEER, 40000, US, 80)
MSS = 1448
RTT = 20_000


@dataclass
class End:
    """A sender with an established connection, and the peer's side of it."""

    stack: Stack
    reader: codec.Reader
    sacks: bool = True
    now: int = 1_000_000

    def __post_init__(self) -> None:
        def accept(listener: Listener) -> None:
            connection = listener.accept()
            assert connection is not None
            connection.sink = NullSink()
            self.conn: Connection = connection

        self.stack.listen(US, 80, on_acceptable=accept)
        self.bring(Segment(FLOW, 100, 0, SYN, 65535, (), 0, 1, 0, 0, (), 1460, 9, self.sacks))
        (syn_ack,) = self.sent()
        self.iss = syn_ack.seq
        self.now += RTT
        self.bring(self.ack(0, 1))
        self.conn.send(bytes(4_000_000), self.now)

    def ack(self, octets: int, stamp: int, window: int = 8000, sack: tuple[tuple[int, int], ...] = ()) -> Segment:
        acked = (self.iss + 1 + octets) & 0xFFFFFFFF
        blocks = [((acked + a) & 0xFFFFFFFF, (acked + b) & 0xFFFFFFFF) for a, b in sack] if self.sacks else []
        return Segment(FLOW, 101, acked, ACK, window, (), 0, stamp, 0, 0, blocks)

    def bring(self, *segments: Segment) -> None:
        frames = [frame for segment in segments for frame in codec.encode(segment)]
        self.stack.receive(self.reader.parse(frames), self.now)

    def sent(self) -> list[Segment]:
        """Return what leaves, cut to packets."""
        packets = []
        while (item := self.stack.poll_transmit(self.now)) is not None:
            assert isinstance(item, Segment)
            for frame in codec.encode(item):
                segment = codec.parse_datagram(frame)
                assert segment is not None
                packets.append(segment)
        return packets

    def state(self) -> dict[str, object]:
        conn, tx = self.conn, self.conn.tx
        names = ("TcpInSegs", "TcpOutSegs", "TcpRetransSegs", "TCPSackRecovery", "TCPRenoRecovery", "TCPFastRetrans", "TCPSACKDiscard")
        rtt, rack, recovery = conn.rtt, conn.recovery.rack, conn.recovery
        return {
            "una": tx.snd_una, "nxt": tx.snd_nxt, "window": tx.snd_wnd, "wl1": tx.snd_wl1, "wl2": tx.snd_wl2, "cwnd": tx.cc.cwnd,
            "ssthresh": tx.cc.ssthresh, "pipe": tx.pipe, "min_rtt": rtt.min_rtt, "latest": rtt.latest, "quiet": recovery.is_quiet,
            "phase": recovery.phase, "rack": (rack.sent_at, rack.end), "ts_recent": conn.rx.ts_recent, "segs_in": conn.segs_in,
            "acked": tx.bytes_acked, **{name: getattr(self.stack.counters, name) for name in names},
        }  # fmt: skip


def pair(congestion: str, fast_path: bool, sacks: bool = True) -> tuple[End, End]:
    """Two senders alike; the second reads its ACKs coalesced."""
    ends = []
    for merges in (False, True):
        config = StackConfig((US,), 1500, 65535 - 80, congestion=congestion, fast_path=fast_path)
        ends.append(End(Stack(config, random.Random(5), bytes(16)), codec.Reader(False, coalesce_acks=merges), sacks))
    assert ends[0].iss == ends[1].iss
    return ends[0], ends[1]


ways = pytest.mark.parametrize("fast_path", [True, False])


@ways
@pytest.mark.parametrize("congestion", ["reno", "cubic"])
def test_octets_windows_and_round_trips_are_the_same(congestion: str, fast_path: bool) -> None:
    """Slow start and beyond: each round trip's ACKs, one every second packet, in batches."""
    plain, merged = pair(congestion, fast_path)
    acked = 0
    for trip in range(8):
        sent = [end.sent() for end in (plain, merged)]
        assert [(s.seq, s.length, s.flags) for s in sent[0]] == [(s.seq, s.length, s.flags) for s in sent[1]]
        assert sent[0]
        acks = []
        for n, packet in enumerate(sent[0], 1):
            acked += packet.length
            if n % 2 == 0 or n == len(sent[0]):
                acks.append((acked, 2 + trip, 8000 + trip // 4 * n))  # the window moves later on, which is off the fast path
        for end in (plain, merged):
            end.now += RTT
            end.bring(*(end.ack(*each) for each in acks))
        assert plain.state() == merged.state()
    assert acked > 100 * MSS and plain.stack.counters.TcpRetransSegs == 0
    assert 10 * merged.stack.counters.IpInReceives < plain.stack.counters.IpInReceives  # it was of use


def test_an_algorithm_that_measures_rates_takes_fewer_samples_and_comes_to_the_same() -> None:
    """BBR has a sample for each ACK. Those of a batch say nearly the same: its window differs by a packet or two in a hundred."""
    plain, merged = pair("bbr", True)
    acked = 0
    for trip in range(8):
        count = sum(packet.length for packet in plain.sent()) // MSS
        assert count == sum(packet.length for packet in merged.sent()) // MSS > 0
        for end in (plain, merged):
            end.now += RTT
            end.bring(*(end.ack(acked + MSS * n, 2 + trip) for n in range(2, count + 1, 2)), end.ack(acked + MSS * count, 2 + trip))
        acked += MSS * count
        one, other = plain.state(), merged.state()
        cwnd, cwnd_merged = one.pop("cwnd"), other.pop("cwnd")
        assert one == other
        assert isinstance(cwnd, int) and isinstance(cwnd_merged, int)
        assert abs(cwnd - cwnd_merged) <= cwnd // 20
        if cwnd != cwnd_merged:
            return  # what leaves next is not the same any more
    assert acked > 100 * MSS


@ways
@pytest.mark.parametrize("sacks", [True, False])
def test_loss_is_seen_and_repaired_alike(sacks: bool, fast_path: bool) -> None:
    """Duplicate ACKs, with SACK blocks and without, between ACKs that advance."""
    plain, merged = pair("reno", fast_path, sacks)
    for _ in range(2):
        sent = plain.sent()
        assert len(merged.sent()) == len(sent)
        total = sum(packet.length for packet in sent)
        base = (sent[0].seq - plain.iss - 1) & 0xFFFFFFFF
        for end in (plain, merged):
            end.now += RTT
            end.bring(*(end.ack(base + MSS * n, 2) for n in range(1, total // MSS + 1)))
    sent = plain.sent()
    assert len(merged.sent()) == len(sent) > 12
    base = (sent[0].seq - plain.iss - 1) & 0xFFFFFFFF
    for end in (plain, merged):  # three arrive, the fourth is lost, the rest arrive
        end.now += RTT
        first = [end.ack(base + MSS * n, 3) for n in (1, 2, 3)]
        duplicates = [end.ack(base + MSS * 3, 3, sack=((MSS, MSS * (n + 1)),)) for n in range(1, 7)]
        end.bring(*first, *duplicates)
    assert plain.state() == merged.state()
    again = [[(s.seq, s.length) for s in end.sent()] for end in (plain, merged)]
    assert again[0] == again[1] and ((plain.iss + 1 + base + 3 * MSS) & 0xFFFFFFFF, MSS) in again[0]
    for end in (plain, merged):
        end.now += RTT
        end.bring(*(end.ack(base + MSS * n, 4) for n in range(10, len(sent) + 1)))
    # The ACK that ends the recovery brings more octets at once, which count for the window that begins to grow: as with a stretch ACK.
    one, other = plain.state(), merged.state()
    assert one | {"cwnd": 0} == other | {"cwnd": 0} and one["phase"] == (OPEN if sacks else RECOVERY)
    assert 0 <= merged.conn.tx.cc.cwnd - plain.conn.tx.cc.cwnd <= MSS


@ways
def test_a_window_that_closed_and_opened_within_a_batch_is_open(fast_path: bool) -> None:
    plain, merged = pair("reno", fast_path)
    assert len(plain.sent()) == len(merged.sent()) >= 10
    for end in (plain, merged):
        end.now += RTT
        end.bring(*(end.ack(MSS * n, 2, window=0 if n == 4 else 20 * n) for n in range(1, 7)))
    assert plain.state() == merged.state()
    assert plain.conn.tx.snd_wnd == 120 << 9
    assert [s.seq for s in plain.sent()] == [s.seq for s in merged.sent()] != []
