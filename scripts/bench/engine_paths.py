"""The hot paths of the engine: see engine_world.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engine_world import BATCH, MTU, Asker, Echo, Source, World
from hot_path import WARMUP, Scenario
from meter import Meter

from tunstack.engine.sink import NullSink

SUPER = 65535 - 80  # octets: the payload of the longest segment
LOSS = 0.01  # share of the data segments, where some are lost
SMALL = 100  # octets


def _bulk(max_payload: int, loss: float, meter: Meter, length: int) -> int:
    """One connection, client to server, as fast as its windows let it."""
    world = World(max_payload, meter, lambda world, conn: NullSink())
    world.client.loss = loss
    source = Source(world)
    source.conn = world.connect(source)
    _run(world, meter, length)
    return 0


def _small(meter: Meter, length: int) -> int:
    """One connection, client to server, on which each segment carries one small write."""
    world = World(MTU - 52, meter, lambda world, conn: NullSink())
    conn = world.connect(NullSink())
    data = bytes(SMALL)

    def send() -> int:
        conn.send(data, world.now)
        return 0

    def write() -> None:
        for _ in range(BATCH):
            if conn.unsent:  # the window is full: more would make larger segments of it
                return
            meter.measure("client out", send)
            world.client.flush(world.now)

    _run(world, meter, length, write)
    return 0


def _ping(meter: Meter, length: int) -> int:
    """One octet to and fro."""
    world = World(MTU, meter, Echo)
    asker = Asker(world, b"x", True, lambda: None)
    asker.conn = world.connect(asker)
    _run(world, meter, length)
    return 0


def _connections(meter: Meter, length: int) -> int:
    """Connections of 100 octets to and fro, one after the other, closed by the client. What opens one is part of what ends the last."""
    world = World(MTU, meter, Echo)
    opened = 0

    def start() -> None:
        nonlocal opened
        opened += 1
        asker = Asker(world, bytes(SMALL), False, start)
        asker.conn = world.connect(asker)

    start()
    return _run(world, meter, length, count=lambda: opened)


def _run(world: World, meter: Meter, length: int, write: Callable[[], None] = lambda: None, count: Callable[[], int] = lambda: 0) -> int:
    """Run so many segments, after a warm-up; `write` is the application's turn before each step. Return by how much the count grew."""
    while meter.units < WARMUP:
        write()
        world.step()
    meter.start()
    before = count()
    while meter.units < length:
        write()
        world.step()
    return count() - before


_BULK = {"data out": ("client out",), "data in": ("server in",), "ACK out": ("server out",), "ACK in": ("client in",)}

SCENARIOS = (
    Scenario("bulk, 64 KB segments", "segment", partial(_bulk, SUPER, 0.0), _BULK),
    Scenario("bulk, one packet each", "segment", partial(_bulk, MTU - 52, 0.0), _BULK),
    Scenario("bulk, 1 % loss with SACK", "segment", partial(_bulk, MTU - 52, LOSS), _BULK, stretch=4),
    Scenario("small, 100 octets each", "segment", _small, _BULK),
    Scenario("ping-pong", "segment", _ping, {"in": ("server in",), "out": ("server out",)}),
    Scenario("connections", "connection", _connections, {"passive": ("server in", "server out"), "active": ("client in", "client out")}),
)
