"""ICMP errors that come back for our segments: hard, soft, forged, and the path MTU. RFC 1122 4.2.3.9, RFC 1191, RFC 5461, RFC 5927."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.openings import opening

OPEN = opening(30_000, mss=1460)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("net", "ENETUNREACH"),
        ("host", "EHOSTUNREACH"),
        ("port", "ECONNREFUSED"),
        ("protocol", "ENOPROTOOPT"),
        ("host_prohibited", "EHOSTUNREACH"),
        ("admin_prohibited", "EHOSTUNREACH"),
    ],
)
def test_an_unreachable_ends_an_attempt_to_connect_at_once(play: Play, code: str, error: str) -> None:
    """M-25, M-08: as Linux does, soft or hard."""
    play(f"0 connect 80\n+0 > S 0:0(0) <...>\n+.01 < icmp unreachable {code} [0:0(0)]\n+0 closed {error}\n+0 gone")


def test_an_unreachable_that_quotes_another_sequence_number_is_not_believed(play: Play) -> None:
    """M-08, RFC 5927 4.1."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < icmp unreachable host [1:1(0)]
        +0   < icmp unreachable host [4000000000:4000000000(0)]
        +0   state SYN_SENT
        +0   counter OutOfWindowIcmps=2
    """)


@pytest.mark.parametrize(
    "message", ["unreachable host", "unreachable net", "unreachable port", "unreachable protocol", "time_exceeded ttl"]
)
def test_no_error_ends_a_connection_that_is_established(play: Play, message: str) -> None:
    """M-08, RFC 5927 5.2: hard errors are soft here."""
    play(
        OPEN
        + f"""
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.01 < icmp {message} [1:101(100)]
        +0   open
        +.01 < . 1:1(0) ack 101 win 30000
        +0   state ESTABLISHED
        """
    )


def test_a_soft_error_is_the_reason_when_the_connection_then_times_out(play: Play) -> None:
    """M-08, RFC 1122 4.2.3.9."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.01 < icmp unreachable host [1:101(100)]
        +.2  > P. 1:101(100) ack 1
        +.42 > P. 1:101(100) ack 1
        +.84 closed EHOSTUNREACH
        """,
        tcp_retries2=1,
    )


def test_an_answer_makes_a_soft_error_forgotten(play: Play) -> None:
    """M-08."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.005 < icmp unreachable host [1:101(100)]
        +.005 < . 1:1(0) ack 101 win 30000
        +0   write 100
        +0   > P. 101:201(100) ack 1
        +.21 > P. 101:201(100) ack 1
        +.42 > P. 101:201(100) ack 1
        +.84 closed ETIMEDOUT
        """,
        tcp_retries2=1,
    )


def test_an_unreachable_ends_a_half_open_connection(play: Play) -> None:
    """M-23, RFC 5461: our SYN-ACK did not arrive."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1460>
        +0   > S. 0:0(0) ack 1
        +.01 < icmp unreachable host [77:77(0)]
        +0   counter OutOfWindowIcmps=1 ListenDrops=0
        +.01 < icmp unreachable host [0:0(0)]
        +0   counter OutOfWindowIcmps=1 ListenDrops=1
        +0   gone
    """)


@pytest.mark.parametrize("code", ["port", "protocol", "admin_prohibited"])
def test_other_unreachables_leave_a_half_open_connection(play: Play, code: str) -> None:
    """M-23: as in Linux, which drops it for an unreachable network or host alone (tests/interop/test_icmp_errors.py)."""
    play(f"""
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1460>
        +0   > S. 0:0(0) ack 1
        +.01 < icmp unreachable {code} [0:0(0)]
        +.99 > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
    """)


def test_fragmentation_needed_lowers_the_mss_and_sends_again_what_did_not_pass(play: Play) -> None:
    """M-07, RFC 1191 6.5: at once, and not as a sign of congestion."""
    play(
        OPEN
        + """
        +0   write 2920
        +0   > . 1:1461(1460) ack 1
        +0   > P. 1461:2921(1460) ack 1
        +.01 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]
        +0   > . 1:1161(1160) ack 1
        +0   > . 1161:2321(1160) ack 1
        +0   > P. 2321:2921(600) ack 1
        +0   expect snd_mss=1160 pmtu=1200
        +.01 < . 1:1(0) ack 2921 win 30000
        +0   write 1160
        +0   > P. 2921:4081(1160) ack 1
        +0   counter TCPFastRetrans=0 TCPTimeouts=0
        """
    )


def test_fragmentation_needed_is_believed_only_of_what_is_in_flight(play: Play) -> None:
    """M-07, RFC 5927 7.2."""
    play(
        OPEN
        + """
        +0   write 1460
        +0   > P. 1:1461(1460) ack 1
        +0   < icmp unreachable frag_needed mtu 600 [1461:2921(1460)]
        +0   < icmp unreachable frag_needed mtu 600 [0:0(0)]
        +0   expect snd_mss=1460
        +.01 < . 1:1(0) ack 1461 win 30000
        +0   < icmp unreachable frag_needed mtu 600 [1:1461(1460)]
        +0   expect snd_mss=1460
        """
    )


def test_fragmentation_needed_never_raises_the_mtu(play: Play) -> None:
    """M-07."""
    play(
        OPEN
        + """
        +0   write 1460
        +0   > P. 1:1461(1460) ack 1
        +0   < icmp unreachable frag_needed mtu 9000 [1:1461(1460)]
        +0   expect snd_mss=1460 pmtu=1500
        """
    )


def test_an_absurd_mtu_is_bounded(play: Play) -> None:
    """M-07, RFC 5927 7.1: 552 at least, Linux's ip_rt_min_pmtu; no peer can force tiny segments."""
    play(
        OPEN
        + """
        +0   write 1460
        +0   > P. 1:1461(1460) ack 1
        +0   < icmp unreachable frag_needed mtu 68 [1:1461(1460)]
        +0   > . 1:513(512) ack 1
        +0   > . 513:1025(512) ack 1
        +0   > P. 1025:1461(436) ack 1
        +0   expect pmtu=552
        """
    )


