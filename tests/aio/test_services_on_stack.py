"""The daemon's services on our own stack: two endpoints joined in memory, no kernel between them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tunstack import Endpoint, memory_pair
from tunstack.daemon.services import Services
from tunstack.daemon.settings import SERVICE_PORTS
from tunstack.daemon.tree import Tree
from tunstack.sim import loop as sim

HOST = "10.77.0.2"
DATA = random.Random(7).randbytes(3_000_000)

Loops = Callable[[Coroutine[object, object, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Loops:
    """A function that runs a coroutine on each kind of loop."""

    def run_it(main: Coroutine[object, object, None]) -> None:
        factory = asyncio.new_event_loop
        if request.param == "uvloop":
            factory = pytest.importorskip("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(main, 60))

    return run_it


@asynccontextmanager
async def serving(root: Path | None = None, *, offload: bool = True) -> AsyncIterator[tuple[Endpoint, Services]]:
    """Give the client's endpoint, and the services that run on the other one."""
    tree = None if root is None else Tree(root)
    async with memory_pair(("10.77.0.1", HOST), offload=offload, seed=5) as (client, server):
        services = Services(SERVICE_PORTS, tree, True, lambda: {"connections": len(list(server.stack.connections))})
        await services.start(server, [HOST])
        yield client, services
    if tree is not None:
        tree.close()


async def exchange(client: Endpoint, port: int, data: bytes, *, half_close: bool = True) -> bytes:
    """Send all of it, then the FIN, and return what comes until the peer's."""
    reader, writer = await client.open_connection(HOST, port)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        if half_close:
            writer.write_eof()

    received, _ = await asyncio.gather(reader.read(), send())
    writer.close()
    await writer.wait_closed()
    return received


@pytest.mark.parametrize("offload", [True, False])
def test_echo(run: Loops, offload: bool) -> None:
    """M-30, M-51."""

    async def main() -> None:
        async with serving(offload=offload) as (client, _services):
            assert await exchange(client, 7, DATA) == DATA

    run(main())


def test_echo_takes_no_more_than_buffers_hold_from_a_client_that_does_not_read() -> None:
    """The echo service pauses reading while it cannot write, and so its memory is bounded. In virtual time."""

    async def main() -> None:
        async with serving() as (client, _services):
            _reader, writer = await client.open_connection(HOST, 7, limit=1024)
            transport = writer.transport
            blocked: asyncio.Task[None] | None = None
            sent = 0
            while sent < 100_000_000:
                writer.write(bytes(100_000))
                sent += 100_000
                blocked = asyncio.create_task(writer.drain())
                done, _pending = await asyncio.wait({blocked}, timeout=60)
                if not done:
                    break
            assert blocked is not None and not blocked.done()
            assert sent < 50_000_000
            blocked.cancel()
            transport.abort()

    sim.run(main())


def test_discard_daytime_and_chargen(run: Loops) -> None:
    async def main() -> None:
        async with serving() as (client, _services):
            assert await exchange(client, 9, DATA) == b""
            assert (await exchange(client, 13, b"", half_close=False)).endswith(b"\r\n")
            reader, writer = await client.open_connection(HOST, 19)
            data = await reader.readexactly(95 * 74 * 20)
            assert data[: 95 * 74] * 20 == data
            writer.transport.abort()

    run(main())


def test_http_files(run: Loops, tmp_path: Path) -> None:
    """aiohttp over our transports: down, up, a range, pipelined, with a FIN behind the requests."""
    (tmp_path / "data").write_bytes(DATA)

    async def main() -> None:
        async with serving(tmp_path) as (client, _services):
            get = b"GET /data HTTP/1.1\r\nHost: x\r\n%b\r\n"
            answer = await exchange(client, 80, get % b"" + get % b"Range: bytes=5-9\r\n")
            first, _, rest = answer.partition(b"\r\n\r\n")
            assert b"200 OK" in first and rest[: len(DATA)] == DATA
            assert rest[len(DATA) :].startswith(b"HTTP/1.1 206") and rest.endswith(b"\r\n\r\n" + DATA[5:10])
            put = b"PUT /new HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(DATA)
            assert (await exchange(client, 80, put + DATA)).startswith(b"HTTP/1.1 201")
            status = await exchange(client, 80, b"GET /status HTTP/1.0\r\n\r\n")
            assert json.loads(status.partition(b"\r\n\r\n")[2])["connections"] >= 1

    run(main())
    assert hashlib.sha256((tmp_path / "new").read_bytes()).digest() == hashlib.sha256(DATA).digest()


