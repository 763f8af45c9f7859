"""The server program that is measured, once more, written with asyncio streams: the same text on kernel sockets and on tunstack."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tunstack.daemon.benchservices import CHUNK, ECHO_PORT, IDLE_PORT, SINK_PORT, SOURCE_PORT

SMALL = 64 * 1024  # octets that the echo reads at most
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read and forget."""
    while await reader.read(CHUNK):
        pass


async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write as much as goes, as long as the peer reads."""
    chunk = bytes(CHUNK)
    while True:
        writer.write(chunk)
        await writer.drain()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(SMALL):
        writer.write(data)
        await writer.drain()


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait for the end."""
    await reader.read()


def until_lost(handler: Handler) -> Handler:
    """Let a connection that its peer broke off end quietly."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return handle


SERVICES: tuple[tuple[int, Handler], ...] = (
    (SINK_PORT, until_lost(sink)),
    (SOURCE_PORT, until_lost(source)),
    (ECHO_PORT, until_lost(echo)),
    (IDLE_PORT, until_lost(idle)),
)
