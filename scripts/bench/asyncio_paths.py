"""The hot paths of the asyncio layer: an endpoint with driver, transports and servers, and a bare stack as its peer.

Time is virtual, nothing is encoded. Bytecodes are those of tunstack/aio and of asyncio's streams alone: the engine's are counted
by themselves (engine_paths.py), and the event loop here stands for uvloop, which is none of Python's. Allocations are of
all that happens in the endpoint's loop, engine and loop included.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import events
from collections.abc import Callable
from functools import partial

from engine_world import CLIENT_ADDRESS, LATENCY, MTU, PORT, SERVER_ADDRESS, START, Asker, Host, Source, as_received
from hot_path import WARMUP, Scenario
from meter import Meter, Probe

import tunstack.aio
from tunstack.engine import pack_address
from tunstack.engine.connection import Connection
from tunstack.engine.sink import NullSink
from tunstack.wire.segment import Batch, Segment

SUPER = 65535 - 80  # octets: the payload of the longest segment
SMALL = 100  # octets
BATCH = 16  # segments
CHUNK = 256 * 1024  # octets of a write


def is_counted(path: str) -> bool:
    """Whether the code of a file belongs to the asyncio layer."""
    return "/tunstack/aio/" in path or path.endswith("/asyncio/streams.py")


class SteppedLoop(asyncio.BaseEventLoop):
    """An event loop whose time stands still until it is set. It runs what is ready, and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START  # us
        self._selector = self  # what BaseEventLoop waits on: there is nothing to wait for

    def time(self) -> float:
        return self.now / 1e6

    def select(self, timeout: float | None) -> list[object]:
        return []

    def _process_events(self, event_list: list[object]) -> None: ...

    def run_ready(self) -> None:
        """Run callbacks until none is ready and no timer is due."""
        events._set_running_loop(self)
        try:
            while self._ready or (self._scheduled and self._scheduled[0].when() <= self.time()):
                self._run_once()
        finally:
            events._set_running_loop(None)


class SegmentDevice:
    """A device that takes and gives segments as they are."""

    mtu = MTU

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.on_readable: Callable[[], None] | None = None
        self.arrived: list[Segment] = []
        self.written: list[Segment | bytes] = []

    def fileno(self) -> int:
        return -1

    def read_batch(self) -> Batch:
        batch = Batch()
        batch.segments, self.arrived = self.arrived[:BATCH], self.arrived[BATCH:]
        return batch

    def write(self, item: Segment | bytes) -> bool:
        self.written.append(item)
        return True

    def close(self) -> None: ...


class AsyncioWorld:
    """A server with asyncio's interface; the client is a stack of the engine. What the server's loop does is metered."""

    def __init__(self, max_payload: int, meter: Meter) -> None:
        self.now = START
        self.meter = meter
        self.connections = 0  # that the client opened
        self.loop = SteppedLoop()
        self.device = SegmentDevice(max_payload)
        self.client = Host("client", CLIENT_ADDRESS, max_payload, 1, Meter(Probe()))
        self.client.peer = self.client  # replaced on the way: see step
        self.endpoint = tunstack.aio.Endpoint(self.device, SERVER_ADDRESS, random=random.Random(2), secret=bytes(16))

    def serve(self, start: Callable[[tunstack.aio.Endpoint], object]) -> None:
        """Start the endpoint, and a server by `start`, which returns what to await."""

        async def run() -> None:
            await self.endpoint.start()
            await start(self.endpoint)  # type: ignore[misc]

        self.loop.create_task(run())
        self._run_loop()

    def connect(self, sink: NullSink) -> Connection:
        """Open a connection from the client."""
        self.connections += 1
        conn = self.client.stack.connect(pack_address(SERVER_ADDRESS), PORT, sink, self.now)
        conn.set_option("nodelay", True, self.now)
        return conn

    def step(self) -> None:
        """Let what is on its way arrive, and time pass."""
        client, device = self.client, self.device
        client.receive(self.now)
        crossing, client.arrived = client.arrived, []  # its peer is itself
        if not crossing and not device.written:
            deadlines = [at for at in (client.stack.next_deadline(), self.endpoint.stack.next_deadline()) if at is not None]
            self.now = max(self.now, min(deadlines, default=self.now))
        self.now += LATENCY
        self.loop.now = self.now
        if crossing:
            device.arrived += crossing
            assert device.on_readable is not None
            device.on_readable()
        self._run_loop(len(crossing))
        client.arrived = [as_received(item) for item in device.written]
        device.written = []

    def _run_loop(self, arrived: int = 0) -> None:
        def run() -> int:
            written = len(self.device.written)
            self.loop.run_ready()
            return arrived + len(self.device.written) - written

        self.meter.measure("loop", run)

    def run(self, length: int) -> int:
        """Run so many segments, after a warm-up; return how many connections were opened meanwhile."""
        while self.meter.units < WARMUP:
            self.step()
        self.meter.start()
        before = self.connections
        while self.meter.units < length:
            self.step()
        return self.connections - before

    def close(self) -> None:
        """End the tasks that serve connections, and the loop."""
        self.loop.set_exception_handler(lambda loop, context: None)  # asyncio 3.11 to 3.12.3 stumbles over a handler that was cancelled
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_ready()
        self.loop.close()


