"""Fast Open, the client's side: RFC 7413 4.2, with Linux's ways back where it fails. M-17."""

from __future__ import annotations

from random import Random

from engine.notation import Play

from tunstack.engine import NULL_SINK, Stack, StackConfig, Sysctl, pack_address
from tunstack.engine.fastopenclient import REMEMBERED_MAX, Cookies, may_carry, room
from tunstack.engine.fastopencookie import Cookie
from tunstack.engine.options import SocketOptions
from tunstack.wire.flow import pack_flow

# The first connection asks for the cookie and gets it, with an MSS of 1000.
ASK = """
    0    sysctl tcp_timestamps=0
    +0   connect 80 from 50000 fastopen_connect=True
    +0   > S 0:0(0) <mss 1460,nop,nop,sackOK,nop,wscale 7,raw 2202,nop,nop>
    +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000,nop,nop,sackOK,nop,wscale 3,raw 220401020304,nop,nop>
    +0   > . 1:1(0) ack 1
    +0   expect syn_data=False fastopen_client_fail=1
    +0   abort
    +0   > R. 1:1(0) ack 1
""".replace("220401020304", "220601020304")
SYN = "<mss 1460,nop,nop,sackOK,nop,wscale 7,raw 220601020304,nop,nop>"
BARE = "<mss 1460,nop,nop,sackOK,nop,wscale 7>"


def test_the_first_write_rides_on_the_syn_and_is_done_with_the_syn_ack(play: Play) -> None:
    """M-17: as much as the server's MSS less all options; the rest comes with the acknowledgement."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +1   state SYN_SENT
        +0   write 1500
        +0   > S 0:960(960) {SYN}
        +.01 < S. 0:0(0) ack 961 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > P. 961:1501(540) ack 1
        +0   established
        +0   expect syn_data=True fastopen_client_fail=0 unacked=540 retrans=0 srtt=10000 delivered=1
        +.01 < P. 1:501(500) ack 1501 win 8000
        +0   expect unacked=0 delivered=2
        +0   counter TCPFastOpenActive=1 TCPFastOpenActiveFail=0 TcpRetransSegs=0
    """
    )


def test_data_that_the_syn_ack_leaves_out_is_sent_again_at_once(play: Play) -> None:
    """M-17: a stale cookie. The new one is remembered."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 700
        +0   > S 0:700(700) {SYN}
        +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000,nop,nop,sackOK,raw 220605060708,nop,nop>
        +0   > P. 1:701(700) ack 1
        +0   expect syn_data=False fastopen_client_fail=2 cwnd=10000
        +.01 < . 1:1(0) ack 701 win 8000
        +0   expect unacked=0 retrans=0
        +0   counter TCPFastOpenActive=0 TCPFastOpenActiveFail=1 TcpRetransSegs=1
        +0   abort
        +0   > R. 701:701(0) ack 1
        +0   connect 80 from 50002 fastopen_connect=True
        +0   write 9
        +0   > S 0:9(9) <mss 1460,nop,nop,sackOK,nop,wscale 7,raw 220605060708,nop,nop>
    """
    )


def test_of_data_that_is_acknowledged_in_part_the_rest_is_sent_again(play: Play) -> None:
    """M-17."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 900
        +0   > S 0:900(900) {SYN}
        +.01 < S. 0:0(0) ack 301 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > P. 301:901(600) ack 1
        +.01 < . 1:1(0) ack 901 win 8000
        +0   expect syn_data=False unacked=0
    """
    )


def test_a_syn_that_is_sent_again_is_bare(play: Play) -> None:
    """M-17, M-25: the path may have eaten it for its option or its data."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 700
        +0   > S 0:700(700) {SYN}
        +1   > S 0:0(0) {BARE}
        +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > P. 1:701(700) ack 1
        +0   expect syn_data=False fastopen_client_fail=3
        +.01 < . 1:1(0) ack 701 win 8000
        +0   counter TCPFastOpenActiveFail=1 TCPFastOpenBlackhole=0
    """
    )


def test_an_answer_to_the_data_after_a_timeout_is_believed(play: Play) -> None:
    """M-17: the timeout was spurious."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 700
        +0   > S 0:700(700) {SYN}
        +1   > S 0:0(0) {BARE}
        +.01 < S. 0:0(0) ack 701 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > . 701:701(0) ack 1
        +0   expect syn_data=True unacked=0
    """
    )


