"""What a connection sends, and when it may.

RFC 9293 3.8 and 3.10: SYN, retransmissions, new data, FIN, window probes and ACKs, in this order. Called by the stack's poll, never
from within the handling of a segment. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import chrono, ecn, fastopenclient, lossprobe, mtuprobe, urgent, usertimeout
from tunstack.engine.fastopenclient import Attempt
from tunstack.engine.fastopencookie import attach
from tunstack.engine.fastopenrequest import Request, is_writable
from tunstack.engine.outgoing import make_bare_syn, make_data, make_probe, make_syn_ack, poll_ack
from tunstack.engine.phase import LOSS, PROBE, REORDER
from tunstack.engine.retransmission import restart_timer, set_timer
from tunstack.engine.rtt import RTO_INITIAL, RTO_MAX
from tunstack.engine.scoreboard import SACKED
from tunstack.engine.sender import BURST_MAX
from tunstack.engine.state import CLOSED, ESTABLISHED, SYN_RECEIVED, SYN_SENT, TIME_WAIT
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK
from tunstack.wire.segment import Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.pacing import Pacer
    from tunstack.engine.stack import Stack

PERSIST_MIN = 200_000  # us; also how long at least TCP_CORK and MSG_MORE may hold a part of a segment


def poll_and_look(stack: Stack, conn: Connection, now: int, max_payload: int) -> Segment | None:
    """As `poll`; with a segment, `stack.is_drained` says whether a further poll would give none and change nothing, as far as is known."""
    segment = poll(conn, now, max_payload)
    stack.is_drained = segment is not None and is_drained(conn)
    return segment


def is_drained(conn: Connection) -> bool:
    """Whether a segment that has just left was the last: nothing amiss, no ACK due, no data or no room in the congestion window for it."""
    tx = conn.tx
    rx = conn.rx
    if conn.state is not ESTABLISHED and not (tx.fin_sent and tx.outstanding):
        return False
    if conn.recovery.probe_due or not conn.recovery.is_quiet or rx.acks_due:
        return False
    if tx.pacer is not None or tx.rate is not None or tx.urgent_end or rx.sack_blocks or rx.dsack or conn.mtu_probe or conn.uto_due:
        return False
    if not tx.unsent:
        return True
    is_known = tx.cwnd_limited and tx.usage_end == tx.snd_nxt and tx.burst > 0  # what `Sender.sendable` would compute
    return is_known and tx.outstanding > 0 and tx.cc.cwnd - tx.outstanding < min(tx.unsent, tx.mss_now)


def poll(conn: Connection, now: int, max_payload: int) -> Segment | None:
    """Return the next segment to send, or None when nothing may leave now."""
    tx = conn.tx
    if conn.state is SYN_SENT or conn.state is SYN_RECEIVED:
        syn = poll_syn(conn, now)
        if syn is not None or conn.fastopen is None or not is_writable(conn):
            return syn
    if conn.state is CLOSED or conn.state is TIME_WAIT:
        return poll_ack(conn, now) if conn.state is TIME_WAIT else None
    is_urgent = tx.urgent_end and urgent.is_sending(tx)
    if is_urgent:
        max_payload = tx.mss_now  # each packet has a pointer of its own
    elif tx.pacer is not None and max_payload > BURST_MAX:
        max_payload = BURST_MAX  # a device may take more at once, but what is paced is to be spread
    recovery = conn.recovery
    if tx.board.lost_out or recovery.probe_due:
        if tx.pacer is not None and now + conn.stack.timer_grain < tx.pacer.at and not (recovery.probe_due or recovery.force):
            return poll_held(conn, tx.pacer, now)
        segment = poll_repair(conn, now, max_payload)
        if segment is not None:
            return segment
    if tx.fin_sent:
        if tx.chrono and tx.snd_una == tx.snd_nxt:
            chrono.switch(tx, chrono.IDLE, now)
        return poll_ack(conn, now)
    if conn.mtu_probe is not None and not is_urgent:
        payload = mtuprobe.may_leave(conn, now)
        if payload is None:
            return poll_ack(conn, now)
        if payload:
            return mtuprobe.send(conn, payload, now)
    if is_urgent:
        size = sendable(conn, max_payload, True, False)
    else:
        size = sendable(conn, max_payload, conn.options.nodelay, conn.options.cork or tx.more)
    if size:
        if tx.pacer is not None and now + conn.stack.timer_grain < tx.pacer.at:
            return poll_held(conn, tx.pacer, now)
        return poll_data(conn, size, now)
    if tx.pacer is not None:
        tx.pacer.on_stop(bool(tx.unsent), now)
    if tx.fin_queued and not tx.unsent and (tx.pipe < tx.cc.cwnd or not tx.outstanding):
        return poll_data(conn, 0, now)
    if tx.unsent:
        limit = tx.snd_wnd if tx.snd_wnd < tx.sndbuf else tx.sndbuf
        if tx.chrono != chrono.BUSY or limit < ((tx.snd_nxt - tx.snd_una) & MASK) + tx.mss_now:
            chrono.held_up(tx, now)
        if not tx.outstanding:
            if tx.probe_due:
                return poll_probe(conn, now)
            if conn.persist_at == NEVER:
                conn.persist_backoff = 0
                conn.persist_at = now + max(conn.rtt.rto, PERSIST_MIN)
                conn.arm(conn.persist_at)
    elif tx.chrono and tx.snd_una == tx.snd_nxt:
        chrono.switch(tx, chrono.IDLE, now)
    return poll_ack(conn, now)


def sendable(conn: Connection, max_payload: int, nodelay: bool, cork: bool) -> int:
    """Return how many octets of new data may leave now in one (super-)segment, 0 if none."""
    tx = conn.tx
    if not tx.burst and min(tx.unsent, max_payload) > tx.mss_now:
        tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, conn.stack.sysctl)
    return tx.sendable(max_payload, nodelay, cork)


def poll_syn(conn: Connection, now: int) -> Segment | None:
    """SYN or, having seen the peer's (simultaneous open, Fast Open), SYN-ACK."""
    attempt = conn.fastopen
    if not conn.syn_due:
        if conn.state is SYN_RECEIVED:
            return poll_ack(conn, now)
        if not fastopenclient.is_deferred(conn) or not fastopenclient.is_due(conn):
            return None
    conn.syn_due = False
    is_resent = conn.retransmits > 0 or (attempt is not None and attempt.is_sent)
    if is_resent:
        count_syn_resent(conn)
    else:
        conn.syn_sent_at = conn.retrans_at = now
    since = conn.retrans_at if conn.retransmits else 0
    linear = conn.stack.sysctl.tcp_syn_linear_timeouts if conn.state is SYN_SENT else 0
    backoff = max(conn.retransmits - linear, 0)
    conn.rto_at = now + usertimeout.clamp(conn, min(RTO_INITIAL << backoff, RTO_MAX), since, now)
    conn.arm(conn.rto_at)
    if conn.state is SYN_SENT or conn.agreed is None:
        syn = make_bare_syn(conn, now)
        if isinstance(attempt, Attempt):
            fastopenclient.equip(conn, attempt, syn, now)
        return syn
    syn_ack = make_syn_ack(conn, now)
    if isinstance(attempt, Request) and not attempt.is_sent:
        attempt.is_sent = True
        if attempt.option:
            attach(syn_ack, attempt.option)
    return syn_ack


