"""The kernel's times for what nobody answers, measured, beside ours in virtual time (tests/timetable.py), all in one run of seconds."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import timetable
from interop.namespaces import Namespace
from interop.walk import checksum
from timetable import Times

from tunstack.device.tun import TunDevice
from tunstack.engine import SocketOptions
from tunstack.wire.flow import unpack_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Segment

pytestmark = pytest.mark.root

LINUX, NOBODY = socket.inet_aton("10.77.0.1"), socket.inet_aton("10.77.0.2")
SECONDS = 7.4  # of the run
EARLY = 0.005  # s: a tick, and what reading takes
# Linux rounds a timer up to its wheel's grain, which is up to an eighth of its time, and may be late on a busy machine; so may the reading.
LATE = 1 / 8
BUSY = 0.3  # s
TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_USER_TIMEOUT = 4, 5, 6, 7, 18


@dataclass
class Measured:
    """One of the kernel's sockets, and the times of what it sent (s, monotonic)."""

    sent: list[float] = field(default_factory=list)
    over: float | None = None
    errno: int = 0
    was_reset: bool = False


class Silence:
    """The kernel's peer: the far end of a TUN that reads what the kernel sends, and answers SYNs to some ports but nothing else."""

    def __init__(self, device: TunDevice) -> None:
        self.device = device
        self.measured: dict[int, Measured] = {}  # by the kernel's port
        self.answered: set[int] = set()  # the kernel's ports whose SYN is answered
        self.sockets: dict[int, socket.socket] = {}

    def send(self, sport: int, dport: int, seq: int, ack: int, flags: int) -> None:
        tcp = bytearray(struct.pack("!HHIIHHHH", sport, dport, seq, ack, 5 << 12 | flags, 65535, 0, 0))
        pseudo = NOBODY + LINUX + struct.pack("!HH", 6, len(tcp))
        tcp[16:18] = checksum(pseudo + bytes(tcp)).to_bytes(2, "big")
        ip = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, NOBODY, LINUX))
        ip[10:12] = checksum(bytes(ip)).to_bytes(2, "big")
        assert self.device.write(bytes(ip + tcp))

    def connect(self, port: int, is_answered: bool, **options: int) -> Measured:
        """Have the kernel connect from `port`; `options` by their names in lower case."""
        sock = self.sockets[port] = socket.socket()
        sock.setblocking(False)
        for name, value in options.items():
            sock.setsockopt(socket.IPPROTO_TCP, globals()[f"TCP_{name.upper()}"], value)
        sock.bind((socket.inet_ntoa(LINUX), port))
        if is_answered:
            self.answered.add(port)
        self.measured[port] = Measured()
        assert sock.connect_ex((socket.inet_ntoa(NOBODY), 80)) == errno.EINPROGRESS
        return self.measured[port]

    def watch(self, end: float) -> None:
        """Read and take down until a moment."""
        poll = select.poll()
        poll.register(self.device.fileno(), select.POLLIN)
        for sock in self.sockets.values():
            poll.register(sock, 0)
        while (left := end - time.monotonic()) > 0:
            for fd, event in poll.poll(left * 1000):
                now = time.monotonic()
                if fd == self.device.fileno():
                    for seg in self.device.read_batch().segments:
                        self.on_segment(seg, now)
                elif event & select.POLLERR:
                    poll.unregister(fd)
                    (port,) = (port for port, sock in self.sockets.items() if sock.fileno() == fd)
                    self.measured[port].over = now
                    self.measured[port].errno = self.sockets[port].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def on_segment(self, seg: Segment, now: float) -> None:
        _, port, _, peer_port = unpack_flow(seg.flow)
        measured = self.measured.setdefault(port, Measured())
        if seg.flags & RST:
            measured.was_reset = True
        elif seg.flags & (SYN | ACK) == SYN and port in self.answered:
            self.send(peer_port, port, 1000, (seg.seq + 1) & 0xFFFFFFFF, SYN | ACK)
        elif seg.flags & SYN or seg.length or seg.flags & FIN or port in self.answered:
            measured.sent.append(now)

    def establish(self, port: int, **options: int) -> tuple[socket.socket, float]:
        """Have the kernel connect and be answered; return its socket, and since when it is connected."""
        self.connect(port, True, **options)
        end = time.monotonic() + 10
        while not self.measured[port].sent:  # the ACK of our SYN-ACK
            assert time.monotonic() < end
            self.watch(time.monotonic() + 0.01)
        since = self.measured[port].sent.pop()
        return self.sockets[port], since


