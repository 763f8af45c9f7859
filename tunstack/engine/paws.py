"""Protection against wrapped sequence numbers: an old duplicate carries an old timestamp.

RFC 7323 5, with Linux's exceptions. What is done about a verdict is input.py's, listener.py's and timewait.py's matter.
Times are int microseconds; timestamps count in the peer's ticks, between a microsecond and a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.state import SECOND
from tunstack.seq import HALF, MASK, seq_gt, seq_lt
from tunstack.wire.segment import ACK, FIN, SYN

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.receiver import Receiver
    from tunstack.wire.segment import Segment

# Deviates: RFC 7323 5.5 takes TS.Recent for stale after 24 days, when a clock of milliseconds is half way round; Linux, whose own clock
# may count microseconds (and then is that after 35 minutes of silence), after this. No segment lives so long either.
STALE = 2147 * SECOND
SLACK = 1  # ticks that a timestamp may be behind on an established connection
REPLAY_RATE = 1200  # ticks a second that the fastest clock in old systems makes

GOOD = 0
OLD = 1
OLD_ACK = 2  # a pure ACK that was overtaken by data: dropped in silence


def is_old(ts_val: int, ts_recent: int, ts_recent_at: int, now: int, slack: int = 0) -> bool:
    """Tell whether a timestamp is behind TS.Recent, taken at `ts_recent_at`, by more than `slack` ticks.

    A TS.Recent of zero is none: some systems send zero in their SYN and begin to count afterwards.
    """
    return slack < (ts_recent - ts_val) & MASK < HALF and ts_recent != 0 and now - ts_recent_at < STALE


def judge(conn: Connection, seg: Segment, now: int) -> int:
    """Return what the timestamp of a segment, which has one, says: GOOD, OLD or OLD_ACK."""
    rx = conn.rx
    if not is_old(seg.ts_val or 0, rx.ts_recent, rx.ts_recent_at, now, SLACK):
        return GOOD
    if seg.length or seg.flags & (ACK | SYN | FIN) != ACK:
        return OLD
    if seg.seq != rx.rcv_nxt:
        return OLD_ACK if seq_lt(seg.seq, rx.rcv_nxt) else OLD
    # A duplicate ACK that says nothing new may have been overtaken by another: the sender may count it, if it is not very old.
    tx = conn.tx
    window = seg.window << tx.wscale
    brings_window = seq_gt(seg.seq, tx.snd_wl1) or (seg.seq == tx.snd_wl1 and (window > tx.snd_wnd or not window))
    behind = (rx.ts_recent - (seg.ts_val or 0)) & MASK
    if seg.ack != tx.snd_una or brings_window or behind > conn.rtt.rto * REPLAY_RATE // SECOND:
        return OLD
    return GOOD


def take(rx: Receiver, seg: Segment, now: int) -> None:
    """RFC 7323 4.3 step 2: TS.Recent follows the segment, which has a timestamp, if it spans the last ACK sent. It never goes back."""
    ts_val = seg.ts_val or 0
    if (rx.rcv_wup - seg.seq) & MASK < HALF and not is_old(ts_val, rx.ts_recent, rx.ts_recent_at, now):
        rx.ts_recent = ts_val
        rx.ts_recent_at = now


def is_echo(ts_ecr: int, first: int, last: int) -> bool:
    """Tell whether TSecr may echo one of the timestamps that we sent from `first` to `last`; zero is no echo, and no reason to doubt."""
    return not ts_ecr or (ts_ecr - first) & MASK <= (last - first) & MASK
