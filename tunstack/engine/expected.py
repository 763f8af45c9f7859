"""What is to be expected at the end of a connection's life, each handled in one go: the peer's FIN, and the last ACK.

A subset of input.py's `arrives` (RFC 9293 3.10.7.4), as fastinput.py is of what comes in between: where anything about the
segment is out of the ordinary, or amiss with the connection, nothing is changed and False is the answer. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import transitions
from tunstack.engine.acks import acknowledged
from tunstack.engine.input import data_came
from tunstack.engine.state import ESTABLISHED, LAST_ACK
from tunstack.seq import HALF, MASK
from tunstack.wire.segment import ACK, FIN, PSH, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


def arrives(conn: Connection, seg: Segment, now: int) -> bool:  # hot
    """Handle a segment if it is what was to be expected; else return False with nothing changed."""
    rx = conn.rx
    if rx is None or seg.length or seg.seq != rx.rcv_nxt or seg.sack or seg.options or not conn.recovery.is_quiet:
        return False
    is_timed = conn.ts_ok and seg.ts_val is not None
    if is_timed and (seg.ts_val - rx.ts_recent) & MASK >= HALF:  # type: ignore[operator]  # seq_lt(ts_val, ts_recent): PAWS
        return False
    flags = seg.flags & ~PSH
    state = conn.state
    if flags == ACK:
        return state is LAST_ACK and _last_ack(conn, seg, now)
    return flags == ACK | FIN and state is ESTABLISHED and _fin(conn, seg, is_timed, now)


def _fin(conn: Connection, seg: Segment, is_timed: bool, now: int) -> bool:
    """The peer's FIN behind all of its data, with an ACK of what is in flight or of nothing new."""
    tx = conn.tx
    rx = conn.rx
    newly_acked = (seg.ack - tx.snd_una) & MASK
    if (
        newly_acked > (tx.snd_nxt - tx.snd_una) & MASK
        or seg.window << tx.wscale != tx.snd_wnd
        or rx.pieces
        or rx.urgent is not None
        or conn.fastopen is not None
    ):
        return False
    if is_timed:
        _take_timestamp(conn, seg, now)
    conn.last_received_at = now
    conn.keepalive_probes = 0
    conn.probes_out = 0
    if newly_acked or (seg.seq - tx.snd_wl1) & MASK < HALF:  # seq_ge(seq, snd_wl1)
        tx.snd_wl1 = seg.seq
        tx.snd_wl2 = seg.ack
    if newly_acked:
        acknowledged(conn, seg, now)
    rx.reach_fin()
    rx.pingpong = True  # most often we answer a FIN with our own, which brings the ACK (Linux)
    data_came(conn, seg, now)
    transitions.fin_received(conn, now)
    return True


def _last_ack(conn: Connection, seg: Segment, now: int) -> bool:
    """The ACK of our FIN, after the peer's: the connection is over, and what else the ACK may tell is of no use to anybody."""
    tx = conn.tx
    if seg.ack != tx.snd_nxt or not tx.fin_sent:
        return False
    tx.advance(seg.ack, True)
    transitions.finish(conn, None, now)
    return True


def _take_timestamp(conn: Connection, seg: Segment, now: int) -> None:
    """TS.Recent follows the segment, which begins where the last ACK ended, or behind it (RFC 7323 4.3)."""
    rx = conn.rx
    if (rx.rcv_wup - seg.seq) & MASK < HALF:  # seq_le(seq, rcv_wup)
        rx.ts_recent = seg.ts_val or 0
        rx.ts_recent_at = now
