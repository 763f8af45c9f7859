"""HyStart++ by the numbers of RFC 9406. M-39."""

from __future__ import annotations

import pytest

from tunstack.congestion import INFINITE, Cubic, Reno
from tunstack.congestion.hystart import CSS_GROWTH_DIVISOR, CSS_ROUNDS, N_RTT_SAMPLE, HyStart

MSS = 1000
MS = 1000


class Rounds:
    """Feeds rounds of ACKs: a window of segments leaves at once, each has its ACK."""

    def __init__(self) -> None:
        self.hystart = HyStart()

    def round(self, rtt: int, segments: int = 20) -> list[int]:
        """One round: every segment in flight is acknowledged, and the next round's leave. Return the divisors."""
        return [self.hystart.on_ack(MSS, left * MSS, rtt, MSS) for left in range(segments, 0, -1)]


def test_a_steady_round_trip_time_leaves_slow_start_alone() -> None:
    """M-39."""
    rounds = Rounds()
    for _ in range(30):
        assert set(rounds.round(100 * MS)) == {1}


@pytest.mark.parametrize(
    ("base", "threshold"),
    [(8 * MS, 4 * MS), (32 * MS, 4 * MS), (80 * MS, 10 * MS), (128 * MS, 16 * MS), (400 * MS, 16 * MS)],
)
def test_the_threshold_is_an_eighth_of_the_last_round_between_4_and_16_ms(base: int, threshold: int) -> None:
    """M-39, RFC 9406 4.2."""
    for rise, expected in ((threshold - 1, 1), (threshold, CSS_GROWTH_DIVISOR)):
        rounds = Rounds()
        rounds.round(base)
        rounds.round(base)
        divisors = rounds.round(base + rise)
        assert divisors[-2] == expected, (base, rise)


def test_eight_samples_are_needed_before_a_round_is_judged() -> None:
    """M-39, RFC 9406 4.2: N_RTT_SAMPLE."""
    rounds = Rounds()
    rounds.round(100 * MS)
    rounds.round(100 * MS)
    divisors = rounds.round(200 * MS)
    assert divisors.index(CSS_GROWTH_DIVISOR) == N_RTT_SAMPLE - 1


def test_one_low_sample_keeps_the_round_below_the_threshold() -> None:
    """M-39: it is the least of a round that counts, so that delayed ACKs do not end slow start."""
    hystart = HyStart()
    for left in range(20, 0, -1):
        hystart.on_ack(MSS, left * MSS, 100 * MS, MSS)
    for left in range(20, 0, -1):
        assert hystart.on_ack(MSS, left * MSS, (100 if left == 17 else 300) * MS, MSS) == 1


def test_rounds_are_told_apart_while_new_data_leaves_with_each_ack() -> None:
    """M-39: a round ends when what was outstanding at its start is acknowledged, whatever left since."""
    hystart = HyStart()
    flight = 20
    ends = []
    minimum = hystart._current_min
    for index in range(150):
        hystart.on_ack(MSS, flight * MSS, 100 * MS, MSS)
        if hystart._current_min > minimum:
            ends.append(index)
        minimum = hystart._current_min
        flight += 1  # slow start: two leave for one
    assert ends == [19, 19 + 38, 57 + 76]


def test_conservative_slow_start_lasts_five_rounds_then_it_is_over() -> None:
    """M-39, RFC 9406 4.2: the rest of the round in which it began counts."""
    rounds = Rounds()
    rounds.round(100 * MS)
    rounds.round(100 * MS)
    assert CSS_GROWTH_DIVISOR in rounds.round(150 * MS)  # the first, in part
    for _ in range(CSS_ROUNDS - 2):
        assert set(rounds.round(150 * MS)) == {CSS_GROWTH_DIVISOR}
    last = rounds.round(150 * MS)
    assert set(last[:-1]) == {CSS_GROWTH_DIVISOR} and last[-1] == 0


def test_slow_start_is_resumed_when_the_round_trip_time_falls_below_where_it_was_left() -> None:
    """M-39, RFC 9406 4.2: it was jitter."""
    rounds = Rounds()
    rounds.round(100 * MS)
    rounds.round(100 * MS)
    rounds.round(150 * MS)
    divisors = rounds.round(149 * MS)
    assert divisors[:7] == [CSS_GROWTH_DIVISOR] * 7 and divisors[7:] == [1] * 13
    assert set(rounds.round(149 * MS)) == {1}
    assert CSS_GROWTH_DIVISOR in rounds.round(170 * MS)  # and it can be left again


