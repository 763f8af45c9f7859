"""Protection against wrapped sequence numbers, RFC 7323 5, as Linux 6.18 has it (measured).

The notation's own five ways put the sequence numbers' wrap into these scripts; timestamps wrap where a test says so.
"""

from __future__ import annotations

import pytest
from engine.notation import WAYS, Play

from tunstack.sim.script import Runner

OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 1000 ecr 0>
    +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1000>
    +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 1010 ecr 100>
    +0   accept
    +0   < P. 1:11(10) ack 1 win 30000 <nop,nop,TS val 1020 ecr 100>
    +0   > . 1:1(0) ack 11 <nop,nop,TS val 110 ecr 1020>
    +0   read 10
"""
DUPLICATE = "+0 > . 1:1(0) ack 11 <nop,nop,TS val * ecr 1020>\n"


# On an established connection.


@pytest.mark.parametrize("flags", [".", "P.", "F.", "FP."])
def test_old_data_is_dropped_and_acknowledged(play: Play, flags: str) -> None:
    """M-12: what would be in order, and to which nothing but its timestamp objects. A FIN does not get through either."""
    play(
        OPEN
        + f"+.01 < {flags} 11:21(10) ack 1 win 30000 <nop,nop,TS val 1018 ecr 100>\n"
        + DUPLICATE
        + """
        +0   counter PAWSEstab=1
        +0   state ESTABLISHED
        +.01 < P. 11:21(10) ack 1 win 30000 <nop,nop,TS val 1030 ecr 100>
        +0   > . 1:1(0) ack 21 <nop,nop,TS val * ecr 1030>
        +0   read 10
        """
    )


def test_a_bare_fin_is_dropped_too(play: Play) -> None:
    """M-12."""
    play(OPEN + "+.01 < F. 11:11(0) ack 1 win 30000 <nop,nop,TS val 1018 ecr 100>\n" + DUPLICATE + "+0 state ESTABLISHED")


def test_one_tick_behind_is_not_old(play: Play) -> None:
    """M-12: the clocks of a peer with several processors may differ by so much (Linux). TS.Recent does not go back for it."""
    play(
        OPEN
        + """
        +.01 < P. 11:21(10) ack 1 win 30000 <nop,nop,TS val 1019 ecr 100>
        +0   > . 1:1(0) ack 21 <nop,nop,TS val * ecr 1020>
        +0   read 10
        +0   counter PAWSEstab=0
        """
    )


def test_an_old_duplicate_from_before_the_wrap_is_not_taken_for_new(play: Play) -> None:
    """M-12, RFC 7323 5.1: the sequence number is in the window again, four gigabytes later; only the timestamp tells."""
    play(
        OPEN
        + """
        +1000 < P. 11:21(10) ack 1 win 30000 <nop,nop,TS val 1001020 ecr 100>
        +0   > . 1:1(0) ack 21 <nop,nop,TS val * ecr 1001020>
        +0   read 10
        +.01 < P. 21:31(10) ack 1 win 30000 <nop,nop,TS val 1020 ecr 100>
        +0   > . 1:1(0) ack 21 <nop,nop,TS val * ecr 1001020>
        +.01 < P. 521:531(10) ack 1 win 30000 <nop,nop,TS val 1021 ecr 100>
        +0   > . 1:1(0) ack 21 <nop,nop,TS val * ecr 1001020>
        +0   counter PAWSEstab=2 TCPOFOQueue=0
        """
    )


def test_a_duplicate_that_differs_by_its_timestamp_alone(play: Play) -> None:
    """M-12: without the timestamp option nothing protects; a segment that lacks it is taken, as in Linux, and moves TS.Recent nowhere."""
    play(
        OPEN
        + """
        +.01 < P. 11:21(10) ack 1 win 30000
        +0   > . 1:1(0) ack 21 <nop,nop,TS val * ecr 1020>
        +0   read 10
        """
    )


def test_data_without_an_ack_is_acknowledged_at_most_twice_a_second(play: Play) -> None:
    """M-12, M-59: old pure ACKs may be part of an ACK loop; old data draws an ACK each time."""
    play(
        OPEN
        + "+1 < . 12:12(0) ack 1 win 30000 <nop,nop,TS val 900 ecr 100>\n"
        + DUPLICATE
        + "+.4 < . 12:12(0) ack 1 win 30000 <nop,nop,TS val 900 ecr 100>\n"
        + "+.2 < . 12:12(0) ack 1 win 30000 <nop,nop,TS val 900 ecr 100>\n"
        + DUPLICATE
        + "+.01 < P. 11:21(10) ack 1 win 30000 <nop,nop,TS val 900 ecr 100>\n"
        + DUPLICATE
        + "+0 counter PAWSEstab=4 TCPACKSkippedPAWS=1"
    )


# Exceptions.


def test_rst_is_judged_by_its_sequence_number_alone(play: Play) -> None:
    """M-12, M-59, RFC 7323 5.3 R1."""
    play(OPEN + "+.01 < R 11:11(0) win 0 <nop,nop,TS val 900 ecr 100>\n+0 closed ECONNRESET\n+0 counter PAWSEstab=0")
    play(OPEN + "+.01 < R 12:12(0) win 0 <nop,nop,TS val 900 ecr 100>\n" + DUPLICATE + "+0 counter TCPChallengeACK=1 PAWSEstab=0")


def test_an_old_syn_draws_a_challenge_ack(play: Play) -> None:
    """M-12, M-59: who sent it may have started anew, with another clock (RFC 5961 4)."""
    play(OPEN + "+.01 < S 11:11(0) win 30000 <mss 1000,TS val 5 ecr 0>\n" + DUPLICATE + "+0 counter TCPSYNChallenge=1 PAWSEstab=0")


def test_a_pure_ack_that_data_overtook_is_dropped_in_silence(play: Play) -> None:
    """M-12: it says nothing that the data did not say later; an answer would be a duplicate ACK for nothing (Linux)."""
    play(
        OPEN
        + """
        +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 1015 ecr 100>
        +0   counter PAWSOldAck=1 PAWSEstab=0
        """
    )


REPEATED = """
    +0   setsockopt nodelay 1
    +0   write 10
    +0   > P. 1:11(10) ack 11 <nop,nop,TS val 110 ecr 1020>
    +0   write 10
    +0   > P. 11:21(10) ack 11 <nop,nop,TS val 110 ecr 1020>
    +.01 < . 11:11(0) ack 1 win 30000 <nop,nop,TS val 1030 ecr 100>
