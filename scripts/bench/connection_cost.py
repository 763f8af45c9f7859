#!/usr/bin/env python3
"""What one short connection costs a server, without a kernel: SYN, ACK and 100 octets, their echo, FIN, last ACK.

The whole Python side runs, event loop, driver, engine and transport, against a device that plays the clients: it answers as Linux does
(scripts/bench/client.c over a TUN, by tcpdump), in batches as a TUN gives them. So what the figures leave out is the C of reading and
writing, and system calls. Bytecodes are exact from run to run; of the times the least of many stretches is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import uvloop

from tunstack.aio.endpoint import Endpoint
from tunstack.daemon import benchservices
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, FIN, PSH, SYN, Batch, Segment

CLIENT, SERVER = pack_address("10.77.0.1"), pack_address("10.77.0.2")
REQUEST = memoryview(bytes(100))
FIRST_PORT, LAST_PORT = 1024, 65535
STRETCH = 500  # connections


class Clients:
    """A Device at whose other end so many clients at a time connect, ask once, and close when they have the answer."""

    mtu = 1500
    max_payload = 65455
    on_readable: Callable[[], None] | None = None

    def __init__(self, parallel: int, done: Callable[[], None]) -> None:
        self._waiting: list[Segment] = []
        self._port = FIRST_PORT
        self._done = done
        self.segments = 0  # that were written to us
        self.batches = 0  # that were read
        self.ns = 0  # that we took ourselves
        for _ in range(parallel):
            self._open()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._waiting.clear()

    def _open(self) -> None:
        self._port = self._port + 1 if self._port < LAST_PORT else FIRST_PORT
        flow = pack_flow(CLIENT, self._port, SERVER, benchservices.ECHO_PORT)
        self._send(Segment(flow, 1000, 0, SYN, 64240, (), 0, 7, 0, 0, (), 1460, 10, True))

    def _send(self, segment: Segment) -> None:
        self._waiting.append(segment)
        if len(self._waiting) == 1 and self.on_readable is not None:
            self.on_readable()

    def read_batch(self) -> Batch:
        began = time.perf_counter_ns()
        batch = Batch()
        batch.segments, self._waiting = self._waiting, []
        if batch.segments:
            self.batches += 1
        self.ns += time.perf_counter_ns() - began
        return batch

    def write(self, item: Segment | bytes) -> bool:
        began = time.perf_counter_ns()
        assert isinstance(item, Segment)
        self.segments += 1
        flow = item.flow[4:8] + item.flow[:4] + item.flow[10:] + item.flow[8:10]
        echo = item.ts_val or 0
        if item.flags & SYN:
            ack = item.seq + 1 & 0xFFFFFFFF
            self._send(Segment(flow, 1001, ack, ACK, 63, (), 0, 7, echo))
            self._send(Segment(flow, 1001, ack, ACK | PSH, 63, (REQUEST,), 100, 7, echo))
        elif item.length:
            ack = item.seq + item.length & 0xFFFFFFFF
            self._send(Segment(flow, 1101, ack, ACK, 63, (), 0, 8, echo))
            self._send(Segment(flow, 1101, ack, ACK | FIN, 63, (), 0, 8, echo))
            self._open()
        elif item.flags & FIN:
            self._send(Segment(flow, 1102, item.seq + 1 & 0xFFFFFFFF, ACK, 63, (), 0, 8, echo))
            self._done()
        self.ns += time.perf_counter_ns() - began
        return True


class Meter:
    """Bytecodes and calls by function, without those of the clients and the loop's beginning."""

    def __init__(self) -> None:
        self.bytecodes: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if code.co_filename == __file__:
            return None
        if event == "opcode":
            self.bytecodes[code] += 1
        else:
            if event == "call":
                self.calls[code] += 1
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return self.trace


async def run(count: int, parallel: int, begin: Callable[[], None], end: Callable[[], None]) -> tuple[list[float], Clients]:
    """Serve so many connections, and as many again that are measured; return us a connection of each stretch."""
    finished = asyncio.Event()
    total = 0
    best: list[float] = []
    before = (0, 0)

    def done() -> None:
        nonlocal total, before
        total += 1
        if total == count:
            clients.segments = clients.batches = 0
            begin()
        if total >= count and not (total - count) % STRETCH:
            now = (time.perf_counter_ns(), clients.ns)
            if total > count:
                best.append((now[0] - before[0] - now[1] + before[1]) / 1000 / STRETCH)
            before = now
        if total == 2 * count:
            end()
            finished.set()

    clients = Clients(parallel, done)
    endpoint = Endpoint(clients, [SERVER], random=random.Random(1), secret=bytes(16))
    async with endpoint:
        await endpoint.create_server(benchservices.Echo, "10.77.0.2", benchservices.ECHO_PORT, backlog=benchservices.BACKLOG)
        await finished.wait()
        endpoint.close()
    return best, clients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=20_000, metavar="N", help="that are measured (default 20000)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="at a time (default 1)")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="print the functions with the most bytecodes")
    parser.add_argument("--profile", action="store_true", help="print cProfile's shares instead")
    options = parser.parse_args()
    gc.collect()
    gc.disable()
    if options.profile:
        profile = cProfile.Profile()
        uvloop.run(run(4000, options.parallel, profile.enable, profile.disable))
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(70)
        return
    best, clients = uvloop.run(run(options.connections, options.parallel, lambda: None, lambda: None))
    meter = Meter()
    counted = STRETCH
    uvloop.run(run(counted, options.parallel, lambda: sys.settrace(meter.trace), lambda: sys.settrace(None)))
    print(
        f"{options.parallel} at a time: {min(best):.1f} us (median {sorted(best)[len(best) // 2]:.1f}),"
        f" {sum(meter.bytecodes.values()) / counted:.0f} bytecodes, {sum(meter.calls.values()) / counted:.0f} calls a connection;"
        f" {clients.segments / options.connections:.2f} segments out, {clients.batches / options.connections:.2f} batches in"
    )
    for code, number in meter.bytecodes.most_common(options.functions):
        where = code.co_filename.partition("tunstack/")[2] or code.co_filename
        print(f"{number / counted:8.1f} {meter.calls[code] / counted:6.2f}  {where}:{code.co_firstlineno} {code.co_qualname}")


if __name__ == "__main__":
    main()
