"""A segment arrives: RFC 9293 3.10.7, one function a step, and the prediction of the common case.

With RFC 5961 (blind attacks) and RFC 7323 5 (PAWS). Nothing that a peer sends raises: it is a counter and an answer. Each step that
ends the segment's way returns False. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import transitions, urgent
from tunstack.engine.errors import socket_error
from tunstack.engine.handshake import Agreed
from tunstack.engine.recovery import OPEN
from tunstack.engine.state import CLOSE_WAIT, CLOSING, ESTABLISHED, LAST_ACK, RECEIVING, SECOND, SYN_RECEIVED, SYN_SENT
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK, seq_ge, seq_gt, seq_le, seq_lt
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, URG, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

EMPTY = memoryview(b"")
FIN_BEFORE_RST = frozenset((CLOSE_WAIT, CLOSING, LAST_ACK))


def predicted(conn: Connection, seg: Segment, now: int) -> bool:  # hot
    """Handle a segment of an ESTABLISHED connection if it is what was to be expected; else return False with nothing changed.

    Expected: the next data, or an ACK of data in flight, or both, with nothing else about it, and nothing amiss. What it does
    is what `arrives` would do.
    """
    tx = conn.tx
    rx = conn.rx
    length = seg.length
    newly_acked = (seg.ack - tx.snd_una) & MASK
    if (
        seg.flags & ~PSH != ACK
        or seg.seq != rx.rcv_nxt
        or seg.window << tx.wscale != tx.snd_wnd
        or newly_acked > (tx.snd_nxt - tx.snd_una) & MASK
        or not (length or newly_acked)
        or length > (rx.rcv_adv - rx.rcv_nxt) & MASK
        or (length and (rx.pieces or conn.is_orphan or rx.urgent is not None or (rx.queued and rx.is_full)))
        or conn.recovery.phase != OPEN
        or conn.recovery.dupacks
        or tx.lost_out
        or seg.sack
    ):
        return False
    ts_val = seg.ts_val
    if ts_val is not None and conn.ts_ok:
        if (ts_val - rx.ts_recent) & MASK >= HALF:  # seq_lt(ts_val, ts_recent): PAWS
            return False
        if (rx.rcv_wup - seg.seq) & MASK < HALF:  # seq_le(seq, rcv_wup): RFC 7323 4.3
            rx.ts_recent = ts_val
            rx.ts_recent_at = now
    conn.last_received_at = now
    conn.keepalive_probes = 0
    conn.probes_out = 0
    tx.snd_wl1 = seg.seq
    tx.snd_wl2 = seg.ack
    counters = conn.stack.counters
    if newly_acked:
        counters.TCPHPAcks += 1
        acknowledged(conn, seg, now)
    if length:
        counters.TCPHPHits += 1
        rx.ready.append(seg.payload[0])  # type: ignore[arg-type]
        rx.rcv_nxt = (rx.rcv_nxt + length) & MASK
        data_came(conn, seg, now)
    return True


def arrives(conn: Connection, seg: Segment, now: int) -> None:
    """Handle a segment the full way (RFC 9293 3.10.7.3 and 3.10.7.4)."""
    if conn.state is SYN_SENT:
        arrives_in_syn_sent(conn, seg, now)
        return
    if conn.is_over:
        return
    if (
        check_timestamp(conn, seg, now)
        and check_sequence(conn, seg, now)
        and check_reset(conn, seg, now)
        and check_syn(conn, seg, now)
        and take_ack(conn, seg, now)
    ):
        if seg.flags & URG or conn.rx.urgent is not None:
            urgent.arrives(conn, seg)
        take_text(conn, seg, now)


# SYN_SENT (3.10.7.3)


def arrives_in_syn_sent(conn: Connection, seg: Segment, now: int) -> None:
    """The answer to our SYN, or the peer's own (simultaneous open, RFC 9293 3.5)."""
    tx = conn.tx
    if seg.flags & ACK and not (seq_gt(seg.ack, tx.iss) and seq_le(seg.ack, tx.snd_nxt)):
        conn.stack.reply_reset(seg)  # not for a RST, which reply_reset never answers
        return
    if seg.flags & RST:
        if seg.flags & ACK:  # without it the RST is a guess (RFC 9293 3.10.7.3, second step)
            transitions.finish(conn, socket_error("ECONNREFUSED"), now)
        return
    if not seg.flags & SYN or seg.flags & FIN:
        return
    conn.learn_peer(Agreed(seg, conn.stack.sysctl, conn.syn_wscale or 0), seg.seq, conn.syn_window, now)
    conn.last_received_at = now
    if seg.flags & ACK:
        sample_syn(conn, seg, now)
        tx.syn_acked()
        tx.update_window(seg.window, seg.seq, seg.ack)  # the window of a SYN is never scaled
        conn.rx.acks_due = 1
        transitions.established(conn, now)
    else:
        conn.state = SYN_RECEIVED
        conn.retransmits = 0
        conn.syn_due = True
        tx.update_window(seg.window, seg.seq, tx.iss)
        conn.mark_dirty()


