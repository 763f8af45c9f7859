"""Fast Open, the server's side: RFC 7413 4.2, with Linux's cookies, limits and bits. M-17."""

from __future__ import annotations

from engine.notation import Play

KEY = "1-2-3-4"
COOKIE = "701a53b5350cd8f3"  # of the script's peer, 198.51.100.1, at 192.0.2.1, under KEY
OLD_COOKIE = "2a80751739138beb"  # under 5-6-7-8
SERVER = {"tcp_fastopen": 2, "tcp_fastopen_key": KEY}
ALL = {"tcp_fastopen": 0x402, "tcp_fastopen_key": KEY}


def test_a_cookie_that_is_asked_for_is_given_and_opens_the_next_connection_with_its_data(play: Play) -> None:
    """M-17: the second connection is accepted, read and answered before the handshake's third segment."""
    play(
        f"""
        0    listen 8080 fastopen=5
        +0   < 40000>8080 S 0:0(0) win 1000 <mss 1000,raw 2202>
        +0   > 8080>40000 S. 0:0(0) ack 1 <mss 1460,raw 220a{COOKIE},nop,nop>
        +0   < 40000>8080 . 1:1(0) ack 1 win 1000
        +0   counter TCPFastOpenCookieReqd=1 TCPFastOpenPassive=0
        +0   accept
        +0   abort
        +0   > 8080>40000 R. 1:1(0) ack 1
        +0   < 40001>8080 S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > 8080>40001 S. 0:0(0) ack 101 <mss 1460>
        +0   accept
        +0   state SYN_RECEIVED
        +0   read 100
        +0   write 300
        +0   > P. 1:301(300) ack 101
        +.02 < . 101:101(0) ack 301 win 1000
        +0   state ESTABLISHED
        +0   expect syn_data=True unacked=0 srtt=20000
        +0   counter TCPFastOpenPassive=1 TCPFastOpenPassiveFail=0 TcpPassiveOpens=2
        +0   < P. 101:201(100) ack 301 win 1000
        +0   > . 301:301(0) ack 201
        +0   read 100
    """,
        **SERVER,
    )


def test_the_experimental_option_is_answered_in_kind(play: Play) -> None:
    """M-17, RFC 6994: 254 with the number F989."""
    play(
        f"""
        0    listen 8080 fastopen=5
        +0   < S 0:0(0) win 1000 <mss 1000,raw fe04f989>
        +0   > S. 0:0(0) ack 1 <mss 1460,raw fe0cf989{COOKIE}>
        +0   < 40001>8080 S 0:9(9) win 1000 <mss 1000,raw fe0cf989{COOKIE}>
        +0   > 8080>40001 S. 0:0(0) ack 10 <mss 1460>
    """,
        **SERVER,
    )


def test_a_wrong_cookie_is_replaced_and_the_data_is_not_taken(play: Play) -> None:
    """M-17: also one that is right for another address."""
    play(
        f"""
        0    listen 8080 fastopen=5
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a0123456789abcdef>
        +0   > S. 0:0(0) ack 1 <mss 1460,raw 220a{COOKIE},nop,nop>
        +0   accept EAGAIN
        +0   counter TCPFastOpenPassiveFail=1
        +1   > S. 0:0(0) ack 1 <mss 1460>  # the cookie is told once
        +0   < P. 1:101(100) ack 1 win 1000
        +0   > . 1:1(0) ack 101
        +0   accept
        +0   expect syn_data=False
    """,
        **SERVER,
    )


def test_a_cookie_of_the_second_key_opens_and_is_replaced(play: Play) -> None:
    """M-17: keys are changed without a moment in which no cookie is right."""
    play(
        f"""
        0    listen 8080 fastopen=5
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{OLD_COOKIE}>
        +0   > S. 0:0(0) ack 101 <mss 1460,raw 220a{COOKIE},nop,nop>
        +0   counter TCPFastOpenPassive=1 TCPFastOpenPassiveAltKey=1
        +0   accept
        +0   read 100
    """,
        tcp_fastopen=2,
        tcp_fastopen_key=f"{KEY},5-6-7-8",
    )


def test_without_the_bit_or_the_option_data_in_a_syn_is_not_taken(play: Play) -> None:
    """M-17: tcp_fastopen has bit 2, and the listener TCP_FASTOPEN, or nothing is done."""
    syn = f"< S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>"
    for options, knob in (("", 2), ("fastopen=5", 1), ("fastopen=5", 0x401)):
        script = f"0 listen 8080 {options}\n+0 {syn}\n+0 > S. 0:0(0) ack 1 <mss 1460>\n+0 accept EAGAIN"
        play(script, tcp_fastopen=knob, tcp_fastopen_key=KEY)


def test_bits_make_every_listener_open_fast_and_without_cookies(play: Play) -> None:
    """M-17: 0x400 stands for TCP_FASTOPEN, 0x200 for the cookie."""
    play(f"0 listen 8080\n+0 < S 0:9(9) win 1000 <mss 1000,raw 220a{COOKIE}>\n+0 > S. 0:0(0) ack 10\n+0 accept\n+0 read 9", **ALL)
    play("0 listen 8080 fastopen=1\n+0 < S 0:9(9) win 1000 <mss 1000>\n+0 > S. 0:0(0) ack 10\n+0 accept\n+0 read 9", tcp_fastopen=0x202)
    play("0 listen 8080\n+0 < S 0:9(9) win 1000 <mss 1000>\n+0 > S. 0:0(0) ack 1\n+0 accept EAGAIN", **ALL)


