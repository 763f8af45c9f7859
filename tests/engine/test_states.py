"""What each synchronized state does with each kind of segment and with the application's calls. RFC 9293 3.10."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.states import (
    CLOSE_WAIT,
    CLOSING,
    EVERY,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    RECEIVING,
    SYNCHRONIZED,
    TIME_WAIT,
    Reached,
    ack,
    each,
)

RESET_ERRORS = {"ESTABLISHED": "ECONNRESET", "FIN_WAIT_1": "ECONNRESET", "FIN_WAIT_2": "ECONNRESET", "CLOSE_WAIT": "EPIPE"}


@each(*EVERY)
def test_each_state_is_reached_and_named(play: Play, at: Reached) -> None:
    """M-20, M-50, M-52."""
    play(at.script + f"+0 state {at.name}")


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
