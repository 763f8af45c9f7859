#!/usr/bin/env python3
"""What an idle connection costs, object by object: an endpoint with a server of bare asyncio protocols or streams, in virtual time.

Its peers are made by hand, so that they take no memory: each opens a connection with the options of Linux, and is silent until it is
probed. Octets are CPython's own account (sys.getsizeof), of all that a connection alone refers to; those of tracemalloc, beside them, are
what was allocated in all, tables included. Needs no privileges, and gives the same figures on every machine of a kind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType

from tunstack.aio import Endpoint
from tunstack.aio.driver import Driver
from tunstack.aio.registry import Registry
from tunstack.aio.server import Server
from tunstack.aio.transport import StreamTransport
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.loop import VirtualLoop
from tunstack.wire.flow import pack_address, pack_flow, reverse_flow
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, Batch, Segment

ADDRESS = "10.77.0.2"
PORT = 5001
MTU = 1500
PORTS = 50_000  # connections from one address
ISN = 0x10000000
BATCH = 64
# What a walk over a connection's objects does not go into: it is there once, however many connections there are.
COMMON = (type, ModuleType, FunctionType, BuiltinFunctionType, Stack, Driver, Server, Listener, Registry, asyncio.AbstractEventLoop)


class Peers:
    """The device, and all that is behind it: peers that open connections, acknowledge what they get, and say nothing themselves."""

    mtu = MTU
    max_payload = 65535 - 80

    def __init__(self) -> None:
        self.on_readable: Callable[[], None] | None = None
        self.is_dead = False  # they answer nothing any more
        self.heard = 0  # segments
        self.most_waiting = 0  # segments at a time
        self._waiting: list[Segment] = []
        self._una: dict[bytes, int] = {}  # what was acknowledged last, by flow, of connections that have carried data

    def fileno(self) -> int:
        return -1

    def connect(self, first: int, count: int) -> None:
        """Send the SYNs of peers number `first` and up."""
        to = pack_address(ADDRESS)
        for number in range(first, first + count):
            address = bytes((10, 78, number // PORTS, 1))
            flow = pack_flow(address, 1024 + number % PORTS, to, PORT)
            self._say(Segment(flow, ISN, 0, SYN, 64240, (), 0, 1000, 0, 0, (), 1460, 7, True))

    def reset(self, flows: Iterable[bytes]) -> None:
        """End connections, of incoming segments' flows."""
        for flow in flows:
            self._say(Segment(flow, ISN + 1, 0, RST, 0))

    def send(self, flow: bytes, data: bytes) -> None:
        """Send the first data of a connection, of incoming segments' flow, that has sent us some."""
        self._say(Segment(flow, ISN + 1, self._una[flow], ACK | PSH, 502, (memoryview(data),), len(data), 1000))

    def read_batch(self) -> Batch:
        batch = Batch()
        batch.segments, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return batch

    def write(self, item: Segment | bytes) -> bool:
        assert isinstance(item, Segment)
        self.heard += 1
        if not self.is_dead and not item.flags & RST:
            self._answer(item)
        return True

    def _answer(self, seg: Segment) -> None:
        """Acknowledge what takes sequence numbers, and a probe, which is an octet behind; but no ACK."""
        flow = reverse_flow(seg.flow)
        end = (seg.seq + seg.length + bool(seg.flags & (SYN | FIN))) & 0xFFFFFFFF
        una = self._una.get(flow)
        if seg.length:
            self._una[flow] = end
        elif end == una:
            return
        elif end == seg.seq:
            end = (end + 1) & 0xFFFFFFFF
        ts_val = 1000 if seg.ts_val is not None else None
        seq = ISN + 1 if seg.flags & SYN or seg.length else seg.ack
        self._say(Segment(flow, seq, end, ACK, 502, (), 0, ts_val, seg.ts_val or 0))

    def close(self) -> None: ...

    def _say(self, seg: Segment) -> None:
        self._waiting.append(seg)
        self.most_waiting = max(self.most_waiting, len(self._waiting))
        if self.on_readable is not None:
            self.on_readable()