"""


@pytest.mark.parametrize(("ack", "win", "ts", "counted"), [
    (1, 30000, 1027, True),  # a duplicate ACK that another one overtook
    (1, 30000, 780, True),  # within the RTO of 200 ms and more
    (1, 30000, 100, False),
    (11, 30000, 1027, False),  # of new data
    (1, 31000, 1027, False),  # brings a window
    (1, 0, 1027, False),
])  # fmt: skip
def test_a_duplicate_ack_that_came_out_of_order_counts(play: Play, ack: int, win: int, ts: int, counted: bool) -> None:
    """M-12, M-35: as Linux's tcp_disordered_ack has it: nothing new in it, and not older than the RTO, at 1200 ticks a second."""
    play(
        OPEN
        + REPEATED
        + f"+0 < . 11:11(0) ack {ack} win {win} <nop,nop,TS val {ts} ecr 110>\n"
        + ("" if counted else "+0 > . 21:21(0) ack 11 <nop,nop,TS val * ecr 1030>\n")
        + f"+0 counter PAWSEstab={int(not counted)} PAWSOldAck=0\n"
        + "+0 expect snd_wnd=30000"
    )


def test_zero_is_no_timestamp_to_measure_by(play: Play) -> None:
    """M-12: some systems send zero in their SYN, and then count from anywhere; half of all numbers are "before" zero."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 0 ecr 0>
        +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 0>
        +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 3000000000 ecr 100>
        +0   accept
        +0   < P. 1:11(10) ack 1 win 30000 <nop,nop,TS val 3000000010 ecr 100>
        +0   > . 1:1(0) ack 11 <nop,nop,TS val 110 ecr 3000000010>
        +0   read 10
        +0   counter PAWSEstab=0
        """
    )


# The clock.


