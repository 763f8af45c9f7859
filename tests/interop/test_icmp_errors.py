"""What an ICMP error does to the kernel's connections and to ours: every code, while opening, half open and established."""

from __future__ import annotations

import errno
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

import pytest
from interop.namespaces import Namespace
from interop.walk import checksum

from tunstack.device.tun import TunDevice
from tunstack.engine import Connection, SocketOptions, Stack, StackConfig
from tunstack.engine.sockopt import getsockopt
from tunstack.wire import ipv4
from tunstack.wire.flow import pack_flow, reverse_flow, unpack_flow
from tunstack.wire.segment import ACK, RST, SYN, Batch, Segment

pytestmark = pytest.mark.root

HERE, THERE = socket.inet_aton("10.77.0.1"), socket.inet_aton("10.77.0.2")
UNREACHABLE, QUENCH, EXCEEDED, PROBLEM = 3, 4, 11, 12
ERRORS = [(UNREACHABLE, code) for code in (*range(4), *range(5, 17))] + [(QUENCH, 0), (EXCEEDED, 0), (EXCEEDED, 1), (PROBLEM, 0)]
TCP_USER_TIMEOUT = 18
TIMEOUT = 700  # ms
Answers = dict[tuple[int, int], str]  # by type and code: what the socket was told, or became of it


def icmp_error(error: tuple[int, int], flow: bytes, seq: int) -> bytes:
    """Return the packet with an error about a segment."""
    src, sport, dst, dport = unpack_flow(flow)
    quoted = ipv4.build(src, dst, ipv4.TCP, struct.pack("!HHI", sport, dport, seq) + bytes(12), dont_fragment=True)
    message = bytearray(struct.pack("!BBHI", *error, 0, 0) + quoted)
    message[2:4] = checksum(bytes(message)).to_bytes(2, "big")
    return ipv4.build(dst, src, ipv4.ICMP, bytes(message))


def name(number: int) -> str:
    return errno.errorcode[number] if number else "nothing"


