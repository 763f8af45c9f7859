"""TCP_DEFER_ACCEPT: accepted with the first data. tcp(7), Linux."""

from __future__ import annotations

import pytest
from engine.notation import Play

from tunstack.engine.deferaccept import retries, rounded


def test_a_bare_ack_is_ignored_and_data_makes_the_connection(play: Play) -> None:
    """M-27. The SYN-ACK is not sent again meanwhile."""
    play("""
        0    l = listen 8080 defer_accept=30
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   l.accept EAGAIN
        +0   state SYN_RECEIVED
        +0   counter TCPDeferAcceptDrop=1 TcpPassiveOpens=0
        +10  idle
        +0   < P. 1:11(10) ack 1 win 1000
        +0   > . 1:1(0) ack 11
        +0   accept
        +0   read 10
        +0   state ESTABLISHED
        +0   counter TcpPassiveOpens=1 TcpRetransSegs=0
    """)


def test_a_fin_ends_the_waiting_too(play: Play) -> None:
    """M-27. It is something to read: the end."""
    play("""
        0    l = listen 8080 defer_accept=30
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +1   < F. 1:1(0) ack 1 win 1000
        +0~+.04 > . 1:1(0) ack 2
        +0   accept
        +0   eof
    """)


def test_the_syn_ack_goes_again_before_the_ack_and_for_a_last_time_at_the_end(play: Play) -> None:
    """M-27. Three seconds are two retransmissions: the second is the last chance, and the ACK that it draws makes the connection."""
    play("""
        0    l = listen 8080 defer_accept=3
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        2.9  < . 1:1(0) ack 1 win 1000
        +0   l.accept EAGAIN
        3    > S. 0:0(0) ack 1
        +0   counter TCPDeferAcceptDrop=2 TCPTimeouts=2 TcpRetransSegs=1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   l.accept
    """)
    play("""
        0    listen 8080 defer_accept=3
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        1    > S. 0:0(0) ack 1
        +.1  < . 1:1(0) ack 1 win 1000
        3    > S. 0:0(0) ack 1
    """)


def test_a_peer_that_never_sends_is_forgotten_when_both_times_have_passed(play: Play) -> None:
    """M-27. Here the deferral is longer than tcp_synack_retries: seven retransmissions, of which the seventh is sent."""
    play(
        """
        0    listen 8080 defer_accept=100
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        127  > S. 0:0(0) ack 1
        246.9 state SYN_RECEIVED
        247.1 state LISTEN
        """,
        tcp_synack_retries=2,
    )


def test_a_connection_does_not_inherit_the_option(play: Play) -> None:
    """M-27."""
    runner = play("""
        0    listen 8080 defer_accept=3
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < P. 1:2(1) ack 1 win 1000
        +0   > . 1:1(0) ack 2
        +0   accept
    """)
    assert [socket.conn.options.defer_accept for socket in runner.sockets.all if socket.conn is not None] == [0]


@pytest.mark.parametrize(
    ("seconds", "count", "told"),
    [(-1, 0, 0), (0, 0, 0), (1, 1, 1), (2, 2, 3), (3, 2, 3), (4, 3, 7), (127, 7, 127), (128, 8, 247), (1 << 31, 255, 29887)],
)
def test_seconds_are_rounded_up_to_retransmissions(seconds: int, count: int, told: int) -> None:
    """M-27. As getsockopt(2) on Linux tells; above 120 s each retransmission takes as long."""
    assert (retries(seconds), rounded(seconds)) == (count, told)
