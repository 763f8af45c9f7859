"""Closing: by us, by the peer, by both at once, by halves, and with close(2). RFC 9293 3.6, figures 12 and 13."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import OPEN
from engine.states import CLOSE_WAIT, CLOSING, FIN_WAIT_1, FIN_WAIT_2


def test_four_way_close_by_us(play: Play) -> None:
    """M-50: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, and after 60 s nothing."""
    play(
        FIN_WAIT_1.script
        + """
        +0   state FIN_WAIT_1
        +.01 < . 1:1(0) ack 2 win 30000
        +0   state FIN_WAIT_2
        +.01 < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +0   state TIME_WAIT
        +0   eof
        +0   closed
        +59.9 idle
        +.1  gone
        """
    )


def test_four_way_close_by_the_peer(play: Play) -> None:
    """M-50: CLOSE-WAIT, LAST-ACK, CLOSED."""
    play(
        CLOSE_WAIT.script
        + """
        +0   eof
        +1   close
        +0   > F. 1:1(0) ack 2
        +0   state LAST_ACK
        +.01 < . 2:2(0) ack 2 win 30000
        +0   state CLOSED
        +0   closed
        +0   gone
        """
    )


def test_fin_with_ack_of_our_fin_goes_straight_to_time_wait(play: Play) -> None:
    """M-50: FIN and ACK merged in one segment."""
    play(
        FIN_WAIT_1.script
        + """
        +.01 < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +0   state TIME_WAIT
        +0   eof
        +0   closed
        """
    )


def test_fin_with_data_and_ack_goes_straight_to_time_wait(play: Play) -> None:
    """M-50."""
    play(
        FIN_WAIT_1.script
        + """
        +.01 < FP. 1:501(500) ack 2 win 30000
        +0   > . 2:2(0) ack 502
        +0   state TIME_WAIT
        +0   read 500
        +0   eof
        +0   closed
        """
    )


def test_simultaneous_close(play: Play) -> None:
    """M-52: FIN-WAIT-1, CLOSING, TIME-WAIT."""
    play(
        CLOSING.script
        + """
        +0   state CLOSING
        +.01 < . 2:2(0) ack 2 win 30000
        +0   state TIME_WAIT
        +0   eof
        +0   closed
        +60  gone
        """
    )


def test_data_and_fin_leave_together(play: Play) -> None:
    """M-50: FIN rides on the last data and takes one sequence number."""
    play(
        OPEN
        + """
        +0   setsockopt cork 1
        +0   write 1500
        +0   > . 1:1001(1000) ack 1
        +0   close
        +0   > FP. 1001:1501(500) ack 1
        +.01 < . 1:1(0) ack 1501 win 30000
        +0   state FIN_WAIT_1
        +.01 < . 1:1(0) ack 1502 win 30000
        +0   state FIN_WAIT_2
        """
    )


def test_our_fin_waits_for_the_data_before_it(play: Play) -> None:
    """M-50, M-31: the state changes at once, the FIN follows when the window lets it."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 2000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 2000
        +0   accept
        +0   write 4000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   close
        +0   state FIN_WAIT_1
        +.01 < . 1:1(0) ack 2001 win 2000
        +0   > . 2001:3001(1000) ack 1
        +0   > FP. 3001:4001(1000) ack 1
        """
    )


def test_eof_is_read_after_all_data_before_it(play: Play) -> None:
    """M-50."""
    play(
        OPEN
        + """
        +.01 < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   < F. 101:101(0) ack 1 win 30000
        +.04 > . 1:1(0) ack 102
        +0   read 60
        +0   read 40
        +0   eof
        """
    )


def test_a_fin_out_of_order_waits_for_the_data_before_it(play: Play) -> None:
    """M-50, M-40."""
    play(
        OPEN
        + """
        +.01 < F. 101:101(0) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   state ESTABLISHED
        +.01 < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 102
        +0   state CLOSE_WAIT
        +0   read 100
        +0   eof
        """
    )


# Half-close


def test_after_our_shutdown_data_flows_in_without_limit(play: Play) -> None:
    """M-51."""
    play(
        FIN_WAIT_2.script
        + """
        +100 < P. 1:1001(1000) ack 2 win 30000
        +0   > . 2:2(0) ack 1001
        +0   read 1000
        +300 < P. 1001:2001(1000) ack 2 win 30000
        +0   > . 2:2(0) ack 2001
        +0   read 1000
        +0   state FIN_WAIT_2
        +.01 < F. 2001:2001(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2002
        +0   eof
        +0   closed
        """
    )


def test_data_flows_in_while_our_fin_is_not_acknowledged(play: Play) -> None:
    """M-51."""
    play(
        FIN_WAIT_1.script
        + """
        +.01 < P. 1:1001(1000) ack 1 win 30000
        +0   > . 2:2(0) ack 1001
        +0   read 1000
        +0   state FIN_WAIT_1
        """
    )


def test_after_the_peers_shutdown_data_flows_out_without_limit(play: Play) -> None:
    """M-51."""
    play(
        CLOSE_WAIT.script
        + """
        +0   eof
        +600 write 1500
        +0   > . 1:1001(1000) ack 2
        +0   > P. 1001:1501(500) ack 2
        +.01 < . 2:2(0) ack 1501 win 30000
        +0   state CLOSE_WAIT
        +0   write 500
        +0   > P. 1501:2001(500) ack 2
        +.01 < . 2:2(0) ack 2001 win 30000
        +0   shutdown
        +0   > F. 2001:2001(0) ack 2
        +.01 < . 2:2(0) ack 2002 win 30000
        +0   closed
        +0   gone
        """
    )


# close(2)


def test_close_with_data_unread_resets(play: Play) -> None:
    """M-59, RFC 2525 2.17."""
    play(
        OPEN
        + """
        +.01 < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   read 50
        +0   close
        +0   > R. 1:1(0) ack 101
        +0   gone
        """
    )


def test_data_after_close_is_answered_with_a_reset(play: Play) -> None:
    """M-59, RFC 1122 4.2.2.13."""
    play(
        OPEN
        + """
        +0   close
        +0   > F. 1:1(0) ack 1
        +.01 < P. 1:101(100) ack 2 win 30000
        +0   > R 2:2(0)
        +0   gone
        """
    )


def test_data_after_close_in_fin_wait_2_is_answered_with_a_reset(play: Play) -> None:
    """M-59."""
    play(
        OPEN
        + """
        +0   close
        +0   > F. 1:1(0) ack 1
        +.01 < . 1:1(0) ack 2 win 30000
        +0   closed
        +.01 < P. 1:101(100) ack 2 win 30000
        +0   > R 2:2(0)
        +0   gone
        """
    )


def test_an_orphan_leaves_fin_wait_2_after_tcp_fin_timeout(play: Play) -> None:
    """M-53."""
    play(
        OPEN
        + """
        +0   close
        +0   > F. 1:1(0) ack 1
        +.01 < . 1:1(0) ack 2 win 30000
        +59.9 state FIN_WAIT_2
        +.1  gone
        +0   < F. 1:1(0) ack 2 win 30000
        +0   > R 2:2(0)
        """
    )


def test_a_shutdown_connection_stays_in_fin_wait_2_as_long_as_it_is_held(play: Play) -> None:
    """M-53: only an orphan times out; closing it later starts the clock."""
    play(
        FIN_WAIT_2.script
        + """
        +1000 state FIN_WAIT_2
        +0   close
        +59.9 state FIN_WAIT_2
        +.1  gone
        """
    )


def test_write_after_the_peer_reset_is_a_broken_pipe(play: Play) -> None:
    """M-59."""
    play(OPEN + "+0 < R. 1:1(0) ack 1\n+0 closed ECONNRESET\n+0 write 1 EPIPE\n+0 shutdown ENOTCONN\n+0 close")
