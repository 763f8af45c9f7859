"""The server program that `tunstack bench` and scripts/bench measure: the same asyncio protocols on kernel sockets and on tunstack."""

from __future__ import annotations

import asyncio
from typing import cast

CHUNK = 256 * 1024
SINK_PORT = 5001
SOURCE_PORT = 5002
ECHO_PORT = 5003
IDLE_PORT = 5004


class Sink(asyncio.BufferedProtocol):
    """Reads and forgets. All connections share a buffer, as nobody looks at it."""

    buffer = bytearray(CHUNK)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None: ...


class Source(asyncio.Protocol):
    """Writes as much as goes, as long as the peer reads."""

    chunk = bytes(CHUNK)

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport
        self._may_write = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are none by inheritance
        self._transport.set_write_buffer_limits(high=CHUNK)
        self.resume_writing()

    def resume_writing(self) -> None:
        self._may_write = True
        while self._may_write and not self._transport.is_closing():
            self._transport.write(self.chunk)

    def pause_writing(self) -> None:
        self._may_write = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write = False


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


SERVICES: tuple[tuple[int, type[asyncio.BaseProtocol]], ...] = (
    (SINK_PORT, Sink),
    (SOURCE_PORT, Source),
    (ECHO_PORT, Echo),
    (IDLE_PORT, asyncio.Protocol),  # which does nothing
)
BACKLOG = 4096
