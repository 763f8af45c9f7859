"""How transports end: half-close, close, abort, reset, and calls after the end; against asyncio's own."""

from __future__ import annotations

import errno
import logging
import socket
import struct

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import BIG, settle


async def test_half_close_lets_the_other_way_flow(world):
    near, far, server = await connected(world, Recorder(keep_open=True))
    near.transport.write(b"question")
    near.transport.write_eof()
    near.transport.write_eof()
    with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
        near.transport.write(b"more")
    await far.until("eof")
    assert bytes(far.data) == b"question" and not far.transport.is_closing()
    far.transport.write(BIG)
    assert await near.received(len(BIG)) == BIG
    await settle()
    assert far.events[-1] in ("eof", "resume")
    far.transport.close()
    await near.until("lost")
    assert near.events == ["made", "data", "eof", "lost"]
    await far.until("lost")
    server.close()


async def test_both_half_closed_stays_open_until_close(world):
    near, far, server = await connected(world, Recorder(keep_open=True), Recorder(keep_open=True))
    near.transport.write_eof()
    far.transport.write_eof()
    await near.until("eof")
    await far.until("eof")
    await settle()
    assert near.events == far.events == ["made", "eof"]
    near.transport.close()
    far.transport.close()
    await near.until("lost")
    await far.until("lost")
    server.close()


async def test_eof_closes_a_protocol_that_says_no(world):
    near, far, server = await connected(world)
    near.transport.write_eof()
    await far.until("lost")
    assert far.events == ["made", "eof", "lost"]
    await near.until("lost")
    assert near.events == ["made", "eof", "lost"]
    server.close()


async def test_close_sends_all_that_was_written_before_lost(world):
    near, far, server = await connected(world)
    far.transport.pause_reading()
    near.transport.write(BIG)
    near.transport.close()
    near.transport.close()
    await settle()
    assert near.events == ["made", "pause"] and near.transport.is_closing()
    far.transport.resume_reading()
    await near.until("lost")
    assert near.events == ["made", "pause", "resume", "lost"]
    await far.until("lost")
    assert far.events == ["made", "data", "eof", "lost"] and bytes(far.data) == BIG
    server.close()


async def test_small_write_then_close_arrives_whole(world):
    near, far, server = await connected(world)
    near.transport.write(b"last words")
    near.transport.close()
    await far.until("lost")
    assert far.events == ["made", "data", "eof", "lost"] and bytes(far.data) == b"last words"
    await near.until("lost")
    server.close()


async def test_nothing_is_delivered_after_close(world):
    near, far, server = await connected(world)
    far.transport.pause_reading()
    far.transport.write(BIG)  # so that closing takes a while
    far.transport.close()
    near.transport.write(b"too late")
    await near.until(lambda: len(near.data) > 0)
    await far.until(lambda: far.events[-1].startswith("lost"))
    await settle()
    assert not far.data and "data" not in far.events
    near.transport.abort()
    await near.until(lambda: near.events[-1].startswith("lost"))
    server.close()


async def test_data_for_a_closed_connection_is_answered_with_reset(world):
    near, far, server = await connected(world, client_protocol=Recorder(keep_open=True))
    far.transport.close()
    await near.until("eof")
    near.transport.write(b"into the void")
    await settle()
    near.transport.write(b"again")
    await near.until(lambda: near.events[-1].startswith("lost"))
    assert isinstance(near.error, (ConnectionResetError, BrokenPipeError))
    server.close()


async def test_unread_data_at_close_resets_the_peer(world):
    near, far, server = await connected(world)
    far.transport.pause_reading()
    near.transport.write(b"never read")
    await settle()
    far.transport.close()
    await far.until("lost")
    await near.until("lost ConnectionResetError")
    assert near.error.errno == errno.ECONNRESET
    server.close()


async def test_small_write_leaves_before_the_reset_over_unread_data(world):
    near, far, server = await connected(world)
    far.transport.pause_reading()
    near.transport.write(b"never read")
    await settle()
    far.transport.write(b"parting words")
    far.transport.close()
    await near.until("lost ConnectionResetError")
    assert bytes(near.data) == b"parting words"
    server.close()


async def test_data_that_comes_while_closing_does_not_cut_the_rest_short(ours):
    near, far, server = await connected(ours)
    data = BIG[:600_000]  # more than is sent at once, less than the pipe drops
    near.transport.write(data)
    near.transport.close()
    far.transport.write(b"too late")
    await far.until("lost ConnectionResetError")
    assert bytes(far.data) == data
    await near.until("lost")
    server.close()


