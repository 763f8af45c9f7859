"""A path with a narrow link in its middle, between our TUN and a Linux host: routers that tell of it, and routers that do not.

us 10.77.0.2 --TUN 1500-- near --veth 1300-- far --veth 1500-- host 10.82.0.2
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable

import pytest
from interop.daemons import need
from interop.namespaces import Namespace
from interop.stackhost import US, StackHost

from tunstack.engine import Connection, Listener, Sysctl

pytestmark = pytest.mark.root

HOST = "10.82.0.2"
NARROW = 1300
PORT = 5001
DATA = random.Random(5).randbytes(3_000_000)
DIGEST = hashlib.sha256(DATA).digest()


class Path:
    """The namespaces, and our stack at the end of them."""

    def __init__(self, make: Callable[[], Namespace], offload: bool, sysctl: Sysctl) -> None:
        self.near, self.far, self.host = make(), make(), make()
        self.stack = StackHost(self.near.open_tun(offload=offload), sysctl)
        self._link(self.near, self.far, "10.81.0", NARROW)
        self._link(self.far, self.host, "10.82.0", 1500)
        for router in (self.near, self.far):
            router.run("sysctl -qw net.ipv4.ip_forward=1")
        self.near.run("ip route add 10.82.0.0/24 via 10.81.0.2")
        self.far.run("ip route add 10.77.0.0/24 via 10.81.0.1")
        self.host.run("ip route add default via 10.82.0.1")

    @staticmethod
    def _link(a: Namespace, b: Namespace, net: str, mtu: int) -> None:
        left, right = f"{net.replace('.', '')}a", f"{net.replace('.', '')}b"
        a.run(f"ip link add {left} mtu {mtu} type veth peer name {right} mtu {mtu} netns {b.name}")
        for end, name, number in ((a, left, 1), (b, right, 2)):
            end.run(f"ip address add {net}.{number}/24 dev {name}")
            end.run(f"ip link set {name} up")

    def silence(self) -> None:
        """Have the routers say nothing."""
        need("nft")
        for router in (self.near, self.far):
            router.run(["nft", "table ip t { chain c { type filter hook output priority 0; icmp type destination-unreachable drop; }; }"])


class Sender:
    """A sink that sends DATA and shuts down."""

    def __init__(self, stack: StackHost) -> None:
        self.stack = stack
        self.eof = False

    def on_eof(self) -> None:
        self.eof = True

    def on_established(self) -> None: ...
    def on_data(self, data: memoryview) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        assert error is None, error


class Receiver(Sender):
    """A sink that digests what comes."""

    def __init__(self, stack: StackHost) -> None:
        super().__init__(stack)
        self.digest = hashlib.sha256()

    def on_data(self, data: memoryview) -> None:
        self.digest.update(data)


def send_to_linux(path: Path) -> Connection:
    """Send DATA to the host; return the connection when all of it has arrived there."""
    digests: list[bytes] = []
    with path.host.entered():
        listener = socket.create_server((HOST, PORT))

        def serve() -> None:
            sock, _ = listener.accept()
            digest = hashlib.sha256()
            with listener, sock:
                while piece := sock.recv(1 << 16):
                    digest.update(piece)
            digests.append(digest.digest())

        thread = threading.Thread(target=serve)
        thread.start()
    stack = path.stack
    sink = Sender(stack)
    conn = stack.connect(HOST, PORT, sink)
    conn.send(DATA, stack.now())
    conn.shutdown_write(stack.now())
    stack.run_until(lambda: sink.eof, timeout=40)
    conn.close(stack.now())
    thread.join(10)
    assert digests == [DIGEST]
    return conn


def receive_from_linux(path: Path) -> int:
    """Have the host send DATA to us; return its MSS at the end."""
    stack = path.stack
    receivers: list[Receiver] = []
    done = threading.Event()
    mss: list[int] = []

    def accept(listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        receivers.append(Receiver(stack))
        conn.sink = receivers[0]
        conn.resume(stack.now())

    stack.listen(PORT, accept)

    def send() -> None:
        with socket.create_connection((US, PORT)) as sock:
            sock.sendall(DATA)
            sock.shutdown(socket.SHUT_WR)
            done.wait(40)
            mss.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))

    with path.host.entered():
        thread = threading.Thread(target=send)
        thread.start()
    stack.run_until(lambda: bool(receivers and receivers[0].eof), timeout=40)
    done.set()
    thread.join(10)
    assert receivers[0].digest.digest() == DIGEST
    return mss[0]


@pytest.mark.parametrize("offload", [True, False])
def test_we_follow_what_a_linux_router_says(make_namespace: Callable[[], Namespace], offload: bool) -> None:
    """M-07."""
    path = Path(make_namespace, offload, Sysctl())
    conn = send_to_linux(path)
    assert conn.mss == NARROW - 52
    assert path.stack.stack.counters.IcmpInDestUnreachs


@pytest.mark.parametrize("offload", [True, False])
def test_linux_follows_what_a_router_says_of_the_path_to_us(make_namespace: Callable[[], Namespace], offload: bool) -> None:
    """M-07: and we take what comes in either size."""
    assert receive_from_linux(Path(make_namespace, offload, Sysctl())) == NARROW - 52


@pytest.mark.parametrize("offload", [True, False])
def test_we_leave_a_black_hole(make_namespace: Callable[[], Namespace], offload: bool) -> None:
    """M-07: tcp_mtu_probing = 1, with ICMP dropped."""
    path = Path(make_namespace, offload, Sysctl(tcp_mtu_probing=1))
    path.silence()
    conn = send_to_linux(path)
    counters = path.stack.stack.counters
    assert not counters.IcmpInDestUnreachs
    assert counters.TCPMTUPSuccess
    assert 1024 < conn.mss <= NARROW - 52


def test_we_probe_from_the_start(make_namespace: Callable[[], Namespace]) -> None:
    """M-07: tcp_mtu_probing = 2 meets no black hole."""
    path = Path(make_namespace, True, Sysctl(tcp_mtu_probing=2))
    path.silence()
    conn = send_to_linux(path)
    counters = path.stack.stack.counters
    assert counters.TCPTimeouts == 0
    assert counters.TCPMTUPSuccess
    assert 1024 < conn.mss <= NARROW - 52


def test_linux_leaves_a_black_hole_before_us(make_namespace: Callable[[], Namespace]) -> None:
    """M-07: the reference; its probes are larger than the segments around them."""
    path = Path(make_namespace, True, Sysctl())
    path.silence()
    path.host.run("sysctl -qw net.ipv4.tcp_mtu_probing=1")
    assert 1000 < receive_from_linux(path) <= NARROW - 52
