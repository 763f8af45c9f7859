"""The common end of a connection's life: the peer's FIN, ours, and the last ACK, each handled in one go.

A subset of input.py's `arrives` (RFC 9293 3.10.7.4) and of output.py's `poll`, as fastinput.py and fastoutput.py are of what comes
before: where anything about the segment is out of the ordinary, or amiss with the connection, nothing is changed and the full way is
taken. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import chrono, output, receivewindow
from tunstack.engine.ackpolicy import DELACK_MAX, DELACK_MIN, ack_sent
from tunstack.engine.acks import acknowledged
from tunstack.engine.chrono import BUSY
from tunstack.engine.delivery import deliver
from tunstack.engine.phase import PROBE
from tunstack.engine.receivewindow import advertise
from tunstack.engine.retransmission import set_timer
from tunstack.engine.rtt import RTO_MIN
from tunstack.engine.scoreboard import Flight
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import CLOSE_WAIT, CLOSED, ESTABLISHED, FIN_WAIT_1, LAST_ACK
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK
from tunstack.wire.segment import ACK, FIN, PSH, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.stack import Stack


def arrives(conn: Connection, seg: Segment, now: int) -> bool:  # hot
    """Handle a segment if it is what was to be expected; else return False with nothing changed."""
    rx = conn.rx
    if rx is None or seg.length or seg.seq != rx.rcv_nxt or seg.sack or seg.options or not conn.recovery.is_quiet:
        return False
    is_timed = conn.ts_ok and seg.ts_val is not None
    if is_timed and (seg.ts_val - rx.ts_recent) & MASK >= HALF:  # type: ignore[operator]  # seq_lt(ts_val, ts_recent): PAWS
        return False
    flags = seg.flags & ~PSH
    if flags == ACK:
        return conn.state is LAST_ACK and _last_ack(conn, seg)
    return flags == ACK | FIN and conn.state is ESTABLISHED and _fin(conn, seg, is_timed, now)


def _fin(conn: Connection, seg: Segment, is_timed: bool, now: int) -> bool:  # hot
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
        or rx.rcv_adv == seg.seq  # the FIN itself lies beyond the window
    ):
        return False
    if is_timed and (rx.rcv_wup - seg.seq) & MASK < HALF:  # seq_le(seq, rcv_wup): RFC 7323 4.3
        rx.ts_recent = seg.ts_val or 0
        rx.ts_recent_at = now
    conn.last_received_at = now
    conn.keepalive_probes = 0
    conn.probes_out = 0
    if newly_acked or (seg.seq - tx.snd_wl1) & MASK < HALF:  # seq_ge(seq, snd_wl1)
        tx.snd_wl1 = seg.seq
        tx.snd_wl2 = seg.ack
    if newly_acked:
        acknowledged(conn, seg, now)
    rx.rcv_nxt = rcv_nxt = (seg.seq + 1) & MASK  # `Receiver.reach_fin`
    rx.eof = True
    rx.sack_blocks = ()
    rx.pingpong = True  # most often we answer a FIN with our own, which brings the ACK (Linux)

    # `ackpolicy.on_data` and `input.data_came`, for no octets
    if not rx.acks_due:
        ato = rx.ato
        if not ato or (
            (rcv_nxt - rx.rcv_wup) & MASK > rx.mss
            and (not rx.queued or receivewindow.select_window(rx) >= (rx.rcv_adv - rx.rcv_wup) & MASK)
        ):
            rx.acks_due = 1
        else:
            if ato > DELACK_MIN:
                srtt = conn.rtt.srtt
                limit = srtt if 0 < srtt < DELACK_MAX else DELACK_MAX
                if limit < DELACK_MIN:
                    limit = DELACK_MIN
                if ato > limit:
                    ato = limit
            if rx.delack_at == NEVER:
                rx.delack_at = now + ato
            elif rx.delack_at <= now + (ato >> 2):  # about to leave anyway
                rx.acks_due = 1
            elif now + ato < rx.delack_at:
                rx.delack_at = now + ato
    rx.rtt_ecr = seg.ts_ecr
    if (rcv_nxt - rx.rtt_seq) & MASK < HALF:  # seq_ge(rcv_nxt, rtt_seq)
        receivewindow.measure_window(rx, now)
    if now - rx.space_at >= rx.rcv_rtt:
        receivewindow.tune(rx, now)
    if not rx.acks_due and rx.pushed > 1 and not (conn.paused or rx.queued):
        rx.acks_due = 1
    if rx.acks_due:
        rx.delack_at = NEVER
        if not conn.is_dirty:
            conn.is_dirty = True
            conn.stack.on_connection_dirty(conn)
    conn.eof_due = True  # `transitions.fin_received`
    conn.state = CLOSE_WAIT
    return True


def tell(conn: Connection) -> None:  # hot
    """Call the sink for what `arrives` brought: `delivery.deliver`, where nothing else is due."""
    rx = conn.rx
    if conn.is_delivering or conn.is_connected or rx.queue or rx.urgent is not None:
        deliver(conn)
    elif conn.is_orphan:
        if conn.is_ending and not conn.is_told:
            conn.is_told = True
            sink, conn.sink = conn.sink, NULL_SINK
            sink.on_closed(conn.error_due)
    elif conn.eof_due and not conn.paused and not conn.is_ending:
        conn.eof_due = False
        conn.is_delivering = True
        try:
            conn.sink.on_eof()
        finally:
            conn.is_delivering = False
        if conn.is_ending:  # by what the sink did
            deliver(conn)
    else:
        deliver(conn)


def is_fin_next(conn: Connection) -> bool:
    """Whether our FIN will leave with the next poll, which then acknowledges the peer's: most often it is answered at once."""
    tx = conn.tx
    return conn.is_dirty and conn.state is LAST_ACK and tx.snd_una == tx.snd_nxt and tx.queue.end == tx.nxt_position and tx.pacer is None


