"""The synchronized states: the script that leads a connection into each.

Our next sequence number there is `snd`, the peer's is `rcv`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from engine.openings import OPEN


@dataclass(frozen=True)
class Reached:
    """A state: the script that leads there, and the next sequence numbers of both ends."""

    name: str
    script: str
    snd: int
    rcv: int


ESTABLISHED = Reached("ESTABLISHED", OPEN, 1, 1)
FIN_WAIT_1 = Reached("FIN_WAIT_1", OPEN + "+0 shutdown\n+0 > F. 1:1(0) ack 1\n", 2, 1)
FIN_WAIT_2 = Reached("FIN_WAIT_2", FIN_WAIT_1.script + "+.01 < . 1:1(0) ack 2 win 30000\n", 2, 1)
CLOSING = Reached("CLOSING", FIN_WAIT_1.script + "+.01 < F. 1:1(0) ack 1 win 30000\n+0 > . 2:2(0) ack 2\n", 2, 2)
CLOSE_WAIT = Reached("CLOSE_WAIT", OPEN + "+.01 < F. 1:1(0) ack 1 win 30000\n+0 > . 1:1(0) ack 2\n", 1, 2)
LAST_ACK = Reached("LAST_ACK", CLOSE_WAIT.script + "+0 eof\n+0 shutdown\n+0 > F. 1:1(0) ack 2\n", 2, 2)
TIME_WAIT = Reached("TIME_WAIT", FIN_WAIT_2.script + "+.01 < F. 1:1(0) ack 2 win 30000\n+0 > . 2:2(0) ack 2\n", 2, 2)

SYNCHRONIZED = (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSING, CLOSE_WAIT, LAST_ACK)
EVERY = (*SYNCHRONIZED, TIME_WAIT)
RECEIVING = (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2)


def each(*states: Reached):  # type: ignore[no-untyped-def]
    return pytest.mark.parametrize("at", states, ids=lambda state: state.name)


def ack(at: Reached) -> str:
    return f"+0 > . {at.snd}:{at.snd}(0) ack {at.rcv}\n"
