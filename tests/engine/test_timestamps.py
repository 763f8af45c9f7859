"""Timestamps, RFC 7323."""

from __future__ import annotations

import pytest
from engine.notation import Play

OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 1000 ecr 0>
    +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1000>
    +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 1010 ecr 100>
    +0   accept
"""


@pytest.mark.parametrize(
    ("guess", "answered"),
    [
        ("- 1:2(1)", False),  # no ACK
        ("P. 1:2(1) ack 5000", True),  # of what was never sent
        ("P. 1:2(1) ack 4000000000", True),  # of what was never sent, or long ago
        ("S 1:1(0)", True),
    ],
)
def test_a_segment_that_is_not_believed_does_not_move_ts_recent(play: Play, guess: str, answered: bool) -> None:
    """M-59, RFC 5961: else one guess of a sequence number in the window, with a timestamp far ahead, has PAWS refuse all that follows."""
    play(
        OPEN
        + f"+1 < {guess} win 30000 <nop,nop,TS val 1000000000 ecr 100>\n"
        + ("+0 > . 1:1(0) ack 1\n" if answered else "")
        + """
        +1   < P. 1:11(10) ack 1 win 30000 <nop,nop,TS val 3010 ecr 100>
        +0   > . 1:1(0) ack 11 <nop,nop,TS val 2110 ecr 3010>
        +0   read 10
        +0   counter PAWSEstab=0
        """
    )