def _last_ack(conn: Connection, seg: Segment) -> bool:
    """The ACK of our FIN, after the peer's: the connection is over, and what else the ACK may tell is of no use to anybody."""
    tx = conn.tx
    if seg.ack != tx.snd_nxt or not tx.fin_sent or conn.fastopen is not None or conn.mtu_probe is not None:
        return False
    tx.una_position += (seg.ack - tx.snd_una - 1) & MASK
    tx.snd_una = seg.ack
    # `transitions.finish`
    conn.state = CLOSED
    conn.stack.forget(conn)
    conn.clear_timers()
    tx.queue.clear()
    tx.board.flights.clear()
    conn.is_ending = True
    return True


def poll(stack: Stack, conn: Connection, now: int, max_payload: int) -> Segment | None:  # hot
    """Return our FIN where it has come to that and all before it is acknowledged; else what `output.poll_and_look` does."""
    tx = conn.tx
    rx = conn.rx
    recovery = conn.recovery
    state = conn.state
    if (
        (state is not LAST_ACK and state is not FIN_WAIT_1)
        or tx.fin_sent
        or tx.snd_una != tx.snd_nxt
        or tx.queue.end != tx.nxt_position
        or not recovery.is_quiet
        or recovery.probe_due
        or tx.pacer is not None
        or tx.rate is not None
        or tx.urgent_end
        or rx.sack_blocks
        or rx.dsack is not None
        or conn.mtu_probe is not None
        or conn.uto_due
    ):
        return output.poll_and_look(stack, conn, now, max_payload)
    # `Sender.sent`, and the timer as in fastoutput.py
    seq = tx.snd_nxt
    tx.snd_nxt = end = (seq + 1) & MASK
    tx.fin_sent = True
    tx.last_sent_at = now
    tx.board.flights.append(Flight(seq, end, now, True))
    rtt = conn.rtt
    if conn.can_probe and rtt.srtt:
        recovery.timer = PROBE
        delay = 2 * rtt.srtt + RTO_MIN
        rto = rtt.backed_off if rtt.backoff else rtt.rto
        conn.rto_at = at = now + (delay if delay < rto else rto)
        if at < conn.heap_at:
            conn.arm(at)
    else:
        set_timer(conn, False, now)
    conn.persist_at = NEVER
    if tx.chrono != BUSY:
        chrono.switch(tx, BUSY, now)
    if not conn.was_writable:
        conn.was_writable = True
        stack.writable.append(conn)
    ack_sent(rx)
    stack.is_drained = not rx.acks_due
    return Segment(
        conn.flow,
        seq,
        rx.rcv_nxt,
        ACK | FIN | rx.ece,
        advertise(rx),
        (),
        0,
        (now // 1000 + conn.ts_offset) & MASK if conn.ts_ok else None,
        rx.ts_recent,
        0,
        (),
        None,
        None,
        False,
        b"",
        conn.options.tos,
    )
