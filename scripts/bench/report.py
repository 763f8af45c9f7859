"""From samples to tables: medians, spread, ratios, targets."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import metrics
import targets
from latency import Latencies
from results import Results
from tabulate import tabulate
from workloads import Workload

ABSENT = "-"
KERNEL = "kernel"  # with which is compared what names nothing else


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


def _names(results: Results, workloads: Sequence[Workload]) -> list[str]:
    """Return the names of the endpoints of which there is anything, in the order of the workloads' own lists."""
    measured = {name for workload in workloads for name in results.endpoints(workload.name)}
    return [name for name in dict.fromkeys(e.name for workload in workloads for e in workload.endpoints) if name in measured]


def overview(results: Results, workloads: Sequence[Workload], style: str) -> str:
    """Return the medians of what each workload is about: a row for each endpoint."""
    workloads = [workload for workload in workloads if workload.headlines]
    columns = [(workload, metric) for workload in workloads for metric in workload.metrics if metric.name in workload.headlines]
    rows = [
        [name, *(_median(results.values(workload.name, name, metric.name), metric.digits) for workload, metric in columns)]
        for name in _names(results, workloads)
    ]
    headers = ["endpoint"]
    for workload, metric in columns:
        title = workload.name if len(workload.headlines) == 1 else f"{workload.name} {metric.name}"
        headers.append(_title(title, metric.unit))
    return _table(rows, headers, style)


def details(results: Results, workload: Workload, style: str) -> str:
    """Return all figures of a workload with their spread, and the ratio of the first of them to the kernel's."""
    names = _names(results, [workload])
    bases = {endpoint.name: endpoint.base for endpoint in workload.endpoints}
    first = workload.metrics[0].name
    rows = []
    for name in names:
        row = [name, *(spread(results.values(workload.name, name, metric.name), metric.digits) for metric in workload.metrics)]
        base = bases[name] if bases[name] in names else KERNEL
        ratios = results.ratios(workload.name, name, base, first)
        row.append(f"{spread(ratios, 2)} of {base}" if ratios and base != name else ABSENT)
        rows.append(row)
    headers = ["endpoint", *(_title(metric.name, metric.unit) for metric in workload.metrics), f"{first}, ratio"]
    return _table(rows, headers, style)


def latencies(results: Results, workload: Workload, style: str) -> str:
    """Return the percentiles of a workload over the round trips of all runs together; nothing if it has none."""
    rows = []
    for name in _names(results, [workload]):
        encoded = [sample["histogram"] for sample in results.samples[workload.name][name] if sample is not None and "histogram" in sample]
        if not encoded:
            continue
        all_runs = Latencies()
        for histogram in encoded:
            all_runs.add(histogram)
        figures = [*(all_runs.percentile(percent) for percent in metrics.PERCENTILES), all_runs.longest()]
        rows.append([name, f"{len(all_runs):,}", *(f"{figure:,.1f}" for figure in figures)])
    headers = ["endpoint", "round trips", *(f"{metrics.percentile_name(percent)}, us" for percent in metrics.PERCENTILES), "longest, us"]
    return _table(rows, headers, style) if rows else ""


def tables(results: Results, workloads: Sequence[Workload], style: str) -> str:
    """Return the whole report as text; `style` is tabulate's name of a table format."""
    measured = [workload for workload in workloads if results.endpoints(workload.name)]
    parts = [_list(_circumstances(results)), overview(results, measured, style)]
    if rows := list(targets.rows(results)):
        headers = ["target (ratios are taken within each run)", "bound", "median", "least to most", "runs", ""]
        parts.append(_table(rows, headers, style))
    for workload in measured:
        parts += [f"{workload.name}: {workload.about}", details(results, workload, style)]
        if table := latencies(results, workload, style):
            parts += [f"{workload.name}, the round trips of all runs together:", table]
    if results.missing:
        parts += ["Not measured:", _list(results.missing)]
    return "\n\n".join(parts) + "\n"


def _title(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], style: str) -> str:
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _circumstances(results: Results) -> Iterable[str]:
    settings = results.settings
    host = settings["machine"]
    yield (
        f"{host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}, Python {host['python']}; "
        f"load average {settings['load_before']} before, {settings['load_after']} after; it took {settings['took_s']} s"
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