class _Reader(asyncio.Protocol):
    def data_received(self, data: bytes) -> None: ...


class _Filler(asyncio.BufferedProtocol):
    buffer = bytearray(CHUNK)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None: ...


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _Writer(asyncio.Protocol):
    chunk = bytes(CHUNK)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=CHUNK)
        self.resume_writing()

    def resume_writing(self) -> None:
        self._may_write = True
        while self._may_write:
            self._transport.write(self.chunk)

    def pause_writing(self) -> None:
        self._may_write = False


async def _read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(CHUNK):
        pass
    writer.close()


async def _echo_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
    writer.close()


async def _write_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(_Writer.chunk)
        await writer.drain()


Serve = Callable[[tunstack.aio.Endpoint], object]


def _protocol(factory: Callable[[], asyncio.BaseProtocol], endpoint: tunstack.aio.Endpoint) -> object:
    return endpoint.create_server(factory, SERVER_ADDRESS, PORT)


def _streams(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], endpoint: tunstack.aio.Endpoint) -> object:
    return endpoint.start_server(handle, SERVER_ADDRESS, PORT)  # type: ignore[arg-type]


def _up(serve: Serve, meter: Meter, length: int) -> int:
    world = AsyncioWorld(SUPER, meter)
    world.serve(serve)
    source = Source(world)
    source.conn = world.connect(source)
    return _finish(world, length, False)


def _down(serve: Serve, meter: Meter, length: int) -> int:
    world = AsyncioWorld(SUPER, meter)
    world.serve(serve)
    world.connect(NullSink())
    return _finish(world, length, False)


def _ping(serve: Serve, meter: Meter, length: int) -> int:
    world = AsyncioWorld(SUPER, meter)
    world.serve(serve)
    asker = Asker(world, b"x", True, lambda: None)
    asker.conn = world.connect(asker)
    return _finish(world, length, False)


def _connections(serve: Serve, meter: Meter, length: int) -> int:
    world = AsyncioWorld(SUPER, meter)
    world.serve(serve)

    def start() -> None:
        asker = Asker(world, bytes(SMALL), False, start)
        asker.conn = world.connect(asker)

    start()
    return _finish(world, length, True)


def _finish(world: AsyncioWorld, length: int, by_connection: bool) -> int:
    try:
        connections = world.run(length)
        return connections if by_connection else 0
    finally:
        world.close()


_TURN = {"turn": ("loop",)}

# A unit of bulk is a segment in or out, ACKs included; of ping-pong too: two make a round trip.
SCENARIOS = (
    Scenario("asyncio, data in, Protocol", "segment", partial(_up, partial(_protocol, _Reader)), _TURN),
    Scenario("asyncio, data in, BufferedProtocol", "segment", partial(_up, partial(_protocol, _Filler)), _TURN),
    Scenario("asyncio, data in, streams", "segment", partial(_up, partial(_streams, _read_all)), _TURN),
    Scenario("asyncio, data out, Protocol", "segment", partial(_down, partial(_protocol, _Writer)), _TURN),
    Scenario("asyncio, data out, streams", "segment", partial(_down, partial(_streams, _write_all)), _TURN),
    Scenario("asyncio, ping-pong, Protocol", "segment", partial(_ping, partial(_protocol, _Echo)), _TURN),
    Scenario("asyncio, ping-pong, streams", "segment", partial(_ping, partial(_streams, _echo_all)), _TURN),
    Scenario("asyncio, connections, Protocol", "connection", partial(_connections, partial(_protocol, _Echo)), _TURN),
    Scenario("asyncio, connections, streams", "connection", partial(_connections, partial(_streams, _echo_all)), _TURN),
)
