"""TCP_USER_TIMEOUT beside Linux's own: the same socket option, the same silence, the same time; and the UTO option to a Linux peer."""

from __future__ import annotations

import errno
import select
import socket
import threading
import time

import pytest
from interop.daemons import need
from interop.namespaces import Namespace
from interop.stackhost import US, StackHost

from tunstack.engine import Listener, SocketOptions

pytestmark = pytest.mark.root

TCP_USER_TIMEOUT = 18
HOST = "10.77.0.1"
SLACK = 0.25  # s that Linux's timers and a busy machine may add


class Sink:
    """Remembers when it was closed, and why."""

    def __init__(self, stack: StackHost) -> None:
        self.stack = stack
        self.closed_at = 0
        self.error: OSError | None = None

    def on_established(self) -> None: ...
    def on_data(self, data: memoryview) -> None: ...
    def on_eof(self) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self.closed_at = self.stack.now()
        self.error = error


def seconds_until_error(sock: socket.socket) -> tuple[float, int]:
    """Wait for the error of a socket; return how long that took, and the errno."""
    began = time.monotonic()
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(10_000), "it did not end"
    return time.monotonic() - began, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize("timeout", [300, 1000])
def test_data_is_given_up_when_linux_gives_it_up(namespace: Namespace, timeout: int) -> None:
    """M-14: Linux's connection to us and ours to Linux, while nothing passes."""
    need("nft")
    stack = StackHost(namespace.open_tun())
    stack.listen(7, lambda listener: None)
    with namespace.entered():
        listener = socket.create_server((HOST, 7))
        ready: list[socket.socket] = []
        thread = threading.Thread(target=lambda: ready.append(socket.create_connection((US, 7))))
        thread.start()
        stack.run_until(lambda: bool(ready))
        thread.join()
    sink = Sink(stack)
    conn = stack.connect(HOST, 7, sink, SocketOptions(user_timeout=timeout))
    namespace.run(["nft", "table ip t { chain i { type filter hook input priority 0; iifname tunstack0 drop; }; }"])
    theirs: list[tuple[float, int]] = []
    with listener, ready[0] as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, timeout)
        sock.send(b"x")
        thread = threading.Thread(target=lambda: theirs.append(seconds_until_error(sock)))
        thread.start()
        began = stack.now()
        conn.send(b"x", began)
        stack.run_until(lambda: sink.closed_at > 0 and bool(theirs))
        thread.join()
    ours = (sink.closed_at - began) / 1_000_000
    assert isinstance(sink.error, TimeoutError) and theirs[0][1] == errno.ETIMEDOUT
    assert abs(ours - theirs[0][0]) < SLACK, (ours, theirs)
    assert ours >= timeout / 1000


def test_a_syn_is_given_up_when_linux_gives_it_up(namespace: Namespace) -> None:
    """M-14, M-25."""
    stack = StackHost(namespace.open_tun())
    sink = Sink(stack)
    theirs: list[tuple[float, int]] = []
    with namespace.entered(), socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1500)
        sock.setblocking(False)
        namespace.run(["nft", "table ip t { chain i { type filter hook input priority 0; iifname tunstack0 drop; }; }"])
        assert sock.connect_ex((US, 9)) == errno.EINPROGRESS
        thread = threading.Thread(target=lambda: theirs.append(seconds_until_error(sock)))
        thread.start()
        began = stack.now()
        stack.stack.connect(socket.inet_aton(HOST), 9, sink, began, options=SocketOptions(user_timeout=1500))
        stack.run_until(lambda: sink.closed_at > 0 and bool(theirs))
        thread.join()
    assert isinstance(sink.error, TimeoutError) and theirs[0][1] == errno.ETIMEDOUT
    assert abs((sink.closed_at - began) / 1_000_000 - theirs[0][0]) < SLACK


def test_linux_takes_no_offence_at_the_option(namespace: Namespace) -> None:
    """M-14: it is on our SYN, SYN-ACK and data, and Linux, which knows it not, steps over it."""
    options = SocketOptions(user_timeout_advertise=600)
    stack = StackHost(namespace.open_tun())
    accepted: list[object] = []

    def accept(listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        accepted.append(conn)
        conn.send(b"to linux", stack.now())

    stack.listen(7, accept, options)
    with namespace.entered(), socket.create_server((HOST, 7)) as listener:
        read: list[bytes] = []

        def client() -> None:
            with socket.create_connection((US, 7)) as sock:
                read.append(sock.recv(100))
            other, _ = listener.accept()
            with other:
                read.append(other.recv(100))

        thread = threading.Thread(target=client)
        thread.start()
        stack.run_until(lambda: bool(read))
        stack.connect(HOST, 7, Sink(stack), options).send(b"to linux too", stack.now())
        stack.run_until(lambda: len(read) == 2)
        thread.join()
    assert read == [b"to linux", b"to linux too"]
