"""A stack of ours with a listener, and a peer that is nothing but segments: for what takes many connections, or many thousands of tries."""

from __future__ import annotations

import random

from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NullSink
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.seq import MASK
from tunstack.wire.flow import pack_address, pack_flow, reverse_flow
from tunstack.wire.segment import ACK, SYN, Batch, Segment

LOCAL, REMOTE = pack_address("192.0.2.1"), pack_address("198.51.100.1")
PORT = 80
IRS = 0x20000000  # the peer's ISN
START = 1_000_000_000  # us


class Reader(NullSink):
    """Remembers what came."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False
        self.error: OSError | None = None

    def on_data(self, data: memoryview) -> None:
        self.data += data

    def on_closed(self, error: OSError | None) -> None:
        self.closed, self.error = True, error


class RawPeer:
    """The stack, the time, and what it has sent."""

    def __init__(self, **sysctl: object) -> None:
        self.now = START
        self.stack = Stack(StackConfig((LOCAL,), sysctl=Sysctl(**sysctl)), random.Random(1), bytes(range(32)))  # type: ignore[arg-type]
        self.listener: Listener = self.stack.listen(LOCAL, PORT, on_acceptable=lambda listener: None, backlog=4096)
        self.sent: list[Segment] = []  # since `bring` was called last

    def bring(self, *segments: Segment) -> list[Segment]:
        """Have segments arrive; return what that makes leave."""
        batch = Batch()
        batch.segments = list(segments)
        self.stack.receive(batch, self.now)
        return self.poll()

    def poll(self) -> list[Segment]:
        """Return what leaves now."""
        self.sent = []
        while (item := self.stack.poll_transmit(self.now)) is not None:
            assert isinstance(item, Segment)
            self.sent.append(item)
        return self.sent

    def wait(self, duration: int) -> list[Segment]:
        """Let time pass, from deadline to deadline; return all that left."""
        end = self.now + duration
        left = []
        while (deadline := self.stack.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.stack.advance(self.now)
            left += self.poll()
        self.now = end
        return left

    def open(self, port: int, ts_val: int | None = None) -> Connection:
        """Open a connection from a port of the peer's; accepted, with a Reader, not paused."""
        flow = pack_flow(REMOTE, port, LOCAL, PORT)
        (syn_ack,) = self.bring(Segment(flow, IRS, 0, SYN, 65535, (), 0, ts_val, 0, mss=1460, sack_ok=True))
        assert syn_ack.flags == SYN | ACK
        self.bring(Segment(flow, IRS + 1, (syn_ack.seq + 1) & MASK, ACK, 65535, (), 0, ts_val, syn_ack.ts_val or 0))
        conn = self.listener.accept()
        assert conn is not None and conn.flow == reverse_flow(flow)
        conn.sink = Reader()
        conn.resume(self.now)
        self.poll()
        return conn

    def segment(self, conn: Connection, flags: int = ACK, seq: int | None = None, ack: int | None = None, data: bytes = b"") -> Segment:
        """Return a segment of the peer's; by default what it would send next."""
        return Segment(
            conn.flow_in,
            conn.rx.rcv_nxt if seq is None else seq & MASK,
            conn.tx.snd_nxt if ack is None else ack & MASK,
            flags,
            65535,
            (memoryview(data),) if data else (),
            len(data),
            conn.rx.ts_recent if conn.ts_ok else None,
            conn.ts_val(self.now) if conn.ts_ok else 0,
        )
