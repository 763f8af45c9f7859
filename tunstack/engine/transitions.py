"""The transitions between states that are not just a segment's arrival: opening, closing, giving up.

RFC 9293 3.6, 3.10.1 to 3.10.5. Linux's close(2): FIN, or RST where data was left unread (RFC 2525 2.17).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import control, mtuprobe, outgoing
from tunstack.engine.errors import socket_error
from tunstack.engine.rtt import RTO_FALLBACK
from tunstack.engine.state import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    SECOND,
    SYN_RECEIVED,
    SYN_SENT,
    SYNCHRONIZED,
    TIME_WAIT,
)
from tunstack.engine.timers import NEVER

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


def established(conn: Connection, now: int) -> None:
    """The handshake is done (from SYN_SENT or SYN_RECEIVED)."""
    conn.state = ESTABLISHED
    if conn.agreed is not None:
        conn.agreed = conn.stack.agreements.share(conn.agreed)
    control.start(conn, now)
    mtuprobe.begin(conn, now)
    if not conn.rtt.srtt:
        conn.rtt.rto = RTO_FALLBACK
    conn.retransmits = 0
    conn.retrans_at = 0
    conn.rto_at = NEVER
    conn.syn_due = False
    conn.last_received_at = now
    conn.start_keepalive(now)
    conn.is_connected = True
    if conn.tx.fin_queued:  # closed while opening (RFC 9293 3.10.4)
        conn.state = FIN_WAIT_1
    if conn.tx.fin_queued or conn.tx.unsent or conn.rx.acks_due:
        conn.mark_dirty()


def queue_fin(conn: Connection) -> None:
    """The application writes no more: FIN follows what is queued (RFC 9293 3.10.4). The state changes now, as in Linux."""
    tx = conn.tx
    if tx.fin_queued:
        return
    tx.fin_queued = True
    if conn.state is ESTABLISHED:
        conn.state = FIN_WAIT_1
    elif conn.state is CLOSE_WAIT:
        conn.state = LAST_ACK
    conn.mark_dirty()


def close(conn: Connection, now: int) -> None:
    """close(2): the application neither writes nor reads any more."""
    if conn.is_orphan:
        return
    conn.is_orphan = True
    state = conn.state
    if state is CLOSED or state is TIME_WAIT:  # what was not read is forgotten, and on_closed, which waited for that, comes
        return
    rx = conn.rx
    if state is SYN_SENT:
        finish(conn, None, now)
    elif rx is not None and (rx.queued or rx.ready):
        conn.stack.counters.TCPAbortOnClose += 1
        reset(conn, now)
        finish(conn, None, now)
    elif conn.options.linger == 0:
        conn.stack.counters.TCPAbortOnData += 1
        reset(conn, now)
        finish(conn, None, now)
    else:
        queue_fin(conn)
        if conn.options.linger:
            conn.set_linger(now + conn.options.linger * SECOND)
        if state is FIN_WAIT_2:  # shut down before, FIN acknowledged
            await_peer_fin(conn, now)
            if conn.is_over:
                return
        conn.stack.orphans.add(conn, now)


def await_peer_fin(conn: Connection, now: int) -> None:
    """An orphan in FIN_WAIT_2 has nothing left to do; it waits tcp_fin_timeout, or TCP_LINGER2, for the peer's FIN (M-53)."""
    linger2 = conn.options.linger2
    if linger2 < 0:
        conn.stack.counters.TCPAbortOnLinger += 1
        reset(conn, now)
        finish(conn, None, now)
        return
    wait = (linger2 or conn.stack.sysctl.tcp_fin_timeout) * SECOND
    conn.fin_wait_2_at = now + max(wait, (conn.rtt.rto << 2) - (conn.rtt.rto >> 1))
    conn.arm(conn.fin_wait_2_at)
    conn.mark_dirty()  # close() may have come while all was quiet: somebody must look at the new deadline
    conn.end_application(None)


def abort(conn: Connection, now: int) -> None:
    """The application gives the connection up (RFC 9293 3.10.5)."""
    conn.is_orphan = True
    conn.is_told = True  # who aborts knows
    if not conn.is_over:
        reset(conn, now)
        finish(conn, None, now)


def reset(conn: Connection, now: int) -> None:
    """Send RST where the peer has a connection to reset: not once all is said and both FINs are on their way (RFC 9293 3.10.5)."""
    if conn.state in (CLOSING, LAST_ACK):
        needed = bool(conn.tx.unsent) or not conn.tx.fin_sent
    else:
        needed = conn.state in SYNCHRONIZED or conn.state is SYN_RECEIVED
    if needed:
        conn.stack.counters.TcpOutRsts += 1
        conn.stack.emit(outgoing.make_reset(conn, now))


def fin_acked(conn: Connection, now: int) -> None:
    """Our FIN is acknowledged."""
    if conn.state is FIN_WAIT_1:
        conn.state = FIN_WAIT_2
        if conn.is_orphan:
            await_peer_fin(conn, now)
    elif conn.state is CLOSING:
        enter_time_wait(conn, now)
    elif conn.state is LAST_ACK:
        finish(conn, None, now)


def fin_received(conn: Connection, now: int) -> None:
    """The peer's FIN was reached, all data before it is in (RFC 9293 3.10.7.4, eighth step)."""
    conn.eof_due = True
    if conn.state in (ESTABLISHED, SYN_RECEIVED):
        conn.state = CLOSE_WAIT
    elif conn.state is FIN_WAIT_1:
        conn.state = CLOSING
    elif conn.state is FIN_WAIT_2:
        enter_time_wait(conn, now)


def enter_time_wait(conn: Connection, now: int) -> None:
    """Both FINs are exchanged and we closed first: a small entry keeps the four-tuple (M-54), the connection is free."""
    if conn.fastopen is not None:
        conn.fastopen.on_over(conn, None, now)
    conn.state = TIME_WAIT
    stack = conn.stack
    stack.time_wait.hold(conn, now)
    stack.forget(conn)
    conn.clear_timers()
    conn.end_application(None)


def finish(conn: Connection, error: OSError | None, now: int) -> None:
    """The connection is over: nothing of it stays in the stack."""
    if conn.state is CLOSED:
        return
    if conn.state in (ESTABLISHED, CLOSE_WAIT):  # a reset, the peer's or our own (RFC 4022)
        conn.stack.counters.TcpEstabResets += 1
    elif error is not None and conn.state in (SYN_SENT, SYN_RECEIVED):
        conn.stack.counters.TcpAttemptFails += 1
    if conn.fastopen is not None:
        conn.fastopen.on_over(conn, error, now)
    conn.state = CLOSED
    conn.stack.forget(conn)
    conn.clear_timers()
    conn.cost_data = error is not None and not conn.tx.is_all_acked
    conn.tx.queue.clear()
    conn.tx.board.flights.clear()
    conn.end_application(error)


def give_up(conn: Connection, now: int) -> None:
    """The peer does not answer (tcp_retries2, keepalive, TCP_USER_TIMEOUT): ETIMEDOUT, or the ICMP error that was the last news."""
    conn.stack.counters.TCPAbortOnTimeout += 1
    finish(conn, conn.soft_error or socket_error("ETIMEDOUT"), now)