class Kernel:
    """The kernel's connections, with a TUN's far end as their peer. Made and used within the namespace."""

    def __init__(self, device: TunDevice) -> None:
        self.device = device
        self.segments: list[Segment] = []

    def send(self, seg: Segment) -> None:
        assert self.device.write(seg)

    def read(self, seconds: float) -> list[Segment]:
        """Return what the kernel sends within some time."""
        found = []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self.device.fileno()], [], [], left)[0]:
            segments = self.device.read_batch().segments
            found += [Segment(seg.flow, seg.seq, seg.ack, seg.flags, seg.window) for seg in segments]  # without what is borrowed
        return found

    def connect(self, port: int) -> tuple[socket.socket, Segment]:
        """Begin to connect; return the SYN."""
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, TIMEOUT)
        sock.setblocking(False)
        sock.bind((socket.inet_ntoa(HERE), port))
        assert sock.connect_ex((socket.inet_ntoa(THERE), 80)) == errno.EINPROGRESS
        (syn,) = self.until(lambda seg: unpack_flow(seg.flow)[1] == port and bool(seg.flags & SYN))
        return sock, syn

    def until(self, fits: Callable[[Segment], bool]) -> list[Segment]:
        end = time.monotonic() + 5
        while True:
            found = [seg for seg in self.read(0.003) if fits(seg)]
            if found:
                return found[:1]
            assert time.monotonic() < end

    def opening(self) -> Answers:
        """What connect(2) is told at once."""
        answers = {}
        for number, error in enumerate(ERRORS):
            sock, syn = self.connect(4000 + number)
            with sock:
                self.device.write(icmp_error(error, syn.flow, syn.seq))
                self.read(0.01)
                answers[error] = name(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return answers

    def established(self) -> tuple[Answers, Answers, list[str]]:
        """What a connection with data in flight is told at once, when it then times out, and when it asks (SO_ERROR, twice)."""
        socks = {}
        for number, error in enumerate(ERRORS):
            sock, syn = self.connect(5000 + number)
            self.send(Segment(reverse_flow(syn.flow), 7, (syn.seq + 1) & 0xFFFFFFFF, SYN | ACK, 65535))
            self.read(0.003)
            sock.send(b"x")
            self.device.write(icmp_error(error, syn.flow, (syn.seq + 1) & 0xFFFFFFFF))
            socks[error] = sock
        self.read(0.01)
        polls = {}
        for error, sock in socks.items():
            polls[error] = select.poll()
            polls[error].register(sock, 0)
        at_once = {error: "an error" if poll.poll(0) else "nothing" for error, poll in polls.items()}
        soft = socks.pop((UNREACHABLE, 13))
        asked = [name(soft.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) for _ in range(2)]  # takes it away
        soft.close()
        for error in socks:
            assert polls[error].poll(10_000)
        at_last = {error: name(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) for error, sock in socks.items()}
        for sock in socks.values():
            sock.close()
        return at_once, at_last, asked

    def half_open(self) -> Answers:
        """Whether the SYN-ACK is sent again."""
        with socket.create_server((socket.inet_ntoa(HERE), 80), backlog=100):
            flows = {}
            for number, error in enumerate(ERRORS):
                flow = pack_flow(THERE, 6000 + number, HERE, 80)
                self.send(Segment(flow, 7, 0, SYN, 65535))
                (syn_ack,) = self.until(lambda seg, port=6000 + number: unpack_flow(seg.flow)[3] == port)  # type: ignore[misc]
                self.device.write(icmp_error(error, syn_ack.flow, syn_ack.seq))
                flows[error] = syn_ack.flow
            again = {seg.flow for seg in self.read(1.6)}
        return {error: "sent again" if flow in again else "dropped" for error, flow in flows.items()}


class Asked:
    """A connection as getsockopt(2) wants it."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn


class Ours:
    """The same with a stack in virtual time."""

    def __init__(self) -> None:
        self.stack = Stack(StackConfig((HERE,)), random.Random(1), bytes(16))
        self.now = 1_000_000
        self.told = "nothing"

    def on_established(self) -> None: ...
    def on_data(self, data: memoryview) -> None: ...
    def on_eof(self) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self.told = name(error.errno or 0) if error is not None else "closed"

    def poll(self) -> list[Segment]:
        found = []
        while (item := self.stack.poll_transmit(self.now)) is not None:
            assert isinstance(item, Segment)
            found.append(item)
        return found

    def bring(self, *segments: Segment, packet: bytes = b"") -> None:
        batch = Batch()
        batch.segments.extend(segments)
        if packet:
            batch.packets.append(memoryview(packet))
        self.stack.receive(batch, self.now)

    def connect(self) -> tuple[Connection, Segment]:
        conn = self.stack.connect(THERE, 80, self, self.now, options=SocketOptions(user_timeout=TIMEOUT))
        (syn,) = self.poll()
        return conn, syn

    def wait(self, seconds: int) -> list[Segment]:
        found = []
        end = self.now + seconds * 1_000_000
        while (deadline := self.stack.next_deadline()) is not None and deadline <= end:
            self.now = max(deadline, self.now)
            self.stack.advance(self.now)
            found += self.poll()
        return found

    @staticmethod
    def opening(error: tuple[int, int]) -> str:
        world = Ours()
        _, syn = world.connect()
        world.bring(packet=icmp_error(error, syn.flow, syn.seq))
        return world.told

    @staticmethod
    def established(error: tuple[int, int]) -> tuple[str, str, list[str]]:
        world = Ours()
        conn, syn = world.connect()
        world.bring(Segment(reverse_flow(syn.flow), 7, (syn.seq + 1) & 0xFFFFFFFF, SYN | ACK, 65535))
        conn.send(b"x", world.now)
        world.poll()
        world.bring(packet=icmp_error(error, syn.flow, (syn.seq + 1) & 0xFFFFFFFF))
        at_once = world.told
        if error == (UNREACHABLE, 13):
            asked = [name(int.from_bytes(getsockopt(Asked(conn), socket.SOL_SOCKET, socket.SO_ERROR), sys.byteorder)) for _ in range(2)]
            return at_once, world.told, asked
        world.wait(10)
        return at_once, world.told, []

    @staticmethod
    def half_open(error: tuple[int, int]) -> str:
        world = Ours()
        world.stack.listen(HERE, 80, on_acceptable=lambda listener: None)
        world.bring(Segment(pack_flow(THERE, 6000, HERE, 80), 7, 0, SYN, 65535))
        (syn_ack,) = world.poll()
        assert not syn_ack.flags & RST
        world.bring(packet=icmp_error(error, syn_ack.flow, syn_ack.seq))
        return "sent again" if world.wait(2) else "dropped"


def test_errors_are_told_as_the_kernel_tells_them(namespace: Namespace) -> None:
    """M-08, M-25, RFC 1122 4.2.3.9, RFC 5461: an attempt ends at once, soft or hard; a connection keeps the error for its timeout."""
    device = namespace.open_tun(offload=False)
    namespace.run(["sysctl", "-qw", "net.ipv4.tcp_syn_linear_timeouts=0", "net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_sack=0"])
    with namespace.entered():
        kernel = Kernel(device)
        opening, half_open, (at_once, at_last, asked) = kernel.opening(), kernel.half_open(), kernel.established()
    assert {error: Ours.opening(error) for error in ERRORS} == opening
    assert {error: Ours.half_open(error) for error in ERRORS} == half_open
    ours = {error: Ours.established(error) for error in ERRORS}
    assert {error: answers[0] for error, answers in ours.items()} == at_once
    assert {error: answers[1] for error, answers in ours.items() if error in at_last} == at_last
    assert ours[UNREACHABLE, 13][2] == asked == ["EHOSTUNREACH", "nothing"]
    assert opening[UNREACHABLE, 0] == "ENETUNREACH" and opening[UNREACHABLE, 3] == "ECONNREFUSED" and opening[QUENCH, 0] == "nothing"
