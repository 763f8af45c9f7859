"""The retransmission timer: RFC 6298 with Linux's bounds, backoff, giving up."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.openings import OPEN

TIMESTAMPS = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1012,nop,nop,TS val 1 ecr 0>
    +0   > S. 0:0(0) ack 1 <mss 1460,nop,nop,TS val 100 ecr 1>
    +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 2 ecr 100>
    +0   accept
"""


def test_the_timeout_is_srtt_and_variance_and_at_least_200_ms(play: Play) -> None:
    """M-34, RFC 6298 2.2 and 2.3: RTO = SRTT + max(4 RTTVAR, 200 ms)."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.4  < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   expect srtt=400000 rttvar=200000 rto=1200000
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.24 < . 1:1(0) ack 101 win 30000
        +0   expect srtt=380000 rttvar=190000 rto=1180000
        +0   write 100
        +0   > P. 101:201(100) ack 1
        +1.18 > P. 101:201(100) ack 1
        """
    )


def test_an_unanswered_segment_is_repeated_with_doubled_intervals(play: Play) -> None:
    """M-34, RFC 6298 5.4 to 5.6."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.21 > P. 1:101(100) ack 1
        +.42 > P. 1:101(100) ack 1
        +.84 > P. 1:101(100) ack 1
        +1.68 > P. 1:101(100) ack 1
        +0   counter TcpRetransSegs=4 TCPTimeouts=4
        """
    )


def test_the_interval_is_at_most_two_minutes_and_the_end_comes_after_15_minutes(play: Play) -> None:
    """M-34: tcp_retries2 = 15 is 924.6 s from the first retransmission on, whatever the round-trip time."""
    script = OPEN + "+0 write 100\n+0 > P. 1:101(100) ack 1\n"
    interval, elapsed = 0.21, 0.0
    while elapsed < 924.6:
        script += f"+{interval:.6f} > P. 1:101(100) ack 1\n"
        interval = min(interval * 2, 120)
        elapsed += interval
    play(script + f"+{interval:.6f} closed ETIMEDOUT\n+0 gone\n+0 counter TCPAbortOnTimeout=1")


def test_fewer_retries_give_up_sooner(play: Play) -> None:
    """M-34: tcp_retries2 = 3 is 3 s."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.21 > P. 1:101(100) ack 1
        +.42 > P. 1:101(100) ack 1
        +.84 > P. 1:101(100) ack 1
        +1.68 > P. 1:101(100) ack 1
        +3.36 closed ETIMEDOUT
        +0   gone
        """,
        tcp_retries2=3,
    )


def test_an_orphan_gives_up_after_tcp_orphan_retries(play: Play) -> None:
    """M-34: 8 where it is 0; nobody waits for the outcome."""
    play(
        OPEN
        + """
        +0   close
        +0   > F. 1:1(0) ack 1
        +.21 > F. 1:1(0) ack 1
        +.42 > F. 1:1(0) ack 1
        +.84 closed ETIMEDOUT
        +0   gone
        """,
        tcp_orphan_retries=1,
    )


def test_an_acknowledgement_starts_the_timer_anew_and_the_last_stops_it(play: Play) -> None:
    """M-34, RFC 6298 5.2 and 5.3."""
    play(
        OPEN
        + """
        +0   write 2000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +.2  < . 1:1(0) ack 1001 win 30000
        +0   expect srtt=33750 rttvar=51250 rto=238750
        +.23875 > P. 1001:2001(1000) ack 1
        +.1  < . 1:1(0) ack 2001 win 30000
        +10  idle
        """
    )


def test_what_was_sent_twice_gives_no_sample_and_the_backoff_stays(play: Play) -> None:
    """M-34, Karn, RFC 6298 3 and 5.7: without timestamps."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.21 > P. 1:101(100) ack 1
        +.05 < . 1:1(0) ack 101 win 30000
        +0   expect srtt=10000
        +0   write 100
        +0   > P. 101:201(100) ack 1
        +.42 > P. 101:201(100) ack 1
        +.05 < . 1:1(0) ack 201 win 30000
        +0   write 100
        +0   > P. 201:301(100) ack 1
        +.01 < . 1:1(0) ack 301 win 30000
        +0   expect backoff=0
        +0   write 100
        +0   > P. 301:401(100) ack 1
        +.21 > P. 301:401(100) ack 1
        """
    )


