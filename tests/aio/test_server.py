"""Servers: listening, closing, and what is refused."""

from __future__ import annotations

import asyncio
import errno

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import settle


def port_of(server) -> int:
    return server.sockets[0].getsockname()[1]


async def test_closed_server_refuses_and_its_connections_live_on(world):
    near, far, server = await connected(world)
    port = port_of(server)
    assert server.is_serving() and server.get_loop() is asyncio.get_running_loop()
    server.close()
    server.close()
    assert not server.is_serving() and server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await world.create_connection(Recorder, world.host, port)
    near.transport.write(b"alive")
    assert await far.received(5) == b"alive"
    near.transport.close()
    await far.until("lost")


async def test_server_listens_again_on_the_port_at_once(world):
    near, far, server = await connected(world)
    port = port_of(server)
    far.transport.close()  # TIME-WAIT at the server's end
    await near.until("lost")
    server.close()
    again = await world.create_server(Recorder, port)
    assert port_of(again) == port
    again.close()


async def test_port_in_use_is_told_with_the_address(world):
    server = await world.create_server(Recorder)
    port = port_of(server)
    with pytest.raises(OSError) as caught:
        await world.create_server(Recorder, port)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(caught.value) == f"[Errno 98] error while attempting to bind on address ('{world.host}', {port}): address already in use"
    server.close()


async def test_foreign_address_cannot_be_listened_on(ours):
    with pytest.raises(OSError) as caught:
        await ours.server.create_server(Recorder, "10.99.0.1", 80)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert str(caught.value).endswith("bind on address ('10.99.0.1', 80): cannot assign requested address")


async def test_failure_on_one_of_several_addresses_leaves_none_listening(ours):
    with pytest.raises(OSError):
        await ours.server.create_server(Recorder, ["10.77.0.2", "10.99.0.1"], 80)
    assert not list(ours.server.stack.listeners)


@pytest.mark.parametrize("host", [None, "", "0.0.0.0", ["10.77.0.2"], [None, ""]])
async def test_hosts_that_mean_the_stack(ours, host):
    server = await ours.server.create_server(Recorder, host, 80)
    assert len(server.sockets) == 1
    transport, _ = await ours.create_connection(Recorder, ours.host, 80)
    transport.close()
    server.close()


async def test_bad_arguments_are_refused_at_once(ours):
    with pytest.raises(OverflowError):
        await ours.server.create_server(Recorder, None, 65536)
    with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
        await ours.server.create_server(Recorder, None, 80, ssl=True)
    with pytest.raises(ValueError, match="ssl_handshake_timeout is only meaningful with ssl"):
        await ours.server.create_server(Recorder, None, 80, ssl_handshake_timeout=1)
    with pytest.raises(OSError):
        await ours.server.create_server(Recorder, "::1", 80)
    assert not list(ours.server.stack.listeners)


async def test_reuse_port_shares_a_port(ours):
    first = await ours.create_server(Recorder, 80, reuse_port=True)
    second = await ours.create_server(Recorder, 80, reuse_port=True)
    with pytest.raises(OSError):
        await ours.create_server(Recorder, 80)
    first.close()
    transport, _ = await ours.create_connection(Recorder, ours.host, 80)
    transport.close()
    second.close()


async def test_server_that_does_not_start_refuses_until_it_does(world):
    server = await world.create_server(Recorder, start_serving=False)
    port = port_of(server)
    assert port and not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await world.create_connection(Recorder, world.host, port)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving() and port_of(server) == port
    transport, _ = await world.create_connection(Recorder, world.host, port)
    transport.close()
    server.close()


async def test_serve_forever_serves_until_cancelled(world):
    far = Recorder()
    server = await world.create_server(lambda: far, start_serving=False)
    task = asyncio.create_task(server.serve_forever())
    await settle()
    assert server.is_serving()
    with pytest.raises(RuntimeError, match="is already being awaited on serve_forever"):
        await server.serve_forever()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_close_ends_serve_forever(world):
    server = await world.create_server(Recorder)
    task = asyncio.create_task(server.serve_forever())
    await settle()
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_serve_forever_closes_the_connections_too(ours):
    near, far, server = await connected(ours)
    task = asyncio.create_task(server.serve_forever())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert far.events == ["made", "lost"]
    await near.until("eof")


async def test_wait_closed_waits_for_the_last_connection(ours):
    made = []
    server = await ours.create_server(lambda: made.append(Recorder()) or made[-1])
    _, near = await ours.create_connection(Recorder, ours.host, port_of(server))
    other, _ = await ours.create_connection(Recorder, ours.host, port_of(server))
    waiting = asyncio.create_task(server.wait_closed())
    await settle()
    assert not waiting.done()
    server.close()
    other.close()
    await settle()
    assert not waiting.done()
    near.transport.close()
    await waiting
    assert [far.events for far in made] == [["made", "eof", "lost"]] * 2
    await server.wait_closed()


async def test_async_with_closes_and_waits(ours):
    near, far, server = await connected(ours)
    async with server:
        near.transport.close()
    assert far.events[-1] == "lost" and not server.is_serving()


async def test_wait_closed_can_be_cancelled(ours):
    near, _, server = await connected(ours)
    waiting = asyncio.create_task(server.wait_closed())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    near.transport.close()
    server.close()
    await server.wait_closed()


async def test_clients_can_be_closed_and_aborted(ours):
    near, far, server = await connected(ours)
    server.close_clients()
    await near.until("eof")
    await far.until("lost")
    other = Recorder()
    await ours.create_connection(lambda: other, ours.host, port_of(server))
    await settle()
    server.abort_clients()
    await other.until("lost ConnectionResetError")
    server.close()
    await server.wait_closed()


async def test_factory_that_fails_is_reported_and_resets(ours):
    ours.expects_errors = True

    def factory():
        raise ZeroDivisionError("on purpose")

    server = await ours.create_server(factory)
    _, near = await ours.create_connection(Recorder, ours.host, port_of(server))
    await near.until("lost ConnectionResetError")
    assert isinstance(ours.errors[0]["exception"], ZeroDivisionError)
    server.close()
    await server.wait_closed()


async def test_options_are_those_of_every_connection(ours):
    from tunstack import SocketOptions

    near, far, server = await connected(ours, options=SocketOptions(keepidle=77, tos=0x10), keep_alive=True)
    options = far.transport.get_extra_info("connection").options
    assert (options.keepidle, options.tos, options.keepalive, options.nodelay) == (77, 0x10, True, False)
    assert near.transport.get_extra_info("connection").options.nodelay  # asyncio's default
    near.transport.close()
    server.close()


async def test_repr_names_the_address(ours):
    server = await ours.create_server(Recorder, 80)
    assert "10.77.0.2" in repr(server)
    server.close()