class World:
    """An endpoint with idle connections, in a virtual loop of its own. `open` as many as are wanted, `close` at the end."""

    def __init__(self, options: SocketOptions | None = None, sysctl: Sysctl | None = None, streams: bool = False) -> None:
        self.loop = VirtualLoop()
        self.peers = Peers()
        self.endpoint = Endpoint(self.peers, ADDRESS, sysctl=sysctl, random=random.Random(1), secret=bytes(16))
        self.protocols: list[asyncio.Protocol] = []
        self._count = 0
        self.loop.run_until_complete(self._serve(options, streams))

    async def _serve(self, options: SocketOptions | None, streams: bool) -> None:
        await self.endpoint.start()
        if streams:
            await self.endpoint.start_server(_wait_for_data, ADDRESS, PORT, backlog=4096, options=options)
        else:
            await self.endpoint.create_server(asyncio.Protocol, ADDRESS, PORT, backlog=4096, options=options)

    def open(self, count: int) -> None:
        """Establish so many more."""
        self.peers.connect(self._count, count)
        self._count += count
        self.run(0.5)  # s, longer than a delayed ACK waits
        assert len(self.transports) == self._count

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @property
    def transports(self) -> list[StreamTransport]:
        """Those of all connections."""
        return list(self.endpoint._transports)

    def close(self) -> None:
        self.endpoint.close()
        self.loop.run_until_complete(self.endpoint.wait_closed())
        self.loop.close()


async def _wait_for_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


def walk(root: object) -> Iterator[object]:
    """Go through all that an object refers to, itself first, but not into what all have in common."""
    seen = {id(root)}
    waiting = [root]
    while waiting:
        item = waiting.pop()
        yield item
        for referent in gc.get_referents(item):
            if id(referent) not in seen and not isinstance(referent, COMMON):
                seen.add(id(referent))
                waiting.append(referent)


def own_objects(transport: StreamTransport, others: Iterable[StreamTransport]) -> list[object]:
    """Return the objects of one connection that none of the others refers to."""
    shared = {id(item) for other in others for item in walk(other)}
    return [item for item in walk(transport) if id(item) not in shared]


def sizes(items: Iterable[object]) -> Counter[str]:
    """Return the octets of objects by class."""
    total: Counter[str] = Counter()
    for item in items:
        total[type(item).__qualname__] += _rounded(sys.getsizeof(item))
    return total


def _rounded(size: int) -> int:
    """Return what CPython's allocator takes for so many octets."""
    return -(-size // 16) * 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("connections", type=int, nargs="*", default=[10, 1000, 10_000], help="how many (default 10 1000 10000)")
    parser.add_argument(
        "--streams", action="store_true", help="with a task each that waits for data in an asyncio stream, not bare protocols"
    )
    parser.add_argument("--keepalive", action="store_true", help="with SO_KEEPALIVE")
    arguments = parser.parse_args()
    options = SocketOptions(nodelay=True, keepalive=arguments.keepalive)
    world = World(options, streams=arguments.streams)
    world.open(3)
    one, *others = world.transports
    items = own_objects(one, others)
    counts = Counter(type(item).__qualname__ for item in items)
    by_class = sizes(items)
    print(f"{'class':24} {'objects':>8} {'octets':>8}")
    for name, octets in by_class.most_common():
        print(f"{name:24} {counts[name]:8} {octets:8}")
    print(f"{'all':24} {len(items):8} {sum(by_class.values()):8}\n")
    world.close()
    print(f"{'connections':>12} {'octets each':>12}")
    for count in arguments.connections:
        tracemalloc.start()
        world = World(options, streams=arguments.streams)
        world.open(3)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        world.open(count)
        gc.collect()
        print(f"{count:12} {(tracemalloc.get_traced_memory()[0] - before) / count:12.0f}")
        tracemalloc.stop()
        world.close()


if __name__ == "__main__":
    main()