async def test_linger_zero_resets_the_peer_behind_the_data(world):
    near, far, server = await connected(world)
    near.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near.transport.write(b"data")
    near.transport.close()
    await far.until("lost ConnectionResetError")
    assert bytes(far.data) == b"data"
    await near.until("lost")
    server.close()


async def test_abort_resets_the_peer(ours):
    near, far, server = await connected(ours)
    near.transport.write(BIG)
    near.transport.abort()
    assert near.events == ["made", "pause"] and near.transport.is_closing() and near.transport.get_write_buffer_size() == 0
    near.transport.abort()
    await near.until("lost")
    await far.until("lost ConnectionResetError")
    assert len(far.data) < len(BIG)
    server.close()


async def test_reset_wakes_a_reader_that_is_paused_and_a_writer_that_waits(ours):
    near, far, server = await connected(ours)
    far.transport.pause_reading()
    near.transport.write(b"x" * 1000)
    far.transport.write(BIG)  # its peer reads, but let it be gone in the middle
    assert "pause" in far.events
    near.transport.pause_reading()
    await settle()
    near.transport.abort()
    await far.until("lost ConnectionResetError")
    server.close()


async def test_writes_after_the_end_are_dropped_and_the_fifth_is_logged(world, caplog):
    near, far, server = await connected(world)
    near.transport.close()
    await near.until("lost")
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        for count in range(1, 7):
            near.transport.write(b"x")
            assert len(caplog.records) == max(0, count - 4)
    assert caplog.records[0].getMessage() == "socket.send() raised exception."
    await far.until("lost")
    assert not far.data
    server.close()


async def test_calls_after_the_end_do_no_harm(world):
    near, far, server = await connected(world)
    near.transport.close()
    await near.until("lost")
    near.transport.close()
    near.transport.abort()
    near.transport.pause_reading()
    near.transport.resume_reading()
    near.transport.write_eof()
    assert near.transport.is_closing() and near.transport.get_write_buffer_size() == 0
    await far.until("lost")
    await settle()
    assert near.events == ["made", "lost"]
    server.close()


async def test_closing_from_data_received_ends_delivery(world):
    class Once(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()
            self.calls += 1

        calls = 0

    near, far, server = await connected(world, Once())
    near.transport.write(BIG)
    await far.until("lost")
    await near.until(lambda: near.events[-1].startswith("lost"))
    assert far.calls == 1
    server.close()


def linger(recorder: Recorder, seconds: int) -> None:
    recorder.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


async def test_linger_with_time_waits_for_the_acknowledgement(ours):
    """M-57: a socket's close(2) would block so long, and the loop with it."""
    near, far, server = await connected(ours)
    linger(near, 1000)
    device = ours.client.device
    held: list[bytes] = []
    carry, device.carry = device.carry, held.append
    near.transport.write(b"the last words")
    near.transport.close()
    await settle()
    assert held and "lost" not in near.events and not near.transport.get_write_buffer_size()
    device.carry = carry
    for frame in held:
        carry(frame)
    await near.until("lost")
    await far.until("lost")
    assert bytes(far.data) == b"the last words" and near.error is None
    server.close()


async def test_linger_with_time_ends_when_it_is_up(virtual):
    """M-57: what was not acknowledged is sent on all the same."""
    near, far, server = await connected(virtual)
    linger(near, 30)
    device = virtual.client.device
    carry, device.carry = device.carry, lambda frame: None
    loop = near.transport._loop
    near.transport.write(b"the last words")
    began = loop.time()
    near.transport.close()
    await near.until("lost")
    assert 30 <= loop.time() - began < 30.1 and near.error is None
    device.carry = carry
    await far.until("lost")
    assert bytes(far.data) == b"the last words"
    server.close()


async def test_abort_ends_the_lingering(ours):
    """M-57."""
    near, far, server = await connected(ours)
    linger(near, 1000)
    device = ours.client.device
    carry, device.carry = device.carry, lambda frame: None
    near.transport.write(b"lost words")
    near.transport.close()
    await settle()
    assert "lost" not in near.events
    device.carry = carry
    near.transport.abort()
    await near.until("lost")
    await far.until("lost ConnectionResetError")
    assert not ours.client.stack.flows
    server.close()
