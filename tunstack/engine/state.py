"""The states of a connection.

RFC 9293 3.3.2. What changes them is in transitions.py (opening, closing, giving up) and input.py (segments).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


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


# By themselves: an attribute of the enum costs more than all the rest of a comparison.
ESTABLISHED: Final = State.ESTABLISHED
SYN_SENT: Final = State.SYN_SENT
SYN_RECEIVED: Final = State.SYN_RECEIVED
FIN_WAIT_1: Final = State.FIN_WAIT_1
FIN_WAIT_2: Final = State.FIN_WAIT_2
TIME_WAIT: Final = State.TIME_WAIT
CLOSED: Final = State.CLOSED
CLOSE_WAIT: Final = State.CLOSE_WAIT
LAST_ACK: Final = State.LAST_ACK
LISTEN: Final = State.LISTEN
CLOSING: Final = State.CLOSING

SECOND = 1_000_000
SYNCHRONIZED = frozenset((ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK))
RECEIVING = frozenset((ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2))  # data may still come
MAY_WRITE = frozenset((SYN_SENT, SYN_RECEIVED, ESTABLISHED, CLOSE_WAIT))
