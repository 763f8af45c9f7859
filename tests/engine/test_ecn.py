"""Explicit Congestion Notification, RFC 3168, as Linux has it."""

from __future__ import annotations

import pytest
from engine.notation import Play

# We are asked, and agree; we ask, and the peer agrees. The peer's MSS is 1000 octets.
ASKED = """
    0    listen 8080
    +0   < SEW 0:0(0) win 60000 <mss 1000>
    +0   > [noecn] SE. 0:0(0) ack 1
    +.01 < . 1:1(0) ack 1 win 60000
    +0   accept
"""
ASKING = """
    0    connect 8080
    +0   > [noecn] SEW 0:0(0)
    +.01 < SE. 0:0(0) ack 1 win 60000 <mss 1000>
    +0   > [noecn] . 1:1(0) ack 1
    +0   established
"""


# Who asks, who agrees (RFC 3168 6.1.1).


@pytest.mark.parametrize("mode", [1, 2])
def test_who_is_asked_agrees(play: Play, mode: int) -> None:
    """M-18: data is ECT(0) from then on."""
    play(ASKED + "+0 write 10\n+0 > [ect0] P. 1:11(10) ack 1", tcp_ecn=mode)


def test_who_is_asked_does_not_agree_with_tcp_ecn_0(play: Play) -> None:
    """M-18."""
    play(
        """
        0    listen 8080
        +0   < SEW 0:0(0) win 60000 <mss 1000>
        +0   > [noecn] S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 60000
        +0   accept
        +0   write 10
        +0   > [noecn] P. 1:11(10) ack 1
        """,
        tcp_ecn=0,
    )


@pytest.mark.parametrize("syn", ["S", "SE", "SW"])
def test_half_a_question_is_none(play: Play, syn: str) -> None:
    """M-18, RFC 3168 6.1.1: an ECN-setup SYN has both flags."""
    play(
        f"""
        0    listen 8080
        +0   < {syn} 0:0(0) win 60000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 60000
        +0   accept
        +0   write 10
        +0   > [noecn] P. 1:11(10) ack 1
        """
    )


@pytest.mark.parametrize("mark", ["ect0", "ect1", "ce"])
def test_a_syn_that_is_ect_gets_no_ecn(play: Play, mark: str) -> None:
    """M-18: RFC 3168 6.1.1 forbids it, so somebody on the way changes the field, and its marks mean nothing (Linux)."""
    play(f"0 listen 8080\n+0 < [{mark}] SEW 0:0(0) win 60000 <mss 1000>\n+0 > S. 0:0(0) ack 1")


@pytest.mark.parametrize("mark", ["noecn", "ect0"])
def test_accurate_ecn_is_answered_with_the_ecn_that_there_is(play: Play, mark: str) -> None:
    """M-18, RFC 9768 3.1.2: AE, CWR and ECE in the SYN, ECE alone in the answer: the peer falls back to RFC 3168."""
    play(
        f"""
        0    listen 8080
        +0   < [{mark}] SEWA 0:0(0) win 60000 <mss 1000>
        +0   > [noecn] SE. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 60000
        +0   accept
        +0   < [ce] P. 1:11(10) ack 1 win 60000
        +0   > [noecn] E. 1:1(0) ack 11
        +0   read 10
        """
    )


def test_accurate_ecn_is_refused_with_tcp_ecn_0(play: Play) -> None:
    """M-18."""
    play("0 listen 8080\n+0 < SEWA 0:0(0) win 60000 <mss 1000>\n+0 > S. 0:0(0) ack 1", tcp_ecn=0)


def test_who_asks_is_agreed_with(play: Play) -> None:
    """M-18."""
    play(ASKING + "+0 write 10\n+0 > [ect0] P. 1:11(10) ack 1", tcp_ecn=1)


