"""Endpoints: their life, what they leave behind, and many connections."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import assert_nothing_left, settle

import tunstack
from tunstack.aio import Endpoint, memory_pair
from tunstack.device.memory import memory_pipe

BIG = bytes(4 << 20)


async def test_endpoint_must_be_started_and_can_be_so_once(ours):
    device, _ = memory_pipe()
    endpoint = Endpoint(device, "10.0.0.1")
    assert "not started" in repr(endpoint)
    with pytest.raises(RuntimeError, match="is not started: use `async with`"):
        await endpoint.create_server(Recorder)
    with pytest.raises(RuntimeError, match="is not started"):
        await endpoint.create_connection(Recorder, "10.0.0.2", 80)
    await endpoint.start()
    assert "running" in repr(endpoint) and endpoint.addresses == ("10.0.0.1",)
    with pytest.raises(RuntimeError, match="was started before"):
        await endpoint.start()
    endpoint.close()
    endpoint.close()
    assert "closed" in repr(endpoint)
    with pytest.raises(RuntimeError, match="is closed"):
        await endpoint.create_server(Recorder)
    await endpoint.wait_closed()
    assert_nothing_left(endpoint)


async def test_endpoint_that_never_started_closes(ours):
    device, _ = memory_pipe()
    endpoint = Endpoint(device, [b"\x0a\0\0\1"])
    endpoint.close()
    await endpoint.wait_closed()
    await endpoint.shutdown()
    with pytest.raises(ValueError, match="at least one address"):
        Endpoint(device, [])
    with pytest.raises(ValueError, match="not an IPv4 address: 'x'"):
        Endpoint(device, "x")


async def test_close_resets_every_connection(ours):
    near, far, server = await connected(ours)
    ours.client.close()
    await near.until("lost")
    await far.until("lost ConnectionResetError")
    await ours.client.wait_closed()
    assert_nothing_left(ours.client)
    server.close()


async def test_close_from_inside_a_callback_is_harmless(ours):
    class Bomb(Recorder):
        def data_received(self, data):
            super().data_received(data)
            ours.server.close()

    near, far, _ = await connected(ours, Bomb())
    near.transport.write(BIG)
    await near.until(lambda: near.events[-1] == "lost ConnectionResetError")
    await far.until("lost")
    await ours.server.wait_closed()
    assert_nothing_left(ours.server)


async def test_shutdown_delivers_what_was_written(ours):
    near, far, _ = await connected(ours)
    near.transport.write(BIG)
    await ours.client.shutdown(1000)
    assert near.events[-1] == "lost"
    await far.until("lost")
    assert bytes(far.data) == BIG
    assert_nothing_left(ours.client)


async def test_shutdown_gives_up_after_its_timeout(virtual):
    near, far, _ = await connected(virtual)
    far.transport.pause_reading()
    near.transport.write(BIG)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await virtual.client.shutdown(7)
    assert loop.time() - start == pytest.approx(7, abs=0.01)
    assert near.events[-1] == "lost"
    far.transport.resume_reading()
    await far.until("lost ConnectionResetError")


async def test_leaving_the_context_with_an_exception_resets_at_once(ours):
    far = Recorder()
    with pytest.raises(ZeroDivisionError):
        async with memory_pair() as (a, b):
            server = await b.create_server(lambda: far)
            transport, _ = await a.create_connection(Recorder, "10.77.0.2", server.sockets[0].getsockname()[1])
            transport.write(BIG)
            raise ZeroDivisionError("on purpose")
    for endpoint in (a, b):
        assert_nothing_left(endpoint)


async def test_wait_closed_can_be_cancelled_and_asked_again(ours):
    waiting = asyncio.create_task(ours.client.wait_closed())
    await settle()
    assert not waiting.done()
    waiting.cancel()
    await settle()
    ours.client.close()
    await ours.client.wait_closed()


def test_pairs_with_a_seed_repeat():
    from tunstack.sim.loop import run

    async def main():
        async with memory_pair(seed=7) as (a, b):
            server = await b.create_server(Recorder)
            transport, _ = await a.create_connection(Recorder, "10.77.0.2", server.sockets[0].getsockname()[1])
            conn = transport.get_extra_info("connection")
            transport.close()
            return conn.local, conn.remote, conn.tx.iss

    assert run(main()) == run(main())


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("mtu", [576, 1500, 9000])
async def test_pairs_of_any_mtu_carry_data(ours, mtu, offload):
    far = Recorder()
    async with memory_pair(mtu=mtu, offload=offload) as (a, b):
        server = await b.create_server(lambda: far)
        transport, near = await a.create_connection(Recorder, "10.77.0.2", server.sockets[0].getsockname()[1])
        assert transport.get_extra_info("connection").mss == mtu - 52
        transport.write(BIG)
        transport.close()
        await far.until("lost")
        assert bytes(far.data) == BIG
        await near.until("lost")


async def one_connection(world, port):
    reader, writer = await world.open_connection(world.host, port)
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    writer.close()
    await writer.wait_closed()


async def echo_once(reader, writer):
    writer.write(await reader.readexactly(4))
    writer.close()


def sizes(world):
    gc.collect()
    loop = asyncio.get_running_loop()
    tables = [
        (len(end.stack.flows), len(end._transports), len(end._servers), len(end.stack.timers), len(end.stack._dirty))
        for end in (world.client, world.server)
    ]
    return tables, len(asyncio.all_tasks()), len(loop._scheduled), len(gc.get_objects())


async def test_ten_thousand_connections_leave_nothing(virtual):
    server = await virtual.start_server(echo_once)
    port = server.sockets[0].getsockname()[1]

    async def rounds(count):
        for _ in range(count // 50):
            await asyncio.gather(*(one_connection(virtual, port) for _ in range(50)))
            await asyncio.sleep(0.1)
        await asyncio.sleep(130)  # TIME-WAIT, and every timer

    await rounds(1000)
    tables, tasks, timers, objects = sizes(virtual)
    await rounds(9000)
    tables_after, tasks_after, timers_after, objects_after = sizes(virtual)
    assert tables[0][:3] == (0, 0, 0) and tables[1][:3] == (0, 0, 1)
    assert tables_after == tables and (tasks_after, timers_after) == (tasks, timers)
    assert objects_after - objects < 200, (objects, objects_after)
    assert virtual.client.stack.counters.TcpActiveOpens == 10_000 == virtual.server.stack.counters.TcpPassiveOpens
    assert virtual.client.stack.counters.TcpRetransSegs == 0
    server.close()


async def test_ended_connections_are_freed_without_the_collector(ours):
    """Transport, connection and protocol hold no cycle once it is over."""
    import weakref

    near, far, server = await connected(ours)
    refs = [weakref.ref(item) for item in (near, far, near.transport, far.transport, near.transport.get_extra_info("connection"))]
    near.transport.write(b"x")
    near.transport.close()
    await far.until("lost")
    await near.until("lost")
    server.close()
    del server
    await settle()
    gc.disable()
    try:
        near.transport = far.transport = None
        near = far = None
        await settle()
        assert [ref() for ref in refs[2:4]] == [None, None]
    finally:
        gc.enable()


def test_public_names_are_there_and_come_without_asyncio():
    for name in tunstack.__all__:
        assert getattr(tunstack, name) is not None and name in dir(tunstack)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tunstack.nonsense  # noqa: B018
    code = "import sys, tunstack, tunstack.engine; assert 'asyncio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_run_uses_uvloop():
    async def main():
        return type(asyncio.get_running_loop()).__module__

    assert tunstack.run(main()).startswith("uvloop")


def test_run_does_without_uvloop(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def main():
        return type(asyncio.get_running_loop()).__module__

    assert tunstack.run(main()).startswith("asyncio")


async def test_octets_are_asked_of_the_device(ours):
    """M-61: IpExtInOctets and IpExtOutOctets, when somebody looks."""
    near, far, server = await connected(ours)
    near.transport.write(bytes(5000))
    await far.received(5000)
    await settle()
    client, host = ours.client.stack.read_counters(), ours.server.stack.read_counters()
    assert client["IpExtOutOctets"] == host["IpExtInOctets"] > 5000 + 5 * 52
    assert host["IpExtOutOctets"] == client["IpExtInOctets"] > 52
    near.transport.close()
    await far.until("lost")
    server.close()
