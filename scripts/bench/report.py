"""From samples to tables: medians, spread, ratios, targets."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import targets
from endpoints import ENDPOINTS, KERNEL
from results import Results
from tabulate import tabulate
from workloads import Workload

ABSENT = "-"
BASES = {endpoint.name: endpoint.base for endpoint in ENDPOINTS}


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median, and from where to where the values go."""
    if not values:
        return ABSENT
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _median(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f}" if values else ABSENT


def overview(results: Results, workloads: Sequence[Workload], style: str) -> str:
    """Return the medians of what each workload is about: a row for each endpoint."""
    columns = [(workload, metric) for workload in workloads for metric in workload.metrics if metric.name in workload.headlines]
    names = dict.fromkeys(name for workload in workloads for name in results.endpoints(workload.name))
    order = [endpoint.name for endpoint in ENDPOINTS]
    rows = [
        [name, *(_median(results.values(workload.name, name, metric.name), metric.digits) for workload, metric in columns)]
        for name in sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    ]
    headers = ["endpoint"]
    for workload, metric in columns:
        headers.append(
            f"{workload.name}, {metric.unit}" if len(workload.headlines) == 1 else f"{workload.name} {metric.name}, {metric.unit}"
        )
    return _table(rows, headers, style)


def details(results: Results, workload: Workload, style: str) -> str:
    """Return all figures of a workload with their spread, and the ratio of the first of them to the kernel's."""
    names = results.endpoints(workload.name)
    rows = []
    for name in names:
        row = [name, *(spread(results.values(workload.name, name, metric.name), metric.digits) for metric in workload.metrics)]
        base = BASES.get(name) or KERNEL.name
        base = base if base in names else KERNEL.name
        ratios = results.ratios(workload.name, name, base, workload.metrics[0].name)
        row.append(f"{spread(ratios, 2)} of {base}" if ratios and base != name else ABSENT)
        rows.append(row)
    headers = ["endpoint", *(f"{metric.name}, {metric.unit}" for metric in workload.metrics), f"{workload.metrics[0].name}, ratio"]
    return _table(rows, headers, style)


def tables(results: Results, workloads: Sequence[Workload], style: str) -> str:
    """Return the whole report as text; `style` is tabulate's name of a table format."""
    measured = [workload for workload in workloads if results.endpoints(workload.name)]
    parts = [_list(_circumstances(results))]
    if measured:
        parts.append(overview(results, measured, style))
    if rows := list(targets.rows(results)):
        headers = ["target (ratios are taken within each run)", "bound", "median", "least to most", "runs", ""]
        parts.append(_table(rows, headers, style))
    for workload in measured:
        parts += [f"{workload.name}: {workload.about}", details(results, workload, style)]
    if results.missing:
        parts += ["Not measured:", _list(results.missing)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], style: str) -> str:
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _circumstances(results: Results) -> Iterable[str]:
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
        if facts:
            yield f"{endpoint}: " + ", ".join(f"{name} {value}" for name, value in facts.items())
    samples = [
        sample for runs in results.samples.values() for column in runs.values() for sample in column if sample and "others_s" in sample
    ]
    if samples:
        others = [100 * sample["others_s"] / sample["seconds"] for sample in samples]
        yield f"CPU that all others took meanwhile, % of one CPU: {spread(others, 0)}"


def write(results: Results, workloads: Sequence[Workload], directory: Path) -> tuple[Path, Path]:
    """Write the samples as JSON and the tables as Markdown; return where."""
    directory.mkdir(parents=True, exist_ok=True)
    data, text = directory / "bench.json", directory / "bench.md"
    content = {"settings": results.settings, "endpoints": results.facts, "samples": results.samples, "missing": results.missing}
    data.write_text(json.dumps(content, indent=1) + "\n")
    text.write_text(tables(results, workloads, "github"))
    return data, text
