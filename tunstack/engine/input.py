"""A segment arrives: RFC 9293 3.10.7, one function a step. The common case is in fastinput.py, too.

With RFC 5961 (blind attacks) and RFC 7323 5 (PAWS). Nothing that a peer sends raises: it is a counter and an answer. Each step that
ends the segment's way returns False. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ackpolicy, ecn, fastopen, output, paws, prune, receivewindow, transitions, urgent, usertimeout
from tunstack.engine.acks import sample_syn, take_ack
from tunstack.engine.errors import socket_error
from tunstack.engine.fastopenclient import Attempt, on_syn_ack
from tunstack.engine.guard import challenge
from tunstack.engine.handshake import Agreed, Offer
from tunstack.engine.opening import learn_peer
from tunstack.engine.state import CLOSE_WAIT, CLOSING, ESTABLISHED, LAST_ACK, RECEIVING, SYN_RECEIVED, SYN_SENT
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK, seq_ge, seq_gt, seq_le, seq_lt
from tunstack.wire.segment import ACK, CWR, FIN, RST, SYN, URG, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

EMPTY = memoryview(b"")
FIN_BEFORE_RST = frozenset((CLOSE_WAIT, CLOSING, LAST_ACK))


def arrives(conn: Connection, seg: Segment, now: int) -> None:
    """Handle a segment the full way (RFC 9293 3.10.7.3 and 3.10.7.4)."""
    if conn.state is SYN_SENT:
        arrives_in_syn_sent(conn, seg, now)
        return
    if conn.is_over:
        return
    if conn.fastopen is not None and conn.state is SYN_RECEIVED and not fastopen.may_arrive(conn, seg, now):
        return
    if (
        check_timestamp(conn, seg, now)
        and check_sequence(conn, seg, now)
        and check_reset(conn, seg, now)
        and check_syn(conn, seg, now)
        and seg.flags & ACK
        and take_ack(conn, seg, now)
    ):
        if seg.flags & CWR:  # also on a pure ACK, as Linux takes it: else a peer that sends it there would hear ECE for ever
            conn.rx.ece = 0
        if seg.flags & URG or conn.rx.urgent is not None:
            urgent.arrives(conn, seg)
        if seg.options:
            usertimeout.take(conn, usertimeout.decode(seg.options))
        take_text(conn, seg, now)
        if seg.flags & CWR and conn.rx.ecn_ok and seg.length:  # the peer's window may be a single segment now
            acknowledge_now(conn)


# SYN_SENT (3.10.7.3)


def arrives_in_syn_sent(conn: Connection, seg: Segment, now: int) -> None:
    """The answer to our SYN, or the peer's own (simultaneous open, RFC 9293 3.5)."""
    tx = conn.tx
    if seg.flags & ACK and not (seq_gt(seg.ack, tx.iss) and seq_le(seg.ack, tx.snd_nxt)):
        conn.stack.reply_reset(seg)  # not for a RST, which reply_reset never answers
        return
    is_timed = seg.ts_val is not None and conn.ts_ok
    if seg.flags & ACK and is_timed and not paws.is_echo(seg.ts_ecr, conn.syn_ts_val, conn.ts_val(now)):  # of an old SYN
        conn.stack.counters.PAWSActive += 1
        conn.stack.reply_reset(seg)
        return
    if seg.flags & RST:
        if seg.flags & ACK:  # without it the RST is a guess (RFC 9293 3.10.7.3, second step)
            transitions.finish(conn, socket_error("ECONNREFUSED"), now)
        return
    if not seg.flags & SYN or seg.flags & FIN:
        return
    offer = Offer(conn.ts_ok, conn.recovery.is_sack, conn.syn_wscale is not None)
    agreed = Agreed(seg, offer, conn.syn_wscale or 0)
    agreed.ecn_ok = conn.syn_ecn and ecn.is_agreed(seg)
    learn_peer(conn, agreed, seg.seq, seg.ts_val or 0, conn.syn_window, now)
    conn.last_received_at = now
    if seg.flags & ACK:
        sample_syn(conn, seg, now)
        tx.syn_acked()
        tx.update_window(seg.window, seg.seq, seg.ack)  # the window of a SYN is never scaled
        conn.rx.acks_due = 1
        is_resent = conn.retransmits > 0 or not conn.syn_sent_at
        transitions.established(conn, now)
        if isinstance(conn.fastopen, Attempt):
            on_syn_ack(conn, conn.fastopen, seg, is_resent, now)
    else:
        conn.state = SYN_RECEIVED
        conn.retransmits = 0
        conn.syn_due = True
        tx.update_window(seg.window, seg.seq, tx.iss)
        conn.mark_dirty()


