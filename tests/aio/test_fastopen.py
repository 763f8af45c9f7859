"""Fast Open through the asyncio layer: data that rides on the SYN. M-17."""

from __future__ import annotations

import asyncio
import errno
import ssl

import pytest
from aio.recorder import Recorder
from aio.worlds import settle

from tunstack.engine import SocketOptions

QUEUE = SocketOptions(nodelay=True, fastopen=8)
CONNECT = SocketOptions(nodelay=True, fastopen_connect=True)


async def serve(ours, **kwds):
    """Have the server take Fast Open; return it, its port, and the protocols of its connections. The client knows its cookie."""
    ours.server.stack.sysctl.tcp_fastopen = 2
    far: list[Recorder] = []

    def factory():
        far.append(Recorder())
        return far[-1]

    server = await ours.create_server(factory, options=QUEUE, **kwds)
    port = server.sockets[0].getsockname()[1]
    near = Recorder()
    transport, _ = await ours.create_connection(lambda: near, ours.host, port, options=CONNECT)
    transport.abort()
    await settle()
    far.clear()
    return server, port, far


def counted(ours, name):
    return getattr(ours.client.stack.counters, name), getattr(ours.server.stack.counters, name)


async def test_the_first_write_rides_on_the_syn(ours):
    """M-17: create_connection returns before anything is sent; the server's answer needs one round trip."""
    server, port, far = await serve(ours)
    near = Recorder()
    before = ours.client.stack.counters.TcpOutSegs
    transport, _ = await ours.create_connection(lambda: near, ours.host, port, options=CONNECT)
    await settle()
    assert ours.client.stack.counters.TcpOutSegs == before and not far
    transport.write(b"question")
    await settle()
    assert far[0].data == b"question"
    far[0].transport.write(b"answer")
    await near.until("data")
    assert near.data == b"answer" and transport.get_extra_info("tcp_info").syn_data
    assert counted(ours, "TCPFastOpenActive")[0] == counted(ours, "TCPFastOpenPassive")[1] == 1
    transport.close()
    await far[0].until("lost")
    server.close()


async def test_data_given_to_create_connection_is_sent_first_with_a_cookie_and_without(ours):
    """M-17: without, it follows the handshake."""
    server, port, far = await serve(ours)
    for number in range(2):
        if number:
            ours.client.stack.fastopen_cookies.forget()
        transport, _ = await ours.create_connection(Recorder, ours.host, port, fastopen=b"first ")
        transport.write(b"second")
        await far[number].until(lambda record=far[number]: record.data == b"first second")
        transport.close()
    assert counted(ours, "TCPFastOpenActive")[0] == 1
    await far[1].until("lost")
    server.close()


async def test_streams_take_the_data_too(ours):
    """M-17: open_connection hands `fastopen` on."""
    server, port, far = await serve(ours)
    reader, writer = await ours.open_connection(ours.host, port, fastopen=b"x" * 5000)
    writer.write_eof()
    await far[0].until("lost")
    assert far[0].data == b"x" * 5000 and await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_closed_at_once_all_that_was_written_arrives(ours):
    """M-17: asyncio's close() sends what was written, also while the SYN is on its way (Linux's would drop it)."""
    server, port, far = await serve(ours)
    near = Recorder()
    transport, _ = await ours.create_connection(lambda: near, ours.host, port, options=CONNECT)
    transport.write(bytes(100_000))
    transport.close()
    await near.until("lost")
    await far[0].until("lost")
    assert len(far[0].data) == 100_000
    server.close()


async def test_closed_without_a_write_it_was_never_there(ours):
    """M-17: and the end of writing alone opens it."""
    server, port, far = await serve(ours)
    near = Recorder()
    transport, _ = await ours.create_connection(lambda: near, ours.host, port, options=CONNECT)
    transport.close()
    await near.until("lost")
    assert not far and not ours.client.stack.flows
    transport, _ = await ours.create_connection(Recorder, ours.host, port, options=CONNECT)
    transport.write_eof()
    while not far:
        await asyncio.sleep(0)
    await far[0].until("lost")
    server.close()


async def test_refusal_of_a_fast_open_is_told_to_the_protocol(ours):
    """M-17: create_connection has long returned."""
    server, port, _ = await serve(ours)
    server.close()
    near = Recorder()
    transport, _ = await ours.create_connection(lambda: near, ours.host, port, options=CONNECT)
    transport.write(b"question")
    await near.until("lost ConnectionRefusedError")
    assert near.error.errno == errno.ECONNREFUSED


async def test_initial_data_does_not_go_with_tls(ours):
    """M-17: TLS speaks first."""
    with pytest.raises(ValueError, match="fastopen_connect"):
        await ours.create_connection(Recorder, ours.host, 443, ssl=ssl.create_default_context(), fastopen=b"x")
