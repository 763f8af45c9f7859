"""The segments that a connection sends, as they leave: SYNs, data, ACKs, probes, RST. What leaves when is output.py's business.

RFC 9293 3.1, RFC 2018 4, RFC 2883 4. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunstack.engine import ecn, urgent, usertimeout
from tunstack.engine.ackpolicy import ack_sent
from tunstack.engine.handshake import local_mss, make_syn
from tunstack.engine.receivewindow import advertise
from tunstack.seq import MASK, seq_lt
from tunstack.wire.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

SACK_BLOCKS_MAX = 4  # what the option space holds, one less with timestamps


def make_bare_syn(conn: Connection, now: int) -> Segment:
    """A SYN without data."""
    sysctl = conn.stack.sysctl
    # A SYN that was lost may have been so for its flags, in a network that does not know them (RFC 3168 6.1.1.1).
    asks = conn.syn_ecn and not (conn.retransmits and sysctl.tcp_ecn_fallback)
    return make_syn(
        conn.flow,
        conn.tx.iss,
        0,
        SYN | (ecn.SETUP if asks else 0),
        conn.syn_window,
        local_mss(conn.mtu, conn.options),
        conn.syn_wscale,
        conn.recovery.is_sack,
        conn.ts_val(now) if conn.ts_ok else None,
        0,
        conn.options.tos,
        usertimeout.option_for(conn.options, sysctl),
    )


def make_syn_ack(conn: Connection, now: int) -> Segment:
    """The answer to the peer's SYN, with the options that both sides know."""
    agreed = conn.agreed
    assert agreed is not None
    rx = conn.rx
    return make_syn(
        conn.flow,
        conn.tx.iss,
        rx.rcv_nxt,
        SYN | ACK | (ECE if agreed.ecn_ok else 0),
        conn.syn_window,
        local_mss(conn.mtu, conn.options),
        agreed.rcv_wscale if agreed.is_scaled else None,
        agreed.sack_ok,
        conn.ts_val(now) if agreed.ts_ok else None,
        rx.ts_recent,
        conn.options.tos,
        usertimeout.option_for(conn.options, conn.stack.sysctl),
    )


def make_data(conn: Connection, seq: int, length: int, fin: bool, push: bool, ect: int, now: int) -> Segment:  # hot
    """A segment of data or FIN. `ect` is not zero for new data alone: what is sent again is never ECT (RFC 3168 6.1.5)."""
    tx = conn.tx
    rx = conn.rx
    sack: Sequence[tuple[int, int]] = ()
    if (rx.sack_blocks or rx.dsack) and conn.may_sack:
        # The MSS leaves no room for them in a full segment: the ACK that brings them then leaves by itself.
        sack = poll_sack(conn, max(tx.mss - length - 4, 0) >> 3)
        if sack:
            ack_sent(rx)
    else:
        ack_sent(rx)
    flags = ACK | rx.ece
    if ect and conn.recovery.cwr_due:
        conn.recovery.cwr_due = False
        flags |= CWR
    if fin:
        flags |= FIN
    mss = tx.mss_now
    if (push and length) or length > mss:  # a burst of several packets always ends with PSH (Linux)
        flags |= PSH
    seg = Segment(
        conn.flow,
        seq,
        rx.rcv_nxt,
        flags,
        advertise(rx),
        tx.queue.slice(tx.position(seq), length) if length else (),
        length,
        conn.ts_val(now) if conn.ts_ok else None,
        rx.ts_recent,
        mss if length > mss else 0,
        sack,
        tos=conn.options.tos | ect,
    )
    if tx.urgent_end:
        urgent.point(tx, seg)
    if conn.uto_due:
        usertimeout.attach(conn, seg)
    return seg


def poll_ack(conn: Connection, now: int) -> Segment | None:  # hot
    """A bare ACK, if one is due."""
    rx = conn.rx
    if not rx.acks_due:
        return None
    ack_sent(rx)
    seg = Segment(
        conn.flow,
        conn.tx.snd_nxt,
        rx.rcv_nxt,
        ACK | rx.ece,
        advertise(rx),
        (),
        0,
        conn.ts_val(now) if conn.ts_ok else None,
        rx.ts_recent,
        0,
        poll_sack(conn, SACK_BLOCKS_MAX) if (rx.sack_blocks or rx.dsack) and conn.may_sack else (),
        tos=conn.options.tos,
    )
    if conn.tx.urgent_end:
        urgent.point(conn.tx, seg)
    if conn.uto_due:
        usertimeout.attach(conn, seg)
    return seg


def poll_sack(conn: Connection, room: int) -> Sequence[tuple[int, int]]:
    """The SACK blocks for a segment that leaves now and has room for so many (RFC 2018 4, RFC 2883 4)."""
    rx = conn.rx
    limit = min(room, SACK_BLOCKS_MAX - conn.ts_ok)
    if limit <= 0:
        return ()
    if rx.dsack is not None:
        if not conn.stack.sysctl.tcp_dsack:
            rx.dsack = None
        elif seq_lt(rx.dsack[0], rx.rcv_nxt):
            conn.stack.counters.TCPDSACKOldSent += 1
        else:
            conn.stack.counters.TCPDSACKOfoSent += 1
    return rx.poll_blocks(limit)


def make_probe(conn: Connection, now: int, seq: int | None = None) -> Segment:
    """An empty segment with an old sequence number, unless one is given: the peer must answer it (RFC 1122 4.2.3.6)."""
    rx = conn.rx
    ts_val = conn.ts_val(now) if conn.ts_ok else None
    if seq is None:
        seq = (conn.tx.snd_una - 1) & MASK
    seg = Segment(conn.flow, seq, rx.rcv_nxt, ACK | rx.ece, advertise(rx), (), 0, ts_val, rx.ts_recent, tos=conn.options.tos)
    if conn.tx.urgent_end:
        urgent.point(conn.tx, seg)
    return seg


def make_reset(conn: Connection, now: int) -> Segment:
    """RST for a peer that believes in the connection: at snd_nxt, with ACK, as Linux sends it."""
    rx = conn.rx
    ts_val = conn.ts_val(now) if conn.ts_ok else None
    return Segment(conn.flow, conn.tx.snd_nxt, rx.rcv_nxt, RST | ACK | rx.ece, 0, (), 0, ts_val, rx.ts_recent, tos=conn.options.tos)
