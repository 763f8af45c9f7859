"""A connection that a SYN with a Fast Open cookie made, and the places that a listener has for such.

RFC 7413 5.1: their number is bounded, for a client that spoofs addresses could else have connections made without end.
Times are int microseconds.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import SECOND, SYN_RECEIVED

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

RESET_HOLD = 60 * SECOND  # how long a place stays taken after a RST: so a flood of them cannot use one place again and again


class Requests:
    """A listener's connections that were opened by a cookie and wait for their handshake's third segment: TCP_FASTOPEN bounds them."""

    __slots__ = ("pending", "resets")

    def __init__(self) -> None:
        self.pending = 0  # places taken
        self.resets: deque[int] = deque()  # when those are free again that a RST ended

    def has_place(self, limit: int, now: int) -> bool:
        """Whether one more may be taken."""
        if self.pending < limit:
            return True
        if self.resets and self.resets[0] <= now:
            self.resets.popleft()
            self.pending -= 1
            return True
        return False


class Request:
    """What a connection has that a SYN with a cookie made."""

    __slots__ = ("client_fail", "is_pending", "is_sent", "last_answer_at", "option", "requests", "syn_data", "syn_octets")

    def __init__(self, requests: Requests, option: bytes) -> None:
        self.requests = requests
        requests.pending += 1
        self.is_pending = True  # the SYN-ACK is not acknowledged
        self.option = option  # for the first SYN-ACK: a new cookie where the client's was of the second key
        self.is_sent = False  # the SYN-ACK left once
        self.last_answer_at = 0  # last SYN-ACK for a SYN that came again (tcp_invalid_ratelimit)
        self.syn_data = False  # the SYN had data (TCPI_OPT_SYN_DATA)
        self.syn_octets = 0  # clients': see fastopenclient.py
        self.client_fail = 0  # the same

    def on_timeout(self, conn: Connection, now: int) -> None:
        """The SYN-ACK is sent again, and nothing else until it is acknowledged."""

    def on_over(self, conn: Connection, error: OSError | None, now: int) -> None:
        """The connection is over, or in TIME_WAIT."""
        self.release()

    def release(self) -> None:
        """Give the place back."""
        if self.is_pending:
            self.is_pending = False
            self.requests.pending -= 1


def is_writable(conn: Connection) -> bool:
    """Whether a connection in SYN_RECEIVED was opened by a cookie: it sends, and is read, as if it were established."""
    return conn.state is SYN_RECEIVED and isinstance(conn.fastopen, Request)


def survives_icmp(conn: Connection) -> bool:
    """Whether an ICMP error is only remembered in SYN_RECEIVED: the application has the connection (Linux)."""
    return isinstance(conn.fastopen, Request) and conn.sink is not NULL_SINK
