"""What flows through a bottleneck get, and what they do to its queue: goodput, Jain's fairness index, retransmissions, queue length.

R. Jain, D. Chiu, W. Hawe, DEC-TR-301 (the index); RFC 5166 (which figures tell of a congestion control). Integer arithmetic decides
everything, so a seed gives the same figures on every machine. Times int microseconds, rates bits a second, lengths octets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tunstack.device.impairment import Impairment
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.bottleneck import Dumbbell
from tunstack.sim.flows import Flow
from tunstack.sim.world import SECOND, World

SAMPLE_PERIOD = 10_000  # µs between two looks at the queue
ROOM = 1 << 24  # octets of receive buffer: the congestion control shall hold the sender back, nothing else


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """A flow that is to run. Times are µs since the start."""

    congestion: str  # name of the algorithm
    rtt: int  # with an empty queue
    start_at: int = 0
    stop_at: int | None = None
    choose: Callable[[Stack], object] | None = None  # gives the sender's stack an algorithm of the caller's; None: one of ours, by name


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What a flow got within the window of time that was measured, and how often it sent again in the whole run."""

    plan: FlowPlan
    received: int
    goodput: int
    retransmitted: int  # segments
    failure: Exception | None  # what the caller's algorithm raised first


@dataclass(frozen=True, slots=True)
class QueueResult:
    """The bottleneck's queue: lengths in frames within the window of time, counts of the whole run."""

    mean: int
    p95: int
    most: int
    mean_delay: int
    dropped: int
    marked: int
    lost: int


@dataclass(frozen=True, slots=True)
class Result:
    """A run's figures."""

    flows: tuple[FlowResult, ...]
    queue: QueueResult
    window: int  # µs that were measured

    @property
    def goodput(self) -> int:
        """All flows together."""
        return sum(flow.goodput for flow in self.flows)

    @property
    def retransmitted(self) -> int:
        """Segments sent again, by all flows together."""
        return sum(flow.retransmitted for flow in self.flows)

    @property
    def fairness(self) -> int:
        """Jain's index in thousandths."""
        return jain([flow.received for flow in self.flows])

    def share(self, congestion: str) -> int:
        """Return what the flows of an algorithm got of the whole, in thousandths."""
        received = sum(flow.received for flow in self.flows if flow.plan.congestion == congestion)
        return received * 1000 // max(sum(flow.received for flow in self.flows), 1)


def jain(shares: Sequence[int]) -> int:
    """Return Jain's fairness index in thousandths: 1000 when all get the same, 1000 / n when one of n gets everything."""
    squares = sum(share * share for share in shares)
    return 1000 * sum(shares) ** 2 // (len(shares) * squares) if squares else 1000


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest value that `percent` of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(-(-len(ranked) * percent // 100), 1) - 1]


def roomy(sysctl: Sysctl) -> Sysctl:
    """Return the knobs with a receive buffer that holds nobody back."""
    return replace(sysctl, tcp_rmem=(sysctl.tcp_rmem[0], ROOM, ROOM))


def measure(
    plans: Sequence[FlowPlan],
    forward: Impairment,
    backward: Impairment | None = None,
    *,
    duration: int,
    warm_up: int = 0,
    spread: int = 0,
    seed: int = 0,
    sysctl: Sysctl | None = None,
) -> Result:
    """Run flows through a bottleneck for `duration` µs and measure them from `warm_up` µs on.

    Each starts at random up to `spread` µs later than planned, so that they do not march in step. `sysctl` is all hosts'.
    OSError ENOENT for an algorithm that there is not.
    """
    world = World(seed)
    dumbbell = Dumbbell(world, forward, backward)
    sysctl = sysctl or roomy(Sysctl())
    late = [world.random.randrange(spread) if spread else 0 for _ in plans]
    flows = [_start(world, dumbbell, replace(plan, start_at=plan.start_at + by), sysctl) for plan, by in zip(plans, late, strict=True)]
    world.run(warm_up)
    before = [flow.received for flow in flows]
    dumbbell.watch(SAMPLE_PERIOD)
    world.run(duration)
    window = duration - warm_up
    received = [flow.received - was for flow, was in zip(flows, before, strict=True)]
    lengths = [sample.frames for sample in dumbbell.samples]
    return Result(
        flows=tuple(
            FlowResult(plan, octets, octets * 8 * SECOND // window, flow.retransmitted, flow.failure)
            for plan, octets, flow in zip(plans, received, flows, strict=True)
        ),
        queue=QueueResult(
            mean=sum(lengths) // len(lengths),
            p95=percentile(lengths, 95),
            most=max(lengths),
            mean_delay=sum(sample.delay for sample in dumbbell.samples) // len(dumbbell.samples),
            dropped=dumbbell.forward.dropped,
            marked=dumbbell.forward.marked,
            lost=dumbbell.forward.lost,
        ),
        window=window,
    )


def _start(world: World, dumbbell: Dumbbell, plan: FlowPlan, sysctl: Sysctl) -> Flow:
    """Make the flow of a plan. Its hosts have knobs of their own, which choosing an algorithm may set."""
    pair = dumbbell.pair(plan.rtt, sysctl=replace(sysctl))
    if plan.choose is not None:
        plan.choose(pair.sender.stack)
    return Flow(world, pair, plan.congestion if plan.choose is None else None, plan.start_at, plan.stop_at)
