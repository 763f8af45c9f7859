"""When ACKs leave: at once while the connection is young, later with the pace of the data. RFC 5681 4.2, RFC 1122 4.2.3.2, Linux."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import opening

from tunstack.engine import ackpolicy, receivewindow
from tunstack.engine.ackpolicy import DELACK_MIN, QUICKACKS_MAX
from tunstack.engine.counters import Counters
from tunstack.engine.memory import Memory
from tunstack.engine.receiver import Receiver, ReceiveTerms
from tunstack.engine.sysctl import Sysctl
from tunstack.wire.segment import ACK, PSH, Segment

OPEN = opening(60_000)
MSS = 1000
RTO = 200_000


def receiver(window: int = 60_000) -> Receiver:
    counters = Counters()
    return Receiver(0, ReceiveTerms(window, 1 << 20, 1 << 20, window, 0, MSS), counters, Memory(Sysctl(), counters), 0)


def take(rx: Receiver, size: int, now: int) -> None:
    """A segment comes in order."""
    rx.rcv_nxt += size
    ackpolicy.on_data(rx, Segment(b"", 0, 0, ACK | PSH, 0, (), size), now, 0, RTO, False)


def answer(rx: Receiver) -> None:
    """The ACK leaves."""
    ackpolicy.ack_sent(rx)
    receivewindow.advertise(rx)


def test_a_fin_alone_on_a_connection_without_data_is_acknowledged_at_once(play: Play) -> None:
    play(OPEN + "+.1 < F. 1:1(0) ack 1 win 60000\n+0 > . 1:1(0) ack 2\n+0 eof")


def test_a_fin_after_data_waits_for_our_own(play: Play) -> None:
    """Linux: who gets a FIN most often closes, too."""
    play(
        OPEN
        + """
        +.1  < P. 1:101(100) ack 1 win 60000
        +0   > . 1:1(0) ack 101
        +.1  < F. 101:101(0) ack 1 win 60000
        +.01 read 100
        +0   close
        +0   > F. 1:1(0) ack 102
        """
    )


def test_a_fin_in_fin_wait_1_and_2_is_acknowledged_at_once(play: Play) -> None:
    for ack, state in ((1, "CLOSING"), (2, "TIME_WAIT")):
        play(
            OPEN
            + f"""
            +.1  < P. 1:101(100) ack 1 win 60000
            +0   > . 1:1(0) ack 101
            +0   shutdown
            +0   > F. 1:1(0) ack 101
            +.1  < F. 101:101(0) ack {ack} win 60000
            +0   > . 2:2(0) ack 102
            +0   state {state}
            """
        )


def test_the_first_segments_are_acknowledged_at_once_half_a_window_of_them() -> None:
    for window, count in ((60_000, QUICKACKS_MAX), (6_000, 3), (1_000, 2)):
        rx = receiver(window)
        rx.mss = MSS
        at_once = 0
        for now in range(0, 1_000_000, 1000):
            take(rx, 10, now)
            if not rx.acks_due:
                break
            at_once += 1
            answer(rx)
        assert at_once == count


def test_the_timeout_follows_the_time_between_segments() -> None:
    rx = receiver()
    take(rx, 10, 0)
    assert rx.ato == DELACK_MIN
    take(rx, 10, 10_000)  # closer than half of it: no less than half
    assert rx.ato == DELACK_MIN
    rx.ato = 160_000
    take(rx, 10, 110_000)  # 100 ms later: half of what it was, and the gap
    assert rx.ato == 180_000
    take(rx, 10, 260_000)
    assert rx.ato == RTO  # never more than the RTO


def test_after_a_long_silence_acks_leave_at_once_again() -> None:
    rx = receiver()
    take(rx, 10, 0)
    answer(rx)
    rx.quick = 0
    take(rx, 10, 100_000)
    assert not rx.acks_due
    answer(rx)
    take(rx, 10, 100_000 + RTO + 1)
    assert rx.acks_due == 1


def test_a_timeout_that_passed_makes_the_next_longer_but_ends_a_conversation() -> None:
    rx = receiver()
    take(rx, 10, 0)
    ackpolicy.delay_passed(rx, RTO)
    assert rx.ato == 2 * DELACK_MIN
    rx.pingpong = True
    ackpolicy.delay_passed(rx, RTO)
    assert (rx.pingpong, rx.ato) == (False, DELACK_MIN)
