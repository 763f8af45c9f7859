"""TIME-WAIT: what stays of a connection that we closed first.

RFC 9293 3.6.1 and 3.10.7.4, RFC 1337, RFC 6191. Entries live 60 s, Linux's TCP_TIMEWAIT_LEN for the RFC's 2 MSL. Since all live
equally long, the table is in order of expiry and has one timer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import paws
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK, seq_gt, seq_lt
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.icmp import PathError
    from tunstack.engine.stack import Stack

TIME_WAIT_LENGTH = 60_000_000  # us


class TimeWait:
    """One four-tuple in TIME-WAIT."""

    __slots__ = (
        "expires_at",
        "flow",
        "last_ack_at",
        "rcv_nxt",
        "rcv_wnd",
        "snd_nxt",
        "table",
        "tos",
        "ts_offset",
        "ts_ok",
        "ts_recent",
        "ts_recent_at",
        "wscale",
    )

    def __init__(self, table: TimeWaitTable, conn: Connection) -> None:
        self.table = table
        self.flow = conn.flow
        self.snd_nxt = conn.tx.snd_nxt
        self.rcv_nxt = conn.rx.rcv_nxt
        self.rcv_wnd = conn.rx.rcv_wnd
        self.wscale = conn.rx.wscale
        self.ts_ok = conn.ts_ok
        self.ts_recent = conn.rx.ts_recent
        self.ts_recent_at = conn.rx.ts_recent_at
        self.ts_offset = conn.ts_offset
        self.tos = conn.options.tos
        self.expires_at = 0
        self.last_ack_at = 0  # last ACK for a stray segment (tcp_invalid_ratelimit)

    def on_segment(self, seg: Segment, now: int) -> None:
        """Handle a segment for the four-tuple, in the order in which Linux looks at it."""
        stack = self.table.stack
        flags = seg.flags
        has_ts = self.ts_ok and seg.ts_val is not None
        is_old = has_ts and paws.is_old(seg.ts_val or 0, self.ts_recent, self.ts_recent_at, now)
        if not is_old and seg.seq == self.rcv_nxt and (flags & RST or not (seg.length or flags & (SYN | FIN))):
            if flags & RST:
                if not stack.sysctl.tcp_rfc1337:  # RFC 1337: a RST must not end TIME-WAIT
                    self.table.remove(seg.flow)
                return
            self._restart(seg, now)
            return
        if flags & (SYN | RST | ACK | FIN) == SYN and not is_old:
            newer_ts = has_ts and seq_lt(self.ts_recent, seg.ts_val or 0)
            if seq_gt(seg.seq, self.rcv_nxt) or newer_ts:  # RFC 6191, RFC 1122 4.2.2.13: a new incarnation
                listener = stack.find_listener(seg.flow)
                if listener is not None:
                    stack.counters.TWRecycled += 1
                    self.table.remove(seg.flow)
                    listener.on_syn(seg, now, (self.snd_nxt + 65535 + 2) & MASK)
                    return
        if is_old:
            stack.counters.PAWSTimewait += 1
        if flags & RST:
            return
        if is_old or flags & ACK:
            self._restart(None, now)  # a FIN sent again, most likely: acknowledge it, and wait anew
        # A SYN with a lower number is answered too: who is in SYN_SENT resets us by that, and gets through with the next (RFC 9293 3.5).
        self._answer(seg, now)

    def on_icmp(self, error: PathError, now: int) -> None:
        """Nothing of ours is in flight that an error could be about."""

    def _restart(self, seg: Segment | None, now: int) -> None:
        if seg is not None and self.ts_ok and seg.ts_val is not None:
            self.ts_recent = seg.ts_val
            self.ts_recent_at = now
        self.table.restart(self, now)

    def _answer(self, seg: Segment, now: int) -> None:
        """An ACK; for what may be part of an ACK loop, and neither data nor FIN is, at most one each tcp_invalid_ratelimit."""
        stack = self.table.stack
        if not (seg.length or seg.flags & FIN) or seg.flags & SYN:
            if self.last_ack_at and now - self.last_ack_at < stack.sysctl.tcp_invalid_ratelimit * 1000:
                stack.counters.TCPACKSkippedTimeWait += 1
                return
            self.last_ack_at = now
        ts_val = (now // 1000 + self.ts_offset) & MASK if self.ts_ok else None
        window = min(-(-self.rcv_wnd >> self.wscale), 65535)
        stack.emit(Segment(self.flow, self.snd_nxt, self.rcv_nxt, ACK, window, (), 0, ts_val, self.ts_recent, tos=self.tos))


class TimeWaitTable:
    """All entries, in order of expiry. It is one timer owner of the stack."""

    __slots__ = ("_entries", "heap_at", "stack")

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._entries: dict[bytes, TimeWait] = {}  # by the flow of incoming segments; insertion order is expiry order
        self.heap_at = NEVER

    def __len__(self) -> int:
        return len(self._entries)

    def hold(self, conn: Connection, now: int) -> TimeWait | None:
        """Make an entry for a connection; None if there are tcp_max_tw_buckets already (M-56)."""
        if len(self._entries) >= self.stack.sysctl.tcp_max_tw_buckets:
            self.stack.counters.TCPTimeWaitOverflow += 1
            return None
        entry = TimeWait(self, conn)
        entry.expires_at = now + TIME_WAIT_LENGTH
        self._entries[conn.flow_in] = entry
        self.stack.timers.arm(self, self.next_deadline())
        return entry

    def restart(self, entry: TimeWait, now: int) -> None:
        """The 60 s begin anew."""
        flow_in = reverse_flow(entry.flow)
        del self._entries[flow_in]
        entry.expires_at = now + TIME_WAIT_LENGTH
        self._entries[flow_in] = entry

    def remove(self, flow_in: bytes) -> None:
        """End an entry before its time."""
        del self._entries[flow_in]
        del self.stack.flows[flow_in]

    def next_deadline(self) -> int:
        """Return when the oldest entry expires, or NEVER."""
        for entry in self._entries.values():
            return entry.expires_at
        return NEVER

    def on_timer(self, now: int) -> None:
        """Drop what has expired."""
        expired = []
        for flow_in, entry in self._entries.items():
            if entry.expires_at > now:
                break
            expired.append(flow_in)
        for flow_in in expired:
            del self._entries[flow_in]
            del self.stack.flows[flow_in]
            self.stack.counters.TW += 1
