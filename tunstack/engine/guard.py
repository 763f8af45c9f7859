"""Blind attacks held off: challenge ACKs, and how many.

RFC 5961 7, RFC 9293 3.10.7.4, with Linux's limits a connection and a stack. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunstack.engine.config import Random
    from tunstack.engine.connection import Connection
    from tunstack.engine.sysctl import Sysctl

CHALLENGE_PERIOD = 1_000_000  # us


class ChallengeLimit:
    """How many challenge ACKs all connections of a stack may send in a second (tcp_challenge_ack_limit)."""

    __slots__ = ("_left", "_random", "_sysctl", "_until")

    def __init__(self, sysctl: Sysctl, random: Random) -> None:
        self._sysctl = sysctl
        self._random = random
        self._left = 0  # in this period
        self._until = 0  # end of the period

    def may_send(self, now: int) -> bool:
        """Whether one more may leave in this second; the limit varies so that nobody can count us out (RFC 5961 7)."""
        if now >= self._until:
            limit = self._sysctl.tcp_challenge_ack_limit
            self._left = (limit + 1) // 2 + self._random.randrange(0, max(limit, 1))
            self._until = now + CHALLENGE_PERIOD
        if self._left <= 0:
            return False
        self._left -= 1
        return True


def challenge(conn: Connection, now: int) -> None:
    """Send a challenge ACK, within the connection's and the stack's limits (RFC 5961 7)."""
    limit = conn.stack.sysctl.tcp_invalid_ratelimit * 1000
    if conn.last_oow_ack_at and now - conn.last_oow_ack_at < limit:
        conn.stack.counters.TCPACKSkippedChallenge += 1
        return
    if conn.stack.challenges.may_send(now):
        conn.last_oow_ack_at = now
        conn.stack.counters.TCPChallengeACK += 1
        conn.rx.acks_due += 1
        conn.mark_dirty()
