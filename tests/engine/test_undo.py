"""Retransmissions that were needless: F-RTO, timestamps, D-SACK. RFC 5682, 3522, 3708."""

from __future__ import annotations

from engine.notation import Play
from engine.test_sack_recovery import RTT, TEN, bursts

TIMESTAMPS = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1012,sackOK,TS val 1 ecr 0>
    +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1>
    +.1  < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 2 ecr 100>
    +0   accept
    +0   setsockopt congestion reno
    +0   write 10000
""" + bursts(0, 10)


def test_dsacks_for_all_that_was_resent_take_the_reduction_back(play: Play) -> None:
    """M-37, RFC 3708."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:4001,nop,nop>
        +0   > . 1:1001(1000) ack 1
        +0   expect ssthresh=5000
        +.01 < . 1:1(0) ack 10001 win 60000
        +0   expect cwnd=6000
        +.09 < . 1:1(0) ack 10001 win 60000 <sack 1:1001,nop,nop>
        +0   expect cwnd=10000 ssthresh=2147483647 ca_state=0
        +0   counter TCPDSACKUndo=1 TCPDSACKRecv=1
        """
    )


def test_the_echo_of_an_earlier_timestamp_takes_the_reduction_back(play: Play) -> None:
    """M-37, RFC 3522 (Eifel): the ACK was caused by the original. The window is 10 again, and slow start adds the seven acknowledged."""
    play(
        TIMESTAMPS
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 3 ecr 200,nop,nop,sack 1001:4001>
        +0   > . 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 10001 win 60000 <nop,nop,TS val 4 ecr 200>
        +0   expect cwnd=17000 ssthresh=2147483647 ca_state=0
        +0   counter TCPFullUndo=1
        """
    )


def test_the_echo_of_the_retransmission_does_not(play: Play) -> None:
    """M-37."""
    play(
        TIMESTAMPS
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 3 ecr 200,nop,nop,sack 1001:4001>
        +0   > . 1:1001(1000) ack 1
        +.1  < . 1:1(0) ack 10001 win 60000 <nop,nop,TS val 4 ecr 300>
        +0   expect cwnd=6000 ssthresh=5000 ca_state=0
        +0   counter TCPFullUndo=0
        """
    )


def test_a_timeout_was_spurious_if_what_was_sent_once_arrives(play: Play) -> None:
    """M-37, RFC 5682 3.1: after the retransmission new data goes first; a SACK of originals ends the matter."""
    play(
        RTT
        + "+0 write 12000\n"
        + bursts(0, 10, more=True)
        + """
        +.3  > . 1:1001(1000) ack 1
        +0   expect ca_state=4 cwnd=1000 ssthresh=5000
        +.1  < . 1:1(0) ack 1001 win 60000
        +0   > . 10001:11001(1000) ack 1
        +0   > P. 11001:12001(1000) ack 1
        +.01 < . 1:1(0) ack 2001 win 60000
        +0   expect ca_state=0 cwnd=11000 ssthresh=2147483647
        +0   counter TCPSpuriousRTOs=1 TCPLossUndo=1 TcpRetransSegs=1
        +.01 < . 1:1(0) ack 12001 win 60000
        +10  idle
        """,
        tcp_early_retrans=0,
    )


def test_a_timeout_was_right_if_the_new_data_is_sacked_first(play: Play) -> None:
    """M-37, RFC 5682 3.1 step 3a: then what was lost is resent in slow start."""
    play(
        RTT
        + "+0 write 12000\n"
        + bursts(0, 10, more=True)
        + """
        +.3  > . 1:1001(1000) ack 1
        +.1  < . 1:1(0) ack 1001 win 60000
        +0   > . 10001:11001(1000) ack 1
        +0   > P. 11001:12001(1000) ack 1
        +.1  < . 1:1(0) ack 1001 win 60000 <sack 10001:11001,nop,nop>
        +0   > . 1001:2001(1000) ack 1
        +0   counter TCPSpuriousRTOs=0
        """,
        tcp_early_retrans=0,
    )


def test_without_new_data_the_lost_is_resent_at_once(play: Play) -> None:
    """M-37, RFC 5682 3.1 step 2."""
    play(
        TEN
        + """
        +.3  > . 1:1001(1000) ack 1
        +.1  < . 1:1(0) ack 1001 win 60000
        +0   > . 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        """,
        tcp_early_retrans=0,
    )


def test_no_timeout_is_spurious_where_that_is_off(play: Play) -> None:
    """M-37: tcp_frto = 0."""
    play(
        TEN
        + """
        +.3  > . 1:1001(1000) ack 1
        +.1  < . 1:1(0) ack 3001 win 60000
        +0   > . 3001:4001(1000) ack 1
        +0   > . 4001:5001(1000) ack 1
        +0   > P. 5001:6001(1000) ack 1
        +0   > . 6001:7001(1000) ack 1
        +0   expect ca_state=4
        """,
        tcp_early_retrans=0,
        tcp_frto=0,
    )
