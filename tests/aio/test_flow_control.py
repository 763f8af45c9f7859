"""Transports that hold back: reading that is paused, write buffers and their limits; against asyncio's own."""

from __future__ import annotations

import asyncio
import sys

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import BIG, settle

from tunstack.aio.transport import SEND_AT_ONCE


async def test_paused_reading_delivers_nothing_until_resumed(world):
    near, far, server = await connected(world)
    far.transport.pause_reading()
    far.transport.pause_reading()
    assert not far.transport.is_reading()
    near.transport.write(b"wait")
    near.transport.write_eof()
    await settle()
    assert far.events == ["made"]
    far.transport.resume_reading()
    assert far.events == ["made"]  # never from inside the call
    far.transport.resume_reading()
    await far.until("lost")
    assert far.events == ["made", "data", "eof", "lost"] and bytes(far.data) == b"wait"
    server.close()


async def test_pause_in_connection_made_holds_the_first_data_back(world):
    class Shy(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    near, far, server = await connected(world, Shy())
    near.transport.write(b"early")
    await settle()
    if world.kind == "kernel" and sys.version_info < (3, 11, 7):
        assert far.events in (["made"], ["made", "data"])  # asyncio of 3.11.2 began to read all the same
    else:
        assert far.events == ["made"]
    far.transport.resume_reading()
    assert await far.received(5) == b"early"
    near.transport.close()
    await far.until("lost")
    server.close()


async def test_pause_inside_data_received_is_obeyed(world):
    class Sipper(Recorder):
        def data_received(self, data):
            self.transport.pause_reading()
            self.sips += 1
            super().data_received(data)

        sips = 0

    near, far, server = await connected(world, Sipper())
    near.transport.write(BIG)
    for sips in range(1, 20):
        await far.until(lambda: far.sips == sips)  # noqa: B023
        await settle()
        assert far.sips == sips
        far.transport.resume_reading()
    near.transport.close()
    while "lost" not in far.events:
        await settle()
        far.transport.resume_reading()
    assert bytes(far.data) == BIG and far.events == ["made", "data", "eof", "lost"]
    server.close()


async def test_default_write_limits_and_their_check(world):
    near, _, server = await connected(world)
    assert near.transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    near.transport.set_write_buffer_limits(high=1000)
    assert near.transport.get_write_buffer_limits() == (250, 1000)
    near.transport.set_write_buffer_limits(low=300)
    assert near.transport.get_write_buffer_limits() == (300, 1200)
    with pytest.raises(ValueError, match="must be >= low"):
        near.transport.set_write_buffer_limits(high=1, low=2)
    near.transport.close()
    server.close()


async def test_writing_pauses_above_high_water_and_resumes_at_low(world):
    class Meter(Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.sizes.append(self.transport.get_write_buffer_size())

        def resume_writing(self):
            super().resume_writing()
            self.sizes.append(self.transport.get_write_buffer_size())

        def __init__(self):
            super().__init__()
            self.sizes = []

    near, far, server = await connected(world, client_protocol=Meter())
    far.transport.pause_reading()
    near.transport.write(BIG)
    assert near.events == ["made", "pause"]  # inside write()
    near.transport.write(b"x" * 1000)
    await settle()
    assert near.events == ["made", "pause"] and near.transport.get_write_buffer_size() > 64 * 1024
    far.transport.resume_reading()
    await near.until("resume")
    assert near.sizes[0] > 64 * 1024 and near.sizes[1] <= 16 * 1024
    assert await far.received(len(BIG) + 1000) == BIG + b"x" * 1000
    assert near.events == ["made", "pause", "resume"] and near.transport.get_write_buffer_size() == 0
    near.transport.close()
    await far.until("lost")
    server.close()


async def test_limits_set_while_data_waits_take_effect(world):
    near, far, server = await connected(world)
    far.transport.pause_reading()
    near.transport.set_write_buffer_limits(high=len(BIG) * 8)  # the low mark too is above what is written
    near.transport.write(BIG)
    await settle()
    assert near.events == ["made"]
    near.transport.set_write_buffer_limits(high=1000, low=0)
    assert near.events == ["made", "pause"]
    far.transport.resume_reading()
    await near.until("resume")
    assert near.transport.get_write_buffer_size() == 0
    near.transport.close()
    await far.until("lost")
    server.close()


async def test_limits_of_zero_resume_when_all_is_sent(world):
    near, far, server = await connected(world)
    near.transport.set_write_buffer_limits(0)
    far.transport.pause_reading()
    near.transport.write(BIG)
    assert near.events == ["made", "pause"]
    far.transport.resume_reading()
    await near.until("resume")
    near.transport.close()
    await far.until("lost")
    assert bytes(far.data) == BIG
    server.close()


async def test_a_large_write_leaves_at_once_and_a_small_one_with_the_turn(ours):
    """As from a socket, so that nobody waits who need not; what is small waits for more of its kind."""
    near, far, server = await connected(ours)
    await settle()
    counters = ours.client.stack.counters
    sent = counters.TcpOutSegs
    near.transport.write(bytes(100))
    assert counters.TcpOutSegs == sent and near.transport.get_write_buffer_size() == 100
    near.transport.write(bytes(SEND_AT_ONCE))
    assert counters.TcpOutSegs > sent and near.transport.get_write_buffer_size() < SEND_AT_ONCE
    assert await far.received(SEND_AT_ONCE + 100) == bytes(SEND_AT_ONCE + 100)
    near.transport.close()
    await far.until("lost")
    server.close()


async def test_writes_that_the_window_takes_wait_for_nothing(ours):
    _, writer, server = await _stream(ours)
    await _widen(writer)
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    writer.write(bytes(2 * SEND_AT_ONCE))
    await writer.drain()
    assert not turns
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_a_write_that_leaves_at_once_tells_nobody_from_inside(ours):
    """Another connection gets room in the flush of a large write; its protocol is told by the loop."""
    near, _, server = await connected(ours)
    other = Recorder()
    await ours.create_connection(lambda: other, ours.host, server.sockets[0].getsockname()[1])
    await settle()
    other.transport.set_write_buffer_limits(high=0)
    other.transport.write(b"held")  # until the flush
    assert other.events == ["made", "pause"]
    near.transport.write(bytes(SEND_AT_ONCE))
    assert other.transport.get_write_buffer_size() == 0
    assert other.events == ["made", "pause"]
    await other.until("resume")
    for protocol in (near, other):
        protocol.transport.abort()
    await settle()
    server.close()


async def test_a_large_write_of_who_is_paused_has_it_resumed(ours):
    near, far, server = await connected(ours)
    await _widen(near.transport)
    near.transport.set_write_buffer_limits(high=0)
    near.transport.write(b"held")  # until the flush
    assert near.events[-1] == "pause"
    near.transport.write(bytes(SEND_AT_ONCE))
    assert near.events[-1] == "pause"
    await near.until(lambda: near.events[-1] == "resume")
    near.transport.close()
    server.close()
    await far.until("lost")


async def _widen(writer):
    """Send until the windows take some hundred thousand octets at once."""
    for _ in range(16):
        writer.write(bytes(SEND_AT_ONCE))
        await settle()


async def _stream(world):
    """Return a connection's reader and writer, and the server, which reads and forgets."""

    async def sink(reader, writer):
        while await reader.read(SEND_AT_ONCE):
            pass
        writer.close()

    server = await world.start_server(sink)
    reader, writer = await world.open_connection(world.host, server.sockets[0].getsockname()[1])
    return reader, writer, server