def compare(ours: Times, theirs: Measured, begun: float, until: float) -> None:
    """What the kernel did until a moment is what we do, none of it earlier, and later only by what a timer may be."""
    expected = [at / 1e6 for at in ours.sent if at / 1e6 < until]
    seen = [at - begun for at in theirs.sent]
    assert len(seen) == len(expected), (expected, seen)
    for before, at, found in zip([0.0, *expected], expected, seen, strict=False):
        assert at - EARLY <= found <= at + (at - before) * LATE + at * LATE / 4 + BUSY, (expected, seen)
    if ours.over is not None and ours.over / 1e6 < until:
        over = ours.over / 1e6
        assert theirs.over is not None and over - EARLY <= theirs.over - begun <= over * (1 + LATE) + BUSY, (over, theirs.over)
        assert theirs.errno == errno.ETIMEDOUT and ours.error == "TimeoutError"
        assert theirs.was_reset == ours.was_reset


Found = dict[str, tuple[Measured, float, Times]]  # by what it is: the kernel's times, since when they count, and ours


def silence_in(namespace: Namespace, linear: int) -> Silence:
    """Make the kernel's peer. Without SACK there are no probes of what may be lost at the end."""
    namespace.run(["sysctl", "-qw", f"net.ipv4.tcp_syn_linear_timeouts={linear}", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_timestamps=0"])
    return Silence(namespace.open_tun(offload=False))


def syns(silence: Silence, linear: int) -> Found:
    """Begin to connect, with several options."""
    found: Found = {}
    cases = (("syn", 4004, "", 0), ("syncnt", 4005, "syncnt", 1), ("syn, user timeout", 4006, "user_timeout", 2500),
             ("syn, short user timeout", 4007, "user_timeout", 500))  # fmt: skip
    for name, port, option, value in cases:
        options = {option: value} if option else {}
        ours = timetable.syn(SocketOptions(**options), tcp_syn_linear_timeouts=linear)  # type: ignore[arg-type]
        begun = time.monotonic()
        found[name] = (silence.connect(port, False, **options), begun, ours)
    return found


def connections(silence: Silence) -> Found:
    """Leave connections alone: with keepalive, with data, with data and a user timeout; and a listener with a SYN."""
    found: Found = {}
    keep, since = silence.establish(4001, keepidle=1, keepintvl=1, keepcnt=3)
    keep.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found["keepalive"] = (silence.measured[4001], since, timetable.keepalive(SocketOptions(keepidle=1, keepintvl=1, keepcnt=3)))
    for name, port, user_timeout in (("data", 4002, 0), ("user timeout", 4003, 2000)):
        sock, _ = silence.establish(port, user_timeout=user_timeout)
        begun = time.monotonic()
        sock.send(b"x")
        found[name] = (silence.measured[port], begun, timetable.data(SocketOptions(user_timeout=user_timeout)))
    listener = silence.sockets[4080] = socket.create_server((socket.inet_ntoa(LINUX), 4080))
    assert listener.fileno() >= 0
    begun = time.monotonic()
    silence.send(5000, 4080, 7, 0, SYN)
    found["syn-ack"] = (silence.measured.setdefault(4080, Measured()), begun, timetable.syn_ack())
    return found


def measure(namespace: Namespace, silence: Silence, begin: Callable[[], Found]) -> Found:
    """Begin, and let SECONDS pass. The calling thread is in the namespace meanwhile."""
    with namespace.entered():
        found = begin()
        silence.watch(time.monotonic() + SECONDS)
        for sock in silence.sockets.values():
            sock.close()
    return found


def test_times_are_the_kernels(make_namespace: Callable[[], Namespace]) -> None:
    """M-14, M-23, M-25, M-34, M-42: SYN, SYN-ACK, data, keepalive, user timeout; SYNs with tcp_syn_linear_timeouts, too."""
    namespaces = make_namespace(), make_namespace()
    peers = [silence_in(namespace, linear) for namespace, linear in zip(namespaces, (0, 4), strict=True)]
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(measure, namespaces[0], peers[0], lambda: connections(peers[0]) | syns(peers[0], 0))
        linear = pool.submit(measure, namespaces[1], peers[1], lambda: syns(peers[1], 4))
    for found in (ours.result(), linear.result()):
        for name, (theirs, begun, times) in found.items():
            print(name, [round(at - begun, 3) for at in theirs.sent], theirs.over and round(theirs.over - begun, 3))
            compare(times, theirs, begun, 7.1)
