"""The common case of what leaves: new data, or a bare ACK, of an ESTABLISHED connection on which nothing is amiss.

RFC 9293 3.8 and 3.10. It gives what `output.poll` would give, whose steps stand here in one function without those that are known to do
nothing; `StackConfig.fast_path` switches it off, and tests compare the two. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import chrono, ending, output
from tunstack.engine.ackpolicy import ack_sent
from tunstack.engine.chrono import BUSY, IDLE
from tunstack.engine.phase import PROBE
from tunstack.engine.receivewindow import advertise
from tunstack.engine.retransmission import set_timer
from tunstack.engine.rtt import RTO_MIN
from tunstack.engine.scoreboard import Flight
from tunstack.engine.state import ESTABLISHED
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK
from tunstack.wire.segment import ACK, CWR, PSH, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.stack import Stack


def poll(stack: Stack, conn: Connection, now: int, max_payload: int) -> Segment | None:  # hot
    """Return the next segment to send, or None when nothing may leave now.

    With a segment, `stack.is_drained` says that a further poll would give none and change nothing.
    """
    if conn.state is not ESTABLISHED:
        return ending.poll(stack, conn, now, max_payload)
    tx = conn.tx
    rx = conn.rx
    recovery = conn.recovery
    if (
        not recovery.is_quiet  # nothing is SACKed or lost: all that is outstanding is in the pipe
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
    position = tx.nxt_position
    unsent = tx.queue.end - position
    seq = tx.snd_nxt
    if not unsent:
        if tx.chrono and tx.snd_una == seq:
            chrono.switch(tx, IDLE, now)
        return _poll_ack(stack, conn, True, now)
    outstanding = (seq - tx.snd_una) & MASK
    mss = tx.mss_now
    if not outstanding and unsent <= mss and unsent <= tx.snd_wnd and unsent <= tx.sndbuf and not tx.more and not conn.options.cork:
        return _poll_lone(stack, conn, unsent, now)

    # `Sender.sendable`
    size = unsent if unsent < max_payload else max_payload
    if size > mss:
        if not tx.burst:
            tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, stack.sysctl)
        if size > tx.burst:
            size = tx.burst
    limit = tx.snd_wnd if tx.snd_wnd < tx.sndbuf else tx.sndbuf
    if size > limit - outstanding:
        size = limit - outstanding
    room = tx.cc.cwnd - outstanding
    if size > room:
        size = room
    tail = 0
    if size > 0:
        tail = size % mss
        if tail and (
            size < unsent  # a part of what should go waits for more window (silly window)
            or tx.more
            or conn.options.cork
            or (
                (outstanding or size > mss)
                and not conn.options.nodelay
                and (tx.snd_sml - tx.snd_una - 1) & MASK < outstanding  # Nagle's rule as Minshall changed it
            )
        ):
            size -= tail
            tail = 0
    else:
        size = 0
    room -= size
    outstanding += size
    is_limited = room < mss
    if is_limited or (
        size and ((tx.snd_una - tx.usage_end) & MASK < HALF or (not tx.cwnd_limited and outstanding > tx.max_flight))
    ):  # the first: seq_ge(snd_una, usage_end)
        tx.cwnd_limited = is_limited
        tx.max_flight = outstanding
        tx.usage_end = (seq + size) & MASK
    if not size:
        if not outstanding:
            return output.poll_and_look(stack, conn, now, max_payload)  # the persist timer's matter
        if tx.chrono != BUSY or limit < outstanding + mss:
            chrono.held_up(tx, now)
        return _poll_ack(stack, conn, room < (unsent if unsent < mss else mss) and tx.burst > 0, now)

    # `Sender.sent` and the timer
    end = (seq + size) & MASK
    if tail:
        tx.snd_sml = end
    flights = tx.board.flights
    is_timed = now == tx.last_sent_at and len(flights) > 1  # the timer was set when this burst began
    tx.snd_nxt = end
    flights.append(Flight(seq, end, now, False))
    if conn.rto_at == NEVER or (recovery.timer == PROBE and not is_timed):
        set_timer(conn, False, now)
    unsent -= size
    # Drained is also who has no room in the congestion window for a segment more.
    return _send(stack, conn, seq, position, size, not unsent or (room < (unsent if unsent < mss else mss) and tx.burst > 0), now)


def _poll_lone(stack: Stack, conn: Connection, size: int, now: int) -> Segment:  # hot
    """All the data there is, in one packet that fits the window, while nothing is in flight: most of what a conversation sends.

    Neither Nagle's rule nor the congestion window (one segment at least) holds it back, no burst is to be sized, no timer runs.
    """
    tx = conn.tx
    seq = tx.snd_nxt
    mss = tx.mss_now
    tx.cwnd_limited = tx.cc.cwnd - size < mss
    tx.max_flight = size
    tx.snd_nxt = tx.usage_end = end = (seq + size) & MASK
    if size < mss:
        tx.snd_sml = end
    tx.board.flights.append(Flight(seq, end, now, False))
    rtt = conn.rtt
    if conn.can_probe and rtt.srtt:  # `set_timer`
        conn.recovery.timer = PROBE
        delay = 2 * rtt.srtt + RTO_MIN  # the ACK of a lone segment may be delayed (RFC 8985 7.2)
        rto = rtt.backed_off if rtt.backoff else rtt.rto
        conn.rto_at = at = now + (delay if delay < rto else rto)
        if at < conn.heap_at:
            conn.arm(at)
    else:
        set_timer(conn, False, now)
    return _send(stack, conn, seq, tx.nxt_position, size, True, now)


def _send(stack: Stack, conn: Connection, seq: int, position: int, size: int, is_drained: bool, now: int) -> Segment:  # hot
    """Make the segment of new data that stands on the scoreboard already: `output.poll_data` and `outgoing.make_data`.

    `position` is that of `seq` in the queue. `is_drained`: no data will follow now.
    """
    tx = conn.tx
    rx = conn.rx
    tx.nxt_position = sent_to = position + size
    tx.last_sent_at = now
    conn.persist_at = NEVER
    if tx.chrono != BUSY:
        chrono.switch(tx, BUSY, now)
    if now - rx.last_data_at < rx.ato:  # an answer to data that just came (Linux's tcp_event_data_sent)
        rx.pingpong = True
    queue = tx.queue
    if not conn.was_writable and queue.end - sent_to <= conn.write_low_water:
        conn.was_writable = True
        stack.writable.append(conn)
    if rx.quick or rx.acks_due:
        ack_sent(rx)
    else:
        rx.pushed = 0
    flags = ACK | rx.ece
    if tx.ect and conn.recovery.cwr_due:
        conn.recovery.cwr_due = False
        flags |= CWR
    mss = tx.mss_now
    if size > mss or sent_to == queue.end == tx.push_position:  # a burst of several packets always ends with PSH (Linux)
        flags |= PSH
    if rx.rcv_nxt == rx.field_nxt:  # `advertise`, where nothing came since
        rx.delack_at = NEVER
        window = rx.field
    else:
        window = advertise(rx)
    stack.is_drained = is_drained and not rx.acks_due
    return Segment(
        conn.flow,
        seq,
        rx.rcv_nxt,
        flags,
        window,
        queue.slice(position, size),
        size,
        (now // 1000 + conn.ts_offset) & MASK if conn.ts_ok else None,
        rx.ts_recent,
        mss if size > mss else 0,
        (),
        None,
        None,
        False,
        b"",
        conn.options.tos | tx.ect,
    )


def _poll_ack(stack: Stack, conn: Connection, is_drained: bool, now: int) -> Segment | None:  # hot
    """A bare ACK, if one is due: `outgoing.poll_ack`. `is_drained`: there is no data, or no room for it in the congestion window."""
    rx = conn.rx
    if not rx.acks_due:
        return None
    ack_sent(rx)
    if rx.rcv_nxt == rx.field_nxt:
        rx.delack_at = NEVER
        window = rx.field
    else:
        window = advertise(rx)
    stack.is_drained = is_drained and not rx.acks_due
    return Segment(
        conn.flow,
        conn.tx.snd_nxt,
        rx.rcv_nxt,
        ACK | rx.ece,
        window,
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