def test_client_that_breaks_off_an_upload_changes_nothing(run: Loops, tmp_path: Path) -> None:
    """A RST in the middle of a PUT."""
    (tmp_path / "file").write_text("old")

    async def main() -> None:
        async with serving(tmp_path) as (client, services):
            _reader, writer = await client.open_connection(HOST, 80)
            writer.write(b"PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + DATA[:1_000_000])
            await writer.drain()
            while not any(path.name.startswith(".tunstack-upload-") for path in tmp_path.iterdir()):
                await asyncio.sleep(0)
            writer.transport.abort()
            services.drain()
            await services.wait_closed()
            while len(list(tmp_path.iterdir())) > 1:
                await asyncio.sleep(0)

    run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_client_that_breaks_off_a_download_leaves_no_error_in_the_log(run: Loops, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").write_bytes(DATA * 4)

    async def main() -> None:
        async with serving(tmp_path) as (client, services):
            reader, writer = await client.open_connection(HOST, 80)
            writer.write(b"GET /data HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(10_000)
            writer.transport.abort()
            services.drain()
            await services.wait_closed()

    run(main())
    assert caplog.messages == []


def test_drain_lets_a_transfer_finish_and_closes_what_is_idle(run: Loops, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)

    async def main() -> None:
        async with serving(tmp_path) as (client, services):
            idle_reader, idle = await client.open_connection(HOST, 80)
            idle.write(b"GET /data HTTP/1.1\r\nHost: x\r\n\r\n")
            await idle_reader.readuntil(b"\r\n\r\n")
            await idle_reader.readexactly(len(DATA))
            busy_reader, busy = await client.open_connection(HOST, 80)
            busy.write(b"GET /data HTTP/1.1\r\nHost: x\r\n\r\n")
            await busy_reader.readuntil(b"\r\n\r\n")
            chargen_reader, chargen = await client.open_connection(HOST, 19)
            await chargen_reader.readexactly(1000)
            services.drain()
            assert await idle_reader.read() == b""
            assert await busy_reader.read() == DATA
            with pytest.raises(ConnectionRefusedError):
                await client.open_connection(HOST, 80)
            await chargen_reader.read()
            for writer in (idle, busy, chargen):
                writer.close()
            await services.wait_closed()

    run(main())


def test_many_at_once(run: Loops, tmp_path: Path) -> None:
    """M-03: a hundred connections to two services."""
    (tmp_path / "small").write_bytes(DATA[:20_000])

    async def main() -> None:
        async with serving(tmp_path) as (client, _services):

            def one(number: int) -> Awaitable[bytes]:
                if number % 2:
                    return exchange(client, 7, DATA[:20_000])
                return exchange(client, 80, b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

            for number, answer in enumerate(await asyncio.gather(*map(one, range(100)))):
                assert answer.endswith(DATA[:20_000]), number

    run(main())


class HalfClosing(asyncio.Protocol):
    """Asks once and sends its FIN `turns` turns of the loop later."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.lost = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        self._later(self.turns)

    def _later(self, turns: int) -> None:
        assert self.transport is not None
        if turns:
            asyncio.get_running_loop().call_soon(self._later, turns - 1)
        else:
            self.transport.write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


@pytest.mark.parametrize("turns", range(20))
def test_a_client_that_closes_as_its_answer_ends_is_let_go(turns: int) -> None:
    """M-50: the FIN comes while the answer is written, before the server waits for the next request; it must not stay in CLOSE_WAIT."""

    async def main() -> None:
        async with serving() as (client, _services):
            _, protocol = await client.create_connection(lambda: HalfClosing(turns), HOST, 80)
            async with asyncio.timeout(30):
                assert await protocol.lost is None

    sim.run(main())
