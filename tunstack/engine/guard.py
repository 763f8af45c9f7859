"""Blind attacks held off: challenge ACKs, and how many.

RFC 5961 7, RFC 9293 3.10.7.4, with Linux's limits a connection and a stack. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


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
