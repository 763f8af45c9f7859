"""What plays against the kernel with the same ACKs found (scripts/interop/differential.py): where Linux did otherwise, and was right."""

from __future__ import annotations

from engine.notation import Play

SACK = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1000,nop,nop,sackOK>
    +0   > S. 0:0(0) ack 1
    +.1  < . 1:1(0) ack 1 win 60000
    +0   accept
    +0   setsockopt nodelay true
"""
PLAIN = SACK.replace(",nop,nop,sackOK", "")
STAMPED = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1012,sackOK,TS val 1000 ecr 0>
    +0   > S. 0:0(0) ack 1 <...>
    +.1  < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 1100 ecr 0>
    +0   accept
    +0   setsockopt nodelay true
"""


def segments(first: int, last: int, more: bool = False) -> str:
    """Return the lines of segments of 1000 octets from number `first` up to `last`, which leave two by two."""
    lines = []
    for i in range(first, last):
        push = (i - first) % 2 or (i == last - 1 and not more)
        lines.append(f"+0 > {'P.' if push else '.'} {i * 1000 + 1}:{(i + 1) * 1000 + 1}(1000) ack 1\n")
    return "".join(lines)


def test_three_duplicate_acks_of_small_segments_repair_a_loss_without_sack(play: Play) -> None:
    """M-13, M-11: each is a segment, however small; and that is no reordering."""
    play(
        PLAIN
        + "".join(f"+0 write 100\n+0 > P. {i}01:{i + 1}01(100) ack 1\n".replace(" 001:", " 1:") for i in range(4))
        + """
        +.1  < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:101(100) ack 1
        +0   expect ca_state=3
        +0   counter TCPRenoReorder=0 TCPFastRetrans=1
        """
    )


def test_the_fin_is_a_segment_to_duplicate_acks_too(play: Play) -> None:
    """M-13."""
    play(
        PLAIN
        + "+0 write 3000\n"
        + segments(0, 3)
        + """
        +0   shutdown
        +0   > F. 3001:3001(0) ack 1
        +.1  < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   < . 1:1(0) ack 1 win 60000
        +0   > . 1:1001(1000) ack 1
        +0   counter TCPRenoReorder=0
        """
    )


def test_a_fin_waits_for_the_congestion_window(play: Play) -> None:
    """M-33: it is a packet like any other; but it is what a tail loss probe sends first."""
    play(
        SACK
        + "+0 write 10000\n"
        + segments(0, 10)
        + """
        +0   shutdown
        +.202 > F. 10001:10001(0) ack 1
        +0   counter TCPLossProbes=1 TcpRetransSegs=0
        """
    )


def test_a_round_trip_of_samples_does_not_forget_the_variance(play: Play) -> None:
    """M-34, RFC 7323 appendix G: many ACKs of one round trip count as one for RTTVAR's fall."""
    play(
        SACK.replace("+.1 ", "+.4 ")
        + "+0 expect rttvar=200000 rto=1200000\n+0 write 10000\n"
        + segments(0, 10)
        + "+.4 < . 1:1(0) ack 1001 win 60000\n"
        + "".join(f"+0 < . 1:1(0) ack {i}001 win 60000\n" for i in range(2, 11))
        + "+0 expect srtt=400000 rto=1200000\n"
    )


def test_what_the_network_duplicated_undoes_nothing(play: Play) -> None:
    """M-35, RFC 3708 3: more D-SACKs than retransmissions are none of ours, and so is one of data below the loss."""
    play(
        SACK
        + "+0 write 10000\n"
        + segments(0, 10)
        + """
        +.1  < . 1:1(0) ack 2001 win 60000
        +0   < . 1:1(0) ack 2001 win 60000 <sack 1:1001,nop,nop>
        +0   < . 1:1(0) ack 2001 win 60000 <sack 3001:6001,nop,nop>
        +0   > . 2001:3001(1000) ack 1
        +0   expect ca_state=3
        +0   < . 1:1(0) ack 2001 win 60000 <sack 1001:2001 3001:6001>
        +0   expect ca_state=3
        +0   counter TCPDSACKUndo=0
        """,
    )


