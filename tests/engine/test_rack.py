"""Loss by time, and the tail loss probe: RFC 8985."""

from __future__ import annotations

from engine.notation import Play
from engine.test_sack_recovery import RTT, TEN, bursts

FOUR = RTT + "+0 write 4000\n" + bursts(0, 4)


def test_a_hole_that_may_be_reordering_is_waited_for_a_quarter_of_the_round_trip(play: Play) -> None:
    """M-36, RFC 8985 6.2 step 5; 12 ms are the timer's grain."""
    play(
        FOUR
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 3001:4001,nop,nop>
        +.037 > . 1:1001(1000) ack 1
        +0   expect ca_state=3 lost=3000
        """
    )


def test_what_comes_in_that_time_is_not_resent(play: Play) -> None:
    """M-36."""
    play(
        FOUR
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 3001:4001,nop,nop>
        +.03 < . 1:1(0) ack 4001 win 60000
        +1   idle
        +0   counter TcpRetransSegs=0 TCPSACKReorder=1
        """
    )


def test_three_segments_sacked_end_the_wait_while_nothing_was_ever_reordered(play: Play) -> None:
    """M-36, RFC 8985 6.2 step 4."""
    play(FOUR + "+.1  < . 1:1(0) ack 1 win 60000 <sack 1001:4001,nop,nop>\n+0 > . 1:1001(1000) ack 1")


def test_after_reordering_was_seen_three_are_no_proof(play: Play) -> None:
    """M-36, RFC 8985 6.2 step 4: then time decides alone."""
    play(
        FOUR
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 3001:4001,nop,nop>
        +0   < . 1:1(0) ack 4001 win 60000
        +0   expect reord_seen=1
        +0   write 4000
        """
        + bursts(4, 4)
        + """
        +.1  < . 1:1(0) ack 4001 win 60000 <sack 5001:8001,nop,nop>
        +.037 > . 4001:5001(1000) ack 1
        """
    )


def test_a_lost_retransmission_is_found(play: Play) -> None:
    """M-36: by what was sent after it and arrived, without the timer."""
    play(
        RTT
        + "+0 write 14000\n"
        + bursts(0, 10, more=True)
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:4001,nop,nop>
        +0   > . 1:1001(1000) ack 1
        +0   > . 10001:11001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:10001,nop,nop>
        +0   > . 11001:12001(1000) ack 1
        +0   > P. 12001:13001(1000) ack 1
        +0   > P. 13001:14001(1000) ack 1
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:14001,nop,nop>
        +0   > . 1:1001(1000) ack 1
        +0   counter TCPLostRetransmit=1 TCPTimeouts=0
        +.1  < . 1:1(0) ack 14001 win 60000
        +10  idle
        """
    )


def test_each_dsack_widens_the_window_by_a_quarter(play: Play) -> None:
    """M-36, RFC 8985 6.2 step 4: a needless retransmission says that more patience is wanted."""
    play(
        FOUR
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 3001:4001,nop,nop>
        +.037 > . 1:1001(1000) ack 1
        +.0  < . 1:1(0) ack 4001 win 60000
        +.1  < . 1:1(0) ack 4001 win 60000 <sack 1:1001,nop,nop>
        +0   expect dsack_dups=1
        +0   write 4000
        """
        + bursts(4, 4)
        + """
        +.1  < . 1:1(0) ack 4001 win 60000 <sack 7001:8001,nop,nop>
        +.062 > . 4001:5001(1000) ack 1
        """
    )


def test_a_lost_tail_is_probed_for_after_two_round_trips(play: Play) -> None:
    """M-36, RFC 8985 7.2: the last segment again; that it is SACKed shows the one before it to be lost."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 8001 win 60000
        +.202 > P. 9001:10001(1000) ack 1
        +0   counter TCPLossProbes=1 TCPTimeouts=0
        +.1  < . 1:1(0) ack 8001 win 60000 <sack 9001:10001,nop,nop>
        +0   > . 8001:9001(1000) ack 1
        +.1  < . 1:1(0) ack 10001 win 60000
        +0   counter TCPTimeouts=0 TcpRetransSegs=2
        +10  idle
        """
    )


def test_new_data_is_the_better_probe(play: Play) -> None:
    """M-36, RFC 8985 7.3: it goes whatever the congestion window says, as far as the peer takes it."""
    play(
        RTT
        + "+0 write 11000\n"
        + bursts(0, 10, more=True)
        + """
        +.202 > P. 10001:11001(1000) ack 1
        +0   counter TCPLossProbes=1 TcpRetransSegs=0
        +.1  < . 1:1(0) ack 11001 win 60000
        +0   expect ca_state=0 ssthresh=2147483647
        +10  idle
        """
    )


def test_a_probe_that_repaired_a_loss_lowers_the_window(play: Play) -> None:
    """M-36, RFC 8985 7.4.2: an ACK beyond the probe, and no D-SACK, says that the original was lost."""
    play(
        RTT
        + """
        +0   write 2000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +.202 > P. 1001:2001(1000) ack 1
        +.05 write 1000
        +0   > P. 2001:3001(1000) ack 1
        +.05 < . 1:1(0) ack 3001 win 60000
        +0   expect ca_state=0 ssthresh=5000 cwnd=5000
        +0   counter TCPLossProbes=1 TCPLossProbeRecovery=1 TCPTimeouts=0
        """
    )


def test_a_probe_that_was_needless_lowers_nothing(play: Play) -> None:
    """M-36, RFC 8985 7.4.2: the D-SACK tells."""
    play(
        RTT
        + """
        +0   write 2000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +.202 > P. 1001:2001(1000) ack 1
        +.01 < . 1:1(0) ack 2001 win 60000
        +.09 < . 1:1(0) ack 2001 win 60000 <sack 1001:2001,nop,nop>
        +0   expect ca_state=0 ssthresh=2147483647
        +0   counter TCPLossProbeRecovery=0
        """
    )


def test_after_the_probe_the_timer_decides(play: Play) -> None:
    """M-36, M-34: one probe, then the RTO, counted from the probe."""
    play(
        RTT
        + """
        +0   write 2000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +.202 > P. 1001:2001(1000) ack 1
        +.3  > . 1:1001(1000) ack 1
        +0   counter TCPLossProbes=1 TCPTimeouts=1
        """
    )


def test_no_probes_where_they_are_off_or_the_peer_has_no_sack(play: Play) -> None:
    """M-36: tcp_early_retrans = 0."""
    play(
        RTT
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.3  > P. 1:1001(1000) ack 1
        +0   counter TCPLossProbes=0 TCPTimeouts=1
        """,
        tcp_early_retrans=0,
    )
