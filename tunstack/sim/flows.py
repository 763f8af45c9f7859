"""Long flows: applications that keep a connection busy for a time, and count octets at both of its ends."""

from __future__ import annotations

from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.sim.bottleneck import Pair
from tunstack.sim.world import START, World

PORT = 5001
PIECE = bytes(1 << 16)  # octets written at a time; held by reference, so they cost nothing
LOW_WATER = 1 << 17  # unsent octets below which the next piece is written


class Flow:
    """One stream from a pair's sender to its receiver, as fast as TCP lets it: from `start_at` on, until `stop_at` if it is given.

    Times are µs since the world began. A flow that stops closes in good order once what it wrote has arrived.
    """

    def __init__(self, world: World, pair: Pair, congestion: str | None = None, start_at: int = 0, stop_at: int | None = None) -> None:
        self.pair = pair
        self.congestion = congestion  # name of the algorithm; None: the stack's
        self.received = 0  # octets that the receiver read
        self.conn: Connection | None = None  # the sender's end
        self.error: OSError | None = None
        self.failure: Exception | None = None  # what an algorithm of the user's raised first
        self.is_over = False
        self._world = world
        self._is_stopped = False
        pair.sender.stack.on_algorithm_failure = self._fail
        pair.receiver.stack.listen(pair.receiver.address, PORT, on_acceptable=self._accept)
        world.call_at(START + start_at, self._open)
        if stop_at is not None:
            world.call_at(START + stop_at, self._stop)

    @property
    def retransmitted(self) -> int:
        """Segments that the sender sent again."""
        return self.pair.sender.stack.counters.TcpRetransSegs

    def _fail(self, name: str, error: Exception) -> None:
        self.failure = error

    def _open(self) -> None:
        pair = self.pair
        self.conn = pair.sender.stack.connect(
            pair.receiver.address, PORT, _Source(self), self._world.now(), options=SocketOptions(congestion=self.congestion)
        )
        self.conn.write_low_water = LOW_WATER

    def _accept(self, listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            conn.sink = _Counter(self, conn)
            conn.resume(self._world.now())
        listener.close(self._world.now())

    def _stop(self) -> None:
        self._is_stopped = True
        if self.conn is not None and not self.is_over:
            self.conn.close(self._world.now())

    def write(self) -> None:
        """Keep the send queue filled."""
        conn = self.conn
        assert conn is not None
        while conn.unsent <= LOW_WATER and not self._is_stopped:
            conn.send(PIECE, self._world.now())

    def end(self, error: OSError | None) -> None:
        """The sender's connection is over."""
        self.is_over = True
        self.error = error

    def close(self, conn: Connection) -> None:
        """The receiver has read to the end."""
        conn.close(self._world.now())


class _Source:
    """The sending end's sink."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def on_established(self) -> None:
        self._flow.write()

    def on_writable(self) -> None:
        self._flow.write()

    def on_data(self, data: memoryview | bytes) -> None:
        raise AssertionError("nothing was to come this way")

    def on_eof(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self._flow.end(error)


class _Counter:
    """The receiving end's sink."""

    def __init__(self, flow: Flow, conn: Connection) -> None:
        self._flow = flow
        self._conn = conn

    def on_established(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_data(self, data: memoryview | bytes) -> None:
        self._flow.received += len(data)

    def on_eof(self) -> None:
        self._flow.close(self._conn)

    def on_closed(self, error: OSError | None) -> None: ...
