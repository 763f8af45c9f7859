"""TIME-WAIT: what comes late, comes again, or opens anew. RFC 9293 3.6, RFC 1337, RFC 1122 4.2.2.13."""

from __future__ import annotations

from engine.notation import Play
from engine.rawpeer import RawPeer
from engine.states import TIME_WAIT

from tunstack.engine.timewait import EXPIRIES_A_TURN, Remembered
from tunstack.wire.flow import pack_flow


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


def test_entries_that_expire_all_at_once_are_dropped_in_turns() -> None:
    """M-56: after a machine has slept an hour, 100,000 of them must not hold the loop up."""
    stack = RawPeer().stack
    for number in range(3 * EXPIRIES_A_TURN + 1):
        assert stack.time_wait.take_bucket()
        stack.time_wait.insert(pack_flow(b"\x0a\0\0\1", 1024 + number, b"\x0a\0\0\2", 80), Remembered(*10 * (0,)), 0)
    hour = 3600 * 1_000_000
    left = []
    while (deadline := stack.next_deadline()) is not None:
        assert deadline <= hour + len(left)
        stack.advance(hour + len(left))
        left.append(len(stack.time_wait))
    assert left == [2 * EXPIRIES_A_TURN + 1, EXPIRIES_A_TURN + 1, 1, 0]
    assert not stack.flows
