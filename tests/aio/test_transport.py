"""Transports: order and context of callbacks, names, writing; against asyncio's own."""

from __future__ import annotations

import asyncio
import contextvars
import socket

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import BIG, settle

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
