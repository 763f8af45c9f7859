"""Two stacks joined by a queue in memory, in virtual time, nothing encoded: where the engine's cost is measured alone."""

from __future__ import annotations

import random
from collections.abc import Callable

from meter import Meter

from tunstack.engine import Stack, StackConfig, pack_address
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NullSink
from tunstack.wire.segment import Batch, Segment

CLIENT_ADDRESS, SERVER_ADDRESS = "10.77.0.1", "10.77.0.2"
PORT = 5001
MTU = 1500
BATCH = 16  # segments a batch, of those that wait
LATENCY = 50  # us of virtual time that each way takes
START = 1_000_000  # us


class Host:
    """A stack, what is on its way to it, and whose work on it is metered under which names."""

    def __init__(self, name: str, address: str, max_payload: int, seed: int, meter: Meter) -> None:
        self.name = name
        self.address = pack_address(address)
        self.stack = Stack(StackConfig((self.address,), MTU, max_payload), random.Random(seed), bytes(16))
        self.peer: Host
        self._meter = meter
        self._losses = random.Random(seed)
        self.loss = 0.0  # share of what it sends that does not arrive
        self.arrived: list[Segment] = []

    def flush(self, now: int) -> None:
        """Send what is due to the peer."""
        stack = self.stack
        out: list[Segment | bytes] = []

        def poll() -> int:
            while (item := stack.poll_transmit(now)) is not None:
                out.append(item)
            return len(out)

        if stack.has_output:
            self._meter.measure(f"{self.name} out", poll)
            if self.loss:
                out = [item for item in out if self._losses.random() >= self.loss]
            self.peer.arrived += map(as_received, out)

    def receive(self, now: int) -> None:
        """Handle what has arrived, in batches, and after each of them send what it caused, as the driver does."""
        stack = self.stack
        arrived, self.arrived = self.arrived, []
        for start in range(0, len(arrived), BATCH):
            batch = Batch()
            batch.segments = arrived[start : start + BATCH]

            def handle(batch: Batch = batch) -> int:
                stack.receive(batch, now)
                return len(batch.segments)

            self._meter.measure(f"{self.name} in", handle)
            self.flush(now)
        deadline = stack.next_deadline()
        if deadline is not None and deadline <= now:

            def advance() -> int:
                stack.advance(now)
                return 0

            self._meter.measure(f"{self.name} in", advance)  # what timers cost is spread over the segments too
        self.flush(now)


def as_received(item: Segment | bytes) -> Segment:
    """Return the segment as a reader would: one view of all its payload."""
    assert isinstance(item, Segment)
    if item.length:
        item.payload = (memoryview(item.payload[0] if len(item.payload) == 1 else b"".join(item.payload)),)
        item.packets = -(-item.length // item.gso_size) if item.gso_size else 1
    return item


class World:
    """A client and a server with a listener; `step` moves everything one way's latency on."""

    def __init__(self, max_payload: int, meter: Meter, make_sink: Callable[[World, Connection], NullSink]) -> None:
        self.now = START
        self.meter = meter
        self.client = Host("client", CLIENT_ADDRESS, max_payload, 1, meter)
        self.server = Host("server", SERVER_ADDRESS, max_payload, 2, meter)
        self.client.peer, self.server.peer = self.server, self.client

        def accept(listener: Listener) -> None:
            while (conn := listener.accept()) is not None:
                conn.set_option("nodelay", True, self.now)
                conn.sink = make_sink(self, conn)
                conn.resume(self.now)

        self.server.stack.listen(self.server.address, PORT, on_acceptable=accept)

    def connect(self, sink: NullSink) -> Connection:
        """Open a connection from the client."""
        conn = self.client.stack.connect(self.server.address, PORT, sink, self.now)
        conn.set_option("nodelay", True, self.now)
        return conn

    def step(self) -> None:
        """Let what is on its way arrive, and time pass."""
        if not self.client.arrived and not self.server.arrived:
            deadlines = [at for host in (self.client, self.server) if (at := host.stack.next_deadline()) is not None]
            self.now = max(self.now, min(deadlines, default=self.now))
        self.now += LATENCY
        for host in (self.server, self.client):
            host.receive(self.now)


class Echo(NullSink):
    """Sends back what comes, and closes when the peer does."""

    def __init__(self, world: World, conn: Connection) -> None:
        self._world = world
        self._conn = conn

    def on_data(self, data: memoryview) -> None:
        self._conn.send(bytes(data), self._world.now)

    def on_eof(self) -> None:
        self._conn.close(self._world.now)


class Source(NullSink):
    """Keeps the send queue filled."""

    chunk = bytes(256 * 1024)

    def __init__(self, world: World) -> None:
        self._world = world
        self.conn: Connection

    def on_established(self) -> None:
        self.conn.write_low_water = len(self.chunk)
        self.on_writable()

    def on_writable(self) -> None:
        while self.conn.unsent <= len(self.chunk):
            self.conn.send(self.chunk, self._world.now)


class Asker(NullSink):
    """Sends `request` and, once as much has come back, sends it again or closes."""

    def __init__(self, world: World, request: bytes, again: bool, done: Callable[[], None]) -> None:
        self._world = world
        self._request = request
        self._again = again
        self._done = done
        self.conn: Connection

    def on_established(self) -> None:
        self.conn.send(self._request, self._world.now)

    def on_data(self, data: memoryview) -> None:
        self._done()
        if self._again:
            self.conn.send(self._request, self._world.now)
        else:
            self.conn.close(self._world.now)
