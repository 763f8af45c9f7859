"""When small segments and ACKs leave: Nagle, cork, delayed and quick ACKs. RFC 9293 3.7.4, RFC 1122 4.2.3.2, RFC 5681 4.2."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import OPEN

DELAYED = OPEN + "+0 setsockopt quickack False\n"


# Nagle


def test_a_small_segment_waits_while_another_is_in_flight(play: Play) -> None:
    """M-33, RFC 896 as Minshall changed it."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +0   write 100
        +0   write 50
        +.1  < . 1:1(0) ack 101 win 30000
        +0   > P. 101:251(150) ack 1
        """
    )


def test_full_segments_go_and_only_the_rest_waits(play: Play) -> None:
    """M-33."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +0   write 2500
        +0   > . 101:1101(1000) ack 1
        +0   > P. 1101:2101(1000) ack 1
        +.1  < . 1:1(0) ack 101 win 30000
        +0   > P. 2101:2601(500) ack 1
        """
    )


def test_a_rest_goes_behind_full_segments_in_flight(play: Play) -> None:
    """M-33, Minshall: only a small segment in flight holds another back."""
    play(OPEN + "+0 write 2500\n+0 > . 1:1001(1000) ack 1\n+0 > P. 1001:2001(1000) ack 1\n+0 > P. 2001:2501(500) ack 1")


def test_nagle_measures_segments_with_their_options(play: Play) -> None:
    """M-33: a segment that is full with timestamps does not wait (a known trap: MSS without its options)."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,nop,nop,TS val 1 ecr 0>
        +0   > S. 0:0(0) ack 1 <mss 1460,nop,nop,TS val 100 ecr 1>
        +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 2 ecr 100>
        +0   accept
        +0   write 10
        +0   > P. 1:11(10) ack 1
        +0   write 988
        +0   > P. 11:999(988) ack 1
    """)


def test_nodelay_lets_every_write_go_at_once(play: Play) -> None:
    """M-33."""
    play(
        OPEN
        + """
        +0   setsockopt nodelay True
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +0   write 100
        +0   > P. 101:201(100) ack 1
        """
    )


def test_setting_nodelay_lets_go_what_waited(play: Play) -> None:
    """M-33."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +0   write 100
        +.01 setsockopt nodelay True
        +0   > P. 101:201(100) ack 1
        """
    )


def test_a_fin_takes_what_waited_along(play: Play) -> None:
    """M-33, M-50."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +0   write 100
        +0   shutdown
        +0   > FP. 101:201(100) ack 1
        """
    )


def test_cork_holds_a_partial_segment_until_it_is_pulled(play: Play) -> None:
    """M-33: TCP_CORK."""
    play(
        OPEN
        + """
        +0   setsockopt cork True
        +0   write 100
        +.05 write 1000
        +0   > . 1:1001(1000) ack 1
        +.05 setsockopt cork False
        +0   > P. 1001:1101(100) ack 1
        """
    )


def test_cork_holds_for_200_ms_at_most(play: Play) -> None:
    """M-33, tcp(7)."""
    play(OPEN + "+0 setsockopt cork True\n+0 write 100\n+.2~+.21 > P. 1:101(100) ack 1")


# Delayed ACK


def test_the_first_segments_are_acknowledged_at_once(play: Play) -> None:
    """M-33: quick at the start, so that the peer's slow start gets its ACKs; 16 of them."""
    script = OPEN
    for i in range(16):
        script += f"+.001 < P. {1 + 10 * i}:{11 + 10 * i}(10) ack 1 win 30000\n+0 > . 1:1(0) ack {11 + 10 * i}\n"
    play(script + "+.001 < P. 161:171(10) ack 1 win 30000\n+.04 > . 1:1(0) ack 171")


def test_a_small_segment_is_acknowledged_within_40_ms(play: Play) -> None:
    """M-33, RFC 1122 4.2.3.2."""
    play(DELAYED + "+0 < P. 1:101(100) ack 1 win 30000\n+.04 > . 1:1(0) ack 101\n+0 counter DelayedACKs=1")


def test_the_second_full_segment_is_acknowledged_at_once(play: Play) -> None:
    """M-33, RFC 5681 4.2: octets count, whatever the segments."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1460>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   setsockopt quickack False
        +0   < . 1:1461(1460) ack 1 win 30000
        +.01 < . 1461:2921(1460) ack 1 win 30000
        +0   > . 1:1(0) ack 2921
        +0   < . 2921:4381(1460) ack 1 win 30000
        +.04 > . 1:1(0) ack 4381
        """
    )


def test_an_ack_rides_on_data(play: Play) -> None:
    """M-33."""
    play(
        DELAYED
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +.02 write 10
        +0   > P. 1:11(10) ack 101
        +.01 < . 101:101(0) ack 11 win 30000
        +1   counter DelayedACKs=0
        """
    )


def test_request_and_response_make_a_session_interactive(play: Play) -> None:
    """M-33: from the first answer on, ACKs wait for data to ride on."""
    play(
        OPEN
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +.01 write 10
        +0   > P. 1:11(10) ack 101
        +.01 < P. 101:201(100) ack 11 win 30000
        +.01 write 10
        +0   > P. 11:21(10) ack 201
        +.01 < P. 201:301(100) ack 21 win 30000
        +.04 > . 21:21(0) ack 301
        """
    )


def test_an_answer_long_after_the_data_makes_no_session_interactive(play: Play) -> None:
    """M-33: as Linux, which looks at the time since data came."""
    play(
        OPEN
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +1   write 10
        +0   > P. 1:11(10) ack 101
        +.01 < P. 101:201(100) ack 11 win 30000
        +0   > . 11:11(0) ack 201
        """
    )


def test_quickack_on_request(play: Play) -> None:
    """M-33: TCP_QUICKACK."""
    play(DELAYED + "+0 setsockopt quickack True\n+0 < P. 1:101(100) ack 1 win 30000\n+0 > . 1:1(0) ack 101")


def test_what_fills_a_hole_or_lies_beyond_one_is_acknowledged_at_once(play: Play) -> None:
    """M-33, M-40, RFC 5681 4.2."""
    play(
        DELAYED
        + """
        +0   < P. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 201
        """
    )


def test_a_fin_is_acknowledged_with_what_waited(play: Play) -> None:
    """M-33, M-50: our own FIN most often follows at once and brings the ACK; else the delayed ACK that waits anyway does (Linux)."""
    play(
        DELAYED
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +.01 < F. 101:101(0) ack 1 win 30000
        +.03 > . 1:1(0) ack 102
        """
    )


def test_one_ack_answers_a_run_of_segments(play: Play) -> None:
    """M-33: received with offload, octets count."""
    play(DELAYED + "+0 < . 1:4001(4000) ack 1 win 30000 gso 1000\n+0 > . 1:1(0) ack 4001\n+1 idle")
