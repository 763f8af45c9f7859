"""When in-order data is acknowledged: at once, or within the delayed-ACK timeout.

RFC 5681 4.2, RFC 1122 4.2.3.2, and Linux's ways: quick ACKs while a connection is young or something is amiss, ACKs that wait for data
to ride on in a conversation (pingpong), and an ACK when the application has read. Functions on a Receiver, which holds the state.
Octets count, not segments. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import receivewindow
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK
from tunstack.wire.segment import FIN, PSH, URG, Segment

if TYPE_CHECKING:
    from tunstack.engine.receiver import Receiver

DELACK_MIN = 40_000  # us, Linux's TCP_DELACK_MIN and TCP_ATO_MIN
DELACK_MAX = 200_000  # us
QUICKACKS_MAX = 16  # segments acknowledged at once at the start of a connection
MSS_DEFAULT = 536  # segments at least so long may be full ones of a smaller MSS
MSS_MIN = 88  # the same, where there is no PSH
DUP_ACKS = 3  # duplicate ACKs that leave each for itself
PUSHED = 1  # a small segment, or one with PSH, came: more may not follow soon
PUSHED_TWICE = 2


def on_data(rx: Receiver, seg: Segment, now: int, srtt: int, rto: int, stays: bool) -> None:  # hot
    """In-order data came, or only a FIN: decide when to acknowledge. `stays`: the application does not take it at once."""
    size = seg.gso_size or seg.length
    if size:
        if size != rx.mss:
            measure_mss(rx, seg)
        elif seg.flags & PSH:
            rx.pushed |= PUSHED
        if rx.ato:
            follow_pace(rx, now - rx.last_data_at, rto)
        else:
            add_quickacks(rx)
            rx.ato = DELACK_MIN
        rx.last_data_at = now
        if seg.length >= receivewindow.GROW_MIN and rx.rcv_ssthresh < rx.window_clamp:
            receivewindow.grow(rx, seg.length, stays)
    if rx.acks_due:
        return
    unacked = (rx.rcv_nxt - rx.rcv_wup) & MASK
    if (
        # Where a slow reader keeps the window from moving, its reading brings the ACK.
        (unacked > rx.mss and (not rx.queued or receivewindow.select_window(rx) >= (rx.rcv_adv - rx.rcv_wup) & MASK))
        or (rx.quick and not rx.pingpong)
        or not rx.ato
    ):
        rx.acks_due = 1
        return
    ato = rx.ato
    if ato > DELACK_MIN:
        limit = DELACK_MAX
        if srtt and srtt < limit:
            limit = srtt if srtt > DELACK_MIN else DELACK_MIN
        if ato > limit:
            ato = limit
    if rx.delack_at == NEVER:
        rx.delack_at = now + ato
    elif rx.delack_at <= now + (ato >> 2):  # about to leave anyway
        rx.acks_due = 1
    elif now + ato < rx.delack_at:
        rx.delack_at = now + ato


def measure_mss(rx: Receiver, seg: Segment) -> None:
    """A segment of another length than the full ones that are known (Linux's tcp_measure_rcv_mss)."""
    size, flags = seg.gso_size or seg.length, seg.flags
    last, rx.last_size = rx.last_size, 0
    if size > rx.mss:
        receivewindow.measure_overhead(rx, seg.length)
        rx.mss = min(size, rx.advmss)
        if flags & PSH:
            rx.pushed |= PUSHED
        return
    if size >= MSS_DEFAULT or (size >= MSS_MIN and not flags & (PSH | FIN | URG)):
        rx.last_size = size
        if size == last:  # twice in a row: the peer's full segments are smaller
            rx.mss = size
            return
    rx.pushed = PUSHED_TWICE if rx.pushed else PUSHED


def follow_pace(rx: Receiver, gap: int, rto: int) -> None:  # hot
    """The delayed-ACK timeout follows the time between segments (Linux's tcp_event_data_recv)."""
    if gap <= DELACK_MIN >> 1:
        rx.ato = (rx.ato >> 1) + (DELACK_MIN >> 1)
    elif gap < rx.ato:
        rx.ato = min((rx.ato >> 1) + gap, rto)
    elif gap > rto:  # the peer may have started anew: do not hold it up
        add_quickacks(rx)


def add_quickacks(rx: Receiver, limit: int = QUICKACKS_MAX) -> None:
    """Acknowledge the next half window at once, `limit` segments at most: a sender in slow start waits for ACKs."""
    segments = ((rx.rcv_adv - rx.rcv_wup) & MASK) // (2 * rx.mss) or 2
    rx.quick = max(rx.quick, min(segments, limit))


def may_compress(rx: Receiver) -> bool:
    """Whether one ACK a batch is enough for what lies beyond a hole: the SACK blocks tell it all, and three ACKs have told of the hole.

    Linux's tcp_comp_sack_nr, without its timer: nothing waits for longer than the batch in which it came.
    """
    if rx.dup_nxt != rx.rcv_nxt:
        rx.dup_nxt = rx.rcv_nxt
        rx.dup_acks = 0
    rx.dup_acks += 1
    return rx.dup_acks > DUP_ACKS and rx.dsack is None


def enter_quickack(rx: Receiver, limit: int = QUICKACKS_MAX) -> None:
    """Something is amiss (a hole, a duplicate): acknowledge at once for a while (Linux's quick-ACK mode)."""
    add_quickacks(rx, limit)
    rx.pingpong = False
    rx.ato = DELACK_MIN


def is_due_after_read(rx: Receiver, window_counts: bool = True) -> bool:
    """Whether an ACK should leave now that the application has taken data (Linux's tcp_cleanup_rbuf).

    One does that is late already, or one after which nothing is to be expected; and one that (`window_counts`) tells of a window that
    is at least doubled, so that the peer hears of it (RFC 9293 3.8.6.2.2).
    """
    if rx.delack_at != NEVER or rx.acks_due:
        if (rx.rcv_nxt - rx.rcv_wup) & MASK > rx.mss:
            return True
        if (rx.pushed > PUSHED or (rx.pushed and not rx.pingpong)) and not rx.queued and not rx.pieces:
            return True
    if not window_counts:
        return False
    current = (rx.rcv_adv - rx.rcv_nxt) & MASK
    if 2 * current > rx.window_clamp:
        return False
    window = receivewindow.select_window(rx)
    return window > 0 and window >= 2 * current


def ack_sent(rx: Receiver) -> None:  # hot
    """An ACK leaves, alone or with data."""
    if rx.quick and (rx.acks_due or rx.delack_at != NEVER):
        rx.quick -= 1
        if not rx.quick:
            rx.ato = DELACK_MIN
    if rx.acks_due:
        rx.acks_due -= 1
    rx.pushed = 0


def delay_passed(rx: Receiver, rto: int) -> None:
    """The delayed-ACK timeout passed without data to ride on: this is no conversation, or a slower one."""
    rx.acks_due = max(rx.acks_due, 1)
    if rx.pingpong:
        rx.pingpong = False
        rx.ato = DELACK_MIN
    else:
        rx.ato = min(rx.ato << 1, rto)


def set_quickack(rx: Receiver, value: int) -> bool:
    """TCP_QUICKACK: 0 has ACKs wait for data; any other number sends what is pending, and an even one then waits again.

    Return whether an ACK is to leave.
    """
    if not value:
        rx.pingpong = True
        return False
    rx.pingpong = False
    if rx.delack_at == NEVER and not rx.acks_due:
        return False
    rx.pushed |= PUSHED
    due = is_due_after_read(rx)
    rx.pingpong = not value & 1
    return due