def test_the_peers_clock_may_wrap(play: Play) -> None:
    """M-12: behind is behind modulo 2^32."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 4294967290 ecr 0>
        +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 4294967290>
        +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 4294967295 ecr 100>
        +0   accept
        +0   < P. 1:11(10) ack 1 win 30000 <nop,nop,TS val 5 ecr 100>
        +0   > . 1:1(0) ack 11 <nop,nop,TS val 110 ecr 5>
        +0   read 10
        +0   < P. 11:21(10) ack 1 win 30000 <nop,nop,TS val 4294967295 ecr 100>
        +0   > . 1:1(0) ack 11 <nop,nop,TS val 110 ecr 5>
        +0   counter PAWSEstab=1
        """
    )


@pytest.mark.parametrize(("silence", "taken"), [(2146, False), (2148, True)])
def test_after_a_long_silence_any_timestamp_is_good(play: Play, silence: int, taken: bool) -> None:
    """M-12, RFC 7323 5.5: a clock of microseconds is half way round after 2147 s, and the peer would never be heard again (Linux)."""
    play(
        OPEN
        + f"+{silence} < P. 11:21(10) ack 1 win 30000 <nop,nop,TS val 900 ecr 100>\n"
        + (f"+0 > . 1:1(0) ack {21 if taken else 11} <nop,nop,TS val * ecr {900 if taken else 1020}>\n")
        + ("+0 read 10\n" if taken else "")
    )


def test_our_own_clock_may_wrap() -> None:
    """M-11, M-12: an echo of a timestamp before the wrap, seen after it, is a round trip of 20 ms, and no echo of something foreign."""
    for title, fast_path, local_isn, remote_isn in WAYS:
        runner = Runner(
            """
            0    connect 8080
            +0   > S 0:0(0) <mss 1460,sackOK,TS val 4294967290 ecr 0,nop,wscale 7>
            +.02 < S. 0:0(0) ack 1 win 30000 <mss 1000,sackOK,TS val 5 ecr 4294967290>
            +0   > . 1:1(0) ack 1 <nop,nop,TS val 14 ecr 5>
            +0   established
            +0   write 10
            +0   > P. 1:11(10) ack 1 <nop,nop,TS val 14 ecr 5>
            +.02 < . 1:1(0) ack 11 win 30000 <nop,nop,TS val 25 ecr 14>
            +0   expect srtt=20000
            +0   counter PAWSActive=0 PAWSEstab=0
            """,
            fast_path=fast_path,
            local_isn=local_isn,
            remote_isn=remote_isn,
            title=title,
        )
        runner.stack.isn._ts_offset = (4294967290 - 1_000_000) & 0xFFFFFFFF  # type: ignore[attr-defined]  # the clock begins just there
        runner.run()


# While it opens.


@pytest.mark.parametrize(("echo", "good"), [(100, True), (110, True), (99, False), (111, False), (5000, False)])
def test_an_answer_to_our_syn_echoes_its_timestamp(play: Play, echo: int, good: bool) -> None:
    """M-12, M-22: between that of our SYN and now; else it answers another connection's, and gets a RST."""
    play(
        "0 connect 8080\n+0 > S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>\n"
        + f"+.01 < S. 0:0(0) ack 1 win 30000 <mss 1000,sackOK,TS val 5 ecr {echo}>\n"
        + ("+0 > . 1:1(0) ack 1\n+0 established\n" if good else "+0 > R 1:1(0)\n+0 state SYN_SENT\n")
        + f"+0 counter PAWSActive={int(not good)}"
    )


def test_a_rst_for_another_syn_does_not_refuse_ours(play: Play) -> None:
    """M-12, M-25: not even its RST is believed (Linux)."""
    play(
        """
        0    connect 8080
        +0   > S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
        +.01 < R. 0:0(0) ack 1 win 0 <nop,nop,TS val 5 ecr 99>
        +0   state SYN_SENT
        +0   < R. 0:0(0) ack 1 win 0 <nop,nop,TS val 5 ecr 100>
        +0   closed ECONNREFUSED
        +0   counter PAWSActive=1
        """
    )


def test_an_answer_to_any_of_our_syns_will_do(play: Play) -> None:
    """M-12, M-25: the first SYN's echo is good after the second has left."""
    play(
        """
        0    connect 8080
        +0   > S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
        +1   > S 0:0(0) <mss 1460,sackOK,TS val 1100 ecr 0,nop,wscale 7>
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000,sackOK,TS val 5 ecr 100>
        +0   > . 1:1(0) ack 1
        +0   established
        """
    )


HALF_OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 1000 ecr 0>
    +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1000>
    +1   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 1100 ecr 1000>