def answer_syn_again(conn: Connection, now: int) -> None:
    """Send the SYN-ACK once more, out of turn: its timer goes on as it was."""
    count_syn_resent(conn)
    conn.segs_out += 1
    conn.stack.emit(make_syn_ack(conn, now))


def poll_repair(conn: Connection, now: int, max_payload: int) -> Segment | None:
    """A tail loss probe, or what is lost; but new data first where F-RTO wants to see what becomes of it."""
    tx = conn.tx
    recovery = conn.recovery
    if recovery.probe_due:
        recovery.probe_due = False
        if tx.outstanding:
            return poll_loss_probe(conn, now)
    if recovery.new_first:
        size = sendable(conn, max_payload, True, False)
        if size:
            return poll_data(conn, size, now)
        if tx.snd_nxt != recovery.recover:
            return None
        recovery.new_first = recovery.expects_original = False
    return poll_retransmit(conn, now, max_payload)


def poll_retransmit(conn: Connection, now: int, max_payload: int) -> Segment | None:
    """The first lost segments, as many as the congestion window takes (RFC 5681 3.2, RFC 6298 5.4)."""
    tx = conn.tx
    board = tx.board
    index = board.next_lost()
    if index is None or conn.recovery.is_holding:
        return None
    flight = board.flights[index]
    mss = tx.mss_now
    length = ((flight.end - flight.seq) & MASK) - flight.fin
    room = tx.cc.cwnd - tx.pipe
    if room < min(length, mss) or room <= 0:
        if not conn.recovery.force:
            return None
        room = mss
    window = tx.snd_wnd - ((flight.seq - tx.snd_una) & MASK)
    if window <= 0:
        if index:
            return None  # the peer took its window back, or never had one for a SYN's data; what it acknowledges comes first
        window = mss
    size = min(room, max_payload, window, BURST_MAX)
    board.split(index, size // mss * mss or size)
    conn.recovery.force = False
    tx.resent(flight, now)
    length = ((flight.end - flight.seq) & MASK) - flight.fin
    counters = conn.stack.counters
    count_resent(conn, -(-length // mss) or 1, length)
    if conn.recovery.phase == LOSS:
        counters.TCPSlowStartRetrans += 1
    else:
        counters.TCPFastRetrans += 1
    conn.recovery.on_resent(length + flight.fin, now)
    if conn.rto_at == NEVER or (not index and conn.recovery.timer != REORDER):
        restart_timer(conn, now)
    return make_data(conn, flight.seq, length, flight.fin, flight.end == tx.snd_nxt, ecn.NOT_ECT, now)


def poll_loss_probe(conn: Connection, now: int) -> Segment | None:
    """The tail loss probe: new data if there is any and the peer takes it, else the last segment again (RFC 8985 7.3)."""
    tx = conn.tx
    recovery = conn.recovery
    if recovery.probe_end is not None:
        set_timer(conn, False, now)
        return None
    size = min(tx.unsent, tx.mss_now)
    if (size or (tx.fin_queued and not tx.fin_sent)) and size <= tx.snd_wnd - tx.outstanding:
        segment = poll_data(conn, size, now)
        lossprobe.on_probe_sent(recovery, False)
    else:
        board = tx.board
        index = len(board.flights) - 1
        while index and board.flights[index].marks & SACKED:
            index -= 1
        flight = board.flights[index]
        length = ((flight.end - flight.seq) & MASK) - flight.fin
        if length > tx.mss_now:
            board.split(index, (length - 1) // tx.mss_now * tx.mss_now)
            flight = board.flights[index + 1]
        tx.resent(flight, now)
        length = ((flight.end - flight.seq) & MASK) - flight.fin
        count_resent(conn, 1, length)
        recovery.on_resent(length + flight.fin, now)
        lossprobe.on_probe_sent(recovery, True)
        segment = make_data(conn, flight.seq, length, flight.fin, flight.end == tx.snd_nxt, ecn.NOT_ECT, now)
    restart_timer(conn, now)
    return segment


def count_resent(conn: Connection, packets: int, octets: int) -> None:
    """Count what leaves again; the stack, which counts all that leaves, then takes nothing of it for new."""
    counters = conn.stack.counters
    counters.TcpRetransSegs += packets
    counters.TcpOutSegs -= packets
    if octets:
        counters.TCPOrigDataSent -= packets
        conn.tx.bytes_retrans += octets


def count_syn_resent(conn: Connection) -> None:
    """Count a SYN, or SYN-ACK, that leaves again: no sample of the round-trip time any more (Karn)."""
    conn.syn_sent_at = 0
    count_resent(conn, 1, 0)
    counters = conn.stack.counters
    counters.TCPSynRetrans += 1
    if conn.listener is not None:
        counters.TcpOutSegs += 1  # a listener's counts each time, as in Linux


def poll_held(conn: Connection, pacer: Pacer, now: int) -> Segment | None:
    """Data might leave, but it is paced: have the timer look again. An ACK need not wait."""
    pacer.is_waiting = True
    conn.pacing_at = at = pacer.at - conn.stack.timer_grain
    conn.arm(at)
    return poll_ack(conn, now)


def poll_data(conn: Connection, size: int, now: int) -> Segment:  # hot
    """`size` octets of new data, with the FIN if it comes right behind them."""
    tx = conn.tx
    last = size == tx.unsent
    recovery = conn.recovery
    flights = tx.board.flights
    is_timed = now == tx.last_sent_at and len(flights) > 1  # the timer was set when this burst began
    flight = tx.sent(size, last and tx.fin_queued, now)
    if conn.rto_at == NEVER or (recovery.timer == PROBE and not is_timed):
        set_timer(conn, False, now)
    if recovery.phase:
        recovery.on_sent(size)
    conn.persist_at = NEVER
    if tx.chrono != chrono.BUSY:
        chrono.switch(tx, chrono.BUSY, now)
    rx = conn.rx
    if now - rx.last_data_at < rx.ato and size:  # an answer to data that just came (Linux's tcp_event_data_sent)
        rx.pingpong = True
    if not conn.was_writable and tx.unsent <= conn.write_low_water:
        conn.was_writable = True
        conn.stack.writable.append(conn)
    return make_data(conn, flight.seq, size, flight.fin, last and tx.queue.end == tx.push_position, tx.ect if size else 0, now)


def poll_probe(conn: Connection, now: int) -> Segment:
    """A window probe: what fits into the window, or an octet that the peer has, so that it answers (Linux)."""
    tx = conn.tx
    tx.probe_due = False
    conn.probes_out += 1
    conn.persist_backoff += 1
    conn.stack.counters.TCPWinProbe += 1
    delay = min(conn.rtt.rto << min(conn.persist_backoff, 16), RTO_MAX)
    conn.persist_at = now + usertimeout.clamp(conn, delay, conn.persist_since, now)
    conn.arm(conn.persist_at)
    size = min(tx.snd_wnd, tx.unsent, tx.mss_now)
    tx.push_position = tx.queue.end  # a probe asks the peer to look
    if size:
        conn.persist_since = 0
        return poll_data(conn, size, now)
    probe = make_probe(conn, now)
    if tx.urgent_end and 0 < urgent.ahead(tx, tx.snd_una) <= urgent.POINTER_MAX:
        conn.stack.emit(probe)
        return make_probe(conn, now, tx.snd_una)  # tells of what is urgent and may not be sent (Linux)
    return probe
