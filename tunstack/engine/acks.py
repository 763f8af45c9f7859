"""The acknowledgement that a segment carries: RFC 9293 3.10.7.4, fifth step.

With RFC 5961 5 (which ACKs are believed), RFC 7323 4 (round-trip time, TS.Recent), RFC 2018 and 2883 (which SACK blocks are). Takes it
to the window, the scoreboard, the RTT estimator, recovery and the timer, in this order. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import fastopen, mtuprobe, paws, retransmission, transitions
from tunstack.engine.fastopenclient import Attempt, on_syn_ack
from tunstack.engine.fastopenrequest import Request
from tunstack.engine.guard import challenge
from tunstack.engine.phase import RECOVERY
from tunstack.engine.scoreboard import Heard
from tunstack.engine.state import SYN_RECEIVED
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK, seq_ge, seq_gt, seq_le, seq_lt
from tunstack.wire.segment import ECE, FIN, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.rate import DeliveryRate, Snapshot


def take_ack(conn: Connection, seg: Segment, now: int) -> bool:
    """Check and use the acknowledgement of a segment that has one. Return False if the segment is to be dropped."""
    tx = conn.tx
    is_first = conn.state is SYN_RECEIVED
    if is_first and not complete_handshake(conn, seg, now):
        return False
    if seq_gt(seg.ack, tx.snd_nxt):  # acknowledges what was never sent (RFC 5961 5.2)
        challenge(conn, now)
        return False
    if seq_lt(seg.ack, tx.snd_una):
        # RFC 5961 5.2; nor (not measured on Linux) what was before our SYN: it is of an earlier connection of the ports, or a guess
        reach = tx.max_window if tx.bytes_acked >= tx.max_window else (tx.snd_una - tx.iss - 1) & MASK
        if seq_lt(seg.ack, (tx.snd_una - reach) & MASK):
            challenge(conn, now)
            return False
        update_ts_recent(conn, seg, now)
        if seg.sack and conn.may_sack and tx.outstanding:
            heed(conn, seg, False, now)  # the ACKs changed places; what this one SACKs may still be news
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
    if tx.outstanding:
        is_bare = not is_first and not seg.length and not seg.flags & (FIN | SYN) and tx.snd_wnd == window_before
        if not conn.recovery.is_quiet or seg.sack or (seg.flags & ECE and tx.ect):
            heed(conn, seg, is_bare, now)
        elif seg.ack != tx.snd_una:
            acknowledged(conn, seg, now)
        elif is_bare:
            heed(conn, seg, True, now)  # else it only brings data, or a window, and no timer is the later for it
    elif seg.sack and conn.may_sack:
        heed(conn, seg, False, now)  # a late D-SACK
    return not conn.is_over


def update_ts_recent(conn: Connection, seg: Segment, now: int) -> None:
    """RFC 7323 4.3, for segments whose acknowledgement was believed: a blind guess must not move TS.Recent ahead, which PAWS goes by."""
    if conn.ts_ok and seg.ts_val is not None:
        paws.take(conn.rx, seg, now)


def complete_handshake(conn: Connection, seg: Segment, now: int) -> bool:
    """SYN_RECEIVED: the acknowledgement of our SYN makes the connection (RFC 9293 3.10.7.4)."""
    tx = conn.tx
    request = conn.fastopen
    is_fast = isinstance(request, Request)  # then data may have been sent behind the SYN-ACK, else in the SYN
    oldest = tx.snd_una if is_fast else (tx.iss + 1) & MASK
    if not (seq_ge(seg.ack, oldest) and seq_le(seg.ack, tx.snd_nxt)):
        conn.stack.reply_reset(seg)
        return False
    is_resent = conn.retransmits > 0
    sample_syn(conn, seg, now)
    if not is_fast:
        tx.syn_acked()
    tx.update_window(seg.window << (0 if seg.flags & SYN else tx.wscale), seg.seq, seg.ack)
    if isinstance(request, Request):
        fastopen.complete(conn, request, now)
        return True
    transitions.established(conn, now)
    if isinstance(request, Attempt):
        on_syn_ack(conn, request, seg, is_resent, now)
    return True


def window_changed(conn: Connection) -> None:
    """The peer's window is another: what waited may go. The persist timer goes on as it was while a segment does not fit."""
    tx = conn.tx
    if tx.unsent:
        if tx.snd_wnd - tx.outstanding >= min(tx.unsent, tx.mss_now):
            conn.persist_at = NEVER
            conn.persist_since = 0
            tx.probe_due = False
        tx.more = False
        conn.mark_dirty()


