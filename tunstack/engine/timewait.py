"""TIME-WAIT: what stays of a connection that we closed first.

RFC 9293 3.6.1 and 3.10.7.4, RFC 1337, RFC 6191. Entries live 60 s, Linux's TCP_TIMEWAIT_LEN for the RFC's 2 MSL. Since all live
equally long, the table is a list in order of expiry and has one timer. There may be tcp_max_tw_buckets of them: an entry is one small
object, one packed record and the slot in `Stack.flows`.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from tunstack.engine import paws
from tunstack.engine.state import TIME_WAIT, State
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK, seq_gt, seq_lt
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.icmp import PathError
    from tunstack.engine.stack import Stack

TIME_WAIT_LENGTH = 60_000_000  # us
NEW_ISS_DISTANCE = 65535 + 2  # from the old snd_nxt: beyond any window without a scale, as in Linux

EXPIRIES_A_TURN = 1024  # entries that are dropped at once, when many have expired: a turn must not take long

_RECORD = Struct(">IIHBBBIqqqq")


class Remembered(NamedTuple):
    """What is known of a connection that is over, in the order of `_RECORD`."""

    snd_nxt: int
    rcv_nxt: int
    window: int  # the header's field
    wscale: int  # its shift
    ts_ok: int
    tos: int
    ts_recent: int
    ts_recent_at: int  # us
    entered_at: int  # when the connection ended, us
    expires_at: int  # us
    last_ack_at: int = 0  # last ACK for a stray segment (tcp_invalid_ratelimit), us

    @classmethod
    def of(cls, conn: Connection, now: int, expires_at: int) -> Remembered:
        """Take it from a connection."""
        tx, rx = conn.tx, conn.rx
        window = min(-(-rx.rcv_wnd >> rx.wscale), 65535)
        return cls(tx.snd_nxt, rx.rcv_nxt, window, rx.wscale, conn.ts_ok, conn.options.tos, rx.ts_recent, rx.ts_recent_at, now, expires_at)

    def pack(self) -> bytes:
        """Return it as a record."""
        return _RECORD.pack(*self)

    def is_old(self, seg: Segment, now: int) -> bool:
        """Tell whether PAWS refuses a segment."""
        return bool(self.ts_ok) and seg.ts_val is not None and paws.is_old(seg.ts_val, self.ts_recent, self.ts_recent_at, now)

    def with_timestamp(self, seg: Segment, now: int) -> Remembered:
        """Return it with TS.Recent from a segment."""
        if not self.ts_ok or seg.ts_val is None:
            return self
        return self._replace(ts_recent=seg.ts_val, ts_recent_at=now)


class Remnant:
    """What answers for a connection that is over: a four-tuple and a record."""

    __slots__ = ("flow_in", "record", "stack")

    state: State

    def __init__(self, stack: Stack, flow_in: bytes, remembered: Remembered) -> None:
        self.stack = stack
        self.flow_in = flow_in  # the same object as the key in `Stack.flows`
        self.record = remembered.pack()

    @property
    def flow(self) -> bytes:
        """The flow of the segments that we send."""
        return reverse_flow(self.flow_in)

    @property
    def remembered(self) -> Remembered:
        """The record, unpacked."""
        return Remembered._make(_RECORD.unpack(self.record))

    @property
    def expires_at(self) -> int:
        """When it is over."""
        return self.remembered.expires_at

    def on_icmp(self, error: PathError, now: int) -> None:
        """Nothing of ours is in flight that an error could be about."""

    def acknowledge(self, remembered: Remembered, now: int) -> None:
        """Send an ACK."""
        flow = self.flow
        ts_val = (now // 1000 + self.stack.isn.ts_offset(flow)) & MASK if remembered.ts_ok else None
        self.stack.emit(
            Segment(
                flow,
                remembered.snd_nxt,
                remembered.rcv_nxt,
                ACK,
                remembered.window,
                (),
                0,
                ts_val,
                remembered.ts_recent,
                tos=remembered.tos,
            )
        )

    def may_answer(self, seg: Segment, remembered: Remembered, now: int) -> Remembered | None:
        """Return the record with the answer noted in it. None: too soon after the last for what may be part of an ACK loop.

        Neither data nor FIN is; for anything else one answer each tcp_invalid_ratelimit.
        """
        if (seg.length or seg.flags & FIN) and not seg.flags & SYN:
            return remembered
        if remembered.last_ack_at and now - remembered.last_ack_at < self.stack.sysctl.tcp_invalid_ratelimit * 1000:
            return None
        return remembered._replace(last_ack_at=now)


class TimeWait(Remnant):
    """One four-tuple in TIME-WAIT, a link of its table's list."""

    __slots__ = ("newer", "older")

    state = TIME_WAIT

    def __init__(self, stack: Stack, flow_in: bytes, remembered: Remembered) -> None:
        super().__init__(stack, flow_in, remembered)
        self.newer: TimeWait | None = None  # the next to expire after it
        self.older: TimeWait | None = None  # the one before it

    def on_segment(self, seg: Segment, now: int) -> None:
        """Handle a segment for the four-tuple, in the order in which Linux looks at it."""
        stack = self.stack
        table = stack.time_wait
        was = self.remembered
        flags = seg.flags
        is_old = was.is_old(seg, now)
        if not is_old and seg.seq == was.rcv_nxt and (flags & RST or not (seg.length or flags & (SYN | FIN))):
            if flags & RST:
                if not stack.sysctl.tcp_rfc1337:  # RFC 1337: a RST must not end TIME-WAIT
                    table.remove(self)
                return
            table.restart(self, was.with_timestamp(seg, now), now)
            return
        if flags & (SYN | RST | ACK | FIN) == SYN and not is_old:
            newer_ts = was.ts_ok and seg.ts_val is not None and seq_lt(was.ts_recent, seg.ts_val)
            if seq_gt(seg.seq, was.rcv_nxt) or newer_ts:  # RFC 6191, RFC 1122 4.2.2.13: a new incarnation
                listener = stack.listeners.find(seg.flow)
                if listener is not None:
                    table.remove(self)
                    listener.on_syn(seg, now, (was.snd_nxt + NEW_ISS_DISTANCE) & MASK)
                    return
        if is_old:
            stack.counters.PAWSTimewait += 1
        if flags & RST:
            return
        if is_old or flags & ACK:
            table.restart(self, was, now)  # a FIN sent again, most likely: acknowledge it, and wait anew
        # A SYN with a lower number is answered too: who is in SYN_SENT resets us by that, and gets through with the next (RFC 9293 3.5).
        noted = self.may_answer(seg, self.remembered, now)
        if noted is None:
            stack.counters.TCPACKSkippedTimeWait += 1
            return
        self.record = noted.pack()
        self.acknowledge(noted, now)