def test_the_syn_ack_is_sent_again_and_nothing_else_until_it_is_acknowledged(play: Play) -> None:
    """M-17, M-23: also when the peer's SYN, without its data, comes again."""
    play(
        f"""
        0    listen 8080 fastopen=5
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
        +0   accept
        +0   write 200
        +0   > P. 1:201(200) ack 101
        +1   > S. 0:0(0) ack 101
        +.5  < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 101
        +.1  < S 0:0(0) win 1000 <mss 1000>  # too soon after the other for an answer
        +0   counter TCPACKSkippedSynRecv=1
        +0   < . 101:101(0) ack 1 win 1000
        +0   state ESTABLISHED
        +0   expect unacked=200
        +1~+4 > P. 1:201(200) ack 101
        +0   < . 101:101(0) ack 201 win 1000
    """,
        **SERVER,
    )


def test_an_unanswered_syn_ack_ends_the_connection(play: Play) -> None:
    """M-17, M-23: tcp_synack_retries and one more; the application hears of it."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
        +0   accept
        +0   read 100
        +1   > S. 0:0(0) ack 101
        +2   > S. 0:0(0) ack 101
        +4   > S. 0:0(0) ack 101
        +8   closed ETIMEDOUT
        +0   gone
    """,
        tcp_synack_retries=2,
        **SERVER,
    )


def test_an_ack_of_what_was_never_sent_is_reset_and_changes_nothing(play: Play) -> None:
    """M-17, M-59."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
        +0   < . 101:101(0) ack 77 win 1000
        +0   > R 77:77(0)
        +0   accept
        +0   state SYN_RECEIVED
        +0   < . 101:101(0) ack 1 win 1000
        +0   state ESTABLISHED
    """,
        **SERVER,
    )


def test_a_reset_before_accept_leaves_the_data_of_the_syn(play: Play) -> None:
    """M-17: then the error."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
        +0   < R 150:150(0) win 0  # in the window is not enough
        +0   > . 1:1(0) ack 101
        +0   < R 101:101(0) win 0
        +0   accept
        +0   read 100
        +0   closed ECONNRESET
        +0   gone
    """,
        **SERVER,
    )


def test_a_closed_listener_resets_who_waits(play: Play) -> None:
    """M-17."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
        +0   close
        +0   > R. 1:1(0) ack 101
        +0   gone
    """,
        **SERVER,
    )


def test_icmp_ends_a_connection_that_nobody_has_accepted_and_no_other(play: Play) -> None:
    """M-17, M-08: as in Linux."""
    begin = f"""
        0    listen 8080 fastopen=1
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
    """
    play(begin + "+0 accept\n+0 < icmp unreachable host_unreachable [0:1(1)]\n+0 state SYN_RECEIVED", **SERVER)


def test_places_are_limited_and_a_reset_holds_one_for_a_minute(play: Play) -> None:
    """M-17, RFC 7413 5.1: TCP_FASTOPEN counts handshakes that are not complete."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < 40000>8080 S 0:9(9) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > 8080>40000 S. 0:0(0) ack 10
        +0   accept
        +0   < 40001>8080 S 0:9(9) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > 8080>40001 S. 0:0(0) ack 1 <mss 1460>
        +0   counter TCPFastOpenListenOverflow=1
        +0   < 40001>8080 R 1:1(0) win 0
        +0   < 40000>8080 R 10:10(0) win 0
        +59  < 40002>8080 S 0:9(9) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > 8080>40002 S. 0:0(0) ack 1
        +0   < 40002>8080 R 1:1(0) win 0
        +2   < 40003>8080 S 0:9(9) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > 8080>40003 S. 0:0(0) ack 10
        +0   < 40003>8080 . 10:10(0) ack 1 win 1000
        +0   < 40004>8080 S 0:9(9) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > 8080>40004 S. 0:0(0) ack 10
    """,
        **SERVER,
    )


def test_close_before_the_third_segment_sends_a_fin(play: Play) -> None:
    """M-17, M-50."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < S 0:100(100) win 1000 <mss 1000,raw 220a{COOKIE}>
        +0   > S. 0:0(0) ack 101
        +0   accept
        +0   read 100
        +0   write 50
        +0   > P. 1:51(50) ack 101
        +0   close
        +0   > F. 51:51(0) ack 101
        +0   < . 101:101(0) ack 52 win 1000
        +0   state FIN_WAIT_2
        +0   < F. 101:101(0) ack 52 win 1000
        +0   > . 52:52(0) ack 102
    """,
        **SERVER,
    )


def test_options_ecn_and_windows_are_agreed_as_for_any_syn(play: Play) -> None:
    """M-17, M-10, M-11, M-18: the window behind the SYN-ACK is scaled, that of the SYN is not."""
    play(
        f"""
        0    listen 8080 fastopen=1
        +0   < SEW 0:100(100) win 4000 <mss 1000,sackOK,TS val 7 ecr 0,wscale 3,raw 220a{COOKIE},nop,nop>
        +0   > SE. 0:0(0) ack 101 win 65160 <mss 1460,sackOK,TS val 100 ecr 7,nop,wscale 7>
        +0   accept
        +0   write 2000
        +0   > . 1:989(988) ack 101 <nop,nop,TS val 100 ecr 7>
        +0   > . 989:1977(988) ack 101
        +0   > P. 1977:2001(24) ack 101
        +.01 < . 101:101(0) ack 2001 win 1000 <nop,nop,TS val 8 ecr 100>
        +0   expect snd_wnd=8000 ecn=True timestamps=True sack=True
    """,
        **SERVER,
    )