def test_data_that_was_lost_after_recovery_began_is_another_loss(play: Play) -> None:
    """M-36, RFC 6675 5: recovery ends at its point; what lies beyond and was lost costs the window once more, resent or not."""
    play(
        SACK
        + "+0 write 20000\n"
        + segments(0, 10, True)
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:9001,nop,nop>
        +0   > . 1:1001(1000) ack 1
        +0   > . 10001:11001(1000) ack 1
        +0   > P. 11001:12001(1000) ack 1
        +0   > . 12001:13001(1000) ack 1
        +0   expect ca_state=3 ssthresh=5000
        +.1  < . 1:1(0) ack 1 win 60000 <sack 11001:12001 1001:10001>
        +0   > . 1:1001(1000) ack 1
        +0   > . 10001:11001(1000) ack 1
        +0   > . 13001:14001(1000) ack 1
        +0   > P. 14001:15001(1000) ack 1
        +.01 < . 1:1(0) ack 10001 win 60000 <sack 11001:12001,nop,nop>
        +0   > . 15001:16001(1000) ack 1
        +0   expect ca_state=3 ssthresh=2000 lost=1000 retrans=1
        """,
    )


def test_nothing_more_is_resent_while_the_first_retransmission_looks_needless(play: Play) -> None:
    """M-37, M-36: an original's late ACK (by the timestamp) among losses; the distance that it was late by is remembered."""
    play(
        STAMPED
        + "+0 write 12000\n"
        + segments(0, 10, True).replace("ack 1\n", "ack 1 <...>\n")
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 1200 ecr 100,nop,nop,sack 1001:2001>
        +0   > . 10001:11001(1000) ack 1 <...>
        +0   < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 1200 ecr 100,nop,nop,sack 3001:4001 1001:2001>
        +0   > P. 11001:12001(1000) ack 1 <...>
        +0   < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 1200 ecr 100,nop,nop,sack 7001:8001 3001:4001 1001:2001>
        +0   > . 1:1001(1000) ack 1 <...>
        +0   < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 1200 ecr 100,nop,nop,sack 7001:9001 3001:4001 1001:2001>
        +0   > . 2001:3001(1000) ack 1 <...>
        +.01 < . 1:1(0) ack 2001 win 60000 <nop,nop,TS val 1210 ecr 100,nop,nop,sack 7001:9001 3001:4001>
        +0   expect ca_state=3 retrans=1
        +.01 < . 1:1(0) ack 6001 win 60000 <nop,nop,TS val 1210 ecr 100,nop,nop,sack 7001:9001>
        +0   expect ca_state=1 lost=0 retrans=0 cwnd=13000
        +0   counter TcpRetransSegs=2 TCPPartialUndo=1
        """,
    )


def test_the_timeout_counts_from_the_oldest_data_where_the_reordering_window_put_it_off(play: Play) -> None:
    """M-34: RACK waited, and resent; what is acknowledged then gives the rest no new timeout."""
    play(
        SACK
        + "+0 write 2000\n"
        + segments(0, 2)
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:2001,nop,nop>
        +0   < . 1:1(0) ack 2001 win 60000
        +0   write 8000
        """
        + segments(2, 10)
        + """
        +.1  < . 1:1(0) ack 2001 win 60000 <sack 3001:4001,nop,nop>
        +.037 > . 2001:3001(1000) ack 1
        +.01 < . 1:1(0) ack 2001 win 60000 <sack 3001:4001 5001:6001>
        +.005 < . 1:1(0) ack 6001 win 60000
        +0   expect ca_state=3 rto=305875
        +.153875 > . 6001:7001(1000) ack 1
        """,
    )


def test_the_least_round_trip_time_is_forgotten_when_the_path_is_longer(play: Play) -> None:
    """M-34, tcp_min_rtt_wlen: RACK's window and HyStart go by it."""
    rounds = [
        f"+1 write 1000\n+0 > P. {i}001:{i + 1}001(1000) ack 1\n+.2 < . 1:1(0) ack {i + 1}001 win 60000\n".replace(" 0001:", " 1:")
        for i in range(8)
    ]
    script = SACK + rounds[0] + "+0 expect min_rtt=100000\n" + "".join(rounds[1:]) + "+0 expect min_rtt=200000\n"
    play(script, tcp_min_rtt_wlen=4)


def test_a_dsack_widens_the_reordering_window_only_where_data_was_reordered(play: Play) -> None:
    """M-37, RFC 8985 6.2 step 4 as Linux has it: else it was not RACK's impatience that resent."""
    play(
        SACK
        + "+0 write 1000\n+0 > P. 1:1001(1000) ack 1\n"
        + "+.3 > P. 1:1001(1000) ack 1\n"
        + """
        +.01 < . 1:1(0) ack 1001 win 60000
        +.1  < . 1:1(0) ack 1001 win 60000 <sack 1:1001,nop,nop>
        +.01 write 3000
        """
        + segments(1, 4)
        + """
        +.1  < . 1:1(0) ack 1001 win 60000 <sack 2001:3001,nop,nop>
        +0   expect min_rtt=100000
        +.037 > . 1001:2001(1000) ack 1
        """,
        tcp_early_retrans=0,
    )
