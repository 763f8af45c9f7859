"""TLS over our transports: asyncio's own, put between."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from aio.recorder import Recorder
from aio.worlds import settle

IDENTITY = Path(__file__).with_name(
    "tls_test_identity.pem"
)  # self-signed, for tunstack.test, 10.77.0.2 and 127.0.0.1; made for these tests
BIG = bytes(range(256)) * 8 * 1024


@pytest.fixture
def contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(IDENTITY)
    return ssl.create_default_context(cafile=IDENTITY), server


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_echo_over_tls(world, contexts):
    client, server_context = contexts
    server = await world.start_server(echo, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await world.open_connection(world.host, port, ssl=client)
    assert writer.get_extra_info("peername") == (world.host, port)
    assert writer.get_extra_info("cipher") and writer.get_extra_info("ssl_object").version().startswith("TLSv1")
    writer.write(BIG)
    assert await reader.readexactly(len(BIG)) == BIG
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_server_name_is_checked(world, contexts):
    client, server_context = contexts
    server = await world.start_server(echo, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    _, writer = await world.open_connection(world.host, port, ssl=client, server_hostname="tunstack.test")
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ssl.SSLCertVerificationError):
        await world.open_connection(world.host, port, ssl=client, server_hostname="other.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        await world.open_connection(world.host, port, ssl=True)
    await settle()
    server.close()


async def test_handshake_with_a_mute_peer_times_out(virtual, contexts):
    mute = Recorder()
    server = await virtual.create_server(lambda: mute)
    port = server.sockets[0].getsockname()[1]
    start = asyncio.get_running_loop().time()
    with pytest.raises(ConnectionAbortedError):
        await virtual.create_connection(Recorder, virtual.host, port, ssl=contexts[0], ssl_handshake_timeout=3)
    assert asyncio.get_running_loop().time() - start == pytest.approx(3, abs=0.01)
    await mute.until(lambda: mute.events[-1].startswith("lost"))
    assert not virtual.client.stack.flows
    server.close()


async def test_cancelled_handshake_leaves_nothing(ours, contexts):
    mute = Recorder()
    server = await ours.create_server(lambda: mute)
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(ours.create_connection(Recorder, ours.host, port, ssl=contexts[0]))
    await mute.received(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await mute.until("lost ConnectionResetError")
    assert not ours.client.stack.flows
    server.close()


async def test_plain_connection_is_upgraded(ours, contexts):
    """STARTTLS; uvloop's own start_tls takes uvloop's transports only."""

    async def upgrade(reader, writer):
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go ahead\r\n")
        await writer.drain()
        await writer.start_tls(contexts[1])
        await echo(reader, writer)

    if ours.kind == "uvloop":
        reader, writer = await plain(ours)
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await writer.start_tls(contexts[0])
        writer.close()
        return
    server = await ours.start_server(upgrade)
    reader, writer = await ours.open_connection(ours.host, server.sockets[0].getsockname()[1])
    writer.write(b"STARTTLS\r\n")
    assert await reader.readline() == b"220 go ahead\r\n"
    await writer.start_tls(contexts[0], server_hostname="tunstack.test")
    writer.write(b"secret\n")
    assert await reader.readline() == b"secret\n"
    assert writer.get_extra_info("cipher")
    writer.close()
    await writer.wait_closed()
    server.close()


async def plain(ours):
    server = await ours.start_server(echo)
    result = await ours.open_connection(ours.host, server.sockets[0].getsockname()[1])
    server.close()
    return result
