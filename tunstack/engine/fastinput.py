"""The common case of a segment that arrives: header prediction.

RFC 9293 3.10.7.4 as far as it comes to a segment of an ESTABLISHED connection that is the next data, or acknowledges data in flight, or
both, with nothing else about it, while nothing is amiss. It does what `input.arrives` would do, whose steps stand here in one function
without those that are known to do nothing; `StackConfig.fast_path` switches it off, and tests compare the two. What is rare within the
common case (a new measure of the MSS, another round trip) is done by the functions of the full way. Times are int microseconds, lengths
octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ackpolicy, ecn, ending, input, mtuprobe, receivewindow
from tunstack.engine.ackpolicy import DELACK_MAX, DELACK_MIN, PUSHED, PUSHED_TWICE
from tunstack.engine.ackpolicy import MSS_MIN as SMALL
from tunstack.engine.acks import acknowledged, window_changed
from tunstack.engine.delivery import deliver
from tunstack.engine.phase import TIMEOUT
from tunstack.engine.receivewindow import GROW_MIN
from tunstack.engine.retransmission import set_timer
from tunstack.engine.state import ESTABLISHED
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK
from tunstack.wire.segment import ACK, PSH, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

HALF_DELACK = DELACK_MIN >> 1


def on_segment(conn: Connection, seg: Segment, now: int) -> None:  # hot
    """Handle a segment of this connection."""
    length = seg.length
    packets = seg.packets
    conn.segs_in += packets
    if length:
        conn.data_segs_in += packets
    tx = conn.tx
    rx = conn.rx
    if (
        conn.state is not ESTABLISHED
        or seg.seq != rx.rcv_nxt
        or seg.flags & ~PSH != ACK
        or (newly_acked := (seg.ack - tx.snd_una) & MASK) > (flight := (tx.snd_nxt - tx.snd_una) & MASK)
        or ((window := seg.window << tx.wscale) != tx.snd_wnd and not newly_acked)  # whether that one counts, numbers decide
        or not (length or newly_acked or not flight)  # with nothing in flight it is the answer to a keepalive probe
        or (
            length
            and (
                length > (rx.rcv_adv - rx.rcv_nxt) & MASK
                or rx.pieces
                or conn.is_orphan
                or rx.urgent is not None
                or (rx.queued and rx.is_full)
            )
        )
        or seg.sack
        or seg.options
        or not conn.recovery.is_quiet
        or (conn.ts_ok and ((ts_val := seg.ts_val) is None or (ts_val - rx.ts_recent) & MASK >= HALF))  # seq_lt(ts_val, ts_recent): PAWS
        or not (stack := conn.stack).fast_path
    ):
        if conn.stack.fast_path and ending.arrives(conn, seg, now):
            ending.tell(conn)
            if rx.delack_at < conn.heap_at and not ending.is_fin_next(conn):
                conn.arm(rx.delack_at)
            return
        input.arrives(conn, seg, now)
        deliver(conn)
        return
    if conn.ts_ok and (rx.rcv_wup - seg.seq) & MASK < HALF:  # seq_le(seq, rcv_wup): RFC 7323 4.3
        rx.ts_recent = ts_val  # type: ignore[assignment]  # looked at above
        rx.ts_recent_at = now
    conn.last_received_at = now
    conn.keepalive_probes = 0
    conn.probes_out = 0
    counters = stack.counters
    if newly_acked:
        if window == tx.snd_wnd:
            tx.snd_wl1 = seg.seq
            tx.snd_wl2 = seg.ack
            counters.TCPHPAcks += 1
        else:
            tx.update_window(window, seg.seq, seg.ack)
            window_changed(conn)
            if not length:
                counters.TCPPureAcks += 1
        if tx.rate is None:
            _acknowledged(conn, seg.ack, newly_acked, flight, now)
        else:
            acknowledged(conn, seg, now)
    elif (seg.seq - tx.snd_wl1) & MASK < HALF:  # seq_ge(seq, snd_wl1): an ACK from beyond a hole may have been here before
        tx.snd_wl1 = seg.seq
        tx.snd_wl2 = seg.ack
    if not length:
        if not newly_acked:
            counters.TCPPureAcks += 1
        return

    # The data: `Receiver.accept` and `input.data_came`.
    counters.TCPHPHits += 1
    data: memoryview = seg.payload[0]  # type: ignore[assignment]
    is_direct = not (conn.paused or rx.queue or conn.is_delivering or conn.is_connected)  # the sink takes it in a moment
    if not is_direct:
        rx.ready += (data,)
    rx.rcv_nxt = rcv_nxt = (rx.rcv_nxt + length) & MASK
    if rx.ecn_ok:
        ecn.data_came(rx, seg.tos & 3)  # ecn.MASK

    # `ackpolicy.on_data`
    size = seg.gso_size or length
    if size == rx.mss:
        if seg.flags & PSH:
            rx.pushed |= PUSHED
    elif size < SMALL:  # `measure_mss`, for what is too small to be a full segment
        rx.last_size = 0
        rx.pushed = PUSHED_TWICE if rx.pushed else PUSHED
    else:
        ackpolicy.measure_mss(rx, seg)
    ato = rx.ato
    if ato:
        gap = now - rx.last_data_at
        if gap <= HALF_DELACK:  # `follow_pace`
            rx.ato = ato = (ato >> 1) + HALF_DELACK
        else:
            ackpolicy.follow_pace(rx, gap, conn.rtt.rto)
            ato = rx.ato
    else:
        ackpolicy.add_quickacks(rx)
        rx.ato = ato = DELACK_MIN
    rx.last_data_at = now
    if length >= GROW_MIN and rx.rcv_ssthresh < rx.window_clamp:
        receivewindow.grow(rx, length, conn.paused)
    if not rx.acks_due:
        if (
            (rcv_nxt - rx.rcv_wup) & MASK > rx.mss
            and (not rx.queued or receivewindow.select_window(rx) >= (rx.rcv_adv - rx.rcv_wup) & MASK)
        ) or (rx.quick and not rx.pingpong):
            rx.acks_due = 1
        else:
            if ato > DELACK_MIN:
                srtt = conn.rtt.srtt
                limit = srtt if 0 < srtt < DELACK_MAX else DELACK_MAX
                if limit < DELACK_MIN:
                    limit = DELACK_MIN
                if ato > limit:
                    ato = limit
            at = rx.delack_at
            if at <= now + (ato >> 2):  # about to leave anyway
                rx.acks_due = 1
            elif now + ato < at:  # also where it is NEVER
                rx.delack_at = now + ato

    if seg.ts_ecr != rx.rtt_ecr:
        if size >= rx.mss:
            input.sample_receive_rtt(conn, seg, now)
        else:
            rx.rtt_ecr = seg.ts_ecr
    if (rcv_nxt - rx.rtt_seq) & MASK < HALF:  # seq_ge(rcv_nxt, rtt_seq)
        receivewindow.measure_window(rx, now)
    if now - rx.space_at >= rx.rcv_rtt:
        receivewindow.tune(rx, now, length if is_direct else 0)
    # The application takes it in a moment, and as with tcp_cleanup_rbuf that may be reason enough for an ACK.
    if rx.pushed and (not rx.pingpong or rx.pushed > 1) and not rx.acks_due and (is_direct or not (conn.paused or rx.queue)):
        rx.acks_due = 1
    if rx.acks_due:
        rx.delack_at = NEVER  # perhaps set a moment ago, and not armed
        if not conn.is_dirty:
            conn.is_dirty = True
            stack.on_connection_dirty(conn)
    elif rx.delack_at < conn.heap_at:
        conn.arm(rx.delack_at)

    # `delivery.deliver`
    if not is_direct:
        deliver(conn)
        return
    conn.is_delivering = True
    try:
        conn.sink.on_data(data)
        if conn.is_ending:  # by what the sink did
            conn.is_delivering = False
            deliver(conn)
    finally:
        conn.is_delivering = False


def _acknowledged(conn: Connection, ack: int, acked: int, flight: int, now: int) -> None:  # hot
    """The ACK of `acked` of the `flight` octets outstanding, all sent once: `acks.acknowledged`, no delivery rate measured, no FIN sent."""
    tx = conn.tx
    board = tx.board
    if acked == flight:
        flights = board.flights
        oldest_at = flights[0].sent_at
        youngest_at = flights[-1].sent_at
        flights.clear()
    else:
        oldest_at, youngest_at, _ = board.acknowledge(ack)
    tx.snd_una = ack
    tx.una_position += acked
    tx.queue.release(tx.una_position)
    rtt = now - youngest_at or 1
    conn.rtt.sample(now - oldest_at or 1, rtt, ack, tx.snd_nxt, now)
    recovery = conn.recovery
    rack = recovery.rack
    rack.sent_at = youngest_at
    rack.end = ack
    rack.rtt = rtt
    cc = tx.cc
    cc.on_ack(acked, flight, rtt, now, tx.cwnd_limited or (cc.cwnd < cc.ssthresh and cc.cwnd < 2 * tx.max_flight))  # `may_grow`
    # `acks.progressed`
    tx.burst = 0
    if tx.pacer is not None or cc.pacing_rate:  # `forget_burst`
        tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, conn.stack.sysctl)
    tx.more = False
    if conn.mtu_probe is not None:
        mtuprobe.on_progress(conn)
    conn.retransmits = 0
    conn.retrans_at = 0
    conn.soft_error = None
    if acked == flight:
        conn.rto_at = NEVER  # RFC 6298 5.2
        recovery.timer = TIMEOUT
    else:
        set_timer(conn, True, now)
    if not conn.is_dirty:
        conn.is_dirty = True
        conn.stack.on_connection_dirty(conn)
