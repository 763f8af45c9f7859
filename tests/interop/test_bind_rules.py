"""Who may share a local port: the same attempts with the kernel's sockets and with ours, and the same errors."""

from __future__ import annotations

import errno
import random
import socket
import struct
from itertools import product
from pathlib import Path

import pytest
from interop.namespaces import Namespace

from tunstack.engine import SocketOptions, Stack, StackConfig, Sysctl, pack_address
from tunstack.engine.sink import NULL_SINK

pytestmark = pytest.mark.root

US, HOST, PORT = "127.0.0.2", "127.0.0.9", 7000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: nothing stays in TIME-WAIT
FIRST = ("listen", "bound", "unbound")  # a listener, a connection that chose its port, one that was given it
SECOND = ("listen", "connect there", "connect elsewhere")


def outcome(call: object) -> str:
    try:
        call()  # type: ignore[operator]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "OK"


class Kernel:
    """Sockets of the kernel on the loopback; made and used within the namespace."""

    def __init__(self) -> None:
        self.servers = [socket.create_server((HOST, port)) for port in (1, 2)]
        self.sockets = list(self.servers)

    def socket(self, reuse: bool) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sockets.append(sock)
        return sock

    def listen(self, reuse: bool) -> None:
        sock = self.socket(reuse)
        sock.bind((US, PORT))
        sock.listen()

    def connect(self, number: int, reuse: bool, bound: bool = True) -> None:
        sock = self.socket(reuse)
        if bound:
            sock.bind((US, PORT))
        else:
            RANGE.write_text(f"{PORT} {PORT + 1}")
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: an address, and connect chooses the port
            sock.bind((US, 0))
        sock.connect((HOST, number))
        assert sock.getsockname() == (US, PORT)

    def close(self) -> None:
        for server in self.servers:
            server.setblocking(False)
            while True:
                try:
                    conn, _ = server.accept()
                except BlockingIOError:
                    break
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                conn.close()
        for sock in self.sockets:
            sock.close()


class Ours:
    """A stack whose segments go nowhere."""

    def __init__(self) -> None:
        knobs = Sysctl(ip_local_port_range=(PORT, PORT + 1))
        self.stack = Stack(StackConfig((pack_address("10.77.0.2"),), sysctl=knobs), random.Random(1), bytes(16))

    def listen(self, reuse: bool) -> None:
        options = SocketOptions(reuseaddr=reuse)
        self.stack.listen(pack_address("10.77.0.2"), PORT, on_acceptable=lambda listener: None, options=options)

    def connect(self, number: int, reuse: bool, bound: bool = True) -> None:
        options = SocketOptions(reuseaddr=reuse)
        local_port = PORT if bound else 0
        conn = self.stack.connect(pack_address("10.77.0.9"), number, NULL_SINK, 0, local_port=local_port, options=options)
        assert conn.local[1] == PORT

    def close(self) -> None:
        self.stack.abort_all(0)


def attempt(world: Kernel | Ours, first: str, first_reuse: bool, second: str, second_reuse: bool) -> str:
    """Return how the second of two sockets fares."""
    try:
        if first == "listen":
            world.listen(first_reuse)
        else:
            world.connect(1, first_reuse, first == "bound")
        if second == "listen":
            return outcome(lambda: world.listen(second_reuse))
        return outcome(lambda: world.connect(1 if second == "connect there" else 2, second_reuse))
    finally:
        world.close()


def test_ports_are_shared_by_the_kernels_rules(namespace: Namespace) -> None:
    """M-04, M-58: listeners, connections with a port of their own choice and without, SO_REUSEADDR on either or both."""
    cases = list(product(FIRST, (False, True), SECOND, (False, True)))
    with namespace.entered():
        theirs = {case: attempt(Kernel(), *case) for case in cases}
    ours = {case: attempt(Ours(), *case) for case in cases}
    # A port that a connection was only given keeps listeners away, but no other connection than one to the same place (ports.py).
    free = {case for case in cases if case[0] == "unbound" and case[2] != "listen"}
    assert {case: how for case, how in ours.items() if case not in free} == {case: how for case, how in theirs.items() if case not in free}
    assert {how for case, how in ours.items() if case in free and case[2] == "connect elsewhere"} == {"OK"}
    assert set(theirs.values()) == {"OK", "EADDRINUSE", "EADDRNOTAVAIL"}
