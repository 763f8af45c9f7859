"""A half-open connection: what a listener keeps of a SYN that it has answered (SYN_RECEIVED).

The SYN_RECEIVED part of RFC 9293 3.10.7.4. As in Linux it is a small entry of its own, and becomes a Connection with the third
segment (M-20, M-23). Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import accepting, deferaccept, ecn, paws, syncookie
from tunstack.engine.fastopencookie import attach
from tunstack.engine.handshake import make_syn
from tunstack.engine.receivewindow import WINDOW_MAX
from tunstack.engine.rtt import RTO_INITIAL, RTO_MAX
from tunstack.engine.state import SYN_RECEIVED
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK, seq_ge, seq_le
from tunstack.wire.segment import ACK, ECE, FIN, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.icmp import PathError
    from tunstack.engine.listener import Listener
    from tunstack.engine.terms import Terms


class HalfOpen:
    """A connection in SYN_RECEIVED that was opened by a peer's SYN: no buffers, one timer."""

    __slots__ = (
        "agreed",
        "expires_at",
        "flow",
        "flow_in",
        "heap_at",
        "irs",
        "is_acked",
        "iss",
        "kind",
        "last_ack_at",
        "listener",
        "sent_at",
        "timeouts",
        "tos",
        "ts_first",
        "ts_last",
        "ts_offset",
        "ts_recent",
        "window",
    )

    state = SYN_RECEIVED

    def __init__(self, listener: Listener, syn: Segment, flow: bytes, iss: int, ts_offset: int, now: int) -> None:
        self.listener = listener
        self.flow_in = syn.flow
        self.flow = flow
        self.irs = syn.seq
        self.iss = iss
        self.kind = kind = listener.terms(flow).kind(syn, listener.stack)  # what the SYN comes to
        self.agreed = agreed = kind.agreed
        self.ts_recent = (syn.ts_val or 0) if agreed.ts_ok else 0  # TS.Recent
        self.window = kind.window
        self.ts_offset = ts_offset
        self.ts_first = self.ts_last = (now // 1000 + ts_offset) & MASK  # TSval of the first and the latest SYN-ACK
        self.tos = syn.tos & ~ecn.MASK  # of the SYN (tcp_reflect_tos)
        self.timeouts = 0  # for want of the third segment
        self.is_acked = False  # the third segment came, and was not taken
        self.sent_at = now  # when the SYN-ACK was sent; 0 once it was sent twice (Karn)
        self.last_ack_at = 0  # last ACK out of the ordinary (tcp_invalid_ratelimit)
        self.heap_at = NEVER
        self.expires_at = now + RTO_INITIAL  # retransmission, or the end

    def next_deadline(self) -> int:
        """Return when the SYN-ACK is due again."""
        return self.expires_at

    def on_timer(self, now: int) -> None:
        """Send the SYN-ACK again at 1, 3, 7, ... s, tcp_synack_retries times (M-23); not while data is waited for (M-27)."""
        listener = self.listener
        listener.stack.counters.TCPTimeouts += 1
        waits = deferaccept.retries(listener.options.defer_accept) if self.is_acked else 0  # timeouts
        if self.timeouts >= max(listener.synack_retries, waits):
            listener.drop(self)
            return
        if self.timeouts >= waits - 1:
            self._resend(now)
        if not self.timeouts:
            listener.young -= 1
        self.timeouts += 1
        self.expires_at = now + self._retransmit_delay

    @property
    def _retransmit_delay(self) -> int:
        return min(RTO_INITIAL << self.timeouts, RTO_MAX)

    def _resend(self, now: int) -> None:
        self.sent_at = 0
        counters = self.listener.stack.counters
        counters.TcpRetransSegs += 1
        counters.TCPSynRetrans += 1
        self.ts_last = self._ts_val(now)
        self.send_syn_ack(self.listener.terms(self.flow))

    def send_syn_ack(self, terms: Terms, cookie: bytes = b"") -> None:
        """Send the SYN-ACK, with the options that both sides know, and a Fast Open cookie if there is one to give."""
        agreed = self.agreed
        listener = self.listener
        stack = listener.stack
        syn_ack = make_syn(
            self.flow,
            self.iss,
            (self.irs + 1) & MASK,
            SYN | ACK | (ECE if agreed.ecn_ok else 0),
            min(self.window, WINDOW_MAX),
            terms.mss,
            agreed.rcv_wscale if agreed.is_scaled else None,
            agreed.sack_ok,
            self.ts_last if agreed.ts_ok else None,
            self.ts_recent,
            self.tos if stack.sysctl.tcp_reflect_tos else listener.options.tos,
            terms.user_timeout,
        )
        if cookie:
            attach(syn_ack, cookie)
        stack.emit(syn_ack)

    def _ts_val(self, now: int) -> int:
        return (now // 1000 + self.ts_offset) & MASK

    def on_segment(self, seg: Segment, now: int) -> None:
        """RFC 9293 3.10.7.4 for SYN_RECEIVED, in Linux's order."""
        stack = self.listener.stack
        if stack.fast_path and accepting.complete(self, seg, now):
            return
        agreed = self.agreed
        rcv_nxt = (self.irs + 1) & MASK
        flags = seg.flags
        has_ts = agreed.ts_ok and seg.ts_val is not None
        is_old = has_ts and not flags & RST and paws.is_old(seg.ts_val or 0, self.ts_recent, now, now)
        if flags & SYN and seg.seq == self.irs and not flags & (ACK | RST) and not is_old:  # the SYN again: our SYN-ACK was lost
            if self._may_answer(now):
                self._resend(now)
                # As long again as since the last one, as in Linux: else the peer's last SYN could meet the end of our wait.
                self.expires_at = now + self._retransmit_delay
                stack.first_timeouts.move(self)
            return
        if flags & ACK and seg.ack != (self.iss + 1) & MASK:
            # It may answer a cookie that was sent when the queue was full, for an earlier SYN of this one.
            if not syncookie.complete(self.listener, seg, now, self):
                stack.reply_reset(seg)
            return
        is_foreign = has_ts and not paws.is_echo(seg.ts_ecr, self.ts_first, self.ts_last)
        end = (seg.seq + seg.length + bool(flags & FIN) + bool(flags & SYN)) & MASK
        if is_old or is_foreign or not (seq_ge(end, rcv_nxt) and seq_le(seg.seq, (rcv_nxt + self.window) & MASK)):
            if is_old:
                stack.counters.PAWSEstab += 1
            elif is_foreign:
                stack.counters.TSEcrRejected += 1
            if not flags & RST:
                self._acknowledge(seg, now)
            return
        if has_ts and seq_le(seg.seq, rcv_nxt):
            self.ts_recent = seg.ts_val or 0
        if flags & RST:
            if seg.seq == rcv_nxt:
                self._end()
            else:
                self._acknowledge(seg, now)  # RFC 5961 3.2
            return
        if flags & SYN:
            stack.reply_reset(seg)
            self._end()
            return
        if not flags & ACK:
            return
        if end == rcv_nxt and self.timeouts < deferaccept.retries(self.listener.options.defer_accept):
            self.is_acked = True
            stack.counters.TCPDeferAcceptDrop += 1
            return
        self.listener.complete(self, seg, now)

    def _end(self) -> None:
        """The peer gave up."""
        counters = self.listener.stack.counters
        counters.EmbryonicRsts += 1
        counters.TcpAttemptFails += 1
        self.listener.drop(self)

    def on_icmp(self, error: PathError, now: int) -> None:
        """The SYN-ACK did not arrive: an error that says that none will ends the attempt, as in Linux (RFC 5461)."""
        counters = self.listener.stack.counters
        if error.seq != self.iss:
            counters.OutOfWindowIcmps += 1
        elif error.ends_half_open:
            counters.ListenDrops += 1
            self.listener.drop(self)

    def _acknowledge(self, seg: Segment, now: int) -> None:
        """An ACK for what does not fit, with its DSCP, as Linux sends it."""
        if self._may_answer(now):
            agreed = self.agreed
            ts_val = self._ts_val(now) if agreed.ts_ok else None
            window = -(-self.window >> agreed.rcv_wscale)  # rounded up: rounding down would take the edge back
            self.window = window << agreed.rcv_wscale
            seq, ack = (self.iss + 1) & MASK, (self.irs + 1) & MASK
            self.listener.stack.emit(Segment(self.flow, seq, ack, ACK, window, (), 0, ts_val, self.ts_recent, tos=seg.tos & ~ecn.MASK))

    def _may_answer(self, now: int) -> bool:
        """At most one answer each tcp_invalid_ratelimit."""
        stack = self.listener.stack
        if self.last_ack_at and now - self.last_ack_at < stack.sysctl.tcp_invalid_ratelimit * 1000:
            stack.counters.TCPACKSkippedSynRecv += 1
            return False
        self.last_ack_at = now
        return True
