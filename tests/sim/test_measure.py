"""The measures: Jain's index, percentiles, what counts within the window of time."""

from __future__ import annotations

import errno

import pytest

from tunstack.congestion import CongestionControl
from tunstack.device.impairment import Impairment
from tunstack.sim.measure import FlowPlan, jain, measure, percentile
from tunstack.sim.world import SECOND

RATE = 10_000_000


@pytest.mark.parametrize(
    ("shares", "index"),
    [([5, 5, 5, 5], 1000), ([7], 1000), ([1, 0, 0, 0], 250), ([3, 1], 800), ([1, 1, 0, 0], 500), ([0, 0], 1000)],
)
def test_jains_index(shares: list[int], index: int) -> None:
    assert jain(shares) == index


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (10, 1), (11, 2), (50, 5), (95, 10), (100, 10)])
def test_percentile_is_of_the_nearest_rank(percent: int, value: int) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value


def test_only_the_window_of_time_counts() -> None:
    """A flow that ends before the window has got nothing; the other one has all of the rate."""
    early = FlowPlan("reno", 10_000, stop_at=SECOND)
    late = FlowPlan("reno", 10_000, start_at=SECOND)
    result = measure([early, late], Impairment(rate=RATE, queue=50), duration=8 * SECOND, warm_up=3 * SECOND)
    assert [flow.received > 0 for flow in result.flows] == [False, True]
    assert result.window == 5 * SECOND
    assert result.flows[1].goodput == result.flows[1].received * 8 // 5 == result.goodput
    assert 0.95 * RATE * 1448 / 1500 < result.goodput < RATE * 1448 / 1500 * 1.01
    assert result.fairness == 500
    assert result.queue.mean <= result.queue.p95 <= result.queue.most == 50
    assert result.queue.dropped > 0
    assert result.retransmitted >= result.queue.dropped


def test_flows_that_are_spread_start_apart_and_none_before_it_was_planned() -> None:
    def started(by: int, spread: int) -> int:
        """Return how many of eight flows, all planned for the first second, have brought data by a time."""
        plans = [FlowPlan("reno", 10_000, start_at=SECOND)] * 8
        result = measure(plans, Impairment(rate=10 * RATE, queue=1000), duration=by, spread=spread)
        return sum(flow.received > 0 for flow in result.flows)

    assert started(SECOND + 100_000, spread=0) == 8
    assert started(SECOND, spread=SECOND) == 0
    assert 1 <= started(SECOND + SECOND // 2, spread=SECOND) <= 7
    assert started(4 * SECOND, spread=SECOND) == 8  # also one whose SYN found the queue full


def test_an_algorithm_of_the_callers_is_what_the_sender_uses_and_what_it_raises_is_kept() -> None:
    """M-38."""

    class Raises(CongestionControl):
        name = "raises"

        def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:
            raise RuntimeError("no")

    plans = [FlowPlan("mine", 10_000, choose=lambda stack: stack.use_congestion(Raises)), FlowPlan("reno", 10_000)]
    mine, reno = measure(plans, Impairment(rate=RATE, queue=50), duration=2 * SECOND).flows
    assert mine.received > 0
    assert isinstance(mine.failure, RuntimeError)
    assert reno.failure is None


def test_shares_are_of_all_flows_of_an_algorithm() -> None:
    plans = [FlowPlan("reno", 10_000), FlowPlan("reno", 10_000), FlowPlan("reno", 10_000, start_at=60 * SECOND)]
    result = measure(plans, Impairment(rate=RATE, queue=50), duration=2 * SECOND)
    assert result.share("reno") == 1000
    assert result.share("cubic") == 0


def test_random_loss_is_told_apart_from_a_full_queue() -> None:
    result = measure([FlowPlan("reno", 2_000)], Impairment(rate=RATE, queue=100, loss=0.01), duration=5 * SECOND)
    assert result.queue.lost > 10
    assert result.queue.dropped == 0
    assert result.retransmitted > 10


def test_an_algorithm_that_there_is_not_is_an_error_of_the_caller() -> None:
    with pytest.raises(OSError) as caught:
        measure([FlowPlan("vegas-2000", 10_000)], Impairment(), duration=SECOND)
    assert caught.value.errno == errno.ENOENT
