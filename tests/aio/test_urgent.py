"""Urgent data through a transport's socket view (M-09)."""

from __future__ import annotations

import errno
import socket

import pytest
from aio.recorder import Recorder, connected

OOB = socket.MSG_OOB


class Alarmed(Recorder):
    """A protocol that is told of urgent data, and takes the octet when it hears of it."""

    def __init__(self, *, keep_open: bool = False) -> None:
        super().__init__(keep_open=keep_open)
        self.urgent = bytearray()

    def urgent_received(self) -> None:
        self.urgent += self.transport.get_extra_info("socket").recv(1, OOB)
        self.note("urgent")


async def test_the_protocol_takes_the_urgent_octet_before_what_follows(ours):
    """M-09."""
    near, far, server = await connected(ours, Alarmed())
    sock = near.transport.get_extra_info("socket")
    near.transport.write(b"abc")
    assert sock.send(b"de!", OOB) == 3
    near.transport.write(b"fgh")
    assert await far.received(8) == b"abcdefgh"
    assert far.urgent == b"!"
    assert far.events == ["made", "urgent", "data"]
    near.transport.close()
    await far.until("lost")
    server.close()


async def test_without_a_method_for_it_the_octet_can_be_had_until_something_follows(ours):
    """M-09."""
    near, far, server = await connected(ours)
    near.transport.get_extra_info("socket").send(b"abc!", OOB)
    assert await far.received(3) == b"abc"
    sock = far.transport.get_extra_info("socket")
    assert sock.sockatmark()
    assert (sock.recv(1, OOB | socket.MSG_PEEK), sock.recv(1, OOB)) == (b"!", b"!")
    with pytest.raises(OSError) as caught:
        sock.recv(1, OOB)
    assert caught.value.errno == errno.EINVAL
    near.transport.write(b"def")
    assert await far.received(6) == b"abcdef"
    assert not sock.sockatmark()
    near.transport.close()
    server.close()


async def test_so_oobinline_leaves_it_in_the_stream(ours):
    """M-09."""
    near, far, server = await connected(ours)
    far.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    near.transport.get_extra_info("socket").send(b"abc!", OOB)
    near.transport.write(b"def")
    assert await far.received(7) == b"abc!def"
    near.transport.close()
    server.close()


async def test_the_stream_itself_is_not_for_the_view(ours):
    near, _, server = await connected(ours)
    sock = near.transport.get_extra_info("socket")
    for call in (lambda: sock.send(b"x"), lambda: sock.recv(1), lambda: sock.recv(1, socket.MSG_PEEK)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
    near.transport.abort()
    server.close()


async def test_an_exception_of_urgent_received_ends_the_connection(ours):
    """M-09: like one of any other callback."""

    class Broken(Recorder):
        def urgent_received(self) -> None:
            raise RuntimeError("no")

    ours.expects_errors = True
    near, far, server = await connected(ours, Broken())
    near.transport.get_extra_info("socket").send(b"!", OOB)
    await far.until("lost RuntimeError")
    await near.until("lost ConnectionResetError")
    assert [context["message"] for context in ours.errors] == ["Fatal error: protocol.urgent_received() call failed."]
    server.close()
