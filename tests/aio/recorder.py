"""Protocols that write down what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Log:
    """Events in order; tests wait for one to appear."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.error: BaseException | None = None  # what connection_lost brought
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self.transport: asyncio.Transport

    def note(self, event: str) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        for condition, waiter in self._waiters:
            if not waiter.done() and condition():
                waiter.set_result(None)

    async def until(self, condition: str | Callable[[], bool]) -> None:
        """Wait for an event, or until something holds."""
        check = condition if callable(condition) else lambda: condition in self.events
        if not check():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((check, waiter))
            await waiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.note("made")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self.note(f"lost {type(exc).__name__}" if exc else "lost")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")


class Recorder(Log, asyncio.Protocol):
    """A protocol that takes data."""

    def __init__(self, *, keep_open: bool = False) -> None:
        super().__init__()
        self.keep_open = keep_open  # what eof_received returns
        self.data = bytearray()

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        if not self.data:
            self.events.append("data")
        self.data += data
        self.wake()

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open

    async def received(self, size: int) -> bytes:
        await self.until(lambda: len(self.data) >= size)
        return bytes(self.data)


class BufferedRecorder(Log, asyncio.BufferedProtocol):
    """A protocol that lends a buffer of `size` octets at a time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.largest = 0

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.largest = max(self.largest, nbytes)
        self.wake()

    def eof_received(self) -> bool:
        self.note("eof")
        return False


async def connected(world, server_protocol=None, client_protocol=None, **kwds):
    """Return (client's protocol, server's protocol, server), connected."""
    far = server_protocol or Recorder()
    near = client_protocol or Recorder()
    server = await world.create_server(lambda: far, **kwds)
    await world.create_connection(lambda: near, world.host, server.sockets[0].getsockname()[1])
    await far.until("made")
    return near, far, server
