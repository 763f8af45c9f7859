"""What bbr leaves of a bottleneck's queue, beside cubic, which fills it."""

from __future__ import annotations

from tunstack.device.impairment import Impairment
from tunstack.sim.measure import FlowPlan, Result, measure
from tunstack.sim.world import SECOND

MBIT = 1_000_000
FULL = 20 * MBIT * 1448 // 1500 * 95 // 100  # of 20 Mbit/s; PROBE_RTT takes two of the five per cent


def run(congestion: str, flows: int, rtt: int, queue: int, duration: int) -> Result:
    """Run flows through 20 Mbit/s; measure from the tenth second on. `duration` is in seconds."""
    forward = Impairment(rate=20 * MBIT, queue=queue)
    return measure([FlowPlan(congestion, rtt)] * flows, forward, duration=duration * SECOND, warm_up=10 * SECOND, spread=SECOND, seed=1)


def test_one_bbr_flow_leaves_the_queue_all_but_empty() -> None:
    """M-38: cubic fills whatever the queue holds; bbr fills the link."""
    bbr, cubic = (run(name, 1, 20_000, 400, 25) for name in ("bbr", "cubic"))
    assert cubic.queue.mean > 200, cubic
    assert bbr.queue.mean * 10 < cubic.queue.mean, bbr
    assert bbr.queue.p95 * 10 < cubic.queue.p95, bbr
    assert bbr.goodput > FULL, bbr
    assert bbr.retransmitted == 0, bbr


def test_bbr_flows_among_themselves_queue_by_the_path_and_not_by_the_queue_that_there_is() -> None:
    """M-38: their windows are twice what the path holds (67 packets) as each of them sees it, and a burst of ten; cubic takes it all."""
    bbr, cubic = (run(name, 4, 40_000, 600, 40) for name in ("bbr", "cubic"))
    assert cubic.queue.mean > 400, cubic
    assert bbr.queue.mean * 3 < cubic.queue.mean, bbr
    assert bbr.queue.p95 < 2 * 67 + 10, bbr
    assert bbr.goodput > FULL, bbr
    assert bbr.queue.dropped == 0, bbr
