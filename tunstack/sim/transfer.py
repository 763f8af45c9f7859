"""One stream of octets from host to host in a world: the simplest application, for tests and measurements.

The octets are made from a seed piece by piece and compared as they come, so a transfer of any size takes little memory.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import blake2b

from tunstack.device.impairment import Impairment
from tunstack.engine import CongestionControl
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.world import START, Host, World

PIECE = 1 << 18  # octets written at a time
LOW_WATER = 1 << 17  # unsent octets below which the next piece is written


class Source:
    """A sink that writes `size` octets, then shuts down, and closes on the peer's EOF. It reads nothing."""

    def __init__(self, world: World, size: int, seed: int) -> None:
        self.conn: Connection | None = None  # set by whoever opens the connection
        self.digest = blake2b()
        self.sent = 0
        self.error: OSError | None = None
        self.closed = False
        self._world = world
        self._left = size
        self._is_shut = False
        self._random = random.Random(seed)

    def on_established(self) -> None:
        self._write()

    def on_writable(self) -> None:
        self._write()

    def on_data(self, data: memoryview | bytes) -> None:
        raise AssertionError("nothing was to come this way")

    def on_eof(self) -> None:
        assert self.conn is not None
        self.conn.close(self._world.now())

    def on_closed(self, error: OSError | None) -> None:
        self.closed = True
        self.error = error

    def _write(self) -> None:
        conn = self.conn
        assert conn is not None
        conn.write_low_water = LOW_WATER
        while self._left and conn.unsent <= LOW_WATER:
            piece = self._random.randbytes(min(PIECE, self._left))
            self._left -= len(piece)
            self.sent += len(piece)
            self.digest.update(piece)
            conn.send(piece, self._world.now())
        if not self._left and not self._is_shut:
            self._is_shut = True
            conn.shutdown_write(self._world.now())


class Drain:
    """A sink that digests what comes and closes at the end of it."""

    def __init__(self, world: World, conn: Connection) -> None:
        self.conn = conn
        self.digest = blake2b()
        self.received = 0
        self.eof = False
        self.error: OSError | None = None
        self.closed = False
        self._world = world

    def on_established(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_data(self, data: memoryview | bytes) -> None:
        self.received += len(data)
        self.digest.update(data)

    def on_eof(self) -> None:
        self.eof = True
        self.conn.close(self._world.now())

    def on_closed(self, error: OSError | None) -> None:
        self.closed = True
        self.error = error


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a transfer went. Times µs of virtual time."""

    complete: bool  # every octet arrived, equal, and both ends closed without error
    at_rest: bool  # nothing was left to happen: no timer, no frame
    sent: int
    received: int
    duration: int  # until the world came to rest, TIME-WAIT included
    transfer: int  # until the receiver had read to the end
    retransmitted: int  # segments
    errors: tuple[OSError | None, OSError | None]


def transfer(
    size: int,
    forward: Impairment | None = None,
    backward: Impairment | None = None,
    *,
    seed: int = 0,
    mtu: int = 1500,
    offload: bool = False,
    sysctl: Sysctl | None = None,
    congestion: str | type[CongestionControl] | None = None,
    fast_path: bool = True,
    time_limit: int | None = None,
    world: World | None = None,
    hosts: tuple[Host, Host] | None = None,
) -> Outcome:
    """Send `size` octets from one host to another over a link with these impairments, and run until all is quiet.

    `congestion` is an algorithm's name or a class of one's own.
    `time_limit` is virtual µs. Give `world` and `hosts` to look at them, before or afterwards.
    """
    world = world or World(seed)
    if hosts is None:
        a, b, _ = world.pair(forward, backward, mtu=mtu, offload=offload, sysctl=sysctl, congestion=congestion, fast_path=fast_path)
        hosts = a, b
    a, b = hosts
    drains: list[Drain] = []
    ended_at = [START]

    def on_acceptable(listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            drain = _TimedDrain(world, conn, ended_at)
            drains.append(drain)
            conn.sink = drain
            conn.resume(world.now())
        listener.close(world.now())

    b.stack.listen(b.address, 5001, on_acceptable=on_acceptable)
    source = Source(world, size, seed)
    source.conn = a.stack.connect(b.address, 5001, source, now=world.now())
    at_rest = world.run(time_limit)
    drain = drains[0] if drains else None
    equal = drain is not None and drain.eof and drain.received == size and drain.digest.digest() == source.digest.digest()
    clean = drain is not None and drain.closed and source.closed and drain.error is None and source.error is None
    return Outcome(
        complete=equal and clean,
        at_rest=at_rest,
        sent=source.sent,
        received=drain.received if drain else 0,
        duration=world.elapsed,
        transfer=ended_at[0] - START,
        retransmitted=a.stack.counters.TcpRetransSegs,
        errors=(source.error, drain.error if drain else None),
    )


class _TimedDrain(Drain):
    def __init__(self, world: World, conn: Connection, ended_at: list[int]) -> None:
        super().__init__(world, conn)
        self._ended_at = ended_at

    def on_eof(self) -> None:
        self._ended_at[0] = self._world.now()
        super().on_eof()