# First step: the sequence number, and before it PAWS


def check_timestamp(conn: Connection, seg: Segment, now: int) -> bool:
    """RFC 7323 5.3 R1: an old duplicate is acknowledged and dropped. RST and SYN are judged by their sequence numbers alone."""
    if not conn.ts_ok or seg.ts_val is None or seg.flags & (RST | SYN):
        return True
    verdict = paws.judge(conn, seg, now)
    if verdict == paws.GOOD:
        return True
    counters = conn.stack.counters
    if verdict == paws.OLD_ACK:
        counters.PAWSOldAck += 1
    else:
        counters.PAWSEstab += 1
        answer_out_of_window(conn, seg, now, "TCPACKSkippedPAWS")
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


def answer_out_of_window(conn: Connection, seg: Segment, now: int, skipped: str = "TCPACKSkippedSeq") -> None:
    """An ACK for what is outside of the window; where there is neither data nor FIN at most one each tcp_invalid_ratelimit (ACK loops)."""
    if not (seg.length or seg.flags & FIN) or seg.flags & SYN:
        limit = conn.stack.sysctl.tcp_invalid_ratelimit * 1000
        if conn.last_oow_ack_at and now - conn.last_oow_ack_at < limit:
            counters = conn.stack.counters
            setattr(counters, skipped, getattr(counters, skipped) + 1)
            return
        conn.last_oow_ack_at = now
    if (seg.length or seg.flags & (SYN | FIN)) and seq_lt(seg.seq, conn.rx.rcv_nxt):
        conn.stack.counters.DelayedACKLost += 1
    conn.rx.note_duplicate(seg.seq, seg.length)
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
        if seg.flags & ACK and seq_gt(seg.ack, conn.tx.iss) and seq_le(seg.ack, conn.tx.snd_nxt):
            return True
        if not seg.flags & ACK:  # its SYN again: our SYN-ACK was lost
            answer_syn_again(conn, now)
            return False
    conn.stack.counters.TCPSYNChallenge += 1
    challenge(conn, now)
    return False


def answer_syn_again(conn: Connection, now: int) -> None:
    """Send the SYN-ACK for a SYN that came a second time, at most once each tcp_invalid_ratelimit.

    The timer goes on as it was: who repeats a SYN for ever does not keep the attempt alive.
    """
    counters = conn.stack.counters
    if conn.last_oow_ack_at and now - conn.last_oow_ack_at < conn.stack.sysctl.tcp_invalid_ratelimit * 1000:
        counters.TCPACKSkippedSynRecv += 1
        return
    conn.last_oow_ack_at = now
    output.answer_syn_again(conn, now)


# Seventh and eighth step: data and FIN