@pytest.mark.parametrize("mode", [0, 2])
def test_nobody_asks_without_being_told_to(play: Play, mode: int) -> None:
    """M-18: Linux's default, 2, is to agree only. What was not asked is not agreed with either."""
    play(
        """
        0    connect 8080
        +0   > [noecn] S 0:0(0)
        +.01 < SE. 0:0(0) ack 1 win 60000 <mss 1000>
        +0   > . 1:1(0) ack 1
        +0   established
        +0   write 10
        +0   > [noecn] P. 1:11(10) ack 1
        """,
        tcp_ecn=mode,
    )


@pytest.mark.parametrize("answer", ["S.", "SEW.", "SW."])
def test_an_answer_that_does_not_agree(play: Play, answer: str) -> None:
    """M-18, RFC 3168 6.1.1.1: nothing, or both flags sent back by a peer that does not know them."""
    play(
        f"""
        0    connect 8080
        +0   > SEW 0:0(0)
        +.01 < {answer} 0:0(0) ack 1 win 60000 <mss 1000>
        +0   > [noecn] . 1:1(0) ack 1
        +0   established
        +0   write 10
        +0   > [noecn] P. 1:11(10) ack 1
        +.01 < [ce] P. 1:11(10) ack 11 win 60000
        +0   > . 11:11(0) ack 11
        +0   read 10
        """,
        tcp_ecn=1,
    )


def test_a_syn_that_is_sent_again_asks_no_more(play: Play) -> None:
    """M-18, RFC 3168 6.1.1.1: it may have been dropped for its flags. The answer to the first one counts all the same, as in Linux."""
    play(
        """
        0    connect 8080
        +0   > SEW 0:0(0)
        +1   > S 0:0(0)
        +2   > S 0:0(0)
        +.01 < SE. 0:0(0) ack 1 win 60000 <mss 1000>
        +0   > . 1:1(0) ack 1
        +0   established
        +0   write 10
        +0   > [ect0] P. 1:11(10) ack 1
        """,
        tcp_ecn=1,
    )


def test_without_the_fallback_it_asks_on(play: Play) -> None:
    """M-18: tcp_ecn_fallback = 0."""
    play("0 connect 8080\n+0 > SEW 0:0(0)\n+1 > SEW 0:0(0)\n+2 > SEW 0:0(0)", tcp_ecn=1, tcp_ecn_fallback=False)


def test_a_syn_ack_that_is_sent_again_agrees_again(play: Play) -> None:
    """M-18, M-23: the half-open connection remembers."""
    play(
        """
        0    listen 8080
        +0   < SEW 0:0(0) win 60000 <mss 1000>
        +0   > SE. 0:0(0) ack 1
        +1   > SE. 0:0(0) ack 1
        +.5  < S 0:0(0) win 60000 <mss 1000>
        +0   > SE. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 60000
        +0   accept
        +0   write 10
        +0   > [ect0] P. 1:11(10) ack 1
        """
    )


@pytest.mark.parametrize(("theirs", "ours", "mark"), [("SEW", "SE.", "ect0"), ("S", "S.", "noecn")])
def test_two_that_ask_at_once_agree(play: Play, theirs: str, ours: str, mark: str) -> None:
    """M-18, M-21: in a simultaneous open each SYN is both question and answer."""
    play(
        f"""
        0    connect 8080
        +0   > SEW 0:0(0)
        +.01 < {theirs} 0:0(0) win 60000 <mss 1000>
        +0   > [noecn] {ours} 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 60000
        +0   established
        +0   write 10
        +0   > [{mark}] P. 1:11(10) ack 1
        """,
        tcp_ecn=1,
    )


# What is marked (RFC 3168 6.1.2 to 6.1.6).