"""


@pytest.mark.parametrize(("ts", "echo", "counters"), [
    (1010, 100, "PAWSEstab=0 TSEcrRejected=0"),
    (1000, 1100, "PAWSEstab=0 TSEcrRejected=0"),
    (1010, 0, "PAWSEstab=0 TSEcrRejected=0"),  # zero is no echo
    (1010, 99, "TSEcrRejected=1 PAWSEstab=0"),
    (1010, 1101, "TSEcrRejected=1 PAWSEstab=0"),
    (999, 100, "PAWSEstab=1 TSEcrRejected=0"),
])  # fmt: skip
def test_the_third_segment_echoes_a_timestamp_of_ours(play: Play, ts: int, echo: int, counters: str) -> None:
    """M-12, M-20: that of the first SYN-ACK, of the last, or one between; else it is acknowledged and dropped (Linux 6.16)."""
    bad = "=1" in counters
    play(
        HALF_OPEN
        + f"+.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val {ts} ecr {echo}>\n"
        + ("+0 > . 1:1(0) ack 1 <nop,nop,TS val 1110 ecr 1000>\n+0 accept EAGAIN\n" if bad else "+0 accept\n")
        + f"+0 counter {counters}"
    )


def test_an_old_syn_does_not_repeat_the_answer(play: Play) -> None:
    """M-12, M-22, M-23: a repeated SYN does, if its clock went on."""
    play(
        HALF_OPEN
        + """
        +.01 < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 999 ecr 0>
        +0   > . 1:1(0) ack 1 <nop,nop,TS val 1110 ecr 1000>
        +.6  < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 2000 ecr 0>
        +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 1710 ecr 1000>
        +0   counter PAWSEstab=1
        """
    )


def test_a_half_open_connection_believes_a_rst_whatever_its_clock(play: Play) -> None:
    """M-12, RFC 7323 5.2."""
    play(HALF_OPEN + "+.01 < R 1:1(0) win 0 <nop,nop,TS val 5 ecr 100>\n+0 gone\n+0 counter EmbryonicRsts=1 PAWSEstab=0")


# In TIME-WAIT.

TIME_WAIT = (
    OPEN
    + """
    +0   close
    +0   > F. 1:1(0) ack 11 <nop,nop,TS val 110 ecr 1020>
    +.01 < F. 11:11(0) ack 2 win 30000 <nop,nop,TS val 1030 ecr 110>
    +0   > . 2:2(0) ack 12 <nop,nop,TS val 120 ecr 1030>
"""
)


def test_an_old_segment_in_time_wait_is_acknowledged_and_starts_the_clock_anew(play: Play) -> None:
    """M-12, M-54: one tick is enough here."""
    play(
        TIME_WAIT
        + """
        +30  < P. 12:22(10) ack 2 win 30000 <nop,nop,TS val 1029 ecr 110>
        +0   > . 2:2(0) ack 12 <nop,nop,TS val * ecr 1030>
        +0   counter PAWSTimewait=1 PAWSEstab=0
        +59.9 state TIME_WAIT
        +.1  gone
        """
    )


def test_an_old_syn_does_not_take_the_four_tuple(play: Play) -> None:
    """M-12, M-55, RFC 6191: not even with a later sequence number; with a later timestamp it does, even with an earlier one."""
    play(
        TIME_WAIT
        + """
        +1   < S 5000:5000(0) win 30000 <mss 1000,sackOK,TS val 1029 ecr 0>
        +0   > . 2:2(0) ack 12 <nop,nop,TS val * ecr 1030>
        +0   state TIME_WAIT
        +0   counter PAWSTimewait=1
        +.01 < S 5:5(0) win 30000 <mss 1000,sackOK,TS val 1031 ecr 0>
        +0   > S. 65539:65539(0) ack 6
        """
    )


def test_a_rst_with_an_old_timestamp_does_not_end_time_wait(play: Play) -> None:
    """M-12, M-54: where an exact RST may end it (tcp_rfc1337 = 0)."""
    play(
        TIME_WAIT
        + """
        +1   < R 12:12(0) win 0 <nop,nop,TS val 1029 ecr 110>
        +0   state TIME_WAIT
        +0   < R 12:12(0) win 0 <nop,nop,TS val 1040 ecr 110>
        +0   gone
        """,
        tcp_rfc1337=False,
    )
