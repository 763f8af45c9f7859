"""The five loads, as asyncio streams: the same lines run on the kernel's sockets and on tunstack.

Every octet that is sent follows from the load, so that each end knows what has to come and says at which octet it did not. A client is
told which of the load's connections it is and says so in its first octet. An end that returns has seen the other's EOF or closed first.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

CHUNK = 16 * 1024
DIGEST = hashlib.sha256().digest_size


class WrongData(Exception):
    """Something else arrived than what was sent."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a load moves."""

    bulk: int  # octets of a stream
    echo: int  # octets to and fro
    messages: int  # to and fro on each connection of `small`


@cache
def payload(name: str, size: int) -> bytes:
    """Return the octets of a stream, by its name."""
    return random.Random(name).randbytes(size)


async def send(writer: Writer, data: bytes) -> None:
    """Write all of it, no faster than it goes."""
    for start in range(0, len(data), CHUNK):
        writer.write(data[start : start + CHUNK])
        await writer.drain()


async def expect(reader: Reader, data: bytes, what: str) -> None:
    """Read as many octets as `data` has, and be it exactly these."""
    at = 0
    while at < len(data):
        got = await reader.read(min(CHUNK, len(data) - at))
        if not got:
            raise WrongData(f"{what}: EOF after {at} of {len(data)} octets")
        if got != data[at : at + len(got)]:
            first = next(i for i, octet in enumerate(got) if octet != data[at + i])
            raise WrongData(f"{what}: octet {at + first} of {len(data)} is {got[first]:#04x}, not {data[at + first]:#04x}")
        at += len(got)


async def expect_eof(reader: Reader, what: str) -> None:
    """Read EOF, and nothing before it."""
    if rest := await reader.read(CHUNK):
        raise WrongData(f"{what}: {len(rest)} octets or more where EOF was due")


async def index_of(reader: Reader) -> int:
    """Read which connection this is."""
    return (await reader.readexactly(1))[0]


async def up_client(reader: Reader, writer: Writer, index: int, sizes: Sizes) -> None:
    """Send all, half-close, and be told its digest."""
    data = payload("up", sizes.bulk)
    await send(writer, bytes([index]) + data)
    writer.write_eof()
    await expect(reader, hashlib.sha256(data).digest(), "digest of the upload")
    await expect_eof(reader, "behind the digest")


async def up_server(reader: Reader, writer: Writer, sizes: Sizes) -> None:
    await index_of(reader)
    data = payload("up", sizes.bulk)
    await expect(reader, data, "upload")
    await expect_eof(reader, "behind the upload")
    writer.write(hashlib.sha256(data).digest())


async def down_client(reader: Reader, writer: Writer, index: int, sizes: Sizes) -> None:
    """Ask, and read until the server closes."""
    writer.write(bytes([index]))
    await expect(reader, payload("down", sizes.bulk), "download")
    await expect_eof(reader, "behind the download")


async def down_server(reader: Reader, writer: Writer, sizes: Sizes) -> None:
    await index_of(reader)
    await send(writer, payload("down", sizes.bulk))


async def echo_client(reader: Reader, writer: Writer, index: int, sizes: Sizes) -> None:
    """Send and read back at once; then close from this side."""
    data = bytes([index]) + payload("echo", sizes.echo)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send(writer, data))
        tasks.create_task(expect(reader, data, "echo"))


async def echo_server(reader: Reader, writer: Writer, sizes: Sizes) -> None:
    while got := await reader.read(CHUNK):
        writer.write(got)
        await writer.drain()


async def half_close_client(reader: Reader, writer: Writer, index: int, sizes: Sizes) -> None:
    """First connection: half-close first, then read all. Second: read until the server's half-close, then send all."""
    writer.write(bytes([index]))
    if index == 0:
        await send(writer, payload("question", sizes.bulk // 4))
        writer.write_eof()
        await expect(reader, payload("answer", sizes.bulk // 2), "answer to a half-close")
        await expect_eof(reader, "behind the answer")
    else:
        await expect(reader, payload("greeting", sizes.bulk // 4), "greeting")
        await expect_eof(reader, "behind the greeting")
        await send(writer, payload("thanks", sizes.bulk // 2))


async def half_close_server(reader: Reader, writer: Writer, sizes: Sizes) -> None:
    if await index_of(reader) == 0:
        await expect(reader, payload("question", sizes.bulk // 4), "question")
        await expect_eof(reader, "behind the question")
        await send(writer, payload("answer", sizes.bulk // 2))
    else:
        await send(writer, payload("greeting", sizes.bulk // 4))
        writer.write_eof()
        await expect(reader, payload("thanks", sizes.bulk // 2), "data after our half-close")
        await expect_eof(reader, "behind the data after our half-close")


async def small_client(reader: Reader, writer: Writer, index: int, sizes: Sizes) -> None:
    """Small messages in lockstep, each sent back; every connection has other ones."""
    source = random.Random(index)
    for number in range(sizes.messages):
        message = source.randbytes(source.randint(1, 200))
        writer.write(bytes([len(message)]) + message if number else bytes([index, len(message)]) + message)
        await expect(reader, message, f"message {number}")


async def small_server(reader: Reader, writer: Writer, sizes: Sizes) -> None:
    await index_of(reader)
    while length := await reader.read(1):
        writer.write(await reader.readexactly(length[0]))
        await writer.drain()


@dataclass(frozen=True, slots=True)
class Load:
    """Both ends of a load, and how many connections it has, all at once."""

    connections: int
    client: Callable[[Reader, Writer, int, Sizes], Awaitable[None]]
    server: Callable[[Reader, Writer, Sizes], Awaitable[None]]


LOADS = {
    "up": Load(1, up_client, up_server),
    "down": Load(1, down_client, down_server),
    "echo": Load(1, echo_client, echo_server),
    "half-close": Load(2, half_close_client, half_close_server),
    "small": Load(16, small_client, small_server),
}


def sizes(link: str, mtu: int) -> Sizes:
    """Return how much is moved: thousands of segments without a link; hundreds on the bad one, some dozens of them hit."""
    if link == "clean":
        return Sizes(bulk=4 << 20, echo=2 << 20, messages=50)
    return Sizes(bulk=600 * mtu, echo=300 * mtu, messages=10)
