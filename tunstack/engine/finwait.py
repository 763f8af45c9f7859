"""An orphan in FIN_WAIT_2: all is said, and nobody would read what may still come. A small entry waits for the peer's FIN.

RFC 9293 3.6, RFC 1122 4.2.2.13, RFC 5961; Linux does so too (its time-wait sockets have FIN_WAIT2 as a substate), because a peer that
never sends its FIN holds no more than this. M-53. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.state import CLOSED, FIN_WAIT_2
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import Remembered, Remnant
from tunstack.seq import MASK, seq_ge, seq_gt, seq_le
from tunstack.wire.segment import ACK, FIN, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.stack import Stack

KILLED_LENGTH = 4_000_000  # us: Linux counts a wait no longer than this as TWKilled, when it begins


class FinWait2(Remnant):
    """One four-tuple that waits for a FIN, tcp_fin_timeout or TCP_LINGER2 long. Of these each has its own time, and its own timer."""

    __slots__ = ("heap_at",)

    state = FIN_WAIT_2

    def __init__(self, stack: Stack, flow_in: bytes, remembered: Remembered) -> None:
        super().__init__(stack, flow_in, remembered)
        self.heap_at = NEVER

    def next_deadline(self) -> int:
        """Return when the wait is over."""
        return self.expires_at if self.stack.flows.get(self.flow_in) is self else NEVER

    def on_timer(self, now: int) -> None:
        """The FIN did not come."""
        self._end()

    def on_segment(self, seg: Segment, now: int) -> None:
        """Handle a segment for the four-tuple: the FIN, old ones, and those of somebody who guesses."""
        stack = self.stack
        was = self.remembered
        flags = seg.flags
        end = (seg.seq + seg.length + bool(flags & FIN) + bool(flags & SYN)) & MASK
        is_old = was.is_old(seg, now) and not flags & RST
        if is_old or not _is_in_window(was, seg.seq, end):
            if is_old:
                stack.counters.PAWSEstab += 1
            if not flags & RST:
                self._answer(seg, was, now)
        elif flags & (RST | SYN):
            # Deviates: Linux believes a RST, or a SYN, anywhere in the window here; RFC 5961 3.2 and 4.2 do not.
            if flags & RST and seg.seq == was.rcv_nxt:
                self._end()
            else:
                self._challenge(was, now)
        elif not flags & ACK:
            return
        elif seg.ack != was.snd_nxt:
            if seq_gt(seg.ack, was.snd_nxt):  # RFC 5961 5.2
                self._challenge(was, now)
            elif seg.length or flags & FIN:  # overtaken by the ACK of our FIN, or a guess: who means it sends it again, with that
                self._answer(seg, was, now)
        elif end == seg.seq:
            return  # a duplicate ACK
        elif flags & FIN and end == (was.rcv_nxt + 1) & MASK:
            done = was.with_timestamp(seg, now)._replace(rcv_nxt=end)
            stack.timers.disarm(self)
            stack.time_wait.insert(self.flow_in, done, now)
            self.acknowledge(done, now)
        else:  # data that nobody will read (RFC 1122 4.2.2.13)
            stack.counters.TCPAbortOnData += 1
            stack.reply_reset(seg)
            self._end()

    def reset(self) -> None:
        """The stack goes down: tell the peer."""
        was = self.remembered
        self.stack.counters.TcpOutRsts += 1
        self.stack.emit(Segment(self.flow, was.snd_nxt, was.rcv_nxt, RST | ACK, 0, tos=was.tos))
        self._end()

    def _end(self) -> None:
        self.stack.time_wait.count -= 1
        self.stack.timers.disarm(self)
        del self.stack.flows[self.flow_in]

    def _answer(self, seg: Segment, was: Remembered, now: int) -> None:
        noted = self.may_answer(seg, was, now)
        if noted is None:
            self.stack.counters.TCPACKSkippedFinWait2 += 1
            return
        self.record = noted.pack()
        self.acknowledge(noted, now)

    def _challenge(self, was: Remembered, now: int) -> None:
        """Send a challenge ACK, within the limits of guard.py."""
        stack = self.stack
        if was.last_ack_at and now - was.last_ack_at < stack.sysctl.tcp_invalid_ratelimit * 1000:
            stack.counters.TCPACKSkippedChallenge += 1
        elif stack.challenges.may_send(now):
            stack.counters.TCPChallengeACK += 1
            noted = was._replace(last_ack_at=now)
            self.record = noted.pack()
            self.acknowledge(noted, now)


def shrink(conn: Connection, now: int) -> None:
    """Put an entry in the place of an orphan in FIN_WAIT_2 that has sent all that it had to; nobody if there is no room for one."""
    stack = conn.stack
    if stack.time_wait.take_bucket():
        if conn.fin_wait_2_at - now <= KILLED_LENGTH:
            stack.counters.TWKilled += 1
        else:
            stack.counters.TW += 1
        entry = FinWait2(stack, conn.flow_in, Remembered.of(conn, now, conn.fin_wait_2_at))
        stack.flows[conn.flow_in] = entry
        stack.timers.arm(entry, conn.fin_wait_2_at)
    stack.forget(conn)
    conn.state = CLOSED
    conn.clear_timers()


def _is_in_window(was: Remembered, seq: int, end: int) -> bool:
    """Tell whether some of [seq, end) lies in the window, edges included."""
    return seq_ge(end, was.rcv_nxt) and seq_le(seq, (was.rcv_nxt + (was.window << was.wscale)) & MASK)
