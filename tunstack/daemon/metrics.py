"""Metrics for Prometheus: an HTTP server on the machine's own addresses, not on those of the stack that it tells of.

A GET of /metrics is answered in the text format of prometheus_client, or in OpenMetrics where the client asks for that.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_request import BaseRequest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tunstack.aio import Endpoint
from tunstack.daemon.errors import UserError
from tunstack.daemon.turns import in_turns
from tunstack.inspect import reading
from tunstack.inspect.census import count
from tunstack.inspect.prometheus import ReadingCollector
from tunstack.inspect.reading import Reading

Read = Callable[[], Awaitable[Reading]]

PATH = "/metrics"
BACKLOG = 16


class Metrics:
    """The server. Make it before root is given up; `start` in the loop, then `close`."""

    def __init__(self, host: str, port: int) -> None:
        """Take the port; UserError if that cannot be."""
        try:
            self._socket = socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UserError(f"metrics on {host}:{port}: {reason}") from error
        self._socket.setblocking(False)
        self._registry = CollectorRegistry()
        self._collector = ReadingCollector()
        self._server: asyncio.AbstractServer | None = None
        self._http: web.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._socket.getsockname()
        return str(host), int(port)

    async def start(self, read: Read) -> None:
        """Begin to answer with what `read` gives."""
        self._read = read
        self._registry.register(self._collector)
        self._http = web.Server(self._answer, access_log=None)
        self._server = await asyncio.get_running_loop().create_server(self._http, sock=self._socket)

    async def close(self) -> None:
        """Answer no more. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._http is not None:
            await self._http.shutdown(0)
            self._http = None
        self._socket.close()

    async def _answer(self, request: BaseRequest) -> web.Response:
        if request.rel_url.path != PATH:
            return web.Response(status=404, text=f"metrics are at {PATH}\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="405 Method Not Allowed\n", headers={"Allow": "GET, HEAD"})
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        self._collector.reading = await self._read()
        return web.Response(body=encoder(self._registry), headers={"Content-Type": content_type})


def of_endpoint(endpoint: Endpoint) -> Read:
    """Return what reads one endpoint."""

    async def read() -> Reading:
        return reading.read(endpoint.stack, endpoint.labels, await in_turns(count(endpoint.stack)))

    return read