def acknowledged(conn: Connection, seg: Segment, now: int) -> None:  # hot
    """seg.ack acknowledges new data or our FIN (snd_una < seg.ack <= snd_nxt) while recovery is quiet: all of it was sent once."""
    tx = conn.tx
    ack = seg.ack
    flight = (tx.snd_nxt - tx.snd_una) & MASK
    rate = tx.rate
    if rate is not None:
        rate.on_ack(tx.pipe, tx.board)
        newest = tx.board.newest_before(ack).rate
    oldest_at, youngest_at, fin = tx.board.acknowledge(ack)
    acked = tx.advance(ack, fin)
    rtt = now - youngest_at or 1
    conn.rtt.sample(now - oldest_at or 1, rtt, ack, tx.snd_nxt, now)
    recovery = conn.recovery
    rack = recovery.rack
    rack.sent_at = youngest_at
    rack.end = ack
    rack.rtt = rtt
    recovery.on_clean_ack(acked, flight, rtt, now)
    if rate is not None:
        sample_rate(conn, rate, acked, newest, youngest_at, rtt, now)
    progressed(conn, fin, now)


def heed(conn: Connection, seg: Segment, may_be_duplicate: bool, now: int) -> None:
    """Take in an ACK while something is amiss, or one with SACK blocks. `may_be_duplicate`: it says nothing but its numbers."""
    tx = conn.tx
    recovery = conn.recovery
    board = tx.board
    flight = tx.outstanding
    prior_una = tx.snd_una
    rate = tx.rate
    if rate is not None:
        rate.on_ack(tx.pipe, board)
    is_echo = bool(seg.flags & ECE and tx.ect and flight) and not seg.flags & SYN and seq_ge(seg.ack, prior_una)
    if is_echo:
        recovery.on_ecn_echo(now)
    highest = board.highest_sacked if conn.may_sack and board.sacked_segments else None
    heard = Heard(prior_una, highest, conn.rtt.min_rtt, now)
    if seg.sack and conn.may_sack:
        blocks = believed_blocks(conn, seg, heard)
        if blocks:
            board.sack(blocks, prior_una, recovery.recover, tx.mss_now, heard)
    fin = False
    if seq_gt(seg.ack, prior_una):
        fin = board.acknowledge_marked(seg.ack, recovery.recover, heard)
        heard.acked = tx.advance(seg.ack, fin)
    rtt = sample(conn, seg, heard, now)
    echoed = (seg.ts_ecr - conn.ts_offset) & MASK if conn.ts_ok and seg.ts_ecr else None
    is_duplicate = may_be_duplicate and flight > 0 and seg.ack == prior_una
    recovery.on_ack(heard, is_duplicate, flight, rtt, echoed, now)
    if is_echo:
        conn.stack.counters.TCPDeliveredCE += -(-heard.delivered // tx.mss_now)
        recovery.on_ecn_echo(now)  # once more: this ACK may have ended the reduction before
    if rate is not None:
        sample_rate(conn, rate, heard.delivered, heard.newest_rate, heard.newest, rtt, now)
    if heard.acked:
        progressed(conn, fin, now)
    elif flight:
        # News of data that left before what is oldest left again is progress too: the timer of the latter waits for its own round trip.
        is_news = 0 < heard.oldest_sacked_at < board.flights[0].sent_at
        retransmission.set_timer(conn, is_news, now)
        conn.mark_dirty()


def progressed(conn: Connection, fin: bool, now: int) -> None:  # hot
    """Something was acknowledged for the first time."""
    tx = conn.tx
    if tx.forget_burst():
        tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, conn.stack.sysctl)
    tx.more = False
    if conn.mtu_probe is not None:
        mtuprobe.on_progress(conn)
    conn.retransmits = 0
    conn.retrans_at = 0
    conn.soft_error = None
    retransmission.set_timer(conn, True, now)
    if not conn.is_dirty:
        conn.mark_dirty()
    if fin:
        transitions.fin_acked(conn, now)