def test_a_syn_with_data_that_is_too_large_for_the_path_goes_again_without(play: Play) -> None:
    """M-17, M-07."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 700
        +0   > S 0:700(700) {SYN}
        +.01 < icmp unreachable frag_needed mtu 600 [0:700(700)]
        +0   > S 0:0(0) <mss 560,nop,nop,sackOK,nop,wscale 7>
        +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > . 1:561(560) ack 1
        +0   > P. 561:701(140) ack 1
        +.01 < . 1:1(0) ack 701 win 8000
        +0   expect unacked=0
    """
    )


def test_an_answer_in_the_syn_ack_is_read(play: Play) -> None:
    """M-17: RFC 7413 4.2.2 lets a server do so."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 100
        +0   > S 0:100(100) {SYN}
        +.01 < S. 0:200(200) ack 101 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > . 101:101(0) ack 201
        +0   read 200
        +0   < P. 201:301(100) ack 101 win 1000
        +0   > . 101:101(0) ack 301
        +0   read 100
    """
    )


def test_a_server_without_fast_open_is_asked_by_the_other_option_and_then_no_more(play: Play) -> None:
    """M-17, RFC 6994: next time experimental, then RFC 7413's again, as Linux does it."""

    def attempt(port: int, option: str) -> str:
        return f"""
        +0   connect 80 from {port} fastopen_connect=True
        +0   > S 0:0(0) <mss 1460,nop,nop,sackOK,nop,wscale 7,raw {option}>
        +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000>
        +0   > . 1:1(0) ack 1
        """

    play(
        "0 sysctl tcp_timestamps=0\n"
        + attempt(50000, "2202,nop,nop")
        + attempt(50001, "fe04f989")
        + attempt(50002, "2202,nop,nop")
        + attempt(50003, "2202,nop,nop")
    )


def test_without_the_bit_nothing_is_asked(play: Play) -> None:
    """M-17: tcp_fastopen without bit 1."""
    play("0 connect 80 fastopen_connect=True\n+0 > S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>", tcp_fastopen=2)


def test_data_goes_without_a_cookie_where_none_is_needed(play: Play) -> None:
    """M-17: tcp_fastopen's bit 4, or TCP_FASTOPEN_NO_COOKIE."""
    script = f"0 connect 80 fastopen_connect=True {{}}\n+0 write 2000\n+0 > S 0:1420(1420) {BARE}"
    play(script.format(""), tcp_fastopen=5, tcp_timestamps=False)
    play(script.format("fastopen_no_cookie=True"), tcp_timestamps=False)


