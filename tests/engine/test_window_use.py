"""A congestion window that is not used does not grow. RFC 7661 as Linux has it: by what was used in the last window of data. M-39."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import opening

OPEN = opening(60_000)
SIX = """
    +0   write 6000
    +0   > . 1:1001(1000) ack 1
    +0   > P. 1001:2001(1000) ack 1
    +0   > . 2001:3001(1000) ack 1
    +0   > P. 3001:4001(1000) ack 1
    +0   > . 4001:5001(1000) ack 1
    +0   > P. 5001:6001(1000) ack 1
"""


def test_slow_start_goes_on_to_twice_what_was_used_and_no_further(play: Play) -> None:
    """M-39: six segments of ten were out, so twelve may be reached, by each ACK while it is below."""
    play(
        OPEN
        + SIX
        + """
        +.1  < . 1:1(0) ack 2001 win 60000
        +0   expect cwnd=12000
        +0   < . 1:1(0) ack 4001 win 60000
        +0   < . 1:1(0) ack 6001 win 60000
        +0   expect cwnd=12000
        """
    )


def test_a_window_that_was_used_to_the_full_grows_by_every_ack_of_it(play: Play) -> None:
    """M-39: also by the last ones, when little is left in flight; nothing more was to be sent."""
    play(
        OPEN
        + SIX.replace("write 6000", "write 10000")
        + """
        +0   > . 6001:7001(1000) ack 1
        +0   > P. 7001:8001(1000) ack 1
        +0   > . 8001:9001(1000) ack 1
        +0   > P. 9001:10001(1000) ack 1
        +.1  < . 1:1(0) ack 4001 win 60000
        +0   expect cwnd=14000
        +0   < . 1:1(0) ack 9001 win 60000
        +0   < . 1:1(0) ack 10001 win 60000
        +0   expect cwnd=20000
        """
    )


def test_what_was_used_long_ago_does_not_count(play: Play) -> None:
    """M-39: the next window of data is judged by itself."""
    play(
        OPEN
        + SIX
        + """
        +.1  < . 1:1(0) ack 6001 win 60000
        +0   expect cwnd=16000
        +.01 write 2000
        +0   > . 6001:7001(1000) ack 1
        +0   > P. 7001:8001(1000) ack 1
        +.1  < . 1:1(0) ack 8001 win 60000
        +0   expect cwnd=16000
        """
    )


def test_congestion_avoidance_wants_the_window_used_to_the_full(play: Play) -> None:
    """M-39: eight of ten are not enough there."""
    play(
        OPEN
        + SIX.replace("write 6000", "write 8000")
        + """
        +0   > . 6001:7001(1000) ack 1
        +0   > P. 7001:8001(1000) ack 1
        +.1  < . 1:1(0) ack 8001 win 60000
        +0   expect cwnd=10000
        """,
        tcp_initial_ssthresh=10,
    )
    play(
        OPEN
        + SIX.replace("write 6000", "write 10000")
        + """
        +0   > . 6001:7001(1000) ack 1
        +0   > P. 7001:8001(1000) ack 1
        +0   > . 8001:9001(1000) ack 1
        +0   > P. 9001:10001(1000) ack 1
        +.1  < . 1:1(0) ack 10001 win 60000
        +0   expect cwnd=11000
        """,
        tcp_initial_ssthresh=10,
    )
