"""One flow, or several, through one bottleneck in virtual time, watched while it runs."""

from __future__ import annotations

from dataclasses import replace

from tunstack.congestion.bbr import Bbr
from tunstack.device.impairment import Impairment
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NullSink
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.world import START, World

MS = 1000
SECOND = 1000 * MS
CHUNK = bytes(1 << 16)
HEADERS = 52  # of a data segment with timestamps
MSS = 1448


class Source(NullSink):
    """Writes without end while it is on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.conn: Connection | None = None
        self.is_on = True

    def on_established(self) -> None:
        assert self.conn is not None
        self.conn.write_low_water = len(CHUNK)
        self.on_writable()

    def on_writable(self) -> None:
        assert self.conn is not None
        while self.is_on and self.conn.unsent <= len(CHUNK):
            self.conn.send(CHUNK, self.world.now())


class Bottleneck:
    """A flow from host a to host b over `rate` bits a second with a round trip of `rtt` us. Points in time are us from the start."""

    def __init__(
        self, congestion: str, *, rate: int, rtt: int = 20 * MS, loss: float = 0, queue: int = 1000, seed: int = 1, source: bool = True
    ) -> None:
        self.world = world = World(seed)
        self.rate = rate
        self.bdp = rate // 8 * rtt // SECOND
        # A receive buffer that is no limit from the start.
        sysctl = Sysctl(tcp_congestion_control=congestion, tcp_rmem=(4096, 4 << 20, 6 << 20))
        forward = Impairment(delay=rtt // 2, rate=rate, queue=queue, loss=loss)
        a, self.b, self.link = world.pair(forward, Impairment(delay=rtt // 2), sysctl=sysctl)
        self.received = 0  # octets that the receiver read
        self.departures: list[tuple[int, int]] = []  # (us from the start, octets of the frame) that a sent
        self.queues: list[tuple[int, int]] = []  # (us from the start, frames in the bottleneck's queue), each millisecond
        carry = a.device.carry

        def watch(frame: bytes) -> None:
            self.departures.append((world.elapsed, len(frame)))
            carry(frame)

        a.device.carry = watch
        bottleneck = self

        class Counter(NullSink):
            def on_data(self, data: memoryview) -> None:
                bottleneck.received += len(data)

        def on_acceptable(listener: Listener) -> None:
            while (conn := listener.accept()) is not None:
                conn.sink = Counter()
                conn.resume(world.now())

        self.b.stack.listen(self.b.address, 5001, on_acceptable=on_acceptable)
        self.source = Source(world)
        self.source.is_on = source
        self.conn = self.source.conn = a.stack.connect(self.b.address, 5001, self.source, now=world.now())
        self._look()

    @property
    def bbr(self) -> Bbr:
        cc = self.conn.tx.cc
        assert isinstance(cc, Bbr)
        return cc

    def bbr_mode(self) -> int | None:
        """The mode of BBR, None before the handshake is done."""
        cc = getattr(self.conn.tx, "cc", None)
        return cc.mode if isinstance(cc, Bbr) else None

    def change(self, *, rate: int | None = None, rtt: int | None = None, loss: float | None = None) -> None:
        """Have the path be another from now on."""
        assert self.link is not None
        forward, backward = self.link.forward, self.link.backward
        if rate is not None:
            self.rate = rate
            forward.impairment = replace(forward.impairment, rate=rate)
        if rtt is not None:
            forward.impairment = replace(forward.impairment, delay=rtt // 2)
            backward.impairment = replace(backward.impairment, delay=rtt // 2)
        if loss is not None:
            forward.impairment = replace(forward.impairment, loss=loss)
        self.bdp = self.rate // 8 * 2 * forward.impairment.delay // SECOND

    @property
    def goodput_limit(self) -> float:
        """Octets of data a second that fit through the bottleneck."""
        return self.rate / 8 * MSS / (MSS + HEADERS)

    def _look(self) -> None:
        assert self.link is not None
        departures = self.link.forward._departures_ns
        while departures and departures[0] <= self.world.now() * 1000:
            departures.popleft()  # as the link does itself when the next frame comes
        self.queues.append((self.elapsed, len(departures)))
        self.world.call_later(MS, self._look)

    def write(self, octets: int) -> None:
        """The application writes."""
        self.conn.send(bytes(octets), self.world.now())

    def run_until(self, at: int) -> None:
        """Go on until `at`."""
        self.world.run(at)

    def share(self, since: int, until: int) -> float:
        """Run from `since` to `until`; return which share of what fits through the bottleneck arrived."""
        self.run_until(since)
        before = self.received
        self.run_until(until)
        return (self.received - before) * SECOND / (until - since) / self.goodput_limit

    def mean_queue(self, since: int, until: int) -> float:
        """The bottleneck's queue, in frames, over a time that is past."""
        lengths = [length for at, length in self.queues if since <= at < until]
        return sum(lengths) / len(lengths)

    def sent(self, since: int, until: int) -> int:
        """Octets of packets that left in a time that is past."""
        return sum(octets for at, octets in self.departures if since <= at < until)

    @property
    def elapsed(self) -> int:
        return self.world.now() - START