def sample_syn(conn: Connection, seg: Segment, now: int) -> None:
    """The first RTT sample: the handshake's, unless the SYN was sent twice and there are no timestamps."""
    if conn.syn_sent_at:
        conn.rtt.sample(now - conn.syn_sent_at)
    elif conn.ts_ok and seg.ts_ecr:
        conn.rtt.sample(ts_rtt(conn, seg, now))


def ts_rtt(conn: Connection, seg: Segment, now: int) -> int:
    """Return the round-trip time that the echoed timestamp tells, us, 0 if it is none of ours (RFC 7323 4.1)."""
    ticks = (conn.ts_val(now) - seg.ts_ecr) & MASK
    return max(ticks * 1000, 1000) if ticks < 0x200000 else 0


# First step: the sequence number, and before it PAWS


def check_timestamp(conn: Connection, seg: Segment, now: int) -> bool:
    """RFC 7323 5.3 R1: an old duplicate carries an old timestamp. RST is judged by its sequence number alone."""
    rx = conn.rx
    if not conn.ts_ok or seg.ts_val is None or not seq_lt(seg.ts_val, rx.ts_recent) or seg.flags & RST:
        return True
    if now - rx.ts_recent_at > 24 * 86400 * SECOND:  # R1: an idle connection's TS.Recent is stale after 24 days
        return True
    conn.stack.counters.PAWSEstab += 1
    answer_out_of_window(conn, seg, now)
    return False


def check_sequence(conn: Connection, seg: Segment, now: int) -> bool:
    """Some of the segment must lie in the window; else it is acknowledged and dropped."""
    rx = conn.rx
    flags = seg.flags
    end = (seg.seq + seg.length + (flags & FIN) + (flags >> 1 & 1)) & MASK
    if rx.is_acceptable(seg.seq, end) or (flags & RST and ends_connection(conn, seg)):
        return True
    if not flags & RST:
        answer_out_of_window(conn, seg, now)
    return False


def answer_out_of_window(conn: Connection, seg: Segment, now: int) -> None:
    """An ACK for what is outside of the window; where there is neither data nor FIN at most one each tcp_invalid_ratelimit (ACK loops)."""
    if not (seg.length or seg.flags & FIN) or seg.flags & SYN:
        limit = conn.stack.sysctl.tcp_invalid_ratelimit * 1000
        if conn.last_oow_ack_at and now - conn.last_oow_ack_at < limit:
            conn.stack.counters.TCPACKSkippedSeq += 1
            return
        conn.last_oow_ack_at = now
    conn.rx.acks_due += 1
    conn.mark_dirty()


# Second to fourth step: RST, SYN


def check_reset(conn: Connection, seg: Segment, now: int) -> bool:
    """RFC 5961 3.2: RST at exactly rcv_nxt ends the connection, elsewhere in the window it draws a challenge ACK."""
    if not seg.flags & RST:
        return True
    if ends_connection(conn, seg):
        error = "EPIPE" if conn.state is CLOSE_WAIT else "ECONNREFUSED" if conn.state is SYN_RECEIVED else "ECONNRESET"
        transitions.finish(conn, socket_error(error), now)
    else:
        challenge(conn, now)
    return False


def ends_connection(conn: Connection, seg: Segment) -> bool:
    """Whether a RST is exactly where it must be: at rcv_nxt or, as in Linux, at the FIN that the peer sent before."""
    rcv_nxt = conn.rx.rcv_nxt
    return seg.seq == rcv_nxt or (conn.state in FIN_BEFORE_RST and seg.seq == (rcv_nxt - 1) & MASK)


