"""Urgent data between Linux's sockets and ours; and Linux's own answers to the table that the engine is held to."""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from interop.namespaces import Namespace
from interop.stackhost import US, StackHost
from urgent_reading import SCENES, shown

from tunstack.engine import SocketOptions

pytestmark = pytest.mark.root

SIOCATMARK = 0x8905
STEP = 0.02  # s: enough for a segment and its ACK over loopback or TUN
MARK = bytes((255, 242))  # telnet's IAC DM (RFC 854)


def at_mark(sock: socket.socket) -> bool:
    return bool(struct.unpack("i", fcntl.ioctl(sock, SIOCATMARK, bytes(4)))[0])


def do(operation: str, reader: socket.socket, peer: socket.socket) -> str | None:
    """Do one operation of the table; return its result if it has one."""
    name, _, argument = operation.partition(":")
    match name:
        case "s" | "u":
            peer.send(argument.encode(), socket.MSG_OOB if name == "u" else 0)
            time.sleep(STEP / 4)
        case "f":
            peer.shutdown(socket.SHUT_WR)
            time.sleep(STEP / 4)
        case "i":
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, int(argument or 1))
        case "r":
            return shown(reader.recv(int(argument or 100)))
        case "p":
            return shown(reader.recv(int(argument or 100), socket.MSG_PEEK))
        case "o":
            return shown(reader.recv(1, socket.MSG_OOB))
        case "op":
            return shown(reader.recv(1, socket.MSG_OOB | socket.MSG_PEEK))
        case "m":
            return str(int(at_mark(reader)))
        case "q":
            return str(struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0])
        case "e":
            poll = select.poll()
            poll.register(reader, select.POLLIN | select.POLLPRI)
            return str(dict(poll.poll(0)).get(reader.fileno(), 0))
    return None


def test_linux_reads_urgent_data_as_the_table_says(namespace: Namespace) -> None:
    """M-09."""
    wrong = []
    with namespace.entered():
        for scene, results in SCENES:
            with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reader, _ = listener.accept()
                with reader:
                    reader.setblocking(False)
                    got = []
                    for operation in scene.split():
                        try:
                            result = do(operation, reader, peer)
                        except OSError as error:
                            result = errno.errorcode[error.errno or 0]
                        if result is not None:
                            got.append(result)
                    if " ".join(got) != results:
                        wrong.append((scene, got))
    assert not wrong


class Telnet:
    """A sink that throws away what it is sent until it meets the mark, as telnet's Synch wants it, then takes what follows."""

    def __init__(self, host: StackHost) -> None:
        self.host = host
        self.kept = b""
        self.thrown = 0
        self.octets: list[bytes] = []
        self.is_seeking = False
        self.conn = None
        self.eof = False

    def urgent(self) -> None:
        assert self.conn is not None
        self.is_seeking = not self.conn.is_at_mark
        if self.conn.has_urgent:
            self.octets.append(self.conn.read_urgent())

    def on_data(self, data: memoryview) -> None:
        assert self.conn is not None
        if self.is_seeking:
            self.thrown += len(data)
            self.is_seeking = not self.conn.is_at_mark
        else:
            self.kept += bytes(data)

    def on_eof(self) -> None:
        self.eof = True

    def on_established(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_closed(self, error: OSError | None) -> None: ...


@contextmanager
def in_background(function: Callable[[], None]) -> Iterator[None]:
    """Run a function in a thread of the namespace that is entered."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive() and not failed, failed


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("inline", [True, False])
def test_linux_interrupts_a_stream_of_ours(namespace: Namespace, inline: bool, offload: bool) -> None:
    """M-09: ABOR as an FTP client sends it, IAC IP and then IAC DM urgent, behind octets that are to be thrown away."""
    host = StackHost(namespace.open_tun(offload=offload))
    sink = Telnet(host)

    def accept(listener: object) -> None:
        conn = listener.accept()  # type: ignore[attr-defined]
        sink.conn = conn
        conn.sink, conn.on_urgent = sink, sink.urgent
        conn.resume(host.now())

    host.listen(21, accept, SocketOptions(oobinline=inline))

    def client() -> None:
        with socket.create_connection((US, 21)) as sock:
            sock.sendall(b"x" * 100_000)
            sock.send(bytes((255, 244)))
            sock.send(MARK, socket.MSG_OOB)
            time.sleep(STEP)
            sock.sendall(b"ABOR\r\n")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""

    with namespace.entered(), in_background(client):
        host.run_until(lambda: sink.eof)
        assert sink.conn is not None
        sink.conn.close(host.now())
        host.run_until(lambda: not list(host.stack.connections))
    assert sink.kept[-6:] == b"ABOR\r\n"
    assert len(sink.kept) + sink.thrown == 100_000 + 4 + 6 - (not inline)
    if inline:
        assert sink.octets == [] and MARK[1:] + b"ABOR\r\n" == sink.kept[-7:]
    else:
        assert sink.octets == [MARK[1:]] and MARK[1:] not in sink.kept


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("inline", [True, False])
def test_ours_interrupts_a_stream_of_linux(namespace: Namespace, inline: bool, offload: bool) -> None:
    """M-09: with Linux's reader behind, so that its window closes before the urgent octet."""
    host = StackHost(namespace.open_tun(offload=offload))
    done = threading.Event()
    with namespace.entered():
        listener = socket.create_server(("10.77.0.1", 2323))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

        def server() -> None:
            sock, _ = listener.accept()
            with listener, sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
                poll = select.poll()
                poll.register(sock, select.POLLPRI)
                if not inline:
                    assert poll.poll(0) == []
                before = after = b""
                while not at_mark(sock):
                    before += sock.recv(65536)
                assert before == b"y" * 100_000 + MARK[:1]
                if not inline:
                    if not poll.poll(2000):
                        raise AssertionError("the urgent octet did not come")
                    assert sock.recv(1, socket.MSG_OOB) == MARK[1:]
                while piece := sock.recv(65536):
                    after += piece
                assert after == MARK[1:] * inline + b"z" * 1000
            done.set()

        with in_background(server):
            sink = Telnet(host)
            conn = host.connect("10.77.0.1", 2323, sink)
            conn.send(b"y" * 100_000, host.now())
            conn.send(MARK, host.now(), urgent=True)
            conn.send(b"z" * 1000, host.now())
            conn.shutdown_write(host.now())
            host.run_until(lambda: done.is_set() and sink.eof)
            conn.close(host.now())
