"""What ConnectionInfo tells of octets, packets and times (Linux's TCP_INFO), and what the stack's counters count of them.

The numbers are those that Linux 6.18 gives for the same events.
"""

from __future__ import annotations

from engine.notation import Play
from engine.openings import OPEN, opening


def test_octets_and_packets_both_ways(play: Play) -> None:
    """Who is connected to has heard the SYN, and its SYN-ACK is nobody's."""
    play(
        OPEN
        + """
        +0   expect segs_in=2 segs_out=0 bytes_acked=0 bytes_received=0
        +0   write 1500
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:1501(500) ack 1
        +.01 < P. 1:101(100) ack 1501 win 30000
        +0   > . 1501:1501(0) ack 101
        +0   expect segs_in=3 data_segs_in=1 segs_out=3 data_segs_out=2
        +0   expect bytes_sent=1500 bytes_acked=1500 bytes_received=100 bytes_retrans=0
        +0   read 100
        +0   counter TcpOutSegs=4 TCPOrigDataSent=2
        """
    )


def test_the_syn_and_the_fin_of_who_connects_are_octets_that_are_acknowledged(play: Play) -> None:
    play(
        """
        0    connect 80
        +0   > S 0:0(0) <mss 1460,sackOK,TS val 0 ecr 0,nop,wscale 7>
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000>
        +0   > . 1:1(0) ack 1
        +0   expect segs_in=1 segs_out=2 bytes_acked=1 bytes_received=0
        +0   shutdown
        +0   > F. 1:1(0) ack 1
        +.01 < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +0   expect bytes_acked=2 bytes_received=1 segs_in=2 segs_out=4 data_segs_out=0
        """
    )


def test_what_is_sent_again_is_counted_apart(play: Play) -> None:
    play(
        OPEN
        + """
        +0   write 500
        +0   > P. 1:501(500) ack 1
        +.21 > P. 1:501(500) ack 1
        +0   expect bytes_sent=1000 bytes_retrans=500 total_retrans=1 segs_out=2 data_segs_out=2
        +0   counter TcpOutSegs=2 TcpRetransSegs=1 TCPOrigDataSent=1
        """
    )


def test_the_time_is_told_that_the_window_held_the_sender_up(play: Play) -> None:
    """M-31, M-32: 0.2 s for want of window, busy until all is acknowledged."""
    play(
        opening(2000)
        + """
        +0   write 3000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +.2  < . 1:1(0) ack 2001 win 2000
        +0   > P. 2001:3001(1000) ack 1
        +.05 < . 1:1(0) ack 3001 win 2000
        +0   expect busy_time=250000 rwnd_limited=200000 sndbuf_limited=0
        +1   expect busy_time=250000 rwnd_limited=200000
        """
    )


def test_the_congestion_window_is_not_the_peers_window(play: Play) -> None:
    play(
        opening(60000)
        + """
        +0   setsockopt sndbuf 100000
        +0   write 10500
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +0   > . 4001:5001(1000) ack 1
        +0   > P. 5001:6001(1000) ack 1
        +0   > . 6001:7001(1000) ack 1
        +0   > P. 7001:8001(1000) ack 1
        +0   > . 8001:9001(1000) ack 1
        +0   > P. 9001:10001(1000) ack 1
        +.1  < . 1:1(0) ack 10001 win 60000
        +0   > P. 10001:10501(500) ack 1
        +.1  < . 1:1(0) ack 10501 win 60000
        +0   expect busy_time=200000 rwnd_limited=0 sndbuf_limited=0
        """
    )


def test_a_small_send_buffer_bounds_what_is_in_flight(play: Play) -> None:
    """M-41: SO_SNDBUF, doubled; the time is told."""
    play(
        opening(60000)
        + """
        +0   setsockopt sndbuf 2500
        +0   write 7000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +0   > . 4001:5001(1000) ack 1
        +.1  < . 1:1(0) ack 5001 win 60000
        +0   > . 5001:6001(1000) ack 1
        +0   > P. 6001:7001(1000) ack 1
        +.1  < . 1:1(0) ack 7001 win 60000
        +0   expect busy_time=200000 rwnd_limited=0 sndbuf_limited=100000
        """
    )


def test_pure_acks_and_what_ip_hands_over_are_counted(play: Play) -> None:
    runner = play(
        OPEN
        + """
        +0   write 10
        +0   > P. 1:11(10) ack 1
        +.01 < . 1:1(0) ack 11 win 30000
        +.01 < . 1:1(0) ack 11 win 30000
        +.01 < . 1:1(0) ack 11 win 29000
        """
    )
    counters = runner.stack.counters
    assert counters.TCPPureAcks + counters.TCPHPAcks == 4
    assert counters.IpInDelivers == counters.IpInReceives == 5
    assert counters.IpOutRequests == 2


def test_a_close_with_linger_zero_aborts_on_data(play: Play) -> None:
    """Linux's counter for it; TCPAbortOnLinger is TCP_LINGER2's."""
    play(OPEN + "+0 setsockopt linger 0\n+0 close\n+0 > R. 1:1(0) ack 1 win 0\n+0 counter TCPAbortOnData=1 TCPAbortOnLinger=0")
