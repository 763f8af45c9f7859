"""How connections end, with Linux on the other side of a TUN: TIME-WAIT and its reuse, orphans, SO_LINGER, and blind attacks."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from interop.namespaces import Namespace
from interop.stackhost import US, StackHost

from tunstack.engine import Connection, Listener, Sysctl
from tunstack.engine.finwait import FinWait2
from tunstack.engine.sink import NullSink
from tunstack.engine.timewait import TimeWait
from tunstack.seq import MASK
from tunstack.wire import codec
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, Segment

pytestmark = pytest.mark.root

HOST = "10.77.0.1"
PORT = 7


class Reader(NullSink):
    """Remembers what came, and the end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.eof = self.closed = False
        self.error: OSError | None = None

    def on_data(self, data: memoryview) -> None:
        self.data += data

    def on_eof(self) -> None:
        self.eof = True

    def on_closed(self, error: OSError | None) -> None:
        self.closed, self.error = True, error


class Ends:
    """A stack of ours that accepts on PORT, and Linux beside it."""

    def __init__(self, namespace: Namespace, cleanup: ExitStack, sysctl: Sysctl) -> None:
        self.namespace = namespace
        self._cleanup = cleanup
        self.host = StackHost(namespace.open_tun(), sysctl)
        self.stack = self.host.stack
        self.accepted: list[Connection] = []
        self.host.listen(PORT, self._accept)

    def _accept(self, listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            conn.sink = Reader()
            self.accepted.append(conn)
            conn.resume(self.host.now())

    def dial(self, local_port: int = 0) -> tuple[socket.socket, Connection]:
        """Connect from Linux; return both ends."""
        with self.namespace.entered():
            sock = self._cleanup.enter_context(socket.socket())
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if local_port:
            sock.bind((HOST, local_port))
        count = len(self.accepted)
        with suppress(BlockingIOError):
            sock.connect((US, PORT))
        self.host.run_until(lambda: len(self.accepted) > count)
        return sock, self.accepted[-1]

    def receive(self, sock: socket.socket) -> bytes:
        """Return what Linux reads next; its error is raised."""
        got: list[bytes] = []

        def is_there() -> bool:
            try:
                got.append(sock.recv(65536))
            except BlockingIOError:
                return False
            return True

        self.host.run_until(is_there)
        return got[0]

    def owner(self, conn: Connection) -> object:
        """Return who answers for a four-tuple now."""
        return self.stack.flows.get(conn.flow_in)


@pytest.fixture
def make_ends(namespace: Namespace) -> Iterator[Callable[..., Ends]]:
    with ExitStack() as cleanup:
        yield lambda **sysctl: Ends(namespace, cleanup, Sysctl(**sysctl))


def test_linux_uses_its_port_again_while_we_are_in_time_wait(make_ends: Callable[..., Ends]) -> None:
    """M-55, RFC 6191: from one port, ten connections, each closed by us first."""
    ends = make_ends()
    for number in range(10):
        sock, conn = ends.dial(40_000)
        conn.send(b"%d" % number, ends.host.now())
        conn.close(ends.host.now())
        assert ends.receive(sock) == b"%d" % number and ends.receive(sock) == b""
        sock.close()
        ends.host.run_until(lambda conn=conn: isinstance(ends.owner(conn), TimeWait))
    assert len(ends.stack.time_wait) == 1 and ends.stack.counters.TW == 10


def test_linux_accepts_a_four_tuple_that_we_take_from_time_wait(make_ends: Callable[..., Ends]) -> None:
    """M-55: tcp_tw_reuse with a single ephemeral port."""
    ends = make_ends(tcp_tw_reuse=1, tcp_tw_reuse_delay=10, ip_local_port_range=(40_000, 40_000))
    with ends.namespace.entered():
        listener = socket.create_server((HOST, PORT))
    with listener:
        for number in range(3):
            sink = Reader()
            conn = ends.host.connect(HOST, PORT, sink)
            peer, _ = listener.accept()
            with peer:
                peer.setblocking(False)
                conn.send(b"%d" % number, ends.host.now())
                conn.close(ends.host.now())
                assert ends.receive(peer) == b"%d" % number and ends.receive(peer) == b""
            entry_at = ends.host.now()
            ends.host.run_until(lambda conn=conn, at=entry_at: isinstance(ends.owner(conn), TimeWait) and ends.host.now() > at + 20_000)
    assert ends.stack.counters.TWRecycled == 2


def test_what_linux_sends_to_an_orphan_is_reset(make_ends: Callable[..., Ends]) -> None:
    """M-53, M-59: the orphan is a small entry in FIN_WAIT_2 by then."""
    ends = make_ends()
    sock, conn = ends.dial()
    conn.close(ends.host.now())
    assert ends.receive(sock) == b""
    ends.host.run_until(lambda: isinstance(ends.owner(conn), FinWait2))
    sock.send(b"too late")
    ends.host.run_until(lambda: ends.owner(conn) is None)
    ends.host.run_until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE)  # a RST in CLOSE_WAIT


