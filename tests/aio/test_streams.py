"""Streams: asyncio's readers and writers over our transports, against asyncio's own."""

from __future__ import annotations

import asyncio

import pytest
from aio.worlds import BIG, settle


async def serve(world, handler, **kwds):
    server = await world.start_server(handler, **kwds)
    return server, server.sockets[0].getsockname()[1]


async def test_echo_with_half_close(world):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server, port = await serve(world, echo)
    reader, writer = await world.open_connection(world.host, port)

    async def send():
        for at in range(0, len(BIG), 300_000):
            writer.write(BIG[at : at + 300_000])
            await writer.drain()
        writer.write_eof()

    task = asyncio.create_task(send())
    assert await reader.read() == BIG
    await task
    assert reader.at_eof() and writer.can_write_eof() and not writer.is_closing()
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_lines_and_exact_reads(world):
    async def talk(reader, writer):
        assert await reader.readline() == b"HELLO\n"
        writer.writelines([b"one|", b"two|", b"12345678"])
        await writer.drain()
        writer.close()

    server, port = await serve(world, talk)
    reader, writer = await world.open_connection(world.host, port)
    writer.write(b"HELLO\n")
    assert await reader.readuntil(b"|") == b"one|"
    assert await reader.readuntil(b"|") == b"two|"
    assert await reader.readexactly(5) == b"12345"
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(10)
    assert caught.value.partial == b"678"
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_limit_holds_the_sender_back(world):
    sent = asyncio.Event()

    async def flood(reader, writer):
        for at in range(0, len(BIG), 100_000):
            writer.write(BIG[at : at + 100_000])
            await writer.drain()
        sent.set()
        writer.close()

    server, port = await serve(world, flood)
    reader, writer = await world.open_connection(world.host, port, limit=4096)
    await settle()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not sent.is_set()  # 16 MiB are more than all the buffers between
    assert await reader.read() == BIG
    assert sent.is_set()
    writer.close()
    server.close()


async def test_readers_wake_when_the_connection_dies(ours):
    accepted = asyncio.get_running_loop().create_future()

    async def hold(reader, writer):
        accepted.set_result(writer)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)

    server, port = await serve(ours, hold)
    reader, writer = await ours.open_connection(ours.host, port)
    reading = asyncio.create_task(reader.read(1))
    await accepted
    writer.transport.abort()
    assert await reading == b""  # one's own abort reads as the end
    await server_idle(server)
    server.close()


async def test_a_reset_reaches_the_reader_and_the_writer(ours):
    async def slam(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    server, port = await serve(ours, slam)
    reader, writer = await ours.open_connection(ours.host, port)
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    with pytest.raises(ConnectionResetError):
        await writer.drain()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
    server.close()


async def test_a_drain_that_waits_is_woken_by_a_reset(ours):
    """A reader that is full on top of it does not hide the reset."""
    wrote = asyncio.Event()

    async def slam(reader, writer):
        writer.write(b"y" * 200_000)  # more than the other end will read
        await reader.readexactly(1000)
        await wrote.wait()
        writer.transport.abort()

    server, port = await serve(ours, slam, limit=1024)
    _, writer = await ours.open_connection(ours.host, port, limit=1024)
    writer.write(BIG)
    drain = asyncio.create_task(writer.drain())
    await settle()
    assert not drain.done()
    wrote.set()
    with pytest.raises(ConnectionResetError):
        await drain
    server.close()


async def test_cancelled_reads_and_drains_lose_nothing(virtual):
    async def late(reader, writer):
        await asyncio.sleep(10)
        writer.write(b"late")
        assert await reader.readexactly(len(BIG)) == BIG
        writer.close()

    server, port = await serve(virtual, late)
    reader, writer = await virtual.open_connection(virtual.host, port)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(100), 1)
    writer.write(BIG)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 1)
    assert await reader.read(100) == b"late"
    await writer.drain()
    assert await reader.read() == b""
    writer.close()
    server.close()


async def test_two_hundred_at_once(ours):
    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.close()

    server, port = await serve(ours, echo)

    async def ask(number):
        reader, writer = await ours.open_connection(ours.host, port)
        writer.write(b"%d" % number * 100)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    answers = await asyncio.gather(*(ask(number) for number in range(200)))
    assert answers == [b"%d" % number * 100 for number in range(200)]
    server.close()
    await server.wait_closed()


async def server_idle(server):
    server.close()
    await server.wait_closed()
    await settle()
