"""Fast retransmit and NewReno recovery without SACK: RFC 5681 3.2, RFC 6582, RFC 3042."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import opening

# Ten segments of 1000 octets are in flight; two more, where `write 12000`, wait for the congestion window.
OPEN = opening(60_000)


def in_bursts(first: int, count: int) -> str:
    """Return the lines of `count` segments that leave two by two, each two with a PSH at its end."""
    lines = (f"+0 > {('.', 'P.')[i % 2]} {first + i}001:{first + i + 1}001(1000) ack 1\n" for i in range(count))
    return "".join(lines).replace(" 0001:", " 1:")


TEN = OPEN + "+0 write 10000\n" + in_bursts(0, 10)
TEN_OF_MORE = OPEN + "+0 write 14000\n" + in_bursts(0, 10)


def test_three_duplicate_acks_have_the_first_segment_sent_again(play: Play) -> None:
    """M-35. At the end cwnd is ssthresh (RFC 6937)."""
    play(
        TEN
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        +0   expect ssthresh=5000
        +0   counter TCPRenoRecovery=1 TCPFastRetrans=1 TcpRetransSegs=1 TCPTimeouts=0
        +0   < . 1:1(0) ack 1 win 60000
        +.01 < . 1:1(0) ack 10001 win 60000
        +0   expect cwnd=5000 ssthresh=5000 unacked=0
        +10  idle
        """
    )


def test_two_duplicate_acks_are_reordering(play: Play) -> None:
    """M-35."""
    play(
        TEN
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 4001 win 60000
        +0   < . 1:1(0) ack 4001 win 60000
        +0   < . 1:1(0) ack 4001 win 60000
        +0   < . 1:1(0) ack 10001 win 60000
        +0   counter TCPFastRetrans=0 TcpRetransSegs=0
        +10  idle
        """
    )


def test_the_first_two_duplicate_acks_let_new_data_go(play: Play) -> None:
    """M-35, RFC 3042 limited transmit."""
    play(
        TEN_OF_MORE
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   > . 10001:11001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 11001:12001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        """
    )


def test_limited_transmit_stays_within_the_peers_window(play: Play) -> None:
    """M-35, M-31."""
    play(
        opening(10_000)
        + "+0 write 12000\n"
        + in_bursts(0, 9)
        + """
        +0   > P. 9001:10001(1000) ack 1
        +.01 < . 1:1(0) ack 1 win 10000
        +0   < . 1:1(0) ack 1 win 10000
        +0   < . 1:1(0) ack 1 win 10000
        +0   > . 1:1001(1000) ack 1
        """
    )


def test_a_partial_ack_has_the_next_hole_sent_at_once(play: Play) -> None:
    """M-35, RFC 6582 3.2 step 3: segments 1, 4 and 7 were lost."""
    play(
        TEN
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +.01 < . 1:1(0) ack 3001 win 60000
        +0   > . 3001:4001(1000) ack 1
        +.01 < . 1:1(0) ack 6001 win 60000
        +0   > . 6001:7001(1000) ack 1
        +.01 < . 1:1(0) ack 10001 win 60000
        +0   expect cwnd=5000 ssthresh=5000
        +0   counter TcpRetransSegs=3 TCPTimeouts=0
        +10  idle
        """
    )


def test_duplicate_acks_in_recovery_let_new_data_go(play: Play) -> None:
    """M-35, RFC 6937: each says that a segment left the network; for every two of them one leaves, so that the pipe comes to the half."""
    play(
        TEN_OF_MORE
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   > . 10001:11001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 11001:12001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 12001:13001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > P. 13001:14001(1000) ack 1
        """
    )


def test_a_retransmission_that_is_lost_too_waits_for_the_timer(play: Play) -> None:
    """M-35, M-34."""
    play(
        TEN
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        +.2~+.21 > . 1:1001(1000) ack 1
        +0   counter TCPTimeouts=1 TcpRetransSegs=2
        +0   expect cwnd=1000
        """
    )


def test_after_a_timeout_the_duplicates_of_old_data_start_no_recovery(play: Play) -> None:
    """M-35, RFC 6582 4: `recover` holds it off."""
    play(
        TEN
        + """
        +.21 > . 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 60000
        +0   > . 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 60000
        +0   < . 1:1(0) ack 1001 win 60000
        +0   < . 1:1(0) ack 1001 win 60000
        +0   < . 1:1(0) ack 1001 win 60000
        +0   counter TCPFastRetrans=0
        """
    )


def test_duplicates_at_the_recovery_point_start_no_recovery(play: Play) -> None:
    """M-35, RFC 6582 4.1: what was sent again by the timer may come back as duplicate ACKs of the very end; only beyond it they count."""
    play(
        OPEN
        + """
        +0   write 3000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > P. 2001:3001(1000) ack 1
        +.21 > . 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 3001 win 60000
        +0   write 2000
        +0   > . 3001:4001(1000) ack 1
        +0   > P. 4001:5001(1000) ack 1
        +.01 < . 1:1(0) ack 3001 win 60000
        +0   < . 1:1(0) ack 3001 win 60000
        +0   < . 1:1(0) ack 3001 win 60000
        +0   counter TCPFastRetrans=0
        +.01 < . 1:1(0) ack 5001 win 60000
        """
    )


def test_an_ack_that_moves_the_window_or_carries_data_is_no_duplicate(play: Play) -> None:
    """M-35, RFC 5681 2."""
    play(
        TEN
        + """
        +.01 < . 1:1(0) ack 1 win 60001
        +0   < . 1:1(0) ack 1 win 60002
        +0   < . 1:1(0) ack 1 win 60003
        +0   < . 1:1(0) ack 1 win 60004
        +0   < P. 1:11(10) ack 1 win 60004
        +0   > . 10001:10001(0) ack 11
        +0   < P. 11:21(10) ack 1 win 60004
        +0   > . 10001:10001(0) ack 21
        +0   < P. 21:31(10) ack 1 win 60004
        +0   > . 10001:10001(0) ack 31
        +0   counter TCPFastRetrans=0
        """
    )


def test_slow_start_doubles_the_window_each_round_trip(play: Play) -> None:
    """M-38, RFC 5681 3.1, octets counted (RFC 3465)."""
    play(
        OPEN
        + """
        +0   write 60000
        """
        + in_bursts(0, 9)
        + """
        +0   > P. 9001:10001(1000) ack 1
        +0   expect cwnd=10000
        +.01 < . 1:1(0) ack 2001 win 60000
        +0   > . 10001:11001(1000) ack 1
        +0   > P. 11001:12001(1000) ack 1
        +0   > . 12001:13001(1000) ack 1
        +0   > P. 13001:14001(1000) ack 1
        +0   expect cwnd=12000
        """
    )


def test_congestion_avoidance_adds_a_segment_each_round_trip(play: Play) -> None:
    """M-38, RFC 5681 3.1."""
    script = (
        TEN
        + """
        +.01 < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 10001 win 60000
        +0   expect cwnd=5000 ssthresh=5000
        +0   write 30000
    """
    )
    seq = 10
    cwnd = 5
    for after in (6, 7, 8):
        script += in_bursts(seq, cwnd)
        script += f"+0 expect cwnd={cwnd}000\n+.01 < . 1:1(0) ack {seq + cwnd}001 win 60000\n"
        seq += cwnd
        cwnd = after
    script += in_bursts(seq, cwnd)
    play(script)