def test_an_orphan_that_linux_never_answers_leaves_after_tcp_fin_timeout(make_ends: Callable[..., Ends]) -> None:
    """M-53: one second here; then the four-tuple is a stranger's, and Linux's FIN is reset."""
    ends = make_ends(tcp_fin_timeout=1)
    sock, conn = ends.dial()
    began = ends.host.now()
    conn.close(began)
    ends.host.run_until(lambda: ends.owner(conn) is None)
    assert ends.host.now() - began >= 1_000_000
    assert ends.stack.counters.TWKilled == 1 and not ends.stack.counters.TcpOutRsts
    sock.shutdown(socket.SHUT_WR)
    ends.host.run_until(lambda: ends.stack.counters.TcpOutRsts == 1)


def test_a_fin_that_comes_late_is_acknowledged_and_linux_is_content(make_ends: Callable[..., Ends]) -> None:
    """M-50, M-53: FIN_WAIT_2 by the entry, then TIME-WAIT."""
    ends = make_ends()
    sock, conn = ends.dial()
    conn.close(ends.host.now())
    assert ends.receive(sock) == b""
    ends.host.run_until(lambda: isinstance(ends.owner(conn), FinWait2))
    sock.shutdown(socket.SHUT_WR)
    ends.host.run_until(lambda: isinstance(ends.owner(conn), TimeWait))
    ends.host.run_until(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07")  # TCP_CLOSE: it has the ACK


def test_one_orphan_too_many_is_reset(make_ends: Callable[..., Ends]) -> None:
    """M-53: tcp_max_orphans."""
    ends = make_ends(tcp_max_orphans=0)
    sock, conn = ends.dial()
    conn.send(b"x", ends.host.now())
    conn.close(ends.host.now())
    with pytest.raises(ConnectionResetError):
        while ends.receive(sock):
            pass
    assert ends.stack.counters.TCPAbortOnMemory == 1


@pytest.mark.parametrize("linger", [0, 5])
def test_linger(make_ends: Callable[..., Ends], linger: int) -> None:
    """M-57: zero is a RST; with time, the end is told when Linux has acknowledged all."""
    ends = make_ends()
    sock, conn = ends.dial()
    sink = conn.sink
    assert isinstance(sink, Reader)
    conn.set_option("linger", linger, ends.host.now())
    conn.send(b"x" * 100_000, ends.host.now())
    conn.close(ends.host.now())
    if linger:
        ends.host.run_until(lambda: sink.closed)
        assert not conn.unacked and not conn.unsent
    else:
        with pytest.raises(ConnectionResetError):
            while ends.receive(sock):
                pass


def test_linger_zero_of_linux_is_a_reset_for_us(make_ends: Callable[..., Ends]) -> None:
    """M-57, M-59."""
    ends = make_ends()
    sock, conn = ends.dial()
    sink = conn.sink
    assert isinstance(sink, Reader)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    ends.host.run_until(lambda: sink.closed)
    assert sink.error is not None and sink.error.errno == errno.ECONNRESET
    assert not ends.stack.flows


def test_blind_tries_end_no_connection_of_linux_and_corrupt_none(make_ends: Callable[..., Ends]) -> None:
    """M-59, RFC 5961: a raw socket beside Linux, which knows the four-tuple and no sequence number; between the tries, data both ways."""
    rng = random.Random(5961)
    ends = make_ends()
    sock, conn = ends.dial()
    sink = conn.sink
    assert isinstance(sink, Reader)
    with ends.namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    counters = ends.stack.counters
    with raw:
        for round_number in range(30):
            for _ in range(100):
                for packet in codec.encode(guess(rng, conn)):
                    raw.sendto(packet, (US, 0))
            before = counters.TcpInSegs
            ends.host.run_until(lambda before=before: counters.TcpInSegs >= before + 100)
            sock.send(b"%02d" % round_number)
            ends.host.run_until(lambda length=2 * (round_number + 1): len(sink.data) == length)
            conn.send(sink.data[-2:], ends.host.now())
            assert ends.receive(sock) == b"%02d" % round_number
    assert bytes(sink.data) == b"".join(b"%02d" % number for number in range(30))
    assert conn.state.name == "ESTABLISHED"
    assert counters.TCPChallengeACK > 0 and counters.TCPACKSkippedChallenge


def guess(rng: random.Random, conn: Connection) -> Segment:
    """Return a RST or a SYN at any sequence number but the exact one, data outside of the window, or an ACK that cannot be."""
    rx, tx = conn.rx, conn.tx
    kind = rng.choice(("rst", "syn", "data", "ack"))
    seq, ack, flags, data = rx.rcv_nxt, tx.snd_una, ACK | PSH, b"evil" * rng.randrange(1, 100)
    if kind == "rst":
        seq, flags, data = rx.rcv_nxt + rng.choice((rng.randrange(1, 60_000), rng.randrange(1, MASK))), RST, b""
    elif kind == "syn":
        seq, flags, data = rx.rcv_nxt + rng.randrange(MASK), SYN | rng.choice((0, ACK)), b""
    elif kind == "data":
        seq = rx.rcv_adv + rng.randrange(1, MASK - 200_000)
    else:
        ack, flags = tx.snd_nxt + rng.randrange(1, MASK - tx.max_window - 10_000), flags | rng.choice((0, FIN))
    return Segment(conn.flow_in, seq & MASK, ack & MASK, flags, 1000, (data,) if data else (), len(data))