class TimeWaitTable:
    """All that is in TIME-WAIT, in order of expiry, and the count that tcp_max_tw_buckets bounds. It is one timer owner of the stack.

    Invariant: `_oldest` leads by `newer` to `_newest`, and each of them is in `Stack.flows`.
    """

    __slots__ = ("_newest", "_oldest", "_stack", "count", "heap_at")

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._oldest: TimeWait | None = None
        self._newest: TimeWait | None = None
        self.count = 0  # buckets in use: those in TIME-WAIT, and orphans in FIN_WAIT_2 (finwait.py)
        self.heap_at = NEVER

    def __len__(self) -> int:
        return self.count

    def take_bucket(self) -> bool:
        """Count one more entry; False, which is counted, if there are tcp_max_tw_buckets already (M-56)."""
        if self.count >= self._stack.sysctl.tcp_max_tw_buckets:
            self._stack.counters.TCPTimeWaitOverflow += 1
            return False
        self.count += 1
        return True

    def hold(self, conn: Connection, now: int) -> None:
        """A connection enters TIME-WAIT: an entry takes its place, or nobody if there is no room for one."""
        if self.take_bucket():
            self._stack.counters.TW += 1  # when it begins, as Linux counts it
            self.insert(conn.flow_in, Remembered.of(conn, now, 0), now)

    def insert(self, flow_in: bytes, remembered: Remembered, now: int) -> None:
        """Begin the 60 s of a four-tuple that has a bucket."""
        entry = TimeWait(self._stack, flow_in, remembered._replace(expires_at=now + TIME_WAIT_LENGTH))
        self._append(entry)
        self._stack.flows[flow_in] = entry
        self._stack.timers.arm(self, self.next_deadline())

    def restart(self, entry: TimeWait, remembered: Remembered, now: int) -> None:
        """The 60 s begin anew, with what else is known now."""
        entry.record = remembered._replace(expires_at=now + TIME_WAIT_LENGTH).pack()
        self._unlink(entry)
        self._append(entry)

    def remove(self, entry: TimeWait) -> None:
        """End an entry."""
        self._unlink(entry)
        self.count -= 1
        del self._stack.flows[entry.flow_in]

    def next_deadline(self) -> int:
        """Return when the oldest entry expires, or NEVER."""
        return self._oldest.expires_at if self._oldest is not None else NEVER

    def on_timer(self, now: int) -> None:
        """Drop what has expired, EXPIRIES_A_TURN at most: what is left is looked at again at once."""
        for _ in range(EXPIRIES_A_TURN):
            if self._oldest is None or self._oldest.expires_at > now:
                return
            self.remove(self._oldest)

    def _append(self, entry: TimeWait) -> None:
        entry.older = self._newest
        if self._newest is None:
            self._oldest = entry
        else:
            self._newest.newer = entry
        self._newest = entry

    def _unlink(self, entry: TimeWait) -> None:
        older, newer = entry.older, entry.newer
        if older is None:
            self._oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self._newest = older
        else:
            newer.older = older
        entry.older = entry.newer = None
