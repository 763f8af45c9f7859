"""Opening connections: refusal, timeouts, cancellation, names."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import settle

NOBODY = "10.77.0.99"  # an address of the subnet that does not answer


async def test_refusal_comes_at_once_and_names_the_address(world):
    server = await world.create_server(Recorder)
    port = server.sockets[0].getsockname()[1]
    server.close()
    with pytest.raises(ConnectionRefusedError) as caught:
        await world.create_connection(Recorder, world.host, port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.args == (errno.ECONNREFUSED, f"Connect call failed ('{world.host}', {port})")


async def test_cancelled_connect_leaves_nothing_and_makes_no_protocol(ours):
    made = []
    task = asyncio.create_task(ours.create_connection(lambda: made.append(1) or Recorder(), NOBODY, 80))
    await settle()
    assert len(ours.client.stack.flows) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ours.client.stack.flows and not made


async def test_cancelled_between_established_and_made_resets(ours):
    far = Recorder()
    server = await ours.create_server(lambda: far)
    near = Recorder()
    task = asyncio.create_task(ours.create_connection(lambda: near, ours.host, server.sockets[0].getsockname()[1]))
    while not ours.client._transports:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await far.until("lost ConnectionResetError")
    await settle()
    assert near.events == ["made", "lost"] and not ours.client.stack.flows
    server.close()


async def test_protocol_factory_that_fails_resets(ours):
    far = Recorder()
    server = await ours.create_server(lambda: far)

    def factory():
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        await ours.create_connection(factory, ours.host, server.sockets[0].getsockname()[1])
    await far.until("lost ConnectionResetError")
    assert not ours.client.stack.flows
    server.close()


async def test_timeout_of_the_application_works_and_leaves_nothing(virtual):
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await virtual.create_connection(Recorder, NOBODY, 80)
    assert loop.time() - start == pytest.approx(2.5)
    assert not virtual.client.stack.flows
    await asyncio.sleep(100)
    assert virtual.client.stack.counters.TcpActiveOpens == 1


async def test_nobody_answers_is_etimedout_after_127_seconds(virtual):
    """M-25."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(TimeoutError) as caught:
        await virtual.create_connection(Recorder, NOBODY, 80)
    assert caught.value.errno == errno.ETIMEDOUT
    assert loop.time() - start == pytest.approx(127, abs=0.1)
    assert not virtual.client.stack.flows


async def test_closing_the_endpoint_ends_a_connect(ours):
    task = asyncio.create_task(ours.create_connection(Recorder, NOBODY, 80))
    await settle()
    ours.client.close()
    with pytest.raises(ConnectionAbortedError):
        await task


@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "255.255.255.255"])
async def test_destinations_that_are_none_are_unreachable(ours, host):
    with pytest.raises(OSError) as caught:
        await ours.create_connection(Recorder, host, 80)
    assert caught.value.errno == errno.ENETUNREACH


