"""Transports: order of callbacks, reading, closing, errors; against asyncio's own."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import socket
import struct

import pytest
from aio.recorder import BufferedRecorder, Recorder, connected
from aio.worlds import settle

BIG = bytes(range(256)) * 64 * 1024  # 16 MiB: more than the buffers of a kernel hold
VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="none")


async def test_callbacks_come_in_order_and_lost_is_the_last(world):
    near, far, server = await connected(world)
    near.transport.write(b"one")
    assert await far.received(3) == b"one"
    far.transport.write(b"two")
    assert await near.received(3) == b"two"
    near.transport.close()
    assert near.transport.is_closing()
    assert near.events == ["made", "data"]  # connection_lost never comes from inside close()
    await near.until("lost")
    await far.until("lost")
    await settle()
    assert near.events == ["made", "data", "lost"]
    assert far.events == ["made", "data", "eof", "lost"]
    server.close()


async def test_create_connection_returns_behind_connection_made(world):
    far = Recorder()
    server = await world.create_server(lambda: far)
    transport, protocol = await world.create_connection(Recorder, world.host, server.sockets[0].getsockname()[1])
    assert protocol.events == ["made"]
    assert transport is protocol.transport and transport.get_protocol() is protocol
    assert transport.is_reading() and not transport.is_closing() and transport.can_write_eof()
    transport.close()
    assert not transport.is_reading()
    await far.until("lost")
    server.close()


async def test_data_sent_before_the_client_is_ready_is_kept(world):
    class Greeter(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"220 hello\r\n")

    near, _, server = await connected(world, Greeter())
    assert await near.received(11) == b"220 hello\r\n"
    assert near.events == ["made", "data"]
    near.transport.close()
    server.close()


async def test_names_and_socket_of_both_ends_agree(world):
    near, far, server = await connected(world)
    names = near.transport.get_extra_info
    assert names("peername") == server.sockets[0].getsockname() == far.transport.get_extra_info("sockname")
    assert names("sockname") == far.transport.get_extra_info("peername")
    sock = names("socket")
    assert (sock.getpeername(), sock.getsockname()) == (names("peername"), names("sockname"))
    assert (sock.family, sock.type, sock.proto) == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    assert names("nonsense") is None and names("nonsense", 7) == 7
    near.transport.close()
    await near.until("lost")
    assert names("peername") == server.sockets[0].getsockname()  # still told when it is over
    server.close()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_write_takes_what_is_like_bytes_and_keeps_no_hold_on_it(world, kind):
    near, far, server = await connected(world)
    source = bytearray(b"abcdef")
    near.transport.write(source if kind is bytearray else kind(source))
    source[:] = b"XXXXXX"
    near.transport.write(memoryview(b"0123456789")[2:4])
    assert await far.received(8) == b"abcdef23"
    near.transport.close()
    server.close()


async def test_write_refuses_what_is_not_bytes(world):
    near, _, server = await connected(world)
    with pytest.raises(TypeError, match="data argument must be a bytes-like object, not 'str'"):
        near.transport.write("text")
    near.transport.write(b"")
    near.transport.close()
    server.close()


async def test_writelines_sends_all_pieces_in_order(world):
    near, far, server = await connected(world)
    pieces = [b"a" * 3000, bytearray(b"b" * 10), memoryview(b"c" * 70000), b"", b"d"]
    near.transport.writelines(pieces)
    assert await far.received(73011) == b"".join(pieces)
    near.transport.writelines([])
    near.transport.close()
    server.close()


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


@pytest.mark.parametrize("name", ["data_received", "eof_received"])
async def test_exception_in_a_callback_is_reported_and_ends_the_connection(world, name):
    class Faulty(Recorder):
        pass

    def fail(self, *args):
        raise ZeroDivisionError("on purpose")

    setattr(Faulty, name, fail)
    world.expects_errors = True
    near, far, server = await connected(world, Faulty())
    near.transport.write(b"x")
    near.transport.write_eof()
    await far.until("lost ZeroDivisionError")
    (context,) = world.errors
    assert context["message"] == f"Fatal error: protocol.{name}() call failed."
    assert context["exception"] is far.error and context["transport"] is far.transport and context["protocol"] is far
    await near.until(lambda: near.events[-1].startswith("lost"))
    server.close()


async def test_exception_in_connection_made_is_reported_and_ends_the_connection(ours):
    class Faulty(Recorder):
        def connection_made(self, transport):
            raise ZeroDivisionError("on purpose")

    ours.expects_errors = True
    far = Faulty()
    server = await ours.create_server(lambda: far)
    _, near = await ours.create_connection(Recorder, ours.host, server.sockets[0].getsockname()[1])
    await near.until("lost ConnectionResetError")
    assert far.events == ["lost ZeroDivisionError"]
    assert ours.errors[0]["message"] == "Fatal error: protocol.connection_made() call failed."
    server.close()


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
async def test_exception_in_flow_control_is_reported_and_survived(world, name):
    class Faulty(Recorder):
        pass

    def fail(self):
        raise ZeroDivisionError("on purpose")

    setattr(Faulty, name, fail)
    world.expects_errors = True
    near, far, server = await connected(world, client_protocol=Faulty())
    near.transport.write(BIG)
    assert await far.received(len(BIG)) == BIG
    near.transport.close()
    await near.until("lost")
    assert [context["message"] for context in world.errors] == [f"protocol.{name}() failed"]
    server.close()


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


async def test_callbacks_run_in_the_context_of_their_maker(world):
    class Spy(Recorder):
        def data_received(self, data):
            self.seen = VAR.get()
            super().data_received(data)

        def connection_lost(self, exc):
            self.seen += f" {VAR.get()}"
            super().connection_lost(exc)

    VAR.set("server")
    far = Spy()
    server = await world.create_server(lambda: far)
    VAR.set("client")
    near = Spy()
    await world.create_connection(lambda: near, world.host, server.sockets[0].getsockname()[1])
    VAR.set("other")
    near.transport.write(b"x")
    await far.received(1)
    far.transport.write(b"y")
    await near.received(1)
    far.transport.close()
    await near.until("lost")
    await far.until("lost")
    assert near.seen.startswith("client") and far.seen.startswith("server")
    server.close()


async def test_write_inside_data_received_is_harmless(world):
    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)

        def eof_received(self):
            self.transport.write_eof()
            return True

    near, far, server = await connected(world, Echo(), Recorder(keep_open=True))
    near.transport.write(BIG)
    near.transport.write_eof()
    await near.until("eof")
    assert bytes(near.data) == BIG
    near.transport.close()
    far.transport.close()
    await far.until("lost")
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


async def test_extra_info_of_our_own(ours):
    near, _, server = await connected(ours)
    assert near.transport.get_extra_info("connection") in list(ours.client.stack.connections)
    assert near.transport.get_extra_info("tcp_info").state == "ESTABLISHED"
    assert "10.77.0.2" in repr(near.transport) and "ESTABLISHED" in repr(near.transport)
    near.transport.close()
    assert "closing" in repr(near.transport)
    await near.until("lost")
    assert "closed" in repr(near.transport)
    server.close()


async def test_sendfile_falls_back_to_reading_and_writing(world, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BIG[:300_000])
    near, far, server = await connected(world)
    loop = asyncio.get_running_loop()
    with path.open("rb") as file:
        if world.kind == "uvloop":
            with pytest.raises(NotImplementedError):  # uvloop has none; aiohttp then writes by itself
                await loop.sendfile(near.transport, file)
            near.transport.write(path.read_bytes())
        else:
            assert await loop.sendfile(near.transport, file) == 300_000
    assert await far.received(300_000) == BIG[:300_000]
    near.transport.write(b"still in order")
    await far.received(300_014)
    near.transport.close()
    await far.until("lost")
    server.close()


async def test_protocol_that_is_empty_is_a_protocol(world):
    """aiohttp's client protocol has a length, often 0."""

    class Queue(Recorder):
        def __len__(self):
            return 0

    near, far, server = await connected(world, Queue(), Queue())
    near.transport.write(b"x")
    near.transport.write_eof()
    await far.until("lost")
    assert far.events == ["made", "data", "eof", "lost"]
    await near.until("lost")
    server.close()
