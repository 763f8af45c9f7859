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
        +.01 < icmp unreachable host [0:0(0)]
        +0   gone
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
