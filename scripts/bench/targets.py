"""What tunstack is to reach: ratios to others, taken within each run, and a few absolute figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from endpoints import (
    GVISOR,
    KERNEL,
    KERNEL_PLAIN,
    KERNEL_STREAMS,
    LIMIT_PLAIN,
    LWIP,
    MITMPROXY,
    TUNSTACK,
    TUNSTACK_PLAIN,
    TUNSTACK_STREAMS,
)
from results import Results
from workloads import PAIRS, Named


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric of an endpoint under a workload; both by name."""

    workload: str
    endpoint: str
    metric: str


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a figure, or on its ratio to another's."""

    figure: Figure
    base: Figure | None
    bound: float
    at_most: bool = False

    def values(self, results: Results) -> list[float]:
        """Return what was reached in each run that has both figures: what slows a machine for a while slows both."""
        mine = results.figures(self.figure.workload, self.figure.endpoint, self.figure.metric)
        if self.base is None:
            return [value for value in mine if value is not None]
        others = results.figures(self.base.workload, self.base.endpoint, self.base.metric)
        return [a / b for a, b in zip(mine, others, strict=False) if a is not None and b]

    def is_reached(self, values: Sequence[float]) -> bool:
        """Say whether the median keeps the bound; `values` are not empty."""
        middle = statistics.median(values)
        return middle <= self.bound if self.at_most else middle >= self.bound


def _ratio(workload: str, mine: Named, base: Named, metric: str, bound: float, at_most: bool = False) -> Target:
    return Target(Figure(workload, mine.name, metric), Figure(workload, base.name, metric), bound, at_most)


def _many(direction: str) -> tuple[Target, ...]:
    many = f"1000 {direction}"
    return (
        Target(Figure(many, TUNSTACK.name, "throughput"), Figure(direction, TUNSTACK.name, "throughput"), 0.8),
        Target(Figure(many, TUNSTACK.name, "Jain's index"), None, 0.9),
    )


TARGETS = (
    _ratio("up", TUNSTACK, GVISOR, "throughput", 2.0),
    _ratio("up", TUNSTACK, KERNEL, "throughput", 0.6),
    _ratio("down", TUNSTACK, GVISOR, "throughput", 1.2),
    _ratio("down", TUNSTACK, KERNEL, "throughput", 0.65),
    _ratio("up", TUNSTACK_PLAIN, KERNEL_PLAIN, "throughput", 1.0),
    _ratio("up", TUNSTACK_PLAIN, LWIP, "throughput", 1.0),
    _ratio("up", TUNSTACK_PLAIN, MITMPROXY, "throughput", 1.0),
    _ratio("down", TUNSTACK_PLAIN, LIMIT_PLAIN, "throughput", 0.8),
    _ratio("ping on one CPU", TUNSTACK, KERNEL, "p50", 1.5, at_most=True),
    _ratio("ping", TUNSTACK, KERNEL, "p50", 1.15, at_most=True),
    _ratio("ping", TUNSTACK, KERNEL, "p99", 1.3, at_most=True),
    _ratio("connect", TUNSTACK, KERNEL, "connections", 0.65),
    _ratio("connect x 32", TUNSTACK, GVISOR, "connections", 1.0),
    _ratio("connect x 32", TUNSTACK, KERNEL, "connections", 0.5),
    _ratio("up", TUNSTACK_STREAMS, KERNEL_STREAMS, "throughput", 2.0),
    _ratio("down", TUNSTACK_STREAMS, KERNEL_STREAMS, "throughput", 0.6),
    Target(Figure("idle", TUNSTACK.name, "resident"), None, 4096.0, at_most=True),
    Target(Figure("idle", TUNSTACK_STREAMS.name, "resident"), None, 8192.0, at_most=True),
    *_many("up"),
    *_many("down"),
    *(_ratio(link, pair, PAIRS[0], "goodput", 0.9) for link in ("link x 16", "link, BBR") for pair in PAIRS[1:]),
)


def is_named(workload: str, endpoint: str) -> bool:
    """Say whether a target needs this measurement: those are made in every run."""
    return any(
        figure is not None and (figure.workload, figure.endpoint) == (workload, endpoint)
        for target in TARGETS
        for figure in (target.figure, target.base)
    )


def rows(results: Results) -> Iterator[list[str]]:
    """Give a row for each target of which something was measured: what, bound, reached, from least to most, verdict."""
    for target in TARGETS:
        values = target.values(results)
        if not values:
            continue
        figure, base = target.figure, target.base
        what = f"{figure.endpoint}, {figure.workload}: {figure.metric}"
        if base is not None:
            what += f" / {base.endpoint}" if base.workload == figure.workload else f" / {base.endpoint}, {base.workload}"
        digits = 0 if target.bound >= 100 else 2
        yield [
            what,
            f"{'at most' if target.at_most else 'at least'} {target.bound:,.{digits}f}",
            f"{statistics.median(values):,.{digits}f}",
            f"{min(values):,.{digits}f} to {max(values):,.{digits}f}",
            str(len(values)),
            "reached" if target.is_reached(values) else "MISSED",
        ]