def test_a_connection_that_waits_for_a_write_may_be_closed_or_shut_down(play: Play) -> None:
    """M-17, M-50: closed it was never there; shut down it opens, for the peer to hear."""
    play(ASK + "+0 connect 80 from 50001 fastopen_connect=True\n+1 close\n+0 closed\n+0 gone")
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +1   shutdown
        +0   > S 0:0(0) {SYN}
        +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000>
        +0   > F. 1:1(0) ack 1
    """
    )


def test_simultaneous_open_with_data_in_the_syn_loses_none_of_it(play: Play) -> None:
    """M-17, M-21."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 100
        +0   > S 0:100(100) {SYN}
        +.01 < S 0:0(0) win 8000 <mss 1000,nop,nop,sackOK>
        +0   > S. 0:0(0) ack 1
        +.01 < S. 0:0(0) ack 1 win 8000 <mss 1000,nop,nop,sackOK>
        +0   > P. 1:101(100) ack 1
        +.01 < . 1:1(0) ack 101 win 8000
        +0   state ESTABLISHED
        +0   expect unacked=0
    """
    )


def test_data_that_acknowledges_our_syn_in_a_simultaneous_open_is_taken_at_its_place(play: Play) -> None:
    """M-17, M-21. Random world 302969: what lay beyond a hole was taken for the answer in a SYN-ACK."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 100
        +0   > S 0:100(100) {SYN}
        +.01 < S 0:0(0) win 8000 <mss 1000,nop,nop,sackOK>
        +0   > S. 0:0(0) ack 1
        +.01 < . 101:201(100) ack 101 win 8000
        +0   > . 101:101(0) ack 1 <nop,nop,sack 101:201>
        +.01 < P. 1:101(100) ack 101 win 8000
        +0   > . 101:101(0) ack 201
    """
    )


def test_three_timeouts_in_a_row_are_a_black_hole_and_the_pause_doubles(play: Play) -> None:
    """M-17: tcp_fastopen_blackhole_timeout_sec; data on a connection that opened fast after it ends the count."""
    lost = f"""
        +0   write 100
        +0   > S 0:100(100) {SYN}
        +1   > S 0:0(0) {BARE}
        +2   > S 0:0(0) {BARE}
        +4   > S 0:0(0) {BARE}
        +0   abort
    """
    play(
        ASK
        + "+0 connect 80 from 50001 fastopen_connect=True"
        + lost
        + f"""
        +0   counter TCPFastOpenBlackhole=1
        +9   connect 80 from 50002 fastopen_connect=True
        +0   > S 0:0(0) {BARE}
        +0   abort
        +2   connect 80 from 50003 fastopen_connect=True
        """
        + lost
        + f"""
        +0   counter TCPFastOpenBlackhole=2
        +19  connect 80 from 50004 fastopen_connect=True
        +0   > S 0:0(0) {BARE}
        +0   abort
        +2   connect 80 from 50005 fastopen_connect=True
        +0   write 100
        +0   > S 0:100(100) {SYN}
        +.01 < S. 0:0(0) ack 101 win 8000 <mss 1000>
        +0   > . 101:101(0) ack 1
        +0   < P. 1:101(100) ack 101 win 8000
        +0   > . 101:101(0) ack 101
        +0   read 100
        +0   abort
        +0   > R. 101:101(0) ack 101
        +0   connect 80 from 50006 fastopen_connect=True
        """
        + lost
        + f"""
        +11  connect 80 from 50007 fastopen_connect=True
        +0   write 100
        +0   > S 0:100(100) {SYN}
    """,
        tcp_fastopen_blackhole_timeout_sec=10,
    )


def test_a_fin_beyond_a_hole_and_no_data_ever_is_a_black_hole_too(play: Play) -> None:
    """M-17: a box on the path that swallows what follows a SYN with data, as Linux sees it."""
    play(
        ASK
        + f"""
        +0   connect 80 from 50001 fastopen_connect=True
        +0   write 100
        +0   > S 0:100(100) {SYN}
        +.01 < S. 0:0(0) ack 101 win 8000 <mss 1000>
        +0   > . 101:101(0) ack 1
        +0   < F. 301:301(0) ack 101 win 8000
        +0   > . 101:101(0) ack 1
        +0   abort
        +0   > R. 101:101(0) ack 1
        +0   counter TCPFastOpenBlackhole=1
    """,
        tcp_fastopen_blackhole_timeout_sec=10,
    )


def test_connect_with_data_asks_for_the_cookie_and_sends_the_data_behind_the_handshake() -> None:
    """M-17: MSG_FASTOPEN without a cookie; SYN and data are two packets, and neither is lost."""
    us, them = pack_address("10.0.0.1"), pack_address("10.0.0.2")
    stack = Stack(StackConfig((us,)), Random(1), bytes(16))
    conn = stack.connect(them, 80, NULL_SINK, 1, data=b"hello")
    syn = stack.poll_transmit(1)
    assert syn is not None and not isinstance(syn, bytes)
    assert syn.length == 0 and syn.options == b"\x22\x02\x01\x01" and conn.unsent == 5
    assert stack.poll_transmit(1) is None


def test_the_cookies_of_the_destinations_used_last_are_kept() -> None:
    """M-17: what is remembered is bounded."""
    counters = Stack(StackConfig((bytes(4),)), Random(1), bytes(16)).counters
    cookies = Cookies(Sysctl(), counters)

    def flow(number: int) -> bytes:
        return pack_flow(bytes(4), 1, number.to_bytes(4, "big"), 80)

    for number in range(REMEMBERED_MAX):
        cookies.remember(flow(number), 1000, Cookie(b"1234", False), 0)
    assert cookies.find(flow(0)) is not None
    cookies.remember(flow(REMEMBERED_MAX), 1000, Cookie(b"1234", False), 0)
    assert cookies.find(flow(0)) is not None and cookies.find(flow(1)) is None and cookies.find(flow(2)) is not None


def test_the_room_in_a_syn_is_the_least_of_path_server_and_option() -> None:
    """M-17: less forty octets for options, whichever there are."""
    us, them = pack_address("10.0.0.1"), pack_address("10.0.0.2")
    stack = Stack(StackConfig((us,)), Random(1), bytes(16))
    flow = pack_flow(us, 1, them, 80)
    options = SocketOptions()
    assert not may_carry(stack, flow, options, 0) and room(stack, flow, options, 0) == 0
    stack.fastopen_cookies.remember(flow, 9000, Cookie(b"1234", False), 0)
    assert room(stack, flow, options, 0) == 1420
    stack.fastopen_cookies.remember(flow, 900, None, 0)
    assert room(stack, flow, options, 0) == 860
    options = options.having("maxseg", 500)
    assert room(stack, flow, options, 0) == 460