def test_only_new_data_is_ect(play: Play) -> None:
    """M-18: no pure ACK, nothing that is sent again, no window probe, no keepalive, no FIN by itself, no RST."""
    play(
        ASKED
        + """
        +0   setsockopt nodelay 1
        +0   < P. 1:11(10) ack 1 win 60000
        +0   > [noecn] . 1:1(0) ack 11
        +0   read 10
        +0   write 100
        +0   > [ect0] P. 1:101(100) ack 11
        +.1~+.5  > [noecn] P. 1:101(100) ack 11
        +.01 < . 11:11(0) ack 101 win 0
        +0   write 5
        +.1~+.5  > [noecn] . 100:100(0) ack 11
        +.01 < . 11:11(0) ack 101 win 60000
        +0   > [ect0] PW. 101:106(5) ack 11
        +.01 < . 11:11(0) ack 106 win 60000
        +0   shutdown
        +0   > [noecn] F. 106:106(0) ack 11
        +.01 < . 11:11(0) ack 107 win 60000
        +0   abort
        +0   > [noecn] R. 107:107(0) ack 11
        """
    )


def test_the_dscp_stays_beside_the_codepoint() -> None:
    """M-18: IP_TOS sets the upper six bits; the lower two are TCP's own, whatever is asked for (Linux)."""
    from tunstack.engine.options import SocketOptions, check_option, check_options
    from tunstack.sim.script import Runner

    sent = []
    for options in (SocketOptions(tos=0xBB), None):
        runner = Runner(ASKED + ("" if options else "+0 setsockopt tos 187\n"))
        runner.run()
        conn = next(iter(runner.stack.connections))
        if options:
            conn.options = check_options(options, runner.stack.algorithms)
        conn.send(b"x", runner.now)
        segment = conn.poll_transmit(runner.now, 65536)
        assert segment is not None
        sent.append(segment.tos)
        assert conn.options.tos == 0xB8
    assert sent == [0xBA, 0xBA]
    assert check_option("tos", 3) == 0


# What is echoed (RFC 3168 6.1.3).


def test_a_mark_is_echoed_until_the_peer_answers(play: Play) -> None:
    """M-18: on every ACK, pure or with data, retransmitted or not; one CWR ends it, and a new mark begins anew."""
    play(
        ASKED
        + """
        +0   setsockopt nodelay 1
        +0   < [ect0] P. 1:11(10) ack 1 win 60000
        +0   > [noecn] . 1:1(0) ack 11
        +0   < [ce] P. 11:21(10) ack 1 win 60000
        +0   > [noecn] E. 1:1(0) ack 21
        +0   < [ect0] P. 21:31(10) ack 1 win 60000
        +0   > [noecn] E. 1:1(0) ack 31
        +0   read 30
        +0   write 10
        +0   > [ect0] PE. 1:11(10) ack 31
        +.1~+.5  > [noecn] PE. 1:11(10) ack 31
        +.01 < . 31:31(0) ack 11 win 60000
        +0   < [ect0] PW. 31:41(10) ack 11 win 60000
        +0   > [noecn] . 11:11(0) ack 41
        +0   < [ce] P. 41:51(10) ack 11 win 60000
        +0   > [noecn] E. 11:11(0) ack 51
        +0   < [ce] PW. 51:61(10) ack 11 win 60000
        +0   > [noecn] E. 11:11(0) ack 61
        +0   read 30
        """
    )


def test_a_mark_on_data_out_of_order_is_echoed(play: Play) -> None:
    """M-18, M-40: at once, on the one duplicate ACK that it draws."""
    play(
        ASKED
        + """
        +0   < [ce] . 1001:2001(1000) ack 1 win 60000
        +0   > E. 1:1(0) ack 1
        +0   < [ect0] . 1:1001(1000) ack 1 win 60000
        +0   > E. 1:1(0) ack 2001
        +0   read 2000
        """
    )


def test_a_mark_on_what_is_not_data_says_nothing(play: Play) -> None:
    """M-18, RFC 3168 6.1.4: an ACK cannot be ECT, so nobody can mark it."""
    play(
        ASKED
        + """
        +0   < [ce] . 1:1(0) ack 1 win 60000
        +0   < [ect0] P. 1:11(10) ack 1 win 60000
        +0   > . 1:1(0) ack 11
        +0   read 10
        """
    )


