"""From samples to tables: medians, spread, ratios."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate
from workloads import Metric, Sample, Workload, baseline

ABSENT = "-"


@dataclass(slots=True)
class Results:
    """All that was measured. `samples` is by workload, endpoint and run, None where a measurement failed."""

    settings: dict[str, Any]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each endpoint said of itself
    samples: dict[str, dict[str, list[Sample | None]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # what there is no figure of, and why

    def add(self, workload: Workload, endpoint: str, sample: Sample | None) -> None:
        """Take in the sample of the next run."""
        self.samples.setdefault(workload.name, {}).setdefault(endpoint, []).append(sample)

    def values(self, workload: Workload, endpoint: str, metric: Metric) -> list[float]:
        """Return the figure of every run that did not fail."""
        return [metric.of(sample) for sample in self.samples.get(workload.name, {}).get(endpoint, []) if sample is not None]

    def ratios(self, workload: Workload, endpoint: str, base: str, metric: Metric) -> list[float]:
        """Return the figure by that of the baseline, within each run: what slows a machine for a while slows both."""
        mine = self.samples.get(workload.name, {}).get(endpoint, [])
        others = self.samples.get(workload.name, {}).get(base, [])
        pairs = [(metric.of(a), metric.of(b)) for a, b in zip(mine, others, strict=False) if a is not None and b is not None]
        return [a / b for a, b in pairs if b]


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


def _spread(values: Sequence[float], digits: int) -> str:
    """Return the median, and from where to where the values go."""
    if not values:
        return ABSENT
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _ratio_rows(results: Results, workloads: Sequence[Workload]) -> Iterable[list[str]]:
    for workload in workloads:
        for endpoint in workload.endpoints:
            base = baseline(workload, endpoint)
            if not endpoint.is_tunstack or not {endpoint.name, base} <= results.samples.get(workload.name, {}).keys():
                continue
            for metric in filter(lambda metric: metric.is_compared, workload.metrics):
                ratios = results.ratios(workload, endpoint.name, base, metric)
                yield [workload.name, metric.name, f"{endpoint.name} : {base}", _spread(ratios, 2)]


def _rows(results: Results, workloads: Sequence[Workload], endpoints: Sequence[str], costs: bool) -> Iterable[list[str]]:
    for workload in workloads:
        for metric in workload.metrics:
            if metric.is_cost == costs:
                cells = [_spread(results.values(workload, endpoint, metric), metric.digits) for endpoint in endpoints]
                yield [workload.name, f"{metric.name}, {metric.unit}", *cells]


def _others_row(results: Results, workloads: Sequence[Workload], endpoints: Sequence[str]) -> list[str]:
    """How much of the machine somebody else used, all workloads together: what the figures are to be trusted."""
    row = ["all", "CPU of all others, % of one CPU"]
    for endpoint in endpoints:
        samples = [s for w in workloads for s in results.samples.get(w.name, {}).get(endpoint, []) if s is not None]
        row.append(_spread([100 * sample["others_s"] / sample["seconds"] for sample in samples], 0))
    return row


def tables(results: Results, workloads: Sequence[Workload], style: str) -> str:
    """Return the whole report as text; `style` is tabulate's name of a table format."""
    endpoints: list[str] = []
    for workload in workloads:
        endpoints += [e.name for e in workload.endpoints if e.name in results.samples.get(workload.name, {}) and e.name not in endpoints]
    figures = ["workload", "figure"]

    def table(rows: Iterable[list[str]], headers: list[str]) -> str:
        return tabulate(list(rows), headers, tablefmt=style, disable_numparse=True)

    costs = [*_rows(results, workloads, endpoints, True), _others_row(results, workloads, endpoints)]
    parts = [
        _list(_circumstances(results, workloads)),
        table(_rows(results, workloads, endpoints, False), figures + endpoints),
        "CPU time within the measured window, user and system together:",
        table(costs, figures + endpoints),
    ]
    if ratios := list(_ratio_rows(results, workloads)):
        parts += ["Ratios, taken within each run:", table(ratios, [*figures, "of", "ratio"])]
    if results.missing:
        parts += ["Not measured:", _list(results.missing)]
    return "\n\n".join(parts) + "\n"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _circumstances(results: Results, workloads: Sequence[Workload]) -> Iterable[str]:
    settings = results.settings
    host = settings["machine"]
    yield (
        f"{host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}, Python {host['python']}; "
        f"load average {settings['load_before']} before, {settings['load_after']} after"
    )
    yield (
        f"{settings['runs']} runs of {settings['seconds']:g} s after {settings['warmup']:g} s of warm-up, each in fresh namespaces; "
        "medians (from least to most)"
    )
    yield f"client: C on kernel sockets, congestion {settings['congestion']}"
    for endpoint, facts in results.facts.items():
        yield f"{endpoint}: " + ", ".join(f"{name} {value}" for name, value in facts.items())
    for workload in workloads:
        yield f"{workload.name}: {workload.about}"


def write(results: Results, workloads: Sequence[Workload], directory: Path) -> tuple[Path, Path]:
    """Write the samples as JSON and the tables as Markdown; return where."""
    directory.mkdir(parents=True, exist_ok=True)
    data, text = directory / "bench.json", directory / "bench.md"
    content = {"settings": results.settings, "endpoints": results.facts, "samples": results.samples, "missing": results.missing}
    data.write_text(json.dumps(content, indent=1) + "\n")
    text.write_text(tables(results, workloads, "github"))
    return data, text
