"""A walk through the state diagram of RFC 9293: which transitions a stack was seen to make, and peers to make them with.

The states are read from what lists sockets (`listing`), after every segment that comes, every call and every turn of the timers, so
that none is passed by.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable

from tunstack.device.tun import TunDevice
from tunstack.engine import Connection, Stack, StackConfig, format_address, pack_address
from tunstack.engine.listener import Listener
from tunstack.engine.timewait import TimeWait
from tunstack.wire.flow import unpack_flow
from tunstack.wire.segment import Batch

US, LINUX, RAW = "10.77.0.2", "10.77.0.1", "10.77.0.3"
Edge = tuple[str, str]

# Figure 5, with what its notes add: note 2, FIN-WAIT-1 to TIME-WAIT. What SEND makes of a LISTEN (to SYN-SENT) no socket can do: Linux's
# connect(2) of a listening socket fails, too.
DIAGRAM: set[Edge] = {
    ("CLOSED", "LISTEN"),
    ("CLOSED", "SYN_SENT"),
    ("LISTEN", "CLOSED"),
    ("LISTEN", "SYN_RECEIVED"),
    ("SYN_RECEIVED", "LISTEN"),
    ("SYN_RECEIVED", "ESTABLISHED"),
    ("SYN_RECEIVED", "FIN_WAIT_1"),
    ("SYN_SENT", "CLOSED"),
    ("SYN_SENT", "SYN_RECEIVED"),
    ("SYN_SENT", "ESTABLISHED"),
    ("ESTABLISHED", "FIN_WAIT_1"),
    ("ESTABLISHED", "CLOSE_WAIT"),
    ("FIN_WAIT_1", "FIN_WAIT_2"),
    ("FIN_WAIT_1", "CLOSING"),
    ("FIN_WAIT_1", "TIME_WAIT"),
    ("FIN_WAIT_2", "TIME_WAIT"),
    ("CLOSING", "TIME_WAIT"),
    ("CLOSE_WAIT", "LAST_ACK"),
    ("LAST_ACK", "CLOSED"),
    ("TIME_WAIT", "CLOSED"),
}
# Note 3: a RST leads from any state to CLOSED or LISTEN. TIME-WAIT is not among them: RFC 1337.
BY_RESET: set[Edge] = {
    ("SYN_SENT", "CLOSED"),
    ("SYN_RECEIVED", "LISTEN"),
    ("SYN_RECEIVED", "CLOSED"),
    ("ESTABLISHED", "CLOSED"),
    ("FIN_WAIT_1", "CLOSED"),
    ("FIN_WAIT_2", "CLOSED"),
    ("CLOSE_WAIT", "CLOSED"),
    ("CLOSING", "CLOSED"),
    ("LAST_ACK", "CLOSED"),
}


def listing(stack: Stack) -> dict[str, str]:
    """Return the state of every socket by its ends, as what lists sockets has it."""
    rows = {f"{format_address(each.address)}:{each.port}": "LISTEN" for each in stack.listeners}
    for flow, owner in stack.flows.items():
        src, sport, dst, dport = unpack_flow(flow)
        name = owner.state.name if isinstance(owner, Connection) else "TIME_WAIT" if isinstance(owner, TimeWait) else "SYN_RECEIVED"
        rows[f"{format_address(dst)}:{dport} {format_address(src)}:{sport}"] = name
    return rows


class Sink:
    """An application that does nothing by itself."""

    def on_established(self) -> None: ...
    def on_data(self, data: memoryview) -> None: ...
    def on_eof(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_closed(self, error: OSError | None) -> None: ...


class Walker:
    """A stack at US on a TUN device, driven step by step. `seen` has every transition that its sockets made."""

    def __init__(self, device: TunDevice) -> None:
        self.device = device
        config = StackConfig((pack_address(US),), mtu=device.mtu, max_payload=device.max_payload)
        self.stack = Stack(config, random.Random(1), bytes(16))
        self.seen: set[Edge] = set()
        self.accepted: list[Connection] = []
        self._states: dict[str, str] = {}
        self._skipped = 0  # us that were not waited for
        self._passive: set[str] = set()  # sockets that a listener made

    def now(self) -> int:
        return time.monotonic_ns() // 1000 + self._skipped

    def look(self) -> None:
        """Take down what has changed."""
        rows = listing(self.stack)
        for ends in self._states.keys() | rows.keys():
            before, after = self._states.get(ends, "CLOSED"), rows.get(ends, "CLOSED")
            if before == after:
                continue
            # A listener's children begin in its state, and as long as they are half open go back to it.
            if before == "CLOSED" and after == "SYN_RECEIVED":
                before = "LISTEN"
                self._passive.add(ends)
            elif before == "SYN_RECEIVED" and after == "CLOSED" and ends in self._passive:
                after = "LISTEN"
            self.seen.add((before, after))
        self._states = rows

    def listing(self) -> dict[str, str]:
        return listing(self.stack)

    def state(self, conn: Connection) -> str:
        """Return how the connection is listed."""
        local, remote = conn.local, conn.remote
        ends = f"{format_address(local[0])}:{local[1]} {format_address(remote[0])}:{remote[1]}"
        return listing(self.stack).get(ends, "CLOSED")

    # What the application does.

    def listen(self, port: int) -> Listener:
        listener = self.stack.listen(pack_address(US), port, on_acceptable=self._accept)
        self.look()
        return listener

    def _accept(self, listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        conn.sink = Sink()
        self.accepted.append(conn)

    def connect(self, address: str, port: int, local_port: int) -> Connection:
        """Open a connection. Its SYN leaves with the next turn."""
        conn = self.stack.connect(pack_address(address), port, Sink(), self.now(), local_port=local_port)
        self.look()
        return conn

    def call(self, method: Callable[[int], None]) -> None:
        """Call something of a connection or a listener. What it has to send leaves with the next turn."""
        method(self.now())
        self.look()

    # What brings it on.

    def transmit(self) -> None:
        """Let everything leave."""
        while (item := self.stack.poll_transmit(self.now())) is not None:
            assert self.device.write(item)
        self.look()

    def turn(self) -> None:
        """Let leave what is to leave, and take in what has come, segment by segment."""
        self.transmit()
        if select.select([self.device.fileno()], [], [], 0.005)[0]:
            batch = self.device.read_batch()
            for segment in batch.segments:
                single = Batch()
                single.segments.append(segment)
                self.stack.receive(single, self.now())
                self.look()
        self.stack.advance(self.now())
        self.transmit()

    def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        """Turn until it is so."""
        end = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < end, f"{what}: {listing(self.stack)}"
            self.turn()

    def until_state(self, conn: Connection, state: str) -> None:
        self.until(lambda: self.state(conn) == state, state)

    def skip(self, seconds: int) -> None:
        """Let time pass for the stack alone."""
        self._skipped += seconds * 1_000_000
        self.turn()


class RawPeer:
    """The other end as a raw socket: it sends what it is told from an address that nobody else answers for, and sees what comes.

    Made within the namespace.
    """

    def __init__(self, walker: Walker, interface: str, local_port: int, port: int) -> None:
        self.walker = walker
        self.ports = struct.pack("!HH", local_port, port)
        self.seq = 1000
        self.ack = 0  # what the stack's segments come to
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._sniffer.bind((interface, 0x0800))
        self._sniffer.setblocking(False)

    def send(self, flags: str, ack: int | None = None) -> None:
        """Send a segment with these flags, of "FSRPA", numbered behind what was sent before; then the stack takes its turn."""
        bits = sum(1 << "FSRPA".index(flag) for flag in flags)
        acknowledged = (self.ack if ack is None else ack) if "A" in flags else 0
        tcp = bytearray(self.ports + struct.pack("!IIHHHH", self.seq, acknowledged, 5 << 12 | bits, 65535, 0, 0))
        pseudo = socket.inet_aton(RAW) + socket.inet_aton(US) + struct.pack("!HH", 6, len(tcp))
        tcp[16:18] = checksum(pseudo + bytes(tcp)).to_bytes(2, "big")
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, socket.inet_aton(RAW), socket.inet_aton(US))
        self._sender.sendto(ip + bytes(tcp), (US, 0))
        self.seq = (self.seq + ("S" in flags) + ("F" in flags)) & 0xFFFFFFFF
        self.walker.turn()

    def expect(self, flags: str) -> None:
        """Wait for a segment with exactly these flags, and take its number and what it occupies as what is to be acknowledged."""
        bits = sum(1 << "FSRPA".index(flag) for flag in flags)
        end = time.monotonic() + 20
        while True:
            try:
                packet = self._sniffer.recv(65535)
            except BlockingIOError:
                assert time.monotonic() < end, f"no segment with {flags}"
                self.walker.turn()
                continue
            tcp = packet[20:]
            if packet[12:20] != socket.inet_aton(US) + socket.inet_aton(RAW) or tcp[:4] != self.ports[2:] + self.ports[:2]:
                continue
            seq, _, offset_flags = struct.unpack_from("!IIH", tcp, 4)
            if offset_flags & 0x3F & ~0x08 == bits:
                self.ack = (seq + ("S" in flags) + ("F" in flags)) & 0xFFFFFFFF
                return

    def close(self) -> None:
        self._sender.close()
        self._sniffer.close()


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
