"""One connection: its public surface, its timers and its output.

RFC 9293 3.3, 3.8, 3.9.1. Arriving segments are handled in input.py, opening and closing in state.py; the halves are `tx` (sender.py)
and `rx` (receiver.py). Knows no clock and no I/O: every method that needs the time is given it. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunstack.engine import (
    delivery,
    fastinput,
    fastopenrequest,
    output,
    pathmss,
    sendbuffer,
    settings,
    timeouts,
    transitions,
    urgent,
    usertimeout,
)
from tunstack.engine.delivery import deliver
from tunstack.engine.errors import errno_error, socket_error
from tunstack.engine.handshake import Agreed, local_mss
from tunstack.engine.info import ConnectionInfo
from tunstack.engine.options import SocketOptions, check_option
from tunstack.engine.receiver import Receiver
from tunstack.engine.recovery import Recovery
from tunstack.engine.rtt import RttEstimator
from tunstack.engine.sender import Sender
from tunstack.engine.sink import Sink
from tunstack.engine.state import CLOSED, ESTABLISHED, MAY_WRITE, SECOND, SYN_RECEIVED, SYN_SENT, SYNCHRONIZED, TIME_WAIT
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK
from tunstack.wire.flow import unpack_flow
from tunstack.wire.segment import Segment

if TYPE_CHECKING:
    from tunstack.engine.fastopenclient import Attempt
    from tunstack.engine.fastopenrequest import Request
    from tunstack.engine.icmp import PathError
    from tunstack.engine.mtuprobe import MtuProbe
    from tunstack.engine.stack import Stack


class Connection:
    """A connection, from SYN_SENT or ESTABLISHED to CLOSED.

    Four kinds of methods. Queries: `info()`, the properties. What the network and the clock bring: `on_segment`, `on_icmp`, `on_timer`,
    called by the stack. What the application orders: `send`, `shutdown_write`, `close`, `abort`, `pause`, `resume`, `read`, `set_option`.
    What comes out: `poll_transmit` until None after any of these, `next_deadline`. The sink is called at the end of a method that brings
    something, never in the middle, so it may call the connection.
    """

    __slots__ = (
        "__weakref__",
        "adopted_timeout",
        "agreed",
        "can_probe",
        "cost_data",
        "data_segs_in",
        "data_segs_out",
        "eof_due",
        "error_due",
        "fastopen",
        "fin_wait_2_at",
        "flow",
        "flow_in",
        "heap_at",
        "is_connected",
        "is_delivering",
        "is_dirty",
        "is_ending",
        "is_orphan",
        "is_told",
        "keepalive_at",
        "keepalive_probes",
        "last_oow_ack_at",
        "last_received_at",
        "linger_at",
        "listener",
        "mtu",
        "mtu_probe",
        "on_urgent",
        "opened_at",
        "options",
        "pacing_at",
        "pages",
        "paused",
        "persist_at",
        "persist_backoff",
        "persist_since",
        "probes_out",
        "recovery",
        "retrans_at",
        "retransmits",
        "rto_at",
        "rtt",
        "rx",
        "segs_in",
        "segs_out",
        "sink",
        "soft_error",
        "stack",
        "state",
        "syn_due",
        "syn_ecn",
        "syn_sent_at",
        "syn_ts_val",
        "syn_window",
        "syn_wscale",
        "ts_offset",
        "ts_ok",
        "tx",
        "uto_due",
        "was_writable",
        "write_low_water",
    )

    def __init__(self, stack: Stack, flow: bytes, flow_in: bytes, iss: int, ts_offset: int, options: SocketOptions, sink: Sink) -> None:
        self.stack = stack
        self.flow = flow  # of the segments that we send
        self.flow_in = flow_in  # of those that come
        self.state = CLOSED
        self.options = options
        self.sink = sink
        self.mtu = stack.path_mtu.get(flow)  # of the path
        self.mtu_probe: MtuProbe | None = None  # probing for a larger one than is known to pass (mtuprobe.py)
        self.tx = Sender(iss, local_mss(self.mtu, options))
        self.rx: Receiver = None  # type: ignore[assignment]  # set as soon as the peer's ISN is known
        self.opened_at = 0  # when the peer was heard of first
        self.segs_in = self.segs_out = 0  # packets that came and went
        self.data_segs_in = self.data_segs_out = 0  # those of them with data
        self.rtt = RttEstimator(stack.sysctl.tcp_min_rtt_wlen)
        self.recovery = Recovery(self.tx, self.rtt, stack.sysctl, stack.counters)
        self.can_probe = False  # tail loss probes are used
        self.agreed: Agreed | None = None  # what the SYNs agreed on
        self.ts_ok = False  # timestamps are in use
        self.adopted_timeout = 0  # user timeout by the peer's UTO option; 0: none
        self.uto_due = usertimeout.is_enabled(options, stack.sysctl)  # our UTO option is to be sent
        self.ts_offset = ts_offset  # of our timestamp clock
        self.listener: object | None = None  # the listener that it came by
        # The application's side.
        self.paused = False  # on_data and on_eof are held back
        self.write_low_water = 0  # on_writable when `unsent` falls to this
        self.was_writable = True  # `unsent` is at or below it
        self.is_orphan = False  # close() or abort() was called: nobody reads
        self.is_connected = False  # on_established is due
        self.eof_due = False  # on_eof is due
        self.is_ending = False  # on_closed is due
        self.is_told = False  # on_closed was called, or nobody wants it
        self.error_due: OSError | None = None  # what on_closed will say
        self.cost_data = False  # what we sent may not have arrived
        self.soft_error: OSError | None = None  # last ICMP error, told only if the connection then times out
        self.is_delivering = False
        self.on_urgent: Callable[[], None] | None = None  # called when urgent data is announced, and when it comes (SIGURG)
        # Timers: absolute, NEVER if off.
        self.heap_at = NEVER  # see timers.py
        self.rto_at = NEVER  # retransmission, SYN included
        self.persist_at = NEVER  # zero-window probe
        self.pacing_at = NEVER  # data waits for its time of departure
        self.keepalive_at = NEVER
        self.fin_wait_2_at = NEVER
        self.linger_at = NEVER
        self.retransmits = 0  # timeouts in a row
        self.retrans_at = 0  # when the first of them was
        self.probes_out = 0  # window probes without an answer
        self.persist_since = 0  # when the first of them was; 0: the window is open
        self.persist_backoff = 0  # window probes since the window closed
        self.keepalive_probes = 0  # keepalive probes without an answer
        self.last_received_at = 0
        self.last_oow_ack_at = 0  # last ACK for an out-of-window segment (tcp_invalid_ratelimit)
        self.fastopen: Attempt | Request | None = None  # it is opened by a SYN with data, or with a cookie
        self.syn_due = False  # the SYN, or SYN-ACK, is to be sent
        self.syn_sent_at = 0  # when it was; 0 once it was sent twice (Karn)
        self.syn_ts_val = 0  # TSval of the first SYN
        self.syn_ecn = False  # our SYN asked for ECN
        self.syn_window = 0  # the window in our SYN; SO_RCVBUF may change before the answer comes
        self.syn_wscale: int | None = None  # the window scale in it, None where there is none
        self.is_dirty = False  # in the stack's queue of those with output
        self.pages = 0  # of memory that its queues held when last looked at (memory.py)

    # Queries.

    @property
    def local(self) -> tuple[bytes, int]:
        """Our address and port."""
        return unpack_flow(self.flow)[:2]

    @property
    def remote(self) -> tuple[bytes, int]:
        """The peer's address and port."""
        return unpack_flow(self.flow)[2:]

    @property
    def unsent(self) -> int:
        """Octets written and never sent."""
        return self.tx.unsent

    @property
    def unacked(self) -> int:
        """Octets of sequence space sent and not acknowledged."""
        return self.tx.outstanding

    @property
    def readable(self) -> int:
        """Octets received that the application has not taken."""
        if self.rx is None or self.rx.urgent is None:
            return self.rx.queued if self.rx is not None else 0
        return urgent.readable(self)

    @property
    def is_readable(self) -> bool:
        """Whether `read` gives something: unlike `readable`, with what lies behind the urgent octet that reading stopped at."""
        return self.rx is not None and self.rx.queued > (self.is_at_mark and not self.options.oobinline)

    @property
    def is_at_mark(self) -> bool:
        """Whether all before the peer's urgent octet was read, and that not (sockatmark(3))."""
        return self.rx is not None and urgent.is_at_mark(self.rx)

    @property
    def has_urgent(self) -> bool:
        """Whether `read_urgent` gives an octet (POLLPRI)."""
        mark = self.rx.urgent if self.rx is not None else None
        return mark is not None and mark.octet is not None and not mark.is_taken and not self.options.oobinline

    @property
    def mss(self) -> int:
        """Octets of payload in a full segment that we send."""
        return self.tx.mss

    @property
    def error(self) -> OSError | None:
        """What ended the connection, None after an orderly close or while there is one."""
        return self.error_due

    @property
    def is_over(self) -> bool:
        """Whether the protocol is done with it."""
        return self.state is CLOSED or self.state is TIME_WAIT

    @property
    def sndbuf(self) -> int:
        """The size of the send buffer in memory, as SO_SNDBUF tells it."""
        return sendbuffer.size(self.options.sndbuf, self.tx, self.stack.sysctl)

    @property
    def user_timeout(self) -> int:
        """How long data may stay unacknowledged, us: as set, or as the peer's UTO option has it; 0: the retries decide."""
        return usertimeout.timeout_of(self)

    def info(self, now: int | None = None) -> ConnectionInfo:
        """Return what Linux tells in TCP_INFO. Without `now`, time stands still since the last event."""
        return ConnectionInfo.of(self, now)

    # What the network and the clock bring.

    on_segment = fastinput.on_segment

    def on_icmp(self, error: PathError, now: int) -> None:
        """Handle an ICMP error that quotes a segment of ours that is in flight (RFC 5927 4)."""
        if error.mtu:
            pathmss.on_smaller_path(self, error.mtu, now)
        elif self.state in (SYN_SENT, SYN_RECEIVED) and not fastopenrequest.survives_icmp(self):
            transitions.finish(self, errno_error(error.errno), now)
        else:
            self.soft_error = errno_error(error.errno)
        deliver(self)

    def next_deadline(self) -> int:
        """Return the earliest of the timers, or NEVER."""
        return min(
            self.rto_at,
            self.persist_at,
            self.pacing_at,
            self.rx.delack_at if self.rx is not None else NEVER,
            self.keepalive_at,
            self.fin_wait_2_at,
            self.linger_at,
        )

    def on_timer(self, now: int) -> None:
        """Handle the timers that are due."""
        timeouts.fire(self, now)
        deliver(self)

    def start_keepalive(self, now: int) -> None:
        """(Re)start the keepalive timer where SO_KEEPALIVE is set (M-42)."""
        if self.options.keepalive and self.state in SYNCHRONIZED:
            self.keepalive_at = now + (self.options.keepidle or self.stack.sysctl.tcp_keepalive_time) * SECOND
            self.arm(self.keepalive_at)

    # What the application orders.

    def send(self, data: bytes | memoryview, now: int, more: bool = False, urgent: bool = False) -> None:
        """Queue octets; they are held by reference and must not change. `more` is MSG_MORE: a part of a segment waits for the next write.
        `urgent` is MSG_OOB: the last octet is urgent.

        OSError EPIPE once writing is shut down or the connection is over.
        """
        if self.tx.fin_queued or self.state not in MAY_WRITE:
            raise socket_error("EPIPE")
        tx = self.tx
        if now - tx.last_sent_at >= self.rtt.rto:
            self._check_idle(now)
        if tx.rate is not None:
            tx.check_app_limited(tx.rate, now)
        queue = tx.queue
        queue.append(data)
        tx.more = more
        if not more:
            tx.push_position = queue.end
        if urgent and data:
            tx.urgent_end = queue.end
        if queue.end - tx.nxt_position > self.write_low_water:
            self.was_writable = False
        if not self.is_dirty:
            self.is_dirty = True
            self.stack.on_connection_dirty(self)

    def _check_idle(self, now: int) -> None:
        """Restart after idle: nothing sent for an RTO, and nothing in flight (RFC 5681 4.1)."""
        tx = self.tx
        if self.state is not ESTABLISHED or not tx.last_sent_at or not self.stack.sysctl.tcp_slow_start_after_idle:
            return
        idle = now - tx.last_sent_at
        if tx.snd_una == tx.snd_nxt and not tx.unsent:
            tx.cc.on_idle(idle, self.rtt.rto, now)
            tx.size_bursts(self.rtt.srtt, self.rtt.min_rtt, self.stack.sysctl)

    def shutdown_write(self, now: int) -> None:
        """Send FIN after what is queued (shutdown(2) with SHUT_WR). OSError ENOTCONN if the connection is over."""
        if self.state not in MAY_WRITE and not self.tx.fin_queued:
            raise socket_error("ENOTCONN")
        transitions.queue_fin(self)
        deliver(self)

    def close(self, now: int) -> None:
        """close(2): FIN after what is queued, or RST if data was left unread or SO_LINGER is zero.

        The sink hears on_closed when nothing is left to be sent.
        """
        transitions.close(self, now)
        deliver(self)

    def abort(self, now: int) -> None:
        """Send RST and forget everything at once. The sink hears nothing more."""
        transitions.abort(self, now)

    def pause(self, now: int) -> None:
        """Hold on_data and on_eof back; what arrives is queued and the window closes."""
        self.paused = True

    def resume(self, now: int) -> None:
        """Deliver what was held back, and go on."""
        self.paused = False
        rx = self.rx
        if rx is None or rx.queued or self.eof_due or self.is_connected or self.is_ending or rx.ready or rx.urgent is not None:
            deliver(self)

    def read(self, max_len: int, now: int) -> bytes:
        """Take up to `max_len` octets from the queue of a paused connection (recv(2) without blocking); b"" if there are none.

        It stops before an urgent octet and, called again, goes on behind it; with SO_OOBINLINE, with it.
        """
        return delivery.read(self, max_len, now) if self.rx is not None else b""

    def peek(self, max_len: int) -> bytes:
        """Return what `read` would, and leave it there (MSG_PEEK)."""
        return urgent.peek(self, max_len) if self.rx is not None else b""

    def read_urgent(self, peek: bool = False) -> bytes:
        """Take the urgent octet (recv(2) with MSG_OOB); `peek` leaves it there.

        OSError EINVAL if there is none (none came, it was read, reading went beyond it, SO_OOBINLINE), EAGAIN if it is announced only.
        """
        return urgent.take(self, peek)

    def set_option(self, name: str, value: object, now: int) -> None:
        """Set a socket option (options.py). OSError ENOPROTOOPT, EINVAL, or ENOENT for an unknown congestion control."""
        value = check_option(name, value, self.stack.algorithms)
        settings.put(self, name, value, now)

    # What comes out.

    def mark_dirty(self) -> None:
        """Have the stack poll this connection."""
        if not self.is_dirty:
            self.is_dirty = True
            self.stack.on_connection_dirty(self)

    def arm(self, at: int) -> None:
        """Make the stack look at the timers no later than `at`."""
        if at < self.heap_at:
            self.stack.timers.arm(self, at)

    def poll_transmit(self, now: int, max_payload: int) -> Segment | None:
        """Return the next segment to send, of at most `max_payload` octets of data, or None when nothing may leave now."""
        return output.poll(self, now, max_payload)

    @property
    def may_sack(self) -> bool:
        """Whether the peer understands SACK."""
        return self.agreed is not None and self.agreed.sack_ok

    def ts_val(self, now: int) -> int:
        """Return the timestamp clock: 1 ms ticks from a random offset (RFC 7323 5.4)."""
        return (now // 1000 + self.ts_offset) & MASK

    def end_application(self, error: OSError | None) -> None:
        """Have on_closed called when delivery comes to its end."""
        if not self.is_ending:
            self.is_ending = True
            self.error_due = error

    def set_linger(self, at: int) -> None:
        """SO_LINGER: on_closed comes by then at the latest (M-57)."""
        self.linger_at = at
        self.arm(at)
        self.mark_dirty()  # else nobody looks at the new deadline

    def clear_timers(self) -> None:
        """Stop every timer."""
        self.rto_at = self.persist_at = self.pacing_at = self.keepalive_at = self.fin_wait_2_at = self.linger_at = NEVER
        if self.rx is not None:
            self.rx.delack_at = NEVER
        if self.heap_at < NEVER:
            self.stack.timers.disarm(self)
