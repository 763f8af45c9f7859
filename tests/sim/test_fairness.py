"""Who gets what of a bottleneck that is shared: Jain's index; cubic beside reno, by RFC 9438's regions."""

from __future__ import annotations

import pytest

from tunstack.device.impairment import Impairment
from tunstack.sim.measure import FlowPlan, Result, measure
from tunstack.sim.world import SECOND

MBIT = 1_000_000
FULL = 20 * MBIT * 1448 // 1500 * 95 // 100  # of 20 Mbit/s


def compete(algorithms: list[str], rtt: int, rate: int, queue: int, duration: int, warm_up: int = 10) -> Result:
    """Run a flow of each algorithm from within the first second on, and measure. `duration` and `warm_up` are seconds."""
    plans = [FlowPlan(name, rtt) for name in algorithms]
    forward = Impairment(rate=rate, queue=queue)
    return measure(plans, forward, duration=duration * SECOND, warm_up=warm_up * SECOND, spread=SECOND, seed=1)


@pytest.mark.parametrize("congestion", ["reno", "cubic"])
def test_forty_connections_share_fairly(congestion: str) -> None:
    """M-38: Jain's index is at least 0.95, and the link is full."""
    result = compete([congestion] * 40, 40_000, 20 * MBIT, 200, 40)
    assert result.fairness >= 950, result
    assert result.goodput > FULL, result


@pytest.mark.parametrize("flows", [2, 10])
def test_in_the_reno_friendly_region_cubic_takes_what_reno_takes(flows: int) -> None:
    """M-38, RFC 9438 4.3 and 5.1: with a short round trip and a small BDP neither has half as much again as the other."""
    result = compete(["cubic", "reno"] * (flows // 2), 10_000, 10 * MBIT, 50, 60)
    assert 400 <= result.share("cubic") <= 600, result


def test_outside_of_it_cubic_takes_more() -> None:
    """M-38, RFC 9438 4.2 and 5.1: twice as much at least, where the path holds 333 packets and the round trip is 200 ms.

    A flow that lost at half of what path and queue hold is back there after 5.5 s with cubic, after 28 s with reno.
    """
    result = compete(["cubic", "reno"], 200_000, 20 * MBIT, 100, 90, warm_up=30)
    assert result.share("cubic") > 667, result
    assert result.goodput > FULL, result
