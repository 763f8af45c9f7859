"""How a connection begins: its SYN, or what a listener kept of the peer's, and what the two SYNs agreed on.

RFC 9293 3.5, 3.10.1. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ecn, fastopenclient, sendbuffer, usertimeout
from tunstack.engine.handshake import Agreed, first_window, local_mss, window_scale
from tunstack.engine.receiver import Receiver
from tunstack.engine.retransmission import may_probe
from tunstack.engine.state import SYN_RECEIVED, SYN_SENT
from tunstack.engine.terms import receive_terms

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


def open_active(conn: Connection, now: int) -> None:
    """Send a SYN (RFC 9293 3.10.1)."""
    sysctl = conn.stack.sysctl
    conn.syn_window = first_window(conn.options, sysctl, local_mss(conn.mtu, conn.options))
    conn.syn_wscale = window_scale(conn.options, sysctl) if sysctl.tcp_window_scaling else None
    conn.ts_ok = sysctl.tcp_timestamps  # until the answer comes these two say what the SYN offers
    conn.recovery.is_sack = sysctl.tcp_sack
    conn.syn_ts_val = conn.ts_val(now)
    conn.syn_ecn = sysctl.tcp_ecn == 1
    conn.state = SYN_SENT
    conn.tx.syn_sent()
    if conn.fastopen is None or fastopenclient.is_due(conn):
        conn.syn_due = True
        conn.mark_dirty()


def open_passive(conn: Connection, agreed: Agreed, irs: int, ts_recent: int, window: int, now: int) -> None:
    """Begin in SYN_RECEIVED with our SYN-ACK sent: the listener saw a SYN and then its ACK."""
    conn.state = SYN_RECEIVED
    conn.segs_in = 1
    conn.tx.syn_sent()
    learn_peer(conn, agreed, irs, ts_recent, window, now)


def learn_peer(conn: Connection, agreed: Agreed, irs: int, ts_recent: int, window: int, now: int) -> None:
    """Take over what the peer's SYN said; `ts_recent` is its TSval, `window` what our own SYN advertised."""
    sysctl = conn.stack.sysctl
    options = conn.options
    if conn.stack.signing is not None:
        conn.stack.signing.agree(conn.flow_in, agreed)
    conn.agreed = agreed
    conn.opened_at = now
    option_octets = agreed.option_octets
    tx = conn.tx
    stack = conn.stack
    terms = receive_terms(options, sysctl, local_mss(conn.mtu, options) - option_octets, window, agreed.rcv_wscale)
    rx = conn.rx = Receiver(irs, terms, stack.counters, stack.memory, now)
    rx.ecn_ok = agreed.ecn_ok
    rx.ts_recent = ts_recent if agreed.ts_ok else 0
    rx.ts_recent_at = now
    tx.ect = ecn.ECT_0 if agreed.ecn_ok else ecn.NOT_ECT
    tx.wscale = agreed.snd_wscale
    tx.sndbuf = sendbuffer.flight_limit(options.sndbuf, sysctl)
    tx.peer_mss = agreed.mss
    tx.set_mss(option_octets, options.maxseg, sysctl.tcp_min_snd_mss)
    conn.ts_ok = agreed.ts_ok
    conn.recovery.is_sack = agreed.sack_ok
    conn.can_probe = may_probe(conn)
    if agreed.user_timeout:
        usertimeout.take(conn, agreed.user_timeout)