def test_cwr_on_a_pure_ack_counts(play: Play) -> None:
    """M-18: against RFC 3168, but Linux takes it so; a peer that sends it there would else hear ECE for ever."""
    play(
        ASKED
        + """
        +0   < [ce] P. 1:11(10) ack 1 win 60000
        +0   > E. 1:1(0) ack 11
        +0   < W. 11:11(0) ack 1 win 60000
        +0   < [ect0] P. 11:21(10) ack 1 win 60000
        +0   > . 1:1(0) ack 21
        +0   read 20
        """
    )


LATE = """
    +0   < [ect0] . 1:1001(1000) ack 1 win 60000
    +0   > . 1:1(0) ack 1001
    +0   setsockopt quickack 0
    +1   < [ect0] P. 1001:1011(10) ack 1 win 60000
    +.04~+.2 > . 1:1(0) ack 1011
    +0   read 1010
"""


@pytest.mark.parametrize(("arriving", "leaving"), [("[ce] P.", "E."), ("[ect0] PW.", "."), ("[noecn] P.", ".")])
def test_signs_of_congestion_are_acknowledged_at_once(play: Play, arriving: str, leaving: str) -> None:
    """M-18, M-33: a mark, its answer, or data sent again: the peer's window may be a single segment, and it waits for our ACK (Linux)."""
    play(
        ASKED
        + LATE
        + f"+.02 setsockopt quickack 0\n+0 < {arriving} 1011:1021(10) ack 1 win 60000\n+0 > {leaving} 1:1(0) ack 1021\n+0 read 10"
    )


def test_without_a_sign_the_ack_waits(play: Play) -> None:
    """M-33: the same with data that is ECT, which says that the test above sees what it means to see."""
    play(
        ASKED + LATE + "+.02 setsockopt quickack 0\n+0 < [ect0] P. 1011:1021(10) ack 1 win 60000\n+.02~+.2 > . 1:1(0) ack 1021\n+0 read 10"
    )


def test_after_a_mark_two_acks_leave_at_once_and_a_second_mark_hurries_nobody(play: Play) -> None:
    """M-18, M-33: quick ACKs for two segments (Linux); while the echo lasts, a further mark is no news."""
    young = "".join(  # a new connection acknowledges its first 16 segments at once
        f"+0 < [ect0] P. {seq}:{seq + 10}(10) ack 1 win 60000\n+0 > . 1:1(0) ack {seq + 10}\n" for seq in range(1, 161, 10)
    )
    play(
        ASKED
        + young
        + """
        +.02 < [ect0] P. 161:171(10) ack 1 win 60000
        +.02~+.2 > . 1:1(0) ack 171
        +.02 < [ce] P. 171:181(10) ack 1 win 60000
        +0   > E. 1:1(0) ack 181
        +.02 < [ect0] P. 181:191(10) ack 1 win 60000
        +0   > E. 1:1(0) ack 191
        +.02 < [ce] P. 191:201(10) ack 1 win 60000
        +.02~+.2 > E. 1:1(0) ack 201
        +0   read 200
        """
    )


# What an echo does (RFC 3168 6.1.2).