def test_with_timestamps_the_echo_tells_which_copy_was_answered(play: Play) -> None:
    """M-34, M-11, RFC 7323 4."""
    play(
        TIMESTAMPS
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1 <nop,nop,TS val 110 ecr 2>
        +.21 > P. 1:101(100) ack 1 <nop,nop,TS val 320 ecr 2>
        +.05 < . 1:1(0) ack 101 win 30000 <nop,nop,TS val 3 ecr 320>
        +0   expect backoff=0 srtt=15000
        """
    )


def test_after_a_timeout_everything_in_flight_goes_again_from_one_segment_on(play: Play) -> None:
    """M-34, RFC 5681 3.1: the loss window is one segment, then slow start. ssthresh is half of cwnd, as in Linux."""
    play(
        OPEN
        + """
        +0   write 5000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +0   > P. 4001:5001(1000) ack 1
        +.21 > . 1:1001(1000) ack 1
        +0   expect cwnd=1000 ssthresh=5000
        +.01 < . 1:1(0) ack 1001 win 30000
        +0   > . 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +.01 < . 1:1(0) ack 3001 win 30000
        +0   > . 3001:4001(1000) ack 1
        +0   > P. 4001:5001(1000) ack 1
        +.01 < . 1:1(0) ack 5001 win 30000
        +10  idle
        """
    )


def test_an_ack_of_the_first_copies_spares_the_rest(play: Play) -> None:
    """M-34: what the peer had all along is not sent again."""
    play(
        OPEN
        + """
        +0   write 3000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > P. 2001:3001(1000) ack 1
        +.21 > . 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 3001 win 30000
        +10  idle
        """
    )


def test_an_ack_in_the_middle_of_a_segment_trims_what_is_sent_again(play: Play) -> None:
    """M-34."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 401 win 30000
        +.21 > P. 401:1001(600) ack 1
        """
    )


def test_new_data_waits_behind_the_retransmission(play: Play) -> None:
    """M-34, RFC 5681 3.1."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.21 > P. 1:1001(1000) ack 1
        +0   write 2000
        +.01 < . 1:1(0) ack 1001 win 30000
        +0   > . 1001:2001(1000) ack 1
        +0   > P. 2001:3001(1000) ack 1
        """
    )


@pytest.mark.parametrize(("timeout", "until"), [(1000, "+.84"), (100, "+.42")])
def test_a_user_timeout_ends_it_sooner(play: Play, timeout: int, until: str) -> None:
    """M-14 (the socket option): from the first retransmission on, looked at when the timer expires."""
    script = OPEN + f"+0 setsockopt user_timeout {timeout}\n+0 write 100\n+0 > P. 1:101(100) ack 1\n+.21 > P. 1:101(100) ack 1\n"
    if timeout == 1000:
        script += "+.42 > P. 1:101(100) ack 1\n"
    play(script + f"{until} closed ETIMEDOUT\n+0 gone")


def test_a_handshake_without_a_sample_begins_data_with_three_seconds(play: Play) -> None:
    """M-34, RFC 6298 5.7: the SYN was sent twice, and there are no timestamps to tell which was answered."""
    play(
        """
        0    connect 80
        +0   > S 0:0(0)
        +1   > S 0:0(0)
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000>
        +0   > . 1:1(0) ack 1
        +0   expect rto=3000000 cwnd=10000
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +3   > P. 1:101(100) ack 1
        """
    )


def test_a_syn_lost_twice_makes_the_first_window_one_segment(play: Play) -> None:
    """RFC 5681 3.1, as RFC 6928 2 and Linux have it."""
    play(
        """
        0    connect 80
        +0   > S 0:0(0)
        +1   > S 0:0(0)
        +2   > S 0:0(0)
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000>
        +0   > . 1:1(0) ack 1
        +0   expect cwnd=1000
        """
    )


def test_syns_are_at_most_two_minutes_apart(play: Play) -> None:
    """M-25, RFC 6298 2.5: RTO_MAX holds for them too."""
    script = "0 connect 80\n+0 > S 0:0(0)\n"
    script += "".join(f"+{min(1 << i, 120)} > S 0:0(0)\n" for i in range(9))
    play(script + "+120 closed ETIMEDOUT\n+0 gone", tcp_syn_retries=9)
    script = "0 listen 8080\n+0 < S 0:0(0) win 30000 <mss 1000>\n+0 > S. 0:0(0) ack 1\n"
    script += "".join(f"+{min(1 << i, 120)} > S. 0:0(0) ack 1\n" for i in range(9))
    play(script + "+120 gone", tcp_synack_retries=9)