async def test_local_address_and_port_are_obeyed(ours):
    far = Recorder()
    server = await ours.create_server(lambda: far, 80)
    transport, _ = await ours.create_connection(Recorder, ours.host, 80, local_addr=("10.77.0.1", 4000))
    assert transport.get_extra_info("sockname") == ("10.77.0.1", 4000)
    with pytest.raises(OSError) as caught:
        await ours.create_connection(Recorder, ours.host, 80, local_addr=(None, 4000))
    assert caught.value.errno == errno.EADDRINUSE
    assert str(caught.value).endswith("bind on address ('0.0.0.0', 4000): address already in use")
    with pytest.raises(OSError) as caught:
        await ours.create_connection(Recorder, ours.host, 80, local_addr=("10.99.0.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL
    transport.close()
    server.close()


async def test_missing_host_is_refused(ours):
    with pytest.raises(ValueError, match="host and port must be given"):
        await ours.create_connection(Recorder, None, 80)
    with pytest.raises(ValueError, match="server_hostname is only meaningful with ssl"):
        await ours.create_connection(Recorder, ours.host, 80, server_hostname="x")


class Resolver:
    """Stands in for the machine's resolver."""

    def __init__(self, monkeypatch, *addresses):
        self.addresses = addresses
        self.asked = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host, port, **kwds):
        self.asked.append((host, port))
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


async def test_names_are_resolved_and_their_addresses_tried_in_turn(virtual, monkeypatch):
    resolver = Resolver(monkeypatch, "10.77.0.2", "10.77.0.2")
    server = await virtual.create_server(Recorder, 80)
    transport, _ = await virtual.create_connection(Recorder, "server.test", 80)
    assert resolver.asked == [("server.test", 80)] and transport.get_extra_info("peername") == ("10.77.0.2", 80)
    transport.close()
    resolver.addresses = ("224.0.0.1", "10.77.0.2")
    transport, _ = await virtual.create_connection(Recorder, "server.test", 80)
    transport.close()
    resolver.addresses = ("224.0.0.1", "10.77.0.2")
    server.close()
    with pytest.raises(OSError, match=r"Multiple exceptions: .*224\.0\.0\.1.*, .*10\.77\.0\.2"):
        await virtual.create_connection(Recorder, "server.test", 80)
    with pytest.raises(ExceptionGroup) as group:
        await virtual.create_connection(Recorder, "server.test", 80, all_errors=True)
    assert [error.errno for error in group.value.exceptions] == [errno.ENETUNREACH, errno.ECONNREFUSED]
    opens = virtual.client.stack.counters.TcpActiveOpens
    resolver.addresses = ("10.77.0.2", "10.77.0.2")
    with pytest.raises(ConnectionRefusedError):
        await virtual.create_connection(Recorder, "server.test", 80)
    assert virtual.client.stack.counters.TcpActiveOpens == opens + 1
    resolver.addresses = ()
    with pytest.raises(socket.gaierror):
        await virtual.create_connection(Recorder, "nowhere.test", 80)


async def test_dotted_addresses_ask_no_resolver(virtual, monkeypatch):
    resolver = Resolver(monkeypatch)
    server = await virtual.create_server(Recorder, 80)
    transport, _ = await virtual.create_connection(Recorder, virtual.host, "80")
    assert not resolver.asked
    transport.close()
    server.close()


async def test_service_names_are_ports(ours):
    server = await ours.create_server(Recorder, "echo")
    assert server.sockets[0].getsockname()[1] == 7
    server.close()


async def test_reset_in_the_accept_moment_is_told_to_the_client(ours):
    class Slammer(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.abort()

    near, far, server = await connected(ours, Slammer())
    await near.until("lost ConnectionResetError")
    assert near.events == ["made", "lost ConnectionResetError"] and far.events == ["made", "lost"]
    server.close()


async def test_reset_before_the_protocol_is_made_is_told_to_it(ours, monkeypatch):
    far = Recorder()
    server = await ours.create_server(lambda: far)
    original = ours.client._connect_any

    async def late(*args):
        result = await original(*args)
        await far.until("made")
        far.transport.abort()
        await settle()
        return result

    monkeypatch.setattr(ours.client, "_connect_any", late)
    transport, near = await ours.create_connection(Recorder, ours.host, server.sockets[0].getsockname()[1])
    await near.until("lost ConnectionResetError")
    assert near.events == ["made", "lost ConnectionResetError"] and transport.is_closing()
    server.close()


# Both sides at once.

NEAR, FAR = ("10.77.0.1", 4000), ("10.77.0.2", 5000)


async def at_once(ours):
    """Have both endpoints connect to each other, each from the port that the other one connects to."""
    near, far = Recorder(), Recorder()
    results = await asyncio.gather(
        ours.client.create_connection(lambda: near, *FAR, local_addr=NEAR),
        ours.server.create_connection(lambda: far, *NEAR, local_addr=FAR),
    )
    return near, far, [transport for transport, _ in results]


async def test_two_endpoints_that_connect_to_each_other_at_once_are_one_connection(ours):
    """M-21, RFC 9293 3.5: data both ways, and an orderly end."""
    near, far, (left, right) = await at_once(ours)
    assert left.get_extra_info("sockname") == NEAR == right.get_extra_info("peername")
    assert right.get_extra_info("sockname") == FAR == left.get_extra_info("peername")
    for endpoint in (ours.client, ours.server):
        assert len(endpoint.stack.flows) == 1
        assert endpoint.stack.counters.TcpActiveOpens == 1 and endpoint.stack.counters.TcpPassiveOpens == 0
        assert endpoint.stack.counters.TcpOutRsts == 0
    left.write(b"from the near end")
    right.write(b"from the far end")
    assert await near.received(16) == b"from the far end" and await far.received(17) == b"from the near end"
    left.close()
    await far.until("lost")
    await near.until("lost")


async def test_a_stream_opened_at_once_moves_megabytes(ours):
    """M-21."""
    (reader, writer), (other, sender) = await asyncio.gather(
        ours.client.open_connection(*FAR, local_addr=NEAR), ours.server.open_connection(*NEAR, local_addr=FAR)
    )
    sender.write(bytes(4_000_000))
    sender.write_eof()
    writer.write(b"back")
    writer.write_eof()
    assert len(await reader.read()) == 4_000_000 and await other.read() == b"back"
    writer.close()
    sender.close()
    await asyncio.gather(writer.wait_closed(), sender.wait_closed())


async def test_both_close_at_once_too(ours):
    """M-52."""
    near, far, (left, right) = await at_once(ours)
    left.close()
    right.close()
    await near.until("lost")
    await far.until("lost")


async def test_an_address_of_our_own_is_unreachable_at_once(ours):
    """M-22, M-25: there is no loopback interface behind a TUN; Linux, which has one, would even connect a socket to itself."""
    for port in (NEAR[1], 80):
        with pytest.raises(OSError) as caught:
            await ours.client.create_connection(Recorder, NEAR[0], port, local_addr=NEAR)
        assert caught.value.errno == errno.ENETUNREACH
    assert not ours.client.stack.flows
