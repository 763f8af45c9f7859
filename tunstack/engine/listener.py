"""Listening: the SYN queue, the accept queue, and the connections that pass from one to the other.

RFC 9293 3.10.7.2, with Linux's limits, measured on 6.18 (M-23, M-24). Both queues hold one more than min(backlog, somaxconn).
Deviates: tcp_max_syn_backlog bounds the SYN queue with SYN cookies too, which Linux does not; cookies only begin earlier for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunstack.engine import fastopen, syncookie
from tunstack.engine.connection import Connection
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.opening import open_passive
from tunstack.engine.options import SocketOptions, check_option
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import State
from tunstack.engine.terms import Terms
from tunstack.engine.timers import NEVER
from tunstack.engine.transitions import abort
from tunstack.wire.flow import reverse_flow, source
from tunstack.wire.segment import ACK, FIN, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.fastopenrequest import Requests
    from tunstack.engine.handshake import Agreed
    from tunstack.engine.listeners import PortGroup
    from tunstack.engine.stack import Stack

PRUNE_LENGTH = 8  # a SYN queue that is no longer than half of this is not pruned
ALWAYS = 2  # tcp_syncookies: even where the queue is not full


class Listener:
    """A port in LISTEN, with its SYN queue and its accept queue apart.

    `on_acceptable(listener)` is called when a connection has joined the accept queue; `accept()` takes them until it returns None.
    """

    __slots__ = (
        "_accept_queue",
        "_half_open",
        "_inherited",
        "_terms",
        "address",
        "backlog",
        "fastopen",
        "group",
        "has_warned",
        "is_closed",
        "on_acceptable",
        "options",
        "port",
        "reuse_port",
        "stack",
        "young",
    )

    group: PortGroup  # set by who takes it in (listeners.py)
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
        self._inherited = self._inherit()  # one object for all connections
        self._terms: Terms | None = None  # what the latest was offered
        self.on_acceptable = on_acceptable
        self.reuse_port = reuse_port
        self.is_closed = False
        self.fastopen: Requests | None = None  # connections by cookie, once there was one
        self.has_warned = False  # of a flood
        self.young = 0  # half-open connections whose SYN-ACK was sent once
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
        """What either queue holds, less one: min(backlog, somaxconn), a negative backlog being a large one."""
        somaxconn = self.stack.sysctl.somaxconn
        return self.backlog if 0 <= self.backlog < somaxconn else somaxconn

    @property
    def is_syn_queue_full(self) -> bool:
        """Whether the SYN queue takes no more."""
        length = len(self._half_open)
        return length > self.backlog_limit or length >= self.stack.sysctl.tcp_max_syn_backlog

    @property
    def synack_retries(self) -> int:
        """How often a SYN-ACK is sent again: fewer times the more the queue, if it is half full, consists of old entries, as in Linux."""
        retries = self.options.syncnt or self.stack.sysctl.tcp_synack_retries
        length = len(self._half_open)
        if 2 * length > max(PRUNE_LENGTH, self.backlog_limit):
            young = 2 * self.young
            while retries > 2 and length >= young:
                retries -= 1
                young *= 2
        return retries

    def set_option(self, name: str, value: object) -> None:
        """Set a socket option (options.py) of connections to come. OSError as `Connection.set_option`."""
        self.options = self.options.having(name, check_option(name, value, self.stack.algorithms))
        self._inherited = self._inherit()
        if name == "keys":
            self.stack.use_keys()

    def _inherit(self) -> SocketOptions:
        """Return what connections start with: all but what is a listener's matter."""
        return self.options.having("defer_accept", 0) if self.options.defer_accept else self.options

    def terms(self, flow: bytes) -> Terms:
        """Return what is offered now to the peer of a flow (ours)."""
        terms = self._terms
        mtu = self.stack.path_mtu.get(flow)
        if terms is None or not terms.are_current(self.options, mtu):
            terms = self._terms = Terms(self.options, self.stack.sysctl, mtu)
        return terms

    def accept(self) -> Connection | None:
        """Take a connection from the accept queue. It is paused, and its sink is nobody: set `sink`, then call `resume`."""
        return self._accept_queue.popleft() if self._accept_queue else None

    def close(self, now: int) -> None:
        """Listen no more: half-open connections vanish, those not accepted are reset. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.stack.listeners.remove(self)
        for entry in list(self._half_open.values()):
            self.drop(entry)
        while self._accept_queue:
            abort(self._accept_queue.popleft(), now)

    def on_segment(self, seg: Segment, now: int) -> None:
        """A segment that belongs to no connection (RFC 9293 3.10.7.2)."""
        flags = seg.flags
        if flags & RST:
            return
        if flags & ACK:
            if not syncookie.complete(self, seg, now):
                self.stack.reply_reset(seg)
        elif flags & SYN and not flags & FIN:  # Linux drops SYN with FIN
            self.on_syn(seg, now, None)

    def on_syn(self, seg: Segment, now: int, iss: int | None) -> None:
        """Begin a connection. Data in the SYN is not taken, the peer sends it again.

        `iss` is given where TIME-WAIT demands one: a peer that is real, which no limit of the SYN queue turns away.
        """
        stack = self.stack
        cookies = stack.sysctl.tcp_syncookies
        wants_cookie = iss is None and (cookies == ALWAYS or self.is_syn_queue_full)
        if wants_cookie and not self._is_flooded(cookies):
            return
        if self._accept_queue and self.is_overflown():
            return
        if wants_cookie:
            syncookie.answer(self, seg, now)
            return
        if iss is None and not cookies and self._is_kept_free(seg):
            stack.counters.ListenDrops += 1
            return
        flow = reverse_flow(seg.flow)
        start, ts_offset = stack.isn.start(flow, now)
        if iss is None:
            iss = start
        cookie = fastopen.answer(self, seg, now, iss)
        if cookie is None:
            return  # it is a connection already
        entry = HalfOpen(self, seg, flow, iss, ts_offset, now)
        self._half_open[seg.flow] = entry
        self.young += 1
        stack.flows[seg.flow] = entry
        stack.first_timeouts.add(entry)
        entry.send_syn_ack(entry.kind.terms, cookie)

    def _is_flooded(self, cookies: int) -> bool:
        """The SYN queue is full: tell it once, and whether a cookie may be the answer."""
        if not self.has_warned and cookies != ALWAYS:
            self.has_warned = True
            if self.stack.on_flood is not None:
                self.stack.on_flood(self)
        counters = self.stack.counters
        if cookies:
            counters.TCPReqQFullDoCookies += 1
            return True
        counters.TCPReqQFullDrop += 1
        counters.ListenDrops += 1
        return False

    def _is_kept_free(self, syn: Segment) -> bool:
        """Without cookies the last quarter of tcp_max_syn_backlog is kept for hosts that are known to be there, as in Linux."""
        limit = self.stack.sysctl.tcp_max_syn_backlog
        return limit - len(self._half_open) < limit >> 2 and source(syn.flow) not in self.stack.proven

    def drop(self, entry: HalfOpen) -> None:
        """Take a half-open connection out."""
        stack = self.stack
        flow_in = entry.flow_in
        del self._half_open[flow_in]
        stack.flows.pop(flow_in, None)
        entry.expires_at = NEVER
        if not entry.timeouts:
            self.young -= 1
        stack.first_timeouts.discard(entry)

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
        if self._accept_queue and self.is_overflown():
            entry.is_acked = True
            if stack.sysctl.tcp_abort_on_overflow:
                stack.counters.EmbryonicRsts += 1
                stack.reply_reset(seg)
                self.drop(entry)
            return  # the ACK is ignored; the SYN-ACK goes out again and draws another
        self.drop(entry)
        conn = self.make_connection(entry.flow, entry.flow_in, entry.iss, entry.ts_offset)
        self.establish(conn, seg, entry.irs, entry.agreed, entry.ts_recent, entry.window, entry.sent_at, entry.tos, now)

    def establish(
        self, conn: Connection, seg: Segment, irs: int, agreed: Agreed, ts_recent: int, window: int, sent_at: int, tos: int, now: int
    ) -> None:
        """Have a handshake's third segment complete a connection that was just made.

        `ts_recent` is TS.Recent of the SYN, `tos` its own; `window` is what our SYN-ACK advertised, `sent_at` when that left, 0 if it is
        no sample of the round-trip time.
        """
        stack = self.stack
        open_passive(conn, agreed, irs, ts_recent, window, now)
        conn.syn_sent_at = sent_at
        if stack.sysctl.tcp_reflect_tos:
            conn.options = conn.options.having("tos", tos)
        stack.proven.add(source(seg.flow))
        self.enqueue(conn)
        conn.on_segment(seg, now)
        self.on_acceptable(self)

    def make_connection(self, flow: bytes, flow_in: bytes, iss: int, ts_offset: int) -> Connection:
        """Make a connection of ours: paused, with nobody as its sink, until it is accepted."""
        conn = Connection(self.stack, flow, flow_in, iss, ts_offset, self._inherited, NULL_SINK)
        conn.paused = True
        conn.listener = self
        return conn

    def enqueue(self, conn: Connection) -> None:
        """Put a connection into the accept queue; the stack knows it from now on. The caller says `on_acceptable`."""
        self.stack.adopt(conn)
        self.stack.counters.TcpPassiveOpens += 1
        self._accept_queue.append(conn)
