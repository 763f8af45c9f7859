"""aiohttp over our transports, as server and as client: the proof that they are asyncio's."""

from __future__ import annotations

import asyncio
import hashlib
import re

import aiohttp
from aio.worlds import settle
from aiohttp import web

BLOB = bytes(range(256)) * 16 * 1024  # 4 MiB


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, whose connections come from an endpoint."""

    def __init__(self, endpoint, host, **kwds) -> None:
        super().__init__(**kwds)
        self._endpoint = endpoint
        self._host = host

    async def _wrap_create_connection(self, *args, addr_infos, req, timeout, client_error=None, **kwds):
        kwds.pop("server_hostname", None)
        return await self._endpoint.create_connection(args[0], self._host, addr_infos[0][4][1], ssl=kwds.get("ssl"))


class Site:
    """A small site on the server's endpoint, and a session on the client's."""

    def __init__(self, world, tmp_path) -> None:
        self.world = world
        (tmp_path / "blob").write_bytes(BLOB)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_static("/files", tmp_path)
        app.router.add_get("/hello", self.hello)
        app.router.add_post("/digest", self.digest)
        app.router.add_get("/socket", self.socket)
        self.runner = web.AppRunner(app, shutdown_timeout=1)

    async def __aenter__(self):
        await self.runner.setup()
        self.server = await self.world.server.create_server(self.runner.server, None, 80)
        self.connector = Connector(self.world.client, self.world.host)
        self.session = aiohttp.ClientSession(f"http://{self.world.host}", connector=self.connector)
        return self

    async def __aexit__(self, *exc):
        await self.session.close()
        self.server.close()
        await self.runner.cleanup()
        await self.server.wait_closed()
        await settle()

    async def hello(self, request):
        return web.Response(text=f"hello {request.remote} {request.query.get('n', '')}")

    async def digest(self, request):
        digest = hashlib.sha256()
        async for chunk in request.content.iter_any():
            digest.update(chunk)
        return web.Response(text=digest.hexdigest())

    async def socket(self, request):
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(message.data[::-1])
        return answer


async def test_files_and_ranges(ours, tmp_path):
    async with Site(ours, tmp_path) as site:
        async with site.session.get("/files/blob") as answer:
            assert answer.status == 200 and await answer.read() == BLOB
        async with site.session.get("/files/blob", headers={"Range": "bytes=1000-2999"}) as answer:
            assert answer.status == 206 and await answer.read() == BLOB[1000:3000]
        async with site.session.get("/files/missing") as answer:
            assert answer.status == 404


async def test_upload_and_remote_address(ours, tmp_path):
    async with Site(ours, tmp_path) as site:
        async with site.session.post("/digest", data=BLOB) as answer:
            assert await answer.text() == hashlib.sha256(BLOB).hexdigest()

        async def chunks():
            for at in range(0, len(BLOB), 100_000):
                yield BLOB[at : at + 100_000]

        async with site.session.post("/digest", data=chunks()) as answer:
            assert await answer.text() == hashlib.sha256(BLOB).hexdigest()
        async with site.session.get("/hello") as answer:
            assert await answer.text() == "hello 10.77.0.1 "


async def test_connections_are_kept_alive_and_many_work_at_once(ours, tmp_path):
    async with Site(ours, tmp_path) as site:

        async def ask(number):
            async with site.session.get("/hello", params={"n": str(number)}) as answer:
                return await answer.text()

        for number in range(5):
            await ask(number)
        assert ours.client.stack.counters.TcpActiveOpens == 1
        answers = await asyncio.gather(*(ask(number) for number in range(300)))
        assert answers == [f"hello 10.77.0.1 {number}" for number in range(300)]


async def test_websocket(ours, tmp_path):
    async with Site(ours, tmp_path) as site, site.session.ws_connect("/socket") as socket:
        for text in ("abc", "x" * 100_000):
            await socket.send_str(text)
            assert (await socket.receive()).data == text[::-1]


async def test_pipelined_requests_are_answered_in_order(ours, tmp_path):
    async with Site(ours, tmp_path):
        reader, writer = await ours.open_connection(ours.host, 80)
        for number in range(20):
            writer.write(f"GET /hello?n={number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        writer.write(b"GET /hello?n=last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        assert re.findall(r"hello 10\.77\.0\.1 (\d+|last)", text) == [*map(str, range(20)), "last"]
        writer.close()
        await writer.wait_closed()