def test_what_is_small_enough_is_not_sent_again(play: Play) -> None:
    """M-07: it passes (Linux's tcp_simple_retransmit)."""
    play(
        OPEN
        + """
        +0   write 500
        +0   > P. 1:501(500) ack 1
        +0   write 1460
        +0   > P. 501:1961(1460) ack 1
        +.01 < icmp unreachable frag_needed mtu 1200 [501:1961(1460)]
        +0   > . 501:1661(1160) ack 1
        +0   > P. 1661:1961(300) ack 1
        """
    )


def test_the_path_is_forgotten_after_ten_minutes_and_segments_grow_again(play: Play) -> None:
    """M-07, RFC 1191 6.3: net.ipv4.route.mtu_expires."""
    runner = play(
        OPEN
        + """
        +0   write 1460
        +0   > P. 1:1461(1460) ack 1
        +.01 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]
        +0   > . 1:1161(1160) ack 1
        +0   > P. 1161:1461(300) ack 1
        +.01 < . 1:1(0) ack 1461 win 30000
        +599 write 1460
        +0   > . 1461:2621(1160) ack 1
        +0   > P. 2621:2921(300) ack 1
        +.01 < . 1:1(0) ack 2921 win 30000
        +1   expect snd_mss=1460 pmtu=1500
        +0   write 1460
        +0   > P. 2921:4381(1460) ack 1
        """
    )
    assert not len(runner.stack.path_mtu)


def test_a_router_that_says_it_again_has_it_remembered_longer(play: Play) -> None:
    """M-07."""
    play(
        OPEN
        + """
        +0   write 1460
        +0   > P. 1:1461(1460) ack 1
        +0   < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]
        +0   > . 1:1161(1160) ack 1
        +0   > P. 1161:1461(300) ack 1
        +.01 < . 1:1(0) ack 1461 win 30000
        +500 write 1000
        +0   > P. 1461:2461(1000) ack 1
        +.01 < icmp unreachable frag_needed mtu 1200 [1461:2461(1000)]
        +.01 < . 1:1(0) ack 2461 win 30000
        +599 expect snd_mss=1160
        +1   expect snd_mss=1460
        """,
        tcp_slow_start_after_idle=False,
    )


def test_a_path_that_is_learned_while_connecting_counts(play: Play) -> None:
    """M-07: Linux takes it in every state but LISTEN and CLOSE."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < icmp unreachable frag_needed mtu 1000 [0:0(0)]
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1460>
        +0   > . 1:1(0) ack 1
        +0   expect snd_mss=960 pmtu=1000
    """)


def test_other_connections_to_the_place_learn_of_the_path(play: Play) -> None:
    """M-07: and what they have in flight is their own matter."""
    play("""
        0    listen 8080
        +0   < 40000>8080 S 0:0(0) win 30000 <mss 1460>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   a = accept
        +0   < 41000>8080 S 0:0(0) win 30000 <mss 1460>
        +0   > 8080>41000 S. 0:0(0) ack 1
        +.01 < 41000>8080 . 1:1(0) ack 1 win 30000
        +0   b = accept
        +0   write 1460
        +0   > P. 1:1461(1460) ack 1
        +0   a.write 1460
        +0   > P. 1:1461(1460) ack 1
        +0   < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]
        +0   > . 1:1161(1160) ack 1
        +0   > P. 1161:1461(300) ack 1
        +0   b.expect snd_mss=1160 pmtu=1200 lost=0
    """)


def test_the_mss_option_of_a_hostile_peer_is_bounded(play: Play) -> None:
    """M-06: tcp_min_snd_mss, options counted; TCP_MAXSEG is a bound of our own."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   expect snd_mss=48
    """)
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1,TS val 1 ecr 0>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000 <TS val 1 ecr 0>
        +0   accept
        +0   expect snd_mss=188
        """,
        tcp_min_snd_mss=200,
    )
    play("""
        0    listen 8080 maxseg=500
        +0   < S 0:0(0) win 30000 <mss 1460>
        +0   > S. 0:0(0) ack 1 <mss 500>
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   expect snd_mss=500
    """)
