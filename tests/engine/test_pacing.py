"""Pacing: when paced data leaves, and what need not wait."""

from __future__ import annotations

from itertools import pairwise

import pytest
from engine.notation import Play
from engine.openings import opening

from tunstack.engine.pacing import CATCH_UP, Pacer

MS = 1000
OPEN = opening(60_000)
TEN = "".join(f"+0 > . {at * 1000 + 1}:{at * 1000 + 1001}(1000) ack 1\n" for at in range(10))
FIRST = TEN + "+0 > . 10001:11001(1000) ack 1\n"  # ten that are not paced, and one that is


def departures(pacer: Pacer, octets: int, grain: int, until: int) -> list[int]:
    """Send `octets` whenever the pacer lets us, looked at each `grain` us."""
    sent = []
    for now in range(0, until, grain):
        while pacer.at <= now:
            pacer.on_sent(octets, now)
            sent.append(now)
        pacer.is_waiting = True
    return sent


@pytest.mark.parametrize("rate", [1_000_003, 12_500_000, 777_777_777])
@pytest.mark.parametrize("grain", [1, 7, 1000])
def test_the_mean_rate_is_exact_whatever_the_grain_of_the_timer(rate: int, grain: int) -> None:
    """M-39: no rounding of the gaps adds up, and what a late timer delays is made up for."""
    pacer = Pacer(0)
    pacer.rate = rate
    time = 50 * MS if grain == 1 else 1000 * MS
    sent = departures(pacer, 2896, grain, time)
    assert abs(len(sent) * 2896 - rate * time // 1_000_000) <= 2 * 2896 + rate * grain // 1_000_000


def test_departures_are_even() -> None:
    """M-39: at a fine timer every gap is the time of a burst, to the microsecond."""
    pacer = Pacer(0)
    pacer.rate = 1_000_000
    sent = departures(pacer, 2896, 1, 100 * MS)
    assert {later - earlier for earlier, later in pairwise(sent)} == {2896}


def test_lateness_is_made_up_for_within_bounds() -> None:
    """M-39: a process held up for a second does not send a second's worth at once."""
    pacer = Pacer(0)
    pacer.rate = 1_000_000
    pacer.on_sent(1000, 0)
    pacer.is_waiting = True
    now = 1000 * MS
    count = 0
    while pacer.at <= now:
        pacer.on_sent(1000, now)
        count += 1
    assert count == CATCH_UP // MS + 1


def test_a_pause_of_the_application_gives_no_right_to_a_burst() -> None:
    """M-39."""
    pacer = Pacer(0)
    pacer.rate = 1_000_000
    pacer.on_sent(1000, 0)
    pacer.on_sent(1000, 500 * MS)
    assert pacer.at == 501 * MS


def test_so_max_pacing_rate_spreads_what_follows_the_first_ten_segments(play: Play) -> None:
    """M-39: as in Linux the first ten segments leave at once; then one every ten milliseconds at 100,000 octets a second."""
    play(
        OPEN
        + """
        +0   setsockopt max_pacing_rate 100000
        +0   write 14000
        """
        + FIRST
        + """
        +.01 > . 11001:12001(1000) ack 1
        +.01 > . 12001:13001(1000) ack 1
        +.01 > P. 13001:14001(1000) ack 1
        """,
        tcp_initial_cwnd=20,
    )


def test_a_limit_that_is_lifted_lets_go_what_it_held(play: Play) -> None:
    """M-39."""
    play(
        OPEN
        + """
        +0   setsockopt max_pacing_rate 10000
        +0   write 14000
        """
        + FIRST
        + """
        +.05 setsockopt max_pacing_rate None
        +0   > . 11001:12001(1000) ack 1
        +0   > . 12001:13001(1000) ack 1
        +0   > P. 13001:14001(1000) ack 1
        """,
        tcp_initial_cwnd=20,
    )


HELD = (
    OPEN
    + """
    +0   setsockopt max_pacing_rate 10000
    +0   write 12000
    """
    + FIRST
)


def test_an_ack_does_not_wait_for_paced_data(play: Play) -> None:
    """M-33, M-39."""
    play(
        HELD
        + """
        +.01 < P. 1:2001(2000) ack 1 win 60000
        +0   > . 11001:11001(0) ack 2001
        +.09 > P. 11001:12001(1000) ack 2001
        """,
        tcp_initial_cwnd=20,
    )


def test_a_timeout_does_not_wait_for_the_pace(play: Play) -> None:
    """M-34, M-39: the RTO's retransmission leaves when it is due, though at this rate the next data would in 990 ms."""
    play(
        OPEN
        + """
        +0   setsockopt max_pacing_rate 1000
        +0   write 11000
        """
        + TEN
        + """
        +0   > P. 10001:11001(1000) ack 1
        +.21 > . 1:1001(1000) ack 1
        """,
        tcp_initial_cwnd=20,
    )


def test_a_lone_fin_does_not_wait(play: Play) -> None:
    """M-39, M-50."""
    play(
        OPEN
        + """
        +0   setsockopt max_pacing_rate 1000
        +0   write 11000
        """
        + TEN
        + """
        +0   > P. 10001:11001(1000) ack 1
        +0   shutdown
        +0   > F. 11001:11001(0) ack 1
        """,
        tcp_initial_cwnd=20,
    )


def test_a_window_that_the_pace_does_not_let_fill_does_not_grow(play: Play) -> None:
    """M-38, M-39, RFC 7661: the pace, and not the window, held the sender back."""
    play(
        HELD
        + """
        +.05 < . 1:1(0) ack 1001 win 60000
        +0   < . 1:1(0) ack 2001 win 60000
        +0   expect cwnd=30000
        """,
        tcp_initial_cwnd=30,
    )
