"""Urgent data over links that lose, repeat and reorder: the stream is never harmed."""

from __future__ import annotations

import random

import pytest

from tunstack.device.impairment import Impairment
from tunstack.engine import Connection, Listener
from tunstack.sim.world import World

PORT = 21
WRITES = 300
BAD = Impairment(delay=5_000, jitter=2_000, loss=0.03, duplicate=0.02, reorder=0.05, corrupt=0.01)


class Writer:
    """Writes pieces at random times, some of them urgent. Ordinary octets are odd, those at the end of an urgent piece are even."""

    def __init__(self, world: World, random: random.Random) -> None:
        self.world, self.random = world, random
        self.conn: Connection
        self.written = bytearray()
        self.left = WRITES
        self.closed: list[OSError | None] = []

    def on_established(self) -> None:
        self.write()

    def write(self) -> None:
        rng = self.random
        self.left -= 1
        urgent = rng.random() < 0.3
        piece = bytearray(rng.randrange(1, 256, 2) for _ in range(rng.choice((1, 2, 10, 1000, 5000))))
        if urgent:
            piece[-1] = rng.randrange(0, 256, 2)
        self.written += piece
        self.conn.send(bytes(piece), self.world.now(), urgent=urgent)
        if self.left:
            self.world.call_later(rng.choice((0, 0, 1000, 50_000)), self.write)
        else:
            self.conn.shutdown_write(self.world.now())

    def on_eof(self) -> None:
        self.conn.close(self.world.now())

    def on_data(self, data: memoryview) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self.closed.append(error)


class Reader:
    """Reads all, pauses at times, and takes every urgent octet that it can have."""

    def __init__(self, world: World, conn: Connection, random: random.Random) -> None:
        self.world, self.conn, self.random = world, conn, random
        self.read = bytearray()
        self.taken = bytearray()
        self.closed: list[OSError | None] = []
        conn.on_urgent = self.on_urgent

    def on_urgent(self) -> None:
        if self.conn.has_urgent:
            self.taken += self.conn.read_urgent()

    def on_data(self, data: memoryview) -> None:
        self.read += data
        if self.random.random() < 0.05:
            self.conn.pause(self.world.now())
            self.world.call_later(30_000, lambda: self.conn.resume(self.world.now()))

    def on_eof(self) -> None:
        self.conn.close(self.world.now())

    def on_established(self) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self.closed.append(error)


def exchange(seed: int, inline: bool) -> tuple[Writer, Reader]:
    """Run one stream to its end."""
    world = World(seed)
    a, b, _ = world.pair(BAD, BAD, fast_path=bool(seed & 1))
    readers: list[Reader] = []

    def accept(listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        conn.set_option("oobinline", inline, world.now())
        readers.append(Reader(world, conn, random.Random(seed)))
        conn.sink = readers[0]
        conn.resume(world.now())
        listener.close(world.now())

    b.stack.listen(b.address, PORT, on_acceptable=accept)
    writer = Writer(world, random.Random(seed))
    writer.conn = a.stack.connect(b.address, PORT, writer, world.now())
    assert world.run(3600_000_000), "it did not come to rest"
    (reader,) = readers
    assert writer.closed == reader.closed == [None]
    return writer, reader


def test_in_line_nothing_is_missing(world_seed: int) -> None:
    """M-09, M-30."""
    writer, reader = exchange(world_seed, inline=True)
    assert reader.read == writer.written
    assert not reader.taken


def test_out_of_line_only_urgent_octets_are_missing(world_seed: int) -> None:
    """M-09, M-30: what reading left out are octets that were sent as urgent, and what was taken are such too."""
    writer, reader = exchange(world_seed, inline=False)
    position = left_out = 0
    for octet in writer.written:
        if position < len(reader.read) and reader.read[position] == octet:
            position += 1
        else:
            assert octet % 2 == 0, "an octet of the stream is lost"
            left_out += 1
    assert position == len(reader.read)
    assert left_out and reader.taken
    assert all(octet % 2 == 0 for octet in reader.taken)


@pytest.mark.parametrize("offload", [True, False])
def test_a_super_segment_device_carries_the_pointer(offload: bool) -> None:
    """M-09: through the codec in both forms."""
    world = World(1)
    a, b, _ = world.pair(offload=offload)
    readers: list[Reader] = []

    def accept(listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        readers.append(Reader(world, conn, random.Random(2)))
        conn.sink = readers[0]
        conn.resume(world.now())

    b.stack.listen(b.address, PORT, on_acceptable=accept)
    conn = a.stack.connect(b.address, PORT, Writer(world, random.Random(1)), world.now())
    conn.sink.on_established = lambda: None  # type: ignore[method-assign]
    world.run(1_000_000)
    conn.send(b"a" * 100_000, world.now())
    conn.send(b"!", world.now(), urgent=True)
    conn.send(b"b" * 100_000, world.now())
    world.run(10_000_000)
    assert readers[0].taken == b"!"
    assert readers[0].read == b"a" * 100_000 + b"b" * 100_000
