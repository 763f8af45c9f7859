"""Orphans: connections that the application has closed and that still have something to send, or to wait for.

RFC 1122 4.2.3.5 says when one is given up; how many there may be, and that memory may run out over them, is Linux's
(tcp_max_orphans, tcp_mem; tcp_orphan_retries is in timeouts.py). Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import finwait
from tunstack.engine.options import SNDBUF_MIN
from tunstack.engine.rtt import RTO_MAX
from tunstack.engine.state import FIN_WAIT_2
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import TIME_WAIT_LENGTH
from tunstack.engine.transitions import finish, reset

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.stack import Stack


class Orphans:
    """The orphans of a stack; those of which only a four-tuple is left (timewait.py, finwait.py) are not among them."""

    __slots__ = ("_all", "_stack")

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._all: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, conn: Connection, now: int) -> None:
        """A connection was closed and is not over. One too many is reset at once (TCPAbortOnMemory)."""
        self._all.add(conn)
        if len(self._all) <= self._stack.sysctl.tcp_max_orphans and not self._stack.memory.is_exhausted:
            return
        if self.are_too_many(conn, 0):
            self._stack.counters.TCPAbortOnMemory += 1
            reset(conn, now)
            finish(conn, None, now)

    def discard(self, conn: Connection) -> None:
        """A connection is over, orphan or not."""
        self._all.discard(conn)

    def are_too_many(self, conn: Connection, penalty: int) -> bool:
        """Whether this one cannot be afforded: there are more than tcp_max_orphans (each counted 2^penalty times), or memory is used up."""
        stack = self._stack
        held = conn.tx.queue.end - conn.tx.queue.start
        return len(self._all) << penalty > stack.sysctl.tcp_max_orphans or (held > SNDBUF_MIN and stack.memory.is_exhausted)

    def give_up(self, conn: Connection, may_reset: bool, now: int) -> bool:
        """A timer of an orphan has expired: end it if there are too many, first of all those whose peer is gone (tcp_out_of_resources)."""
        idle = now - conn.tx.last_sent_at
        penalty = (idle > 2 * RTO_MAX or not may_reset) + (conn.soft_error is not None)
        if not self.are_too_many(conn, penalty):
            return False
        self._stack.counters.TCPAbortOnMemory += 1
        if may_reset and (idle <= TIME_WAIT_LENGTH or not (conn.tx.snd_wnd or conn.tx.outstanding)):
            reset(conn, now)
        finish(conn, None, now)
        return True

    @staticmethod
    def on_quiet(conn: Connection, now: int) -> None:
        """An orphan has sent what was due: if it only waits for the peer's FIN, a small entry can do that."""
        if conn.state is FIN_WAIT_2 and conn.fin_wait_2_at < NEVER:
            finwait.shrink(conn, now)
