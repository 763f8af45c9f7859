"""A transfer of a hundred segments in virtual time, of which exactly chosen ones are lost, and what that led to.

Segments are numbered from 1 as they stand in the stream, their transmissions from 0; ACKs are numbered from 1 as they leave. Nothing else
happens on the way. Times int microseconds, lengths octets.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tunstack.device.impairment import Impairment
from tunstack.device.memory import MemoryDevice
from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NullSink
from tunstack.engine.sysctl import Sysctl
from tunstack.seq import MASK
from tunstack.sim.world import World

SEGMENTS = 100
MTU = 1500
DELAY = 10_000  # one way
RATE = 20_000_000  # bits a second: a segment takes 600 us, so that each arrives by itself
LIMIT = 600_000_000

Lost = Collection[tuple[int, int]]  # (segment, transmission)


@dataclass(frozen=True, slots=True)
class Sending:
    """One transmission of a segment."""

    at: int
    segment: int
    transmission: int
    is_lost: bool


@dataclass(slots=True)
class Course:
    """How a transfer went."""

    sendings: list[Sending] = field(default_factory=list)
    acks: list[tuple[int, int]] = field(default_factory=list)  # that left and were not lost: when, and up to which segment
    acks_sent: int = 0
    complete_at: int = 0  # when the receiver had everything, from the start
    timeouts: int = 0
    probes: int = 0
    recoveries: int = 0
    resent: int = 0  # segments
    undone: int = 0
    cwnd: int = 0  # segments, at the end
    is_whole: bool = False  # everything arrived and was acknowledged

    @property
    def figures(self) -> tuple[int, int, int, int]:
        """What the tables count: timeouts, probes, recoveries, segments sent again."""
        return self.timeouts, self.probes, self.recoveries, self.resent

    def place(self, segment: int, transmission: int = 0) -> int:
        """Return which of all sendings a transmission was; behind the last if it was none."""
        for place, sending in enumerate(self.sendings):
            if sending.segment == segment and sending.transmission == transmission:
                return place
        return len(self.sendings)

    def duplicates(self, segment: int) -> int:
        """Return how many duplicate ACKs asked for a segment."""
        return max(sum(acked == segment - 1 for _, acked in self.acks) - 1, 0)


class _Source(NullSink):
    def __init__(self, world: World, octets: int) -> None:
        self.conn: Connection
        self._world = world
        self._octets = octets

    def on_established(self) -> None:
        self.conn.send(bytes(self._octets), self._world.now())


class _Drain(NullSink):
    def __init__(self, world: World) -> None:
        self.received = 0
        self.last_at = 0
        self._world = world

    def on_data(self, data: memoryview) -> None:
        self.received += len(data)
        self.last_at = self._world.elapsed


def run(
    lost: Lost = (),
    lost_acks: Collection[int] = (),
    *,
    sack: bool = True,
    timestamps: bool = True,
    bursts: bool = False,
    link: Impairment | None = None,
    segments: int = SEGMENTS,
    congestion: str = "reno",
) -> Course:
    """Send `segments` full segments over a link of 20 ms and 20 Mbit/s that loses what it is told to, and nothing else."""
    world = World(1)
    course = Course()
    sysctl = Sysctl(tcp_sack=sack, tcp_timestamps=timestamps, tcp_congestion_control=congestion)
    mss = MTU - 52 if timestamps else MTU - 40
    a, b, _ = world.pair(link or Impairment(delay=DELAY, rate=RATE, queue=100_000), Impairment(delay=DELAY), mtu=MTU, sysctl=sysctl)
    if not bursts:
        config = StackConfig(a.stack.config.addresses, MTU, mss, sysctl)
        a.stack.config = config
    source = _Source(world, segments * mss)
    drain = _Drain(world)

    def accept(listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        conn.sink = drain
        conn.resume(world.now())

    b.stack.listen(b.address, 80, on_acceptable=accept)
    source.conn = conn = a.stack.connect(b.address, 80, source, world.now())
    sent: dict[int, int] = {}  # transmissions of each segment
    _Filter(a.device, lambda frame: _lose_segment(world, course, conn, mss, sent, lost, frame))
    _Filter(b.device, lambda frame: _lose_ack(world, course, conn, mss, lost_acks, frame))
    world.run(LIMIT)
    counters = a.stack.counters
    course.timeouts = counters.TCPTimeouts
    course.probes = counters.TCPLossProbes
    course.recoveries = counters.TCPSackRecovery + counters.TCPRenoRecovery
    course.resent = counters.TcpRetransSegs
    course.undone = counters.TCPFullUndo + counters.TCPPartialUndo + counters.TCPDSACKUndo + counters.TCPLossUndo
    course.cwnd = conn.tx.cc.cwnd // conn.tx.mss
    course.complete_at = drain.last_at
    course.is_whole = drain.received == segments * mss and conn.tx.is_all_acked
    return course


class _Filter:
    """Stands before what carries a device's frames, and lets pass what is not lost."""

    def __init__(self, device: object, is_lost) -> None:  # type: ignore[no-untyped-def]
        assert isinstance(device, MemoryDevice)
        carry = device.carry

        def pass_on(frame: bytes) -> None:
            if not is_lost(frame):
                carry(frame)

        device.carry = pass_on


def _length(frame: bytes) -> int:
    return len(frame) - 20 - (frame[32] >> 4 << 2)


def _lose_segment(world: World, course: Course, conn: Connection, mss: int, sent: dict[int, int], lost: Lost, frame: bytes) -> bool:
    length = _length(frame)
    if not length:
        return False
    start = (int.from_bytes(frame[24:28], "big") - conn.tx.iss - 1) & MASK
    assert length == mss and start % mss == 0, "a segment that is not whole"
    segment = start // mss + 1
    transmission = sent.get(segment, 0)
    sent[segment] = transmission + 1
    is_lost = (segment, transmission) in lost
    course.sendings.append(Sending(world.elapsed, segment, transmission, is_lost))
    return is_lost


def _lose_ack(world: World, course: Course, conn: Connection, mss: int, lost: Collection[int], frame: bytes) -> bool:
    if frame[33] & 2:  # SYN-ACK
        return False
    course.acks_sent += 1
    if course.acks_sent in lost:
        return True
    course.acks.append((world.elapsed, ((int.from_bytes(frame[28:32], "big") - conn.tx.iss - 1) & MASK) // mss))
    return False