def take_text(conn: Connection, seg: Segment, now: int) -> None:
    """Take in the data and the FIN (RFC 9293 3.10.7.4, seventh and eighth step)."""
    fin = bool(seg.flags & FIN)
    if not seg.length and not fin:
        conn.stack.counters.TCPPureAcks += 1
        return
    rx = conn.rx
    seq = (seg.seq + 1) & MASK if seg.flags & SYN else seg.seq
    if conn.state not in RECEIVING:
        if seq_lt(seq, rx.rcv_nxt):  # sent again: our ACK was lost
            rx.note_duplicate(seq, seg.length)
            acknowledge_now(conn)
        return
    if conn.is_orphan and seq_gt((seq + seg.length) & MASK, rx.rcv_nxt):  # nobody will read it (RFC 9293 3.10.4 via RFC 1122 4.2.2.13)
        conn.stack.counters.TCPAbortOnData += 1
        conn.stack.reply_reset(seg)
        transitions.finish(conn, None if conn.tx.is_all_acked else socket_error("ECONNRESET"), now)
        return
    counters = conn.stack.counters
    if seg.length and rx.queued and rx.is_full and not prune.make_room(rx, seq):  # the peer may send it again later
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
        if seg.length and rx.rcv_adv == rx.rcv_nxt == seq:
            if rx.queue:
                counters.BeyondWindow += 1
            else:
                counters.TCPZeroWindowDrop += 1
        is_one_enough = False
        if conn.may_sack and len(rx.pieces) > held:
            out_of_order_came(conn, seg)
            is_one_enough = ackpolicy.may_compress(rx)
        if seq_le((seq + seg.length + fin) & MASK, rx.rcv_nxt):
            counters.DelayedACKLost += 1
        ackpolicy.enter_quickack(rx)
        if is_one_enough and rx.acks_due:
            counters.TCPAckCompressed += 1
        else:
            rx.acks_due += 1  # every one of these is a duplicate ACK that the peer counts
        if rx.ecn_ok and seg.length and seq_gt(seq, rx.rcv_nxt):
            ecn.data_came(rx, seg.tos & ecn.MASK)
        conn.mark_dirty()
    if rx.eof:
        transitions.fin_received(conn, now)


def data_came(conn: Connection, seg: Segment, now: int) -> None:  # hot
    """In-order data was taken in: when to acknowledge, and whether the buffer should grow."""
    rx = conn.rx
    rtt = conn.rtt
    if rx.ecn_ok and seg.length:
        ecn.data_came(rx, seg.tos & ecn.MASK)
    ackpolicy.on_data(rx, seg, now, rtt.srtt, rtt.rto, conn.paused)
    if seg.ts_ecr != rx.rtt_ecr:
        sample_receive_rtt(conn, seg, now)
    if (rx.rcv_nxt - rx.rtt_seq) & MASK < HALF:  # seq_ge(rcv_nxt, rtt_seq)
        receivewindow.measure_window(rx, now)
    if now - rx.space_at >= rx.rcv_rtt:
        receivewindow.tune(rx, now)
    if not rx.acks_due:
        # The application takes it in a moment, and as with tcp_cleanup_rbuf that may be reason enough.
        if not (rx.pushed and (not rx.pingpong or rx.pushed > 1)) or conn.paused or rx.queued or rx.pieces:
            if rx.delack_at < conn.heap_at:
                conn.arm(rx.delack_at)
            return
        rx.acks_due = 1
    rx.delack_at = NEVER  # perhaps set a moment ago, and not armed
    if not conn.is_dirty:
        conn.mark_dirty()


def out_of_order_came(conn: Connection, seg: Segment) -> None:
    """What lies beyond a hole opens the window, too, where SACK tells the peer of it: the buffer must take more than a round trip."""
    rx = conn.rx
    if rx.mss < (seg.gso_size or seg.length):
        ackpolicy.measure_mss(rx, seg)
    receivewindow.grow(rx, seg.length, False)
    if conn.listener is None or not conn.paused:
        receivewindow.grow_buffer(rx, rx.space)


def sample_receive_rtt(conn: Connection, seg: Segment, now: int) -> None:
    """A full segment that echoes a new timestamp: the time since we sent that is a round trip (RFC 7323 4.1, the receiver's side)."""
    rx = conn.rx
    rx.rtt_ecr = seg.ts_ecr
    if conn.ts_ok and (seg.gso_size or seg.length) >= rx.mss:
        ticks = (conn.ts_val(now) - seg.ts_ecr) & MASK
        if 0 < ticks < 0x200000:
            receivewindow.sample_rtt(rx, ticks * 1000, False)


def acknowledge_now(conn: Connection) -> None:
    """Have one ACK leave at the next poll."""
    conn.rx.acks_due = max(conn.rx.acks_due, 1)
    conn.mark_dirty()