def test_acks_of_many_segments_count_as_the_delayed_acks_that_they_stand_for() -> None:
    """M-39: with offload one ACK brings 45 segments."""
    hystart = HyStart()
    for rtt in (100 * MS, 100 * MS):
        for left in (64, 48, 32, 16):
            assert hystart.on_ack(16 * MSS, left * MSS, rtt, MSS) == 1
    assert hystart.on_ack(16 * MSS, 64 * MSS, 200 * MS, MSS) == CSS_GROWTH_DIVISOR


def slow_start(control: Reno, rounds: int, rtt: int) -> None:
    """Acknowledge whole windows, segment by segment."""
    for _ in range(rounds):
        flight = control.cwnd // MSS * MSS
        for left in range(flight, 0, -MSS):
            control.on_ack(MSS, left, rtt, 0, True)


def test_cubic_leaves_its_first_slow_start_when_the_delay_rises() -> None:
    """M-39: a quarter of the growth a round while in doubt, then congestion avoidance from where it is."""
    control = Cubic(MSS, 10 * MSS)
    slow_start(control, 3, 100 * MS)
    assert control.cwnd == 80 * MSS
    windows = []
    for _ in range(5):
        slow_start(control, 1, 150 * MS)
        windows.append(control.cwnd // MSS)
    assert windows[:4] == [105, 131, 164, 205]  # seven ACKs of the first round came before the eighth sample
    assert control.ssthresh < INFINITE and control.ssthresh // MSS == 256


def test_reno_has_it_only_when_asked() -> None:
    """M-39: Linux's reno has none."""
    plain, asked = Reno(MSS, 10 * MSS), Reno(MSS, 10 * MSS)
    asked.use_hystart(True)
    for control in (plain, asked):
        slow_start(control, 3, 100 * MS)
        slow_start(control, 2, 150 * MS)
    assert plain.cwnd == 320 * MSS
    assert asked.cwnd < 140 * MSS


def test_cubic_can_do_without() -> None:
    control = Cubic(MSS, 10 * MSS)
    control.use_hystart(False)
    slow_start(control, 3, 100 * MS)
    slow_start(control, 2, 150 * MS)
    assert control.cwnd == 320 * MSS


def test_later_slow_starts_go_to_ssthresh_without_it() -> None:
    """M-39, RFC 9406 4.3: what ssthresh says is known."""
    control = Cubic(MSS, 10 * MSS)
    control.ssthresh = 100 * MSS
    slow_start(control, 2, 100 * MS)
    slow_start(control, 1, 200 * MS)
    assert control.cwnd == 80 * MSS


def test_a_window_that_is_not_used_does_not_grow_in_conservative_slow_start() -> None:
    control = Cubic(MSS, 10 * MSS)
    slow_start(control, 3, 100 * MS)
    slow_start(control, 2, 150 * MS)
    before = control.cwnd
    for left in range(before, 0, -MSS):
        control.on_ack(MSS, left, 150 * MS, 0, False)
    assert control.cwnd == before and control.ssthresh == INFINITE


def test_rounds_in_which_the_window_is_not_used_are_none() -> None:
    """M-39: neither of them ends slow start nor do they count in its conservative part."""
    control = Cubic(MSS, 10 * MSS)
    slow_start(control, 3, 100 * MS)
    for _ in range(10):
        for left in range(80, 0, -1):
            control.on_ack(MSS, left * MSS, 300 * MS, 0, False)
    assert (control.cwnd, control.ssthresh) == (80 * MSS, INFINITE)
    slow_start(control, 1, 100 * MS)
    assert control.cwnd == 160 * MSS
    slow_start(control, 1, 150 * MS)
    for _ in range(10):
        for left in range(80, 0, -1):
            control.on_ack(MSS, left * MSS, 300 * MS, 0, False)
    assert control.ssthresh == INFINITE
    slow_start(control, 3, 150 * MS)
    assert control.ssthresh == INFINITE
    slow_start(control, 1, 150 * MS)
    assert control.ssthresh < INFINITE


def test_after_an_undo_the_last_round_counted_is_compared_with() -> None:
    """M-39: what happened in recovery was not counted, but the queue that grew meanwhile ends slow start all the same."""
    control = Cubic(MSS, 10 * MSS)
    slow_start(control, 3, 100 * MS)
    control.on_congestion(80 * MSS, 0)
    control.cwnd = control.ssthresh
    control.on_spurious(0)
    assert (control.cwnd, control.ssthresh) == (80 * MSS, INFINITE)
    slow_start(control, 1, 100 * MS)  # no queue: it goes on
    assert control.cwnd == 160 * MSS
    control.on_congestion(160 * MSS, 0)
    control.cwnd = control.ssthresh
    control.on_spurious(0)
    slow_start(control, 1, 200 * MS)
    assert control.cwnd < 240 * MSS
    slow_start(control, 5, 200 * MS)
    assert control.ssthresh < INFINITE