def check_syn(conn: Connection, seg: Segment, now: int) -> bool:
    """RFC 5961 4.2: a SYN in a synchronized state draws a challenge ACK; an old peer that lost its state answers it with RST.

    In SYN_RECEIVED (simultaneous open) the peer's SYN-ACK is the acknowledgement that we wait for; its SYN is old.
    """
    if not seg.flags & SYN:
        return True
    if conn.state is SYN_RECEIVED and seg.seq == conn.rx.irs:
        if seg.flags & ACK and seg.ack == conn.tx.snd_nxt:
            return True
        if not seg.flags & ACK:  # its SYN again: our SYN-ACK was lost
            conn.syn_due = True
            conn.mark_dirty()
            return False
    conn.stack.counters.TCPSYNChallenge += 1
    challenge(conn, now)
    return False


def challenge(conn: Connection, now: int) -> None:
    """Send a challenge ACK, within the connection's and the stack's limits (RFC 5961 7)."""
    limit = conn.stack.sysctl.tcp_invalid_ratelimit * 1000
    if conn.last_oow_ack_at and now - conn.last_oow_ack_at < limit:
        conn.stack.counters.TCPACKSkippedChallenge += 1
        return
    if conn.stack.may_challenge(now):
        conn.last_oow_ack_at = now
        conn.stack.counters.TCPChallengeACK += 1
        conn.rx.acks_due += 1
        conn.mark_dirty()


# Fifth step: the ACK


def take_ack(conn: Connection, seg: Segment, now: int) -> bool:
    """Check and use the acknowledgement; without one the segment is dropped."""
    if not seg.flags & ACK:
        return False
    tx = conn.tx
    if conn.state is SYN_RECEIVED and not complete_handshake(conn, seg, now):
        return False
    if seq_gt(seg.ack, tx.snd_nxt):  # acknowledges what was never sent (RFC 5961 5.2)
        challenge(conn, now)
        return False
    if seq_lt(seg.ack, tx.snd_una):
        if seq_lt(seg.ack, (tx.snd_una - tx.max_window) & MASK):
            challenge(conn, now)
            return False
        update_ts_recent(conn, seg, now)
        return True  # an old ACK; its data may still be new
    update_ts_recent(conn, seg, now)
    conn.last_received_at = now
    conn.keepalive_probes = 0
    conn.probes_out = 0
    window_before = tx.snd_wnd
    shift = 0 if seg.flags & SYN else tx.wscale
    # Deviates: an ACK of new data always brings its window, as in Linux. By RFC 9293 alone a retransmission of the peer's, older by its
    # sequence number, would move the left edge and leave the window as it was: the right edge would go beyond what was ever offered.
    if seq_gt(seg.ack, tx.snd_una) or seq_lt(tx.snd_wl1, seg.seq) or (tx.snd_wl1 == seg.seq and seq_le(tx.snd_wl2, seg.ack)):
        tx.update_window(seg.window << shift, seg.seq, seg.ack)
        if tx.snd_wnd != window_before:
            window_changed(conn)
    if seg.ack != tx.snd_una:
        acknowledged(conn, seg, now)
    elif tx.outstanding and not seg.length and not seg.flags & (FIN | SYN) and tx.snd_wnd == window_before:
        conn.recovery.on_duplicate_ack(now)
        conn.mark_dirty()
    return not conn.is_over


def update_ts_recent(conn: Connection, seg: Segment, now: int) -> None:
    """RFC 7323 4.3, for segments whose acknowledgement was believed: a blind guess must not move TS.Recent ahead, which PAWS goes by."""
    rx = conn.rx
    if conn.ts_ok and seg.ts_val is not None and seq_le(seg.seq, rx.rcv_wup):
        rx.ts_recent = seg.ts_val
        rx.ts_recent_at = now


def complete_handshake(conn: Connection, seg: Segment, now: int) -> bool:
    """SYN_RECEIVED: the acknowledgement of our SYN makes the connection (RFC 9293 3.10.7.4)."""
    tx = conn.tx
    if seg.ack != tx.snd_nxt:  # nothing but the SYN was sent
        conn.stack.reply_reset(seg)
        return False
    sample_syn(conn, seg, now)
    tx.syn_acked()
    tx.update_window(seg.window << (0 if seg.flags & SYN else tx.wscale), seg.seq, seg.ack)
    transitions.established(conn, now)
    return True


