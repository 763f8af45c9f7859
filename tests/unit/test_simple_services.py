"""echo, discard, daytime, chargen, over the kernel's loopback sockets: RFC 862, 863, 867, 864."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import cast

from tunstack.daemon.simple import SIMPLE_SERVICES, Chargen, Echo, Simple, SimpleService, character_block, daytime

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def converse(name: str, client: Client) -> None:
    """Run a client against a service."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(SimpleService(SIMPLE_SERVICES[name]), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(20):
                await client(reader, writer)
        finally:
            writer.transport.abort()
            server.close()

    asyncio.run(main())


class Transport:
    """Notes what a protocol orders, and counts what it writes."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.written = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def pause_reading(self) -> None:
        self.orders.append("pause_reading")

    def resume_reading(self) -> None:
        self.orders.append("resume_reading")

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


def connect(protocol: Simple) -> Transport:
    transport = Transport()
    protocol.connection_made(cast(asyncio.Transport, transport))
    return transport


def test_echo_sends_back_everything_then_closes() -> None:
    """RFC 862; M-51: after the client's FIN the rest still comes back."""
    data = random.Random(1).randbytes(3_000_000)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            for start in range(0, len(data), 70_001):
                writer.write(data[start : start + 70_001])
                await writer.drain()
            writer.write_eof()

        _, echoed = await asyncio.gather(send(), reader.read())
        assert echoed == data

    converse("echo", client)


def test_echo_reads_no_more_while_its_peer_does_not_read() -> None:
    protocol = Echo(set())
    transport = connect(protocol)
    protocol.pause_writing()
    assert transport.orders == ["pause_reading"]
    protocol.resume_writing()
    assert transport.orders == ["pause_reading", "resume_reading"]


def test_discard_answers_nothing_and_closes_after_the_client() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(1_000_000))
        writer.write_eof()
        assert await reader.read() == b""

    converse("discard", client)


def test_daytime_sends_one_line_and_closes() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.read()
        assert re.fullmatch(rb"[0-9]{2} [A-Z]{3} [0-9]{4} [0-9:]{8} [A-Za-z0-9+-]+\r\n", line)

    converse("daytime", client)


def test_daytime_line_is_as_rfc_867_shows_it() -> None:
    stamp = time.struct_time((1982, 2, 2, 17, 59, 1, 1, 33, 0), {"tm_zone": "PST", "tm_gmtoff": -28800})
    assert daytime(stamp) == b"02 FEB 1982 17:59:01 PST\r\n"


def test_chargen_follows_the_pattern_of_rfc_864() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readexactly(74 * 2000)).split(b"\r\n")[:-1]
        assert lines[0] == bytes(range(32, 104))
        assert all(len(line) == 72 for line in lines)
        for before, after in pairwise(lines):
            assert after[:-1] == before[1:]  # each line starts one character later in the ring
            assert after[-1] == (before[-1] - 32 + 1) % 95 + 32

    converse("chargen", client)


def test_chargen_goes_on_after_the_client_half_closes() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ignored")
        writer.write_eof()
        await reader.readexactly(20_000_000)

    converse("chargen", client)


def test_chargen_stops_while_writing_is_paused() -> None:
    async def main() -> None:
        protocol = Chargen(set())
        transport = connect(protocol)
        for _ in range(3):
            await asyncio.sleep(0)
        assert transport.written == 3 * len(character_block())
        protocol.pause_writing()
        for _ in range(3):
            await asyncio.sleep(0)
        assert transport.written == 3 * len(character_block())
        protocol.resume_writing()
        await asyncio.sleep(0)
        assert transport.written == 4 * len(character_block())
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        assert transport.written == 4 * len(character_block())

    asyncio.run(main())


def test_draining_ends_chargen_and_leaves_echo() -> None:
    async def main() -> None:
        ends = {}
        for name in ("chargen", "echo"):
            service = SimpleService(SIMPLE_SERVICES[name])
            ends[name] = connect(service())
            service.drain()
        await asyncio.sleep(0)
        assert ends["chargen"].closing and ends["chargen"].written == 0
        assert not ends["echo"].closing

    asyncio.run(main())


def test_connection_that_is_lost_is_forgotten() -> None:
    service = SimpleService(Echo)
    protocol = service()
    connect(protocol)
    assert len(service._connections) == 1
    protocol.connection_lost(None)
    assert not service._connections
