"""A connection's timers expire: delayed ACK, retransmission, persist, keepalive, FIN_WAIT_2, linger.

RFC 6298 5, RFC 1122 4.2.3.5 (R1, R2) and 4.2.3.6, RFC 9293 3.8.6.1, with Linux's limits. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ackpolicy, mtuprobe, outgoing, retransmission, transitions, usertimeout
from tunstack.engine.fastopenrequest import is_writable
from tunstack.engine.phase import PROBE, REORDER, TIMEOUT
from tunstack.engine.rtt import RTO_INITIAL, RTO_MAX, retries_timeout
from tunstack.engine.state import SECOND, SYN_RECEIVED, SYN_SENT, SYNCHRONIZED
from tunstack.engine.timers import NEVER

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

ORPHAN_RETRIES = 8  # what tcp_orphan_retries = 0 means


def fire(conn: Connection, now: int) -> None:
    """Handle the timers that are due."""
    if conn.rx is not None and conn.rx.delack_at <= now:
        conn.rx.delack_at = NEVER
        ackpolicy.delay_passed(conn.rx, conn.rtt.rto)
        conn.stack.counters.DelayedACKs += 1
        conn.mark_dirty()
    if conn.rto_at <= now:
        conn.rto_at = NEVER
        timer, conn.recovery.timer = conn.recovery.timer, TIMEOUT
        if timer == PROBE:
            conn.recovery.probe_due = True
            conn.mark_dirty()
        elif timer == REORDER:
            reordering_timeout(conn, now)
        else:
            retransmission_timeout(conn, now)
    if conn.persist_at <= now:
        conn.persist_at = NEVER
        persist_timeout(conn, now)
    if conn.pacing_at <= now:
        conn.pacing_at = NEVER
        conn.mark_dirty()
    if conn.keepalive_at <= now:
        conn.keepalive_at = NEVER
        keepalive_timeout(conn, now)
    if conn.fin_wait_2_at <= now:
        transitions.finish(conn, None, now)
    if conn.linger_at <= now:
        conn.linger_at = NEVER
        conn.end_application(None)


def retransmission_timeout(conn: Connection, now: int) -> None:
    """RFC 6298 5.4 to 5.7; for a SYN, the retries of M-25."""
    sysctl = conn.stack.sysctl
    conn.retransmits += 1
    if conn.fastopen is not None:
        conn.fastopen.on_timeout(conn, now)
    if conn.state is SYN_SENT or conn.state is SYN_RECEIVED:
        is_passive = conn.state is SYN_RECEIVED and conn.listener is not None
        retries = synack_retries(conn) if is_passive else conn.options.syncnt or sysctl.tcp_syn_retries
        most = retries + sysctl.tcp_syn_linear_timeouts if conn.state is SYN_SENT else retries
        if (
            conn.retransmits > most
            or now - conn.retrans_at >= retries_timeout(retries, RTO_INITIAL)  # what it takes without linear timeouts, as in Linux
            or (conn.retransmits > 1 and usertimeout.is_over(conn, conn.retrans_at, now))
        ):
            transitions.give_up(conn, now)
            return
        conn.stack.counters.TCPTimeouts += 1
        conn.syn_due = True
        conn.syn_sent_at = 0
    else:
        is_late = bool(conn.retrans_at) and is_timed_out(conn, now)
        if conn.is_orphan and conn.stack.orphans.give_up(conn, not is_late, now):
            return
        if not conn.retrans_at:
            conn.retrans_at = now
        elif is_late:
            transitions.give_up(conn, now)
            return
        elif now - conn.retrans_at >= retries_timeout(sysctl.tcp_retries1):
            mtuprobe.on_black_hole(conn, now)
        conn.rtt.backoff += 1
        conn.uto_due = usertimeout.is_enabled(conn.options, sysctl)  # it may have been lost with the data
        conn.recovery.on_timeout(conn.retransmits > 1, now)
    conn.mark_dirty()


def synack_retries(conn: Connection) -> int:
    """Return how often a SYN-ACK is sent again: once more where it may be that the application has the connection (Linux)."""
    is_fast = conn.fastopen is not None and is_writable(conn)
    return conn.options.syncnt or conn.stack.sysctl.tcp_synack_retries + 1 if is_fast else conn.stack.sysctl.tcp_synack_retries


def reordering_timeout(conn: Connection, now: int) -> None:
    """RACK has waited long enough for what may only be late (RFC 8985 6.2 step 5)."""
    conn.recovery.on_reorder_timeout(now)
    conn.recovery.timer = REORDER  # it put the RTO off, which counts from when the oldest data left
    retransmission.set_timer(conn, False, now)
    conn.mark_dirty()


def is_timed_out(conn: Connection, now: int) -> bool:
    """Whether data was retransmitted for long enough (tcp_retries2, orphans sooner, TCP_USER_TIMEOUT)."""
    if usertimeout.timeout_of(conn):
        return usertimeout.is_over(conn, conn.retrans_at, now)
    sysctl = conn.stack.sysctl
    if not conn.tx.snd_wnd and not conn.is_orphan:
        # The peer took its window back, and retransmissions are window probes: it lasts while they are answered (RFC 9293 3.8.6.1).
        return min(now - conn.last_received_at, now - conn.retrans_at) > 2 * RTO_MAX
    retries = (sysctl.tcp_orphan_retries or ORPHAN_RETRIES) if conn.is_orphan else sysctl.tcp_retries2
    return now - conn.retrans_at >= retries_timeout(retries)


def persist_timeout(conn: Connection, now: int) -> None:
    """The window stays closed: probe it (RFC 9293 3.8.6.1)."""
    tx = conn.tx
    if tx.outstanding or not tx.unsent:
        conn.persist_since = 0
        return
    sysctl = conn.stack.sysctl
    if not conn.persist_since:
        conn.persist_since = now
    elif usertimeout.is_over(conn, conn.persist_since, now):  # even if the probes are answered
        transitions.give_up(conn, now)
        return
    if conn.is_orphan:
        retries = sysctl.tcp_orphan_retries or ORPHAN_RETRIES
        # Nobody waits for it: a peer that answers and keeps its window shut may not hold our memory for ever, as in Linux.
        is_hopeless = conn.rtt.rto << min(conn.persist_backoff, 16) >= RTO_MAX and conn.persist_backoff >= sysctl.tcp_orphan_retries
    else:
        retries = sysctl.tcp_retries2
        is_hopeless = False
    if conn.probes_out >= retries or is_hopeless:
        transitions.give_up(conn, now)
        return
    if conn.is_orphan and conn.stack.orphans.give_up(conn, True, now):
        return
    tx.probe_due = True
    conn.mark_dirty()


def keepalive_timeout(conn: Connection, now: int) -> None:
    """RFC 1122 4.2.3.6: probe a silent peer, give it up after keepcnt probes without an answer."""
    sysctl = conn.stack.sysctl
    if conn.state not in SYNCHRONIZED or not conn.options.keepalive:
        return
    idle = (conn.options.keepidle or sysctl.tcp_keepalive_time) * SECOND
    if conn.tx.outstanding or conn.tx.unsent:  # data is its own probe
        at = now + idle
    elif now - conn.last_received_at < idle:
        at = conn.last_received_at + idle
    else:
        limit = conn.options.keepcnt or sysctl.tcp_keepalive_probes
        if usertimeout.timeout_of(conn):
            over = conn.keepalive_probes > 0 and usertimeout.is_over(conn, conn.last_received_at, now)
        else:
            over = conn.keepalive_probes >= limit
        if over:
            transitions.reset(conn, now)
            transitions.give_up(conn, now)
            return
        conn.keepalive_probes += 1
        conn.stack.counters.TCPKeepAlive += 1
        conn.segs_out += 1
        conn.stack.emit(outgoing.make_probe(conn, now))
        at = now + (conn.options.keepintvl or sysctl.tcp_keepalive_intvl) * SECOND
    conn.keepalive_at = at
    conn.arm(at)
