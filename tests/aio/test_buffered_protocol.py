"""Protocols that lend their own buffers, asyncio.BufferedProtocol; against asyncio's own transports."""

from __future__ import annotations

from array import array

import pytest
from aio.recorder import BufferedRecorder, Recorder, connected
from aio.worlds import BIG, settle


@pytest.mark.parametrize("size", [10, 4096, 1 << 20])
async def test_buffered_protocol_gets_everything_in_its_own_buffers(world, size):
    data = BIG[: size * 1000 if size < 100 else len(BIG)]
    near, far, server = await connected(world, BufferedRecorder(size))
    near.transport.write(data)
    near.transport.write_eof()
    await far.until("lost")
    assert bytes(far.data) == data and 0 < far.largest <= size and far.events == ["made", "eof", "lost"]
    server.close()


async def test_buffered_protocol_that_pauses_in_between_loses_nothing(world):
    class Sipper(BufferedRecorder):
        def buffer_updated(self, nbytes):
            self.transport.pause_reading()
            super().buffer_updated(nbytes)

    near, far, server = await connected(world, Sipper(1000))
    near.transport.write(BIG[:50_000])
    near.transport.write_eof()
    await far.until(lambda: len(far.data) > 0)
    while len(far.data) < 50_000:
        before = len(far.data)
        await settle()
        assert len(far.data) == before
        far.transport.resume_reading()
        await far.until(lambda: len(far.data) > before)  # noqa: B023
    assert bytes(far.data) == BIG[:50_000]
    assert "eof" not in far.events
    far.transport.resume_reading()
    await far.until("lost")
    server.close()


async def test_buffered_protocol_may_hand_over_in_between(world):
    successor = Recorder()

    class Header(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            if len(self.data) == 8:
                successor.transport = self.transport
                self.transport.set_protocol(successor)

    near, far, server = await connected(world, Header(4))
    near.transport.write(b"headhead" + BIG[:100_000])
    near.transport.write_eof()
    await successor.until("lost")
    assert bytes(far.data) == b"headhead" and bytes(successor.data) == BIG[:100_000]
    assert successor.events == ["data", "eof", "lost"] and far.events == ["made"]
    server.close()


@pytest.mark.parametrize("buffer", [bytearray(), b"readonly"])
async def test_useless_buffer_is_reported_and_ends_the_connection(world, buffer):
    far = BufferedRecorder(0)
    far.buffer = buffer
    world.expects_errors = True
    near, far, server = await connected(world, far)
    near.transport.write(b"x")
    await far.until(lambda: far.events[-1].startswith("lost "))
    if not buffer:
        assert isinstance(far.error, RuntimeError) and str(far.error) == "get_buffer() returned an empty buffer"
    near.transport.abort()
    await near.until(lambda: near.events[-1].startswith("lost"))
    server.close()


@pytest.mark.parametrize("make", [bytearray, lambda size: memoryview(bytearray(size)), lambda size: array("H", bytes(size))])
async def test_any_writable_buffer_will_do_and_is_let_go(world, make):
    class Lender(BufferedRecorder):
        def buffer_updated(self, nbytes):
            view = memoryview(self.buffer).cast("B")
            self.data += view[:nbytes]
            view.release()
            if isinstance(self.buffer, bytearray):
                self.buffer += b"more"  # BufferError, were it held still
            self.wake()

    far = Lender(0)
    far.buffer = make(2000)
    near, _, server = await connected(world, far)
    near.transport.write(BIG[:50_001])
    near.transport.write_eof()
    await far.until("lost")
    assert bytes(far.data) == BIG[:50_001]
    server.close()
