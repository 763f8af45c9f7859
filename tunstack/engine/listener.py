"""Listening: the SYN queue, the accept queue, and the connections that pass from one to the other.

RFC 9293 3.10.7.2, with Linux's limits (M-23, M-24).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunstack.engine.connection import Connection
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.opening import open_passive
from tunstack.engine.options import SocketOptions, check_option
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import State
from tunstack.engine.timers import NEVER
from tunstack.engine.transitions import abort
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack


class Listener:
    """A port in LISTEN, with its SYN queue and its accept queue apart.

    `on_acceptable(listener)` is called when a connection has joined the accept queue; `accept()` takes them until it returns None.
    """

    __slots__ = (
        "_accept_queue",
        "_half_open",
        "address",
        "backlog",
        "is_closed",
        "on_acceptable",
        "options",
        "port",
        "reuse_port",
        "stack",
    )

    state = State.LISTEN

    def __init__(
        self,
        stack: Stack,
        address: bytes,
        port: int,
        backlog: int,
        options: SocketOptions,
        on_acceptable: Callable[[Listener], None],
        reuse_port: bool,
    ) -> None:
        self.stack = stack
        self.address = address  # packed; all zeros: every address of the stack
        self.port = port
        self.backlog = backlog
        self.options = options
        self.on_acceptable = on_acceptable
        self.reuse_port = reuse_port
        self.is_closed = False
        self._half_open: dict[bytes, HalfOpen] = {}  # the SYN queue, by incoming flow
        self._accept_queue: deque[Connection] = deque()

    @property
    def half_open(self) -> int:
        """Length of the SYN queue."""
        return len(self._half_open)

    @property
    def acceptable(self) -> int:
        """Length of the accept queue."""
        return len(self._accept_queue)

    @property
    def backlog_limit(self) -> int:
        """What the accept queue holds at most; Linux takes one more than min(backlog, somaxconn)."""
        return min(self.backlog, self.stack.sysctl.somaxconn)

    def set_option(self, name: str, value: object) -> None:
        """Set a socket option (options.py) of connections to come. OSError as `Connection.set_option`."""
        self.options = self.options.having(name, check_option(name, value, self.stack.algorithms))

    def accept(self) -> Connection | None:
        """Take a connection from the accept queue. It is paused, and its sink is nobody: set `sink`, then call `resume`."""
        return self._accept_queue.popleft() if self._accept_queue else None

    def close(self, now: int) -> None:
        """Listen no more: half-open connections vanish, those not accepted are reset. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.stack.remove_listener(self)
        for entry in list(self._half_open.values()):
            self.drop(entry)
        while self._accept_queue:
            abort(self._accept_queue.popleft(), now)

    def on_segment(self, seg: Segment, now: int) -> None:
        """A segment that belongs to no connection (RFC 9293 3.10.7.2)."""
        if seg.flags & RST:
            return
        if seg.flags & ACK:
            self.stack.reply_reset(seg)
        elif seg.flags & SYN and not seg.flags & FIN:  # Linux drops SYN with FIN
            self.on_syn(seg, now, None)

    def on_syn(self, seg: Segment, now: int, iss: int | None) -> None:
        """Begin a connection; `iss` is given where TIME-WAIT demands one. Data in the SYN is not taken, the peer sends it again."""
        stack = self.stack
        if self.is_overflown():
            return
        if len(self._half_open) >= min(stack.sysctl.tcp_max_syn_backlog, max(self.backlog_limit, 8)):
            stack.counters.TCPReqQFullDrop += 1
            stack.counters.ListenDrops += 1
            return
        flow = reverse_flow(seg.flow)
        entry = HalfOpen(self, seg, stack.isn.isn(flow, now) if iss is None else iss, now)
        self._half_open[seg.flow] = entry
        stack.flows[seg.flow] = entry
        stack.timers.arm(entry, entry.expires_at)
        entry.send_syn_ack(now)

    def drop(self, entry: HalfOpen) -> None:
        """Take a half-open connection out."""
        del self._half_open[entry.flow_in]
        self.stack.flows.pop(entry.flow_in, None)
        entry.expires_at = NEVER
        self.stack.timers.disarm(entry)

    def is_overflown(self) -> bool:
        """Whether the accept queue takes no more, which is counted."""
        if len(self._accept_queue) <= self.backlog_limit:
            return False
        self.stack.counters.ListenOverflows += 1
        self.stack.counters.ListenDrops += 1
        return True

    def complete(self, entry: HalfOpen, seg: Segment, now: int) -> None:
        """The third segment of the handshake came: make the connection, if it can wait to be accepted (M-24)."""
        stack = self.stack
        if self.is_overflown():
            if stack.sysctl.tcp_abort_on_overflow:
                stack.reply_reset(seg)
                self.drop(entry)
            return  # the ACK is ignored; the SYN-ACK goes out again and draws another
        self.drop(entry)
        conn = self.make_connection(entry.flow, entry.flow_in, entry.iss)
        open_passive(conn, entry.agreed, entry.irs, entry.window, now)
        conn.syn_sent_at = entry.sent_at
        if stack.sysctl.tcp_reflect_tos:
            conn.options = conn.options.having("tos", entry.tos)
        self.enqueue(conn)
        conn.on_segment(seg, now)
        self.on_acceptable(self)

    def make_connection(self, flow: bytes, flow_in: bytes, iss: int) -> Connection:
        """Make a connection of ours: paused, with nobody as its sink, until it is accepted."""
        conn = Connection(self.stack, flow, flow_in, iss, self.options, NULL_SINK)
        conn.paused = True
        conn.listener = self
        return conn

    def enqueue(self, conn: Connection) -> None:
        """Put a connection into the accept queue; the stack knows it from now on. The caller says `on_acceptable`."""
        self.stack.adopt(conn)
        self.stack.counters.TcpPassiveOpens += 1
        self._accept_queue.append(conn)
