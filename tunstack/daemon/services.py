"""The services of the daemon: started on a network, drained at the end.

The network is anything that has asyncio's `create_server`: a stack of ours, or an event loop with the kernel's sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tunstack.daemon.simple import SIMPLE_SERVICES, SimpleService
from tunstack.daemon.status import Status
from tunstack.daemon.tree import Tree


class Service(Protocol):
    """One service: called, it makes the protocol for a connection."""

    def __call__(self) -> asyncio.BaseProtocol: ...

    def drain(self) -> None:
        """Let connections come to an end, where nothing is lost by it; those that go on are left alone."""


class Network(Protocol):
    """What a server is created on."""

    async def create_server(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: Sequence[str], port: int, *, backlog: int
    ) -> asyncio.AbstractServer: ...


BACKLOG = 1024


class Services:
    """All services that are on. `start`, then `drain` when the end is near: it stops listening."""

    def __init__(self, ports: Mapping[str, int], tree: Tree | None, upload: bool, status: Status) -> None:
        self.ports = dict(ports)
        self._services: dict[str, Service] = {}
        self._servers: list[asyncio.AbstractServer] = []
        for name in ports:
            if name == "http":
                from tunstack.daemon.http import HttpService  # aiohttp takes a third of a second to import

                self._services[name] = HttpService(tree, upload, status)
            else:
                self._services[name] = SimpleService(SIMPLE_SERVICES[name])

    async def start(self, network: Network, hosts: Sequence[str]) -> None:
        """Listen for every service on every address; OSError if that cannot be."""
        for name, service in self._services.items():
            self._servers.append(await network.create_server(service, hosts, self.ports[name], backlog=BACKLOG))

    def drain(self) -> None:
        """Stop listening, and let connections come to an end."""
        for server in self._servers:
            server.close()
        for service in self._services.values():
            service.drain()

    async def wait_closed(self) -> None:
        """Wait until the last connection is gone, after `drain`."""
        for server in self._servers:
            await server.wait_closed()