def test_an_echo_lowers_the_window_once_a_window(play: Play) -> None:
    """M-18, M-38: CWR on the next new data and on that alone; ECE on the other ACKs of the window changes nothing."""
    writes = "".join(f"+0 write 1000\n+0 > [ect0] P. {seq}:{seq + 1000}(1000) ack 1\n" for seq in range(1, 10_001, 1000))
    play(
        ASKED
        + "+0 setsockopt nodelay 1\n"
        + writes
        + """
        +.01 < E. 1:1(0) ack 9001 win 60000
        +0   expect ssthresh=5000
        +0   write 1000
        +0   > [ect0] PW. 10001:11001(1000) ack 1
        +0   write 1000
        +0   > [ect0] P. 11001:12001(1000) ack 1
        +.01 < E. 1:1(0) ack 9501 win 60000
        +0   expect ssthresh=5000
        +0   write 1000
        +0   > [ect0] P. 12001:13001(1000) ack 1
        +.01 < . 1:1(0) ack 12001 win 60000
        +.01 < . 1:1(0) ack 13001 win 60000
        +0   write 1000
        +0   > [ect0] P. 13001:14001(1000) ack 1
        +.01 < E. 1:1(0) ack 14001 win 60000
        +0   write 1000
        +0   > [ect0] PW. 14001:15001(1000) ack 1
        +0   counter TCPDeliveredCE=11 TcpRetransSegs=0
        """,
        tcp_congestion_control="reno",
    )


def test_an_echo_while_nothing_is_in_flight_says_nothing(play: Play) -> None:
    """M-18: what it would be about was acknowledged before, and answered then (Linux)."""
    play(
        ASKED
        + """
        +0   < E. 1:1(0) ack 1 win 60000
        +0   write 10
        +0   > [ect0] P. 1:11(10) ack 1
        +0   counter TCPDeliveredCE=0
        """
    )
    play(
        ASKED.replace("mss 1000", "mss 1000,nop,nop,sackOK")
        + """
        +0   write 10
        +0   > [ect0] P. 1:11(10) ack 1
        +.01 < . 1:1(0) ack 11 win 60000
        +0   < E. 1:1(0) ack 11 win 60000 <nop,nop,sack 1:11>
        +0   write 10
        +0   > [ect0] P. 11:21(10) ack 1
        """
    )


def test_cwr_is_on_the_first_packet_of_a_run_alone(play: Play) -> None:
    """M-18: the run leaves as one segment, and is cut below."""
    writes = "".join(f"+0 write 1000\n+0 > [ect0] P. {seq}:{seq + 1000}(1000) ack 1\n" for seq in range(1, 6_001, 1000))
    play(
        ASKED
        + "+0 setsockopt nodelay 1\n"
        + writes
        + """
        +.01 < E. 1:1(0) ack 5001 win 60000
        +.01 < . 1:1(0) ack 6001 win 60000
        +0   write 2000
        +0   > [ect0] W. 6001:7001(1000) ack 1
        +0   > [ect0] P. 7001:8001(1000) ack 1
        """
    )


def test_a_loss_is_told_by_cwr_too(play: Play) -> None:
    """M-18, RFC 3168 6.1.2: whatever the reason for which the window fell. What is sent again does not bear it."""
    play(
        ASKED
        + """
        +0   setsockopt nodelay 1
        +0   write 1000
        +0   > [ect0] P. 1:1001(1000) ack 1
        +.1~+.5  > [noecn] P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 60000
        +0   write 1000
        +0   > [ect0] PW. 1001:2001(1000) ack 1
        """
    )


def test_an_echo_nobody_agreed_on_is_no_echo(play: Play) -> None:
    """M-18: without ECN the flags mean nothing."""
    runner = play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 60000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 60000
        +0   accept
        +0   setsockopt nodelay 1
        +0   write 1000
        +0   > [noecn] P. 1:1001(1000) ack 1
        +.01 < E. 1:1(0) ack 1001 win 60000
        +0   write 1000
        +0   > [noecn] P. 1001:2001(1000) ack 1
        +0   < E. 1:1(0) ack 1001 win 60000
        +.01 < [ce] PW. 1:11(10) ack 2001 win 60000
        +0   > . 2001:2001(0) ack 11
        +0   read 10
        +0   counter TCPDeliveredCE=0 IpExtInCEPkts=1 IpExtInNoECTPkts=4
        """
    )
    (conn,) = runner.stack.connections
    assert conn.info().cwnd == 10_000 and conn.info().ssthresh == 0x7FFFFFFF
    assert not conn.info().ecn and not conn.info().ecn_seen
