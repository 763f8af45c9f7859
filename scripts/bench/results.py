"""What was measured: samples by workload, endpoint and run, and the figures in them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Sample = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a sample."""

    name: str
    unit: str
    of: Callable[[Sample], float]
    digits: int


@dataclass(slots=True)
class Results:
    """All that was measured. `samples` is by workload and endpoint, one a run, None where there is none of that run."""

    settings: dict[str, Any]
    metrics: Mapping[str, tuple[Metric, ...]]  # of each workload, by its name
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each endpoint said of itself
    samples: dict[str, dict[str, list[Sample | None]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # what there is no figure of, and why

    def add(self, workload: str, endpoint: str, run: int, sample: Sample | None) -> None:
        """Take in the sample of a run; they are counted from 1."""
        runs = self.samples.setdefault(workload, {}).setdefault(endpoint, [])
        runs += [None] * (run - len(runs))
        runs[run - 1] = sample

    def endpoints(self, workload: str) -> list[str]:
        """Return the names of those of which there is anything, in the order in which they were measured."""
        return [name for name, runs in self.samples.get(workload, {}).items() if any(sample is not None for sample in runs)]

    def figures(self, workload: str, endpoint: str, metric: str) -> list[float | None]:
        """Return a metric's figure of every run."""
        of = next((one.of for one in self.metrics.get(workload, ()) if one.name == metric), None)
        runs = self.samples.get(workload, {}).get(endpoint, []) if of is not None else []
        return [None if sample is None or of is None else of(sample) for sample in runs]

    def values(self, workload: str, endpoint: str, metric: str) -> list[float]:
        """Return the same without the runs that have none."""
        return [value for value in self.figures(workload, endpoint, metric) if value is not None]

    def ratios(self, workload: str, endpoint: str, base: str, metric: str) -> list[float]:
        """Return the figure by the baseline's, within each run: what slows a machine for a while slows both."""
        pairs = zip(self.figures(workload, endpoint, metric), self.figures(workload, base, metric), strict=False)
        return [a / b for a, b in pairs if a is not None and b]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = ""
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
                break
    return {
        "cpu": model or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
