"""The states of a connection.

RFC 9293 3.3.2. What changes them is in transitions.py (opening, closing, giving up) and input.py (segments).
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """The states as the RFC prints them; the numbers are those of Linux."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


SECOND = 1_000_000
SYNCHRONIZED = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK))
RECEIVING = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2))  # data may still come
MAY_WRITE = frozenset((State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT))