# Round-trip time


def sample(conn: Connection, seg: Segment, heard: Heard, now: int) -> int:
    """Sample the round-trip time (RFC 6298 3, RFC 7323 4): of data sent once, else by the echo. Return the newest, 0 if there is none."""
    youngest = now - heard.youngest_at or 1 if heard.youngest_at else 0
    if heard.oldest_acked_at and not heard.has_resent:
        oldest = now - heard.oldest_acked_at or 1
    elif heard.oldest_sacked_at:
        oldest = now - heard.oldest_sacked_at or 1
    elif heard.acked and conn.ts_ok and seg.ts_ecr:
        oldest = youngest = ts_rtt(conn, seg, now)  # Karn's ambiguity is none with timestamps
    else:
        return 0
    if oldest:
        conn.rtt.sample(oldest, youngest or oldest, conn.tx.snd_una, conn.tx.snd_nxt, now)
    return youngest


def ts_rtt(conn: Connection, seg: Segment, now: int) -> int:
    """Return the round-trip time that the echoed timestamp tells, us, 0 if it is none of ours (RFC 7323 4.1)."""
    ticks = (conn.ts_val(now) - seg.ts_ecr) & MASK
    return max(ticks * 1000, 1000) if ticks < 0x200000 else 0


def sample_syn(conn: Connection, seg: Segment, now: int) -> None:
    """The first RTT sample: the handshake's, unless the SYN was sent twice and there are no timestamps."""
    rtt = now - conn.syn_sent_at if conn.syn_sent_at else ts_rtt(conn, seg, now) if conn.ts_ok and seg.ts_ecr else 0
    if rtt or conn.syn_sent_at:
        conn.rtt.sample(rtt or 1, rtt or 1, conn.tx.snd_una, conn.tx.snd_nxt, now)


# Delivery rate


def sample_rate(conn: Connection, rate: DeliveryRate, octets: int, newest: Snapshot | None, sent_at: int, rtt: int, now: int) -> None:
    """Tell an algorithm that is `rate_based` what an ACK, now that it is handled, says of the rate.

    It delivered `octets`; of all that it delivered the newest left at `sent_at` and remembers `newest`. `rtt`: the newest sample or 0.
    """
    tx = conn.tx
    sample = rate.sample
    sample.rtt = rtt
    sample.flight = tx.pipe
    sample.lost = tx.board.lost_ever - rate.prior_lost
    sample.is_cwnd_limited = tx.cwnd_limited
    sample.is_recovering = conn.recovery.phase >= RECOVERY
    rate.take(octets, newest, sent_at, conn.rtt.min_rtt, tx.mss_now, now)
    tx.cc.on_rate(sample)


# SACK blocks


def believed_blocks(conn: Connection, seg: Segment, heard: Heard) -> list[tuple[int, int]]:
    """Return the blocks that lie in what is outstanding, in order, and take note of a D-SACK in front of them (RFC 2883 4)."""
    tx = conn.tx
    counters = conn.stack.counters
    blocks = list(seg.sack)
    left, right = blocks[0]
    is_old = seq_lt(left, seg.ack)
    if is_old or (len(blocks) > 1 and seq_ge(left, blocks[1][0]) and seq_le(right, blocks[1][1])):
        size = (right - left) & MASK
        if not 0 < size <= max(tx.max_window, tx.mss):
            counters.TCPSACKDiscard += 1  # of what never can have been in one window
        else:
            heard.dsacked = size
            heard.dsack_end = right
            if is_old:
                counters.TCPDSACKRecv += 1
            else:
                counters.TCPDSACKOfoRecv += 1
        del blocks[0]
    una = tx.snd_una
    outstanding = tx.outstanding
    kept = []
    for left, right in blocks:
        begin, end = (left - una) & MASK, (right - una) & MASK
        if begin >= HALF and 0 < end <= outstanding:
            begin = 0  # begun before snd_una: an older ACK
            left = una
        if begin < end <= outstanding:
            kept.append((left, right))
        elif seq_gt(right, una):
            counters.TCPSACKDiscard += 1
    kept.sort(key=lambda block: (block[0] - una) & MASK)
    return kept
