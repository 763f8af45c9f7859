"""Protocols whose callbacks raise; against asyncio's own transports."""

from __future__ import annotations

import pytest
from aio.recorder import Recorder, connected
from aio.worlds import BIG


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
