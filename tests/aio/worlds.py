"""Worlds to run the same test in: our endpoints under three event loops, and asyncio's own sockets on a real loopback.

A test that takes `world` runs in all four: what it asserts is then what asyncio does, not what we believe. A test that takes
`ours` runs under the three loops. Tests are coroutines; nothing here sleeps in real time.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from tunstack.aio import Endpoint, memory_pair
from tunstack.sim.loop import VirtualLoop

HANG = 20  # s after which a test that waits has failed
BIG = bytes(range(256)) * 64 * 1024  # 16 MiB: more than the buffers of a kernel hold
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


class World:
    """A server side and a client side that reach each other. `host` is the server's address."""

    kind: str
    host: str

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []  # what reached the loop's exception handler
        self.expects_errors = False

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    # The four calls under test; port 0 unless given.
    create_server: Callable[..., Awaitable[Any]]
    start_server: Callable[..., Awaitable[Any]]
    create_connection: Callable[..., Awaitable[Any]]
    open_connection: Callable[..., Awaitable[Any]]

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a test; it must leave no task, and no error that it did not expect."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            runner.run(self._guarded(main))
        for context in self.errors:
            if not self.expects_errors:
                raise AssertionError(context["message"]) from context.get("exception")

    async def _guarded(self, main: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        async with asyncio.timeout(HANG * 60 if self.kind == "virtual" else HANG):
            async with self:
                await main
            await settle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left


class Ours(World):
    """Two endpoints joined in memory."""

    host = "10.77.0.2"

    def __init__(self, kind: str, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__()
        self.kind = kind
        self.new_loop = factory  # type: ignore[method-assign]

    async def __aenter__(self) -> Ours:
        self._stack = AsyncExitStack()
        self.client, self.server = await self._stack.enter_async_context(memory_pair(seed=1))
        self.create_connection = self.client.create_connection
        self.open_connection = self.client.open_connection
        return self

    async def __aexit__(self, *exc: object) -> None:
        for endpoint in (self.client, self.server):
            endpoint.close()
        await self._stack.aclose()
        for endpoint in (self.client, self.server):
            assert_nothing_left(endpoint)

    async def create_server(self, factory: Callable[[], asyncio.BaseProtocol], port: int = 0, **kwds: Any) -> Any:
        return await self.server.create_server(factory, self.host, port, **kwds)

    async def start_server(self, callback: Any, port: int = 0, **kwds: Any) -> Any:
        return await self.server.start_server(callback, self.host, port, **kwds)


class Kernel(World):
    """asyncio's own loop and the kernel's TCP, on the loopback of a network namespace of the test's own."""

    kind = "kernel"
    host = "127.0.0.1"

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                enter_namespace()
                World.run(self, main)
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside)  # a namespace is a thread's
        thread.start()
        thread.join()
        if failure:
            main.close()
            if isinstance(failure[0], PermissionError):
                pytest.skip("needs root: a network namespace of its own")
            raise failure[0]

    async def __aenter__(self) -> Kernel:
        loop = asyncio.get_running_loop()
        self.create_connection = loop.create_connection
        self.open_connection = asyncio.open_connection
        return self

    async def create_server(self, factory: Callable[[], asyncio.BaseProtocol], port: int = 0, **kwds: Any) -> Any:
        return await asyncio.get_running_loop().create_server(factory, self.host, port, **kwds)

    async def start_server(self, callback: Any, port: int = 0, **kwds: Any) -> Any:
        return await asyncio.start_server(callback, self.host, port, **kwds)


def enter_namespace() -> None:
    """Move this thread to a new network namespace, whose loopback is up; it vanishes with the thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def assert_nothing_left(endpoint: Endpoint) -> None:
    """No connection, transport, server, timer, callback or reader of a closed endpoint."""
    driver = endpoint._driver
    assert driver is not None
    assert not list(endpoint.stack.connections)
    assert not list(endpoint.stack.listeners)
    assert not len(endpoint._transports)
    assert not endpoint._servers
    assert driver._timer is driver._flush_handle is driver._read_handle is driver._retry_handle is driver._blocked is None
    assert endpoint.stack.on_dirty is None


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "virtual": VirtualLoop,
}
