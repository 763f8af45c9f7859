"""When a TCP sends what is not answered, and when it gives up: our engine's times in virtual time, for comparison with what is written
and with the kernel's.

Each function returns the times at which segments left, counted from the first of them, and when the connection was over, all in us.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tunstack.engine import Connection, SocketOptions, Stack, StackConfig, Sysctl, pack_address
from tunstack.engine.listener import Listener
from tunstack.wire.flow import pack_flow, reverse_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Batch, Segment

US, PEER = pack_address("10.77.0.2"), pack_address("10.77.0.1")
START = 5_000_000  # us
MASK = 0xFFFFFFFF


@dataclass
class Times:
    """What was seen: segments by when they left, and the end with its reason."""

    sent: list[int] = field(default_factory=list)
    over: int | None = None
    error: str | None = None
    was_reset: bool = False  # a RST left with the end


class Peer:
    """A stack in virtual time, and a peer that says what it is told and nothing else."""

    def __init__(self, **knobs: object) -> None:
        config = StackConfig((US,), sysctl=Sysctl(**knobs))  # type: ignore[arg-type]
        self.stack = Stack(config, random.Random(1), bytes(16))
        self.now = START
        self.times = Times()

    # The application.

    def on_established(self) -> None: ...
    def on_data(self, data: memoryview) -> None: ...
    def on_eof(self) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self.times.over = self.now
        self.times.error = type(error).__name__ if error is not None else None

    # The wire.

    def poll(self) -> list[Segment]:
        sent = []
        while (item := self.stack.poll_transmit(self.now)) is not None:
            assert isinstance(item, Segment)
            sent.append(item)
        return sent

    def say(self, flow: bytes, seq: int, ack: int, flags: int) -> None:
        """Bring a segment from the peer. It has no options: no SACK, so no tail loss probes."""
        batch = Batch()
        batch.segments.append(Segment(flow, seq, ack, flags, 65535))
        self.stack.receive(batch, self.now)

    def connected(self, options: SocketOptions | None = None) -> Connection:
        """Open a connection; the peer answers after no time."""
        conn = self.stack.connect(PEER, 80, self, self.now, options=options)
        (syn,) = self.poll()
        self.say(reverse_flow(conn.flow), 1000, (syn.seq + 1) & MASK, SYN | ACK)
        self.poll()
        return conn

    def wait(self, begun: int, until: int = 1 << 60) -> Times:
        """Let time pass until nothing is left to happen; return the times since `begun`."""
        while True:
            for seg in self.poll():
                if seg.flags & RST:
                    self.times.was_reset = True
                else:
                    self.times.sent.append(self.now - begun)
            deadline = self.stack.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(deadline, self.now)
            self.stack.advance(self.now)
        if self.times.over is not None:
            self.times.over -= begun
        return self.times


def syn(options: SocketOptions | None = None, **knobs: object) -> Times:
    """A SYN that nobody answers."""
    peer = Peer(**knobs)
    peer.stack.connect(PEER, 80, peer, peer.now, options=options)
    return peer.wait(peer.now)


def syn_ack(**knobs: object) -> Times:
    """A SYN-ACK that nobody answers."""
    peer = Peer(**knobs)
    accepted: list[Listener] = []
    peer.stack.listen(US, 80, on_acceptable=accepted.append)
    begun = peer.now
    peer.say(pack_flow(PEER, 4000, US, 80), 1000, 0, SYN)
    times = peer.wait(begun)
    assert not peer.stack.flows and not accepted
    times.over = peer.now - begun
    return times


def data(options: SocketOptions | None = None, is_orphan: bool = False, **knobs: object) -> Times:
    """Data that nobody acknowledges; the first time is that of its first retransmission."""
    peer = Peer(**knobs)
    conn = peer.connected(options)
    conn.send(b"x", peer.now)
    if is_orphan:
        conn.close(peer.now)
    begun = peer.now
    return peer.wait(begun)


def keepalive(options: SocketOptions, **knobs: object) -> Times:
    """A connection without traffic, whose peer is gone."""
    options = options.having("keepalive", True)
    peer = Peer(**knobs)
    peer.connected(options)
    return peer.wait(peer.now)


def fin_wait_2(**knobs: object) -> Times:
    """A closed connection whose peer acknowledged our FIN, and sends none of its own."""
    peer = Peer(**knobs)
    conn = peer.connected()
    conn.close(peer.now)
    (fin,) = peer.poll()
    peer.say(reverse_flow(conn.flow), 1001, (fin.seq + 1) & MASK, ACK)
    assert conn.state.name == "FIN_WAIT_2"
    begun = peer.now
    times = peer.wait(begun)
    assert not peer.stack.flows
    times.over = peer.now - begun
    return times


def time_wait(**knobs: object) -> Times:
    """A connection that was closed from our side first."""
    peer = Peer(**knobs)
    conn = peer.connected()
    conn.close(peer.now)
    (fin,) = peer.poll()
    peer.say(reverse_flow(conn.flow), 1001, (fin.seq + 1) & MASK, FIN | ACK)
    begun = peer.now
    peer.poll()
    times = peer.wait(begun)
    assert not peer.stack.flows
    times.over = peer.now - begun
    return times
