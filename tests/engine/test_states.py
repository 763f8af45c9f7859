"""The synchronized states: every transition of RFC 9293 3.10, and what each state does with each kind of segment.

Each test leads a connection into a state and says what happens there. Our next sequence number is `snd`, the peer's is `rcv`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from engine.notation import Play
from engine.openings import OPEN


@dataclass(frozen=True)
class Reached:
    """A state: the script that leads there, and the next sequence numbers of both ends."""

    name: str
    script: str
    snd: int
    rcv: int


ESTABLISHED = Reached("ESTABLISHED", OPEN, 1, 1)
FIN_WAIT_1 = Reached("FIN_WAIT_1", OPEN + "+0 shutdown\n+0 > F. 1:1(0) ack 1\n", 2, 1)
FIN_WAIT_2 = Reached("FIN_WAIT_2", FIN_WAIT_1.script + "+.01 < . 1:1(0) ack 2 win 30000\n", 2, 1)
CLOSING = Reached("CLOSING", FIN_WAIT_1.script + "+.01 < F. 1:1(0) ack 1 win 30000\n+0 > . 2:2(0) ack 2\n", 2, 2)
CLOSE_WAIT = Reached("CLOSE_WAIT", OPEN + "+.01 < F. 1:1(0) ack 1 win 30000\n+0 > . 1:1(0) ack 2\n", 1, 2)
LAST_ACK = Reached("LAST_ACK", CLOSE_WAIT.script + "+0 eof\n+0 shutdown\n+0 > F. 1:1(0) ack 2\n", 2, 2)
TIME_WAIT = Reached("TIME_WAIT", FIN_WAIT_2.script + "+.01 < F. 1:1(0) ack 2 win 30000\n+0 > . 2:2(0) ack 2\n", 2, 2)

SYNCHRONIZED = (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSING, CLOSE_WAIT, LAST_ACK)
EVERY = (*SYNCHRONIZED, TIME_WAIT)
RECEIVING = (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2)


def each(*states: Reached):  # type: ignore[no-untyped-def]
    return pytest.mark.parametrize("at", states, ids=lambda state: state.name)


def ack(at: Reached) -> str:
    return f"+0 > . {at.snd}:{at.snd}(0) ack {at.rcv}\n"


@each(*EVERY)
def test_each_state_is_reached_and_named(play: Play, at: Reached) -> None:
    """M-20, M-50, M-52."""
    play(at.script + f"+0 state {at.name}")


# Closing, RFC 9293 3.6 and figures 12 and 13


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


# Segments in every synchronized state

RESET_ERRORS = {"ESTABLISHED": "ECONNRESET", "FIN_WAIT_1": "ECONNRESET", "FIN_WAIT_2": "ECONNRESET", "CLOSE_WAIT": "EPIPE"}


@each(*SYNCHRONIZED)
@pytest.mark.parametrize("with_ack", [False, True])
def test_a_reset_at_rcv_nxt_ends_the_connection(play: Play, at: Reached, with_ack: bool) -> None:
    """M-59, RFC 9293 3.10.7.4 second step, RFC 5961 3.2. In CLOSE-WAIT the error is EPIPE, as in Linux."""
    segment = f"R. {at.rcv}:{at.rcv}(0) ack {at.snd}" if with_ack else f"R {at.rcv}:{at.rcv}(0)"
    eof = "+0 eof\n" if at is CLOSE_WAIT or at is CLOSING else ""
    play(at.script + eof + f"+.01 < {segment}\n+0 closed {RESET_ERRORS.get(at.name, 'ECONNRESET')}\n+0 state CLOSED\n+0 gone")


@each(*SYNCHRONIZED)
@pytest.mark.parametrize("offset", [1, 20000])
def test_a_reset_elsewhere_in_the_window_draws_a_challenge_ack(play: Play, at: Reached, offset: int) -> None:
    """M-59, RFC 5961 3.2."""
    seq = at.rcv + offset
    play(at.script + f"+.1 < R {seq}:{seq}(0)\n" + ack(at) + f"+0 state {at.name}\n+0 counter TCPChallengeACK=1")


@each(*EVERY)
def test_a_reset_outside_of_the_window_is_ignored(play: Play, at: Reached) -> None:
    """M-59, RFC 9293 3.10.7.4 first step."""
    play(
        at.script
        + f"+.1 < R {at.rcv + 200000}:{at.rcv + 200000}(0)\n+0 < R. {at.rcv + 200000}:{at.rcv + 200000}(0) ack {at.snd}\n+0 state {at.name}"
    )


@each(CLOSE_WAIT, LAST_ACK, CLOSING)
def test_rst_at_the_acknowledged_fin_ends_the_connection(play: Play, at: Reached) -> None:
    """M-59: who does not count his FIN resets one below, as Linux allows for (tcp_reset_check)."""
    play(at.script + f"+.1 < R {at.rcv - 1}:{at.rcv - 1}(0)\n+0 gone")
    play(at.script + f"+.1 < R {at.rcv - 2}:{at.rcv - 2}(0)\n+0 state {at.name}")


@each(*SYNCHRONIZED)
@pytest.mark.parametrize("offset", [0, 100])
def test_a_syn_in_the_window_draws_a_challenge_ack(play: Play, at: Reached, offset: int) -> None:
    """M-59, RFC 5961 4.2."""
    seq = at.rcv + offset
    play(at.script + f"+.1 < S {seq}:{seq}(0) win 1000 <mss 1000>\n" + ack(at) + f"+0 state {at.name}\n+0 counter TCPSYNChallenge=1")


@each(*SYNCHRONIZED)
def test_a_syn_ack_that_comes_again_is_acknowledged(play: Play, at: Reached) -> None:
    """M-22: an old duplicate of the handshake."""
    play(at.script + "+.1 < S. 0:0(0) ack 1 win 1000 <mss 1000>\n" + ack(at) + f"+0 state {at.name}")


@each(*SYNCHRONIZED)
def test_an_ack_of_what_was_never_sent_draws_an_ack(play: Play, at: Reached) -> None:
    """M-59, RFC 9293 3.10.7.4 fifth step, RFC 5961 5.2."""
    play(at.script + f"+.1 < . {at.rcv}:{at.rcv}(0) ack {at.snd + 1} win 30000\n" + ack(at) + f"+0 state {at.name}")


@each(*RECEIVING)
def test_data_with_an_ack_of_what_was_never_sent_is_not_taken(play: Play, at: Reached) -> None:
    """M-59, RFC 5961 5.2."""
    play(at.script + f"+.1 < P. 1:10(9) ack {at.snd + 9} win 30000\n" + ack(at) + f"+0 read 1 EAGAIN\n+0 state {at.name}")


@each(*SYNCHRONIZED)
def test_an_ack_from_far_behind_draws_a_challenge(play: Play, at: Reached) -> None:
    """M-59, RFC 5961 5.2: older than the largest window that the peer ever offered."""
    play(at.script + f"+.1 < . {at.rcv}:{at.rcv}(0) ack {2**32 - 40000} win 30000\n" + ack(at) + f"+0 state {at.name}")


@each(*SYNCHRONIZED)
def test_a_segment_without_ack_is_dropped(play: Play, at: Reached) -> None:
    """M-59, RFC 9293 3.10.7.4 fifth step."""
    play(at.script + f"+.1 < P {at.rcv}:{at.rcv + 10}(10)\n+0 < - {at.rcv}:{at.rcv}(0)\n+0 < F {at.rcv}:{at.rcv}(0)\n+0 state {at.name}")


@each(*SYNCHRONIZED)
def test_data_beyond_the_window_is_acknowledged_and_dropped(play: Play, at: Reached) -> None:
    """M-31, RFC 9293 3.10.7.4 first step."""
    play(at.script + f"+.1 < P. {at.rcv + 200000}:{at.rcv + 200100}(100) ack {at.snd} win 30000\n" + ack(at) + f"+0 state {at.name}")


@each(CLOSE_WAIT, CLOSING, LAST_ACK)
def test_a_fin_that_comes_again_is_acknowledged(play: Play, at: Reached) -> None:
    """M-50, RFC 9293 3.10.7.4 eighth step: the state stays."""
    una = 1
    play(at.script + f"+.1 < F. 1:1(0) ack {una} win 30000\n" + ack(at) + f"+0 state {at.name}")


@each(*RECEIVING)
def test_data_is_taken_where_data_may_come(play: Play, at: Reached) -> None:
    """M-30, M-51."""
    una = at.snd if at is not FIN_WAIT_1 else 1
    play(at.script + f"+.1 < P. 1:101(100) ack {una} win 30000\n+0 > . {at.snd}:{at.snd}(0) ack 101\n+0 read 100\n+0 state {at.name}")


@each(CLOSE_WAIT, CLOSING, LAST_ACK)
def test_data_after_the_fin_is_ignored(play: Play, at: Reached) -> None:
    """RFC 9293 3.10.7.4 seventh step: the peer said that there would be none."""
    play(at.script + f"+.1 < P. 2:102(100) ack 1 win 30000\n+0 state {at.name}\n+0 read 0")


@each(FIN_WAIT_1, CLOSING, LAST_ACK)
def test_our_fin_is_sent_again(play: Play, at: Reached) -> None:
    """M-34, M-50."""
    script = at.script + ("+.19~+.21" if at is CLOSING else "+.21") + f" > F. 1:1(0) ack {at.rcv}\n+.42 > F. 1:1(0) ack {at.rcv}\n"
    play(script)


@each(*SYNCHRONIZED)
def test_abort_sends_a_reset_and_forgets(play: Play, at: Reached) -> None:
    """M-59, RFC 9293 3.10.5: in CLOSING and LAST-ACK there is nothing left to reset for."""
    answer = f"+0 > R. {at.snd}:{at.snd}(0) ack {at.rcv}\n" if at not in (CLOSING, LAST_ACK) else ""
    play(at.script + f"+.1 abort\n{answer}+0 state CLOSED\n+0 gone")


@each(FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK, TIME_WAIT)
def test_writing_after_shutdown_is_a_broken_pipe(play: Play, at: Reached) -> None:
    """M-51, RFC 9293 3.10.2."""
    play(at.script + "+0 write 1 EPIPE\n+0 state " + at.name)


@each(FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK)
def test_shutting_down_twice_changes_nothing(play: Play, at: Reached) -> None:
    """RFC 9293 3.10.4."""
    play(at.script + "+0 shutdown\n+0 state " + at.name)


# TIME-WAIT


def test_time_wait_acknowledges_a_fin_that_comes_again_and_starts_anew(play: Play) -> None:
    """M-54."""
    play(
        TIME_WAIT.script
        + """
        +0   eof
        +40  < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +59  state TIME_WAIT
        +0   < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +59.9 idle
        +.1  gone
        """
    )


def test_time_wait_is_not_assassinated(play: Play) -> None:
    """M-54, RFC 1337. With tcp_rfc1337 = 0, Linux's default, an exact RST ends it."""
    play(TIME_WAIT.script + "+0 eof\n+1 < R 2:2(0)\n+58.9 < F. 1:1(0) ack 2 win 30000\n+0 > . 2:2(0) ack 2")
    play(TIME_WAIT.script + "+0 eof\n+1 < R 2:2(0)\n+0 gone", tcp_rfc1337=False)