def window_changed(conn: Connection) -> None:
    """The peer's window is another: what waited may go. The persist timer goes on as it was while a segment does not fit."""
    tx = conn.tx
    if tx.unsent:
        if tx.snd_wnd - tx.outstanding >= min(tx.unsent, tx.mss_now):
            conn.persist_at = NEVER
            tx.probe_due = False
        tx.more = False
        conn.mark_dirty()


def acknowledged(conn: Connection, seg: Segment, now: int) -> None:  # hot
    """seg.ack acknowledges new data or our FIN (snd_una < seg.ack <= snd_nxt)."""
    tx = conn.tx
    flight = (tx.snd_nxt - tx.snd_una) & MASK
    acked, rtt, fin = tx.acknowledge(seg.ack, now)
    if not rtt and conn.ts_ok and seg.ts_ecr:
        rtt = ts_rtt(conn, seg, now)  # Karn's ambiguity is none with timestamps
    if rtt:
        conn.rtt.sample(rtt)
    conn.recovery.on_ack(acked, flight, rtt, now)
    tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, conn.stack.sysctl)
    tx.more = False
    conn.retransmits = 0
    conn.retrans_at = 0
    conn.soft_error = None
    if tx.snd_una == tx.snd_nxt:
        conn.rto_at = NEVER
    else:
        conn.rto_at = at = now + conn.rtt.backed_off  # RFC 6298 5.3
        if at < conn.heap_at:
            conn.arm(at)
    if not conn.is_dirty:
        conn.mark_dirty()
    if fin:
        transitions.fin_acked(conn, now)


# Seventh and eighth step: data and FIN


def take_text(conn: Connection, seg: Segment, now: int) -> None:
    """Take in the data and the FIN (RFC 9293 3.10.7.4, seventh and eighth step)."""
    fin = bool(seg.flags & FIN)
    if not seg.length and not fin:
        return
    rx = conn.rx
    seq = (seg.seq + 1) & MASK if seg.flags & SYN else seg.seq
    if conn.state not in RECEIVING:
        if seq_lt(seq, rx.rcv_nxt):  # sent again: our ACK was lost
            acknowledge_now(conn)
        return
    if conn.is_orphan and seq_gt((seq + seg.length) & MASK, rx.rcv_nxt):  # nobody will read it (RFC 9293 3.10.4 via RFC 1122 4.2.2.13)
        conn.stack.counters.TCPAbortOnData += 1
        conn.stack.reply_reset(seg)
        transitions.finish(conn, None if conn.tx.is_all_acked else socket_error("ECONNRESET"), now)
        return
    counters = conn.stack.counters
    if seg.length and rx.queued and rx.is_full:  # the peer may send it again later
        counters.TCPRcvQDrop += 1
        acknowledge_now(conn)
        return
    in_order_before = not rx.pieces
    held = len(rx.pieces)
    payload = seg.payload[0] if seg.length else EMPTY
    if rx.accept(seq, payload, fin):  # type: ignore[arg-type]
        if rx.eof and conn.state is ESTABLISHED:
            rx.pingpong = True  # most often we answer a FIN with our own, which brings the ACK (Linux)
        data_came(conn, seg, now)
        # RFC 5681 4.2: a segment that fills a hole is acknowledged at once; so is a FIN that ends the conversation
        if not in_order_before or (rx.eof and conn.state is not ESTABLISHED):
            acknowledge_now(conn)
    else:
        if len(rx.pieces) > held:
            counters.TCPOFOQueue += 1
        elif rx.pieces and seq_ge(seq, rx.rcv_nxt):
            counters.TCPOFOMerge += 1
        rx.enter_quickack()
        rx.acks_due += 1  # every one of these is a duplicate ACK that the peer counts
        conn.mark_dirty()
    if rx.eof:
        transitions.fin_received(conn, now)


def data_came(conn: Connection, seg: Segment, now: int) -> None:  # hot
    """In-order data was taken in: when to acknowledge, and whether the buffer should grow."""
    rx = conn.rx
    rx.ack_policy(seg.gso_size or seg.length, now, conn.rtt.rto)
    rx.tune(now, conn.rtt.srtt)
    if rx.acks_due:
        if not conn.is_dirty:
            conn.mark_dirty()
    elif rx.delack_at < conn.heap_at:
        conn.arm(rx.delack_at)


def acknowledge_now(conn: Connection) -> None:
    """Have one ACK leave at the next poll."""
    conn.rx.acks_due = max(conn.rx.acks_due, 1)
    conn.mark_dirty()
