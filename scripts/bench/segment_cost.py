#!/usr/bin/env python3
"""What a segment costs in the engine alone: two stacks joined by a queue in memory, in virtual time, nothing encoded.

Microseconds are of this machine and this moment. Bytecodes, and instructions where valgrind is there to count them, are the
same on a busy machine as on an idle one: they show a regression where the clock would not. Needs no privileges.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from tabulate import tabulate

from tunstack.engine import Stack, StackConfig, pack_address
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NullSink
from tunstack.wire.segment import Batch, Segment

PORT = 5001
MTU = 1500
BATCH = 16  # segments a batch, of those that wait
LATENCY = 50  # us of virtual time that each way takes
LOSS = 0.01  # share of the data segments, where some are lost
SMALL = 100  # octets
WARMUP = 4  # the measured run is this many times as long as what comes before


@dataclass(slots=True)
class Stage:
    """One kind of work: what it handled, and what that took."""

    segments: int = 0
    ns: int = 0
    bytecodes: int = 0


@dataclass(slots=True)
class Meter:
    """Counts the work by stage. `start` and `stop` are around every call into the engine; between them only the engine runs."""

    stages: dict[str, Stage] = field(default_factory=dict)
    count_bytecodes: bool = False
    profile: cProfile.Profile | None = None
    _bytecodes: int = 0

    def reset(self) -> None:
        """Forget the warm-up."""
        self.stages.clear()

    def time(self, stage: str, work: Callable[[], int]) -> None:
        """Do work, which returns how many segments it handled."""
        if self.count_bytecodes:
            self._bytecodes = 0
            sys.settrace(self._trace)
            segments = work()
            sys.settrace(None)
            ns = 0
        elif self.profile is not None:
            self.profile.enable()
            segments = work()
            self.profile.disable()
            ns = 0
        else:
            started = time.perf_counter_ns()
            segments = work()
            ns = time.perf_counter_ns() - started
        entry = self.stages.setdefault(stage, Stage())
        entry.segments += segments
        entry.ns += ns
        entry.bytecodes += self._bytecodes

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            self._bytecodes += 1
        else:
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return self._trace


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
            self._meter.time(f"{self.name} out", poll)
            if self.loss:
                out = [item for item in out if self._losses.random() >= self.loss]
            self.peer.arrived += map(_as_received, out)

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

            self._meter.time(f"{self.name} in", handle)
            self.flush(now)
        deadline = stack.next_deadline()
        if deadline is not None and deadline <= now:

            def advance() -> int:
                stack.advance(now)
                return 0

            self._meter.time(f"{self.name} in", advance)  # what timers cost is spread over the segments too
        self.flush(now)


def _as_received(item: Segment | bytes) -> Segment:
    """Return the segment as a reader would: one view of all its payload."""
    assert isinstance(item, Segment)
    if item.length:
        item.payload = (memoryview(item.payload[0] if len(item.payload) == 1 else b"".join(item.payload)),)
        item.packets = -(-item.length // item.gso_size) if item.gso_size else 1
    return item


class World:
    """A client and a server with a listener; `step` moves everything one way's latency on."""

    def __init__(self, max_payload: int, meter: Meter, make_sink: Callable[[World, Connection], NullSink]) -> None:
        self.now = 1_000_000
        self.meter = meter
        self.client = Host("client", "10.77.0.1", max_payload, 1, meter)
        self.server = Host("server", "10.77.0.2", max_payload, 2, meter)
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


def _segments(meter: Meter) -> int:
    return sum(stage.segments for stage in meter.stages.values())


def bulk(max_payload: int, meter: Meter, segments: int, loss: float = 0.0) -> None:
    """One connection, client to server, as fast as its windows let it."""
    world = World(max_payload, meter, lambda world, conn: NullSink())
    world.client.loss = loss
    source = Source(world)
    source.conn = world.connect(source)
    _run(world, meter, segments)


def small(meter: Meter, segments: int) -> None:
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
            meter.time("client out", send)
            world.client.flush(world.now)

    _run(world, meter, segments, write)


def ping(meter: Meter, segments: int) -> None:
    """One octet to and fro."""
    world = World(MTU, meter, Echo)
    asker = Asker(world, b"x", True, lambda: None)
    asker.conn = world.connect(asker)
    _run(world, meter, segments)


def connections(meter: Meter, segments: int) -> None:
    """Connections of 100 octets to and fro, one after the other, closed by the client."""
    world = World(MTU, meter, Echo)

    def start() -> None:
        asker = Asker(world, bytes(100), False, start)
        asker.conn = world.connect(asker)

    start()
    _run(world, meter, segments)