def test_a_delayed_segment_meets_time_wait_and_nobody_else(play: Play) -> None:
    """M-54: it draws an ACK and reaches no new connection."""
    play(
        TIME_WAIT.script
        + """
        +0   eof
        +1   < P. 1:101(100) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +0   accept EAGAIN
        """
    )


def test_a_new_syn_beyond_the_old_sequence_numbers_takes_the_four_tuple(play: Play) -> None:
    """M-55, RFC 1122 4.2.2.13; our new ISN lies beyond everything sent before."""
    play(
        TIME_WAIT.script
        + """
        +0   eof
        +1   < S 5000:5000(0) win 30000 <mss 1000>
        +0   > S. 65539:65539(0) ack 5001
        +.01 < . 5001:5001(0) ack 65540 win 30000
        +0   accept
        """
    )


def test_a_syn_with_an_old_sequence_number_does_not(play: Play) -> None:
    """M-54. It is acknowledged, as anything that is not in the window."""
    play(TIME_WAIT.script + "+0 eof\n+1 < S 1:1(0) win 30000 <mss 1000>\n+0 > . 2:2(0) ack 2\n+0 accept EAGAIN\n+0 state TIME_WAIT")


def test_who_sent_that_syn_can_reset_time_wait_and_gets_through(play: Play) -> None:
    """M-22, RFC 9293 3.5: the answer to it is no SYN-ACK, so the peer in SYN_SENT answers with RST. Else its connect() times out."""
    play(
        TIME_WAIT.script
        + """
        +0   eof
        +1   < S 1:1(0) win 30000 <mss 1000>
        +0   > . 2:2(0) ack 2
        +.01 < R 2:2(0)
        +0   gone
        +1   < S 1:1(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 2
        """,
        tcp_rfc1337=False,
    )


def test_time_wait_acknowledges_every_fin_but_not_every_stray_ack(play: Play) -> None:
    """M-54: when the ACK of a FIN is lost again, the peer may not have to wait for tcp_invalid_ratelimit."""
    play(
        TIME_WAIT.script
        + """
        +0   eof
        +.2  < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +.2  < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +0   < . 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +.2  < . 1:1(0) ack 2 win 30000
        +0   counter TCPACKSkippedTimeWait=1
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