def _run(world: World, meter: Meter, segments: int, write: Callable[[], None] = lambda: None) -> None:
    """Run so many segments, after a warm-up; `write` is the application's turn before each step."""
    while _segments(meter) < segments // WARMUP:
        write()
        world.step()
    meter.reset()
    while _segments(meter) < segments:
        write()
        world.step()


# Name, what runs, and which of its stages stand for what.
SCENARIOS: dict[str, tuple[Callable[[Meter, int], None], dict[str, str]]] = {
    "bulk, 64 KB segments": (
        lambda meter, segments: bulk(65535 - 80, meter, segments),
        {"client out": "data out", "server in": "data in", "server out": "ACK out", "client in": "ACK in"},
    ),
    "bulk, one packet each": (
        lambda meter, segments: bulk(MTU - 52, meter, segments),
        {"client out": "data out", "server in": "data in", "server out": "ACK out", "client in": "ACK in"},
    ),
    "bulk, 1 % loss with SACK": (
        lambda meter, segments: bulk(MTU - 52, meter, segments, LOSS),
        {"client out": "data out", "server in": "data in", "server out": "ACK out", "client in": "ACK in"},
    ),
    "small, 100 octets each": (
        small,
        {"client out": "data out", "server in": "data in", "server out": "ACK out", "client in": "ACK in"},
    ),
    "ping-pong": (ping, {"server in": "in", "server out": "out"}),
    "connections": (connections, {"server in": "in", "server out": "out"}),
}


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector's pauses out of single stages."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(name: str, segments: int, repeats: int) -> list[list[str]]:
    """Return the table's rows of a scenario: the least time of some repeats, and the bytecodes of a shorter run."""
    run, stages = SCENARIOS[name]
    best: dict[str, float] = {}
    counted = Meter(count_bytecodes=True)
    with _no_collector():
        for _ in range(repeats):
            meter = Meter()
            run(meter, segments)
            for key, stage in meter.stages.items():
                cost = stage.ns / 1000 / max(stage.segments, 1)
                best[key] = min(cost, best.get(key, cost))
        run(counted, min(segments, 2000))
    rows = []
    for key, label in stages.items():
        stage = counted.stages[key]
        rows.append([name, label, f"{best[key]:.2f}", f"{stage.bytecodes / max(stage.segments, 1):.0f}"])
    return rows


def instructions(name: str, segments: int) -> float | None:
    """Return the machine instructions that a segment takes, of all stages together; None without valgrind.

    The difference of two runs, one longer than the other, so that start and warm-up do not count.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    collected = []
    for length in (segments, 2 * segments):
        with tempfile.TemporaryDirectory() as directory:
            out = os.path.join(directory, "callgrind")
            command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, __file__, "--only", name]
            command += ["--segments", str(length), "--bare"]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
            found = re.search(r"Collected : (\d+)", done.stderr)
            if found is None:
                sys.exit(f"segment_cost: valgrind failed: {done.stderr.strip().splitlines()[-1]}")
            collected.append(int(found[1]))
    return (collected[1] - collected[0]) / segments


def profile(name: str, segments: int) -> None:
    """Print the top ten of cProfile."""
    meter = Meter(profile=cProfile.Profile())
    SCENARIOS[name][0](meter, segments)
    assert meter.profile is not None
    print(f"\n=== {name}")
    pstats.Stats(meter.profile).strip_dirs().sort_stats("tottime").print_stats(10)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, metavar="NAME", help=f"repeatable: {'; '.join(SCENARIOS).replace('%', '%%')}"
    )
    parser.add_argument("--segments", type=int, default=20_000, metavar="N", help="segments a run (default 20000)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="runs, of which the fastest counts (default 5)")
    parser.add_argument("--profile", action="store_true", help="print the ten functions that cost most instead")
    parser.add_argument("--instructions", action="store_true", help="count machine instructions too, under valgrind: half a minute each")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)  # run, print nothing: what valgrind counts
    options = parser.parse_args(arguments)
    names = options.only or list(SCENARIOS)
    if options.bare or options.profile:
        for name in names:
            if options.bare:
                SCENARIOS[name][0](Meter(), options.segments)
            else:
                profile(name, options.segments)
        return
    rows = [row for name in names for row in measure(name, options.segments, options.repeats)]
    print(tabulate(rows, ["scenario", "segment", "us", "bytecodes"], tablefmt="simple", disable_numparse=True))
    if options.instructions:
        for name in names:
            count = instructions(name, 2000)
            print(f"{name}: {'valgrind is not installed' if count is None else f'{count:,.0f} machine instructions a segment, all stages'}")


if __name__ == "__main__":
    main()
