"""What side_by_side.py measured, as a table: the goodput of Linux to Linux, and the others as ratios to it, run by run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

ORDER = ("reno", "cubic", "bbr")
GOAL = 0.9
BUSY = 0.8  # of a CPU
MOVES = 0.02  # Mbit/s a connection, from which on Linux itself moves data
Record = dict[str, Any]


def table(records: Iterable[Record], base: str, others: Sequence[str]) -> str:
    """Return Markdown: a row for each cell, and a judgement on each arrangement. What failed is left out."""
    cells: dict[tuple[str, float, float], dict[str, dict[int, Record]]] = {}
    busy = 0
    others_cpus = []
    for record in records:
        if "error" not in record:
            others_cpus.append(record["others"])
            busy += max(record["cpu"].values()) > BUSY
            cell = cells.setdefault((record["congestion"], record["loss"], record["rtt"]), {})
            cell.setdefault(record["arrangement"], {})[record["run"]] = record
    names = [other.replace("-", " to ").replace("linux", "Linux") for other in others]
    headers = ["algorithm", "loss", "round trip", "connections", "Linux to Linux", *(f"{name}, ratio" for name in names)]
    rows = []
    reached: dict[str, list[bool]] = {other: [] for other in others}
    for congestion, loss, rtt in sorted(cells, key=lambda cell: (ORDER.index(cell[0]), *cell[1:])):
        by_arrangement = cells[congestion, loss, rtt]
        runs = by_arrangement.get(base, {})
        if not runs:
            continue
        goodput = statistics.median(record["mbit"] for record in runs.values())
        row = [congestion, f"{loss:g} %", f"{rtt:g} ms", str(next(iter(runs.values()))["flows"]), f"{goodput:.2f}"]
        for other in others:
            found = by_arrangement.get(other, {})
            quotients = [found[run]["mbit"] / runs[run]["mbit"] for run in sorted(found.keys() & runs.keys()) if runs[run]["mbit"]]
            row.append(_spread(quotients))
            if quotients and goodput >= MOVES:
                reached[other].append(statistics.median(quotients) >= GOAL)
        rows.append(row)
    text = [tabulate(rows, headers, tablefmt="github", disable_numparse=True), ""]
    text.append("Goodput in Mbit/s a connection; ratios run by run: median (least to most), below the goal in bold.")
    for name, other in zip(names, others, strict=True):
        text.append(f"- {name}: at least {GOAL:g} in {sum(reached[other])} of {len(reached[other])} cells")
    if others_cpus:
        middle, most = statistics.median(others_cpus), max(others_cpus)
        text.append(f"- CPUs that others took meanwhile: {middle:.2f} in the median, {most:.2f} at most")
    if busy:
        text.append(f"- in {busy} measurements the link or an end took more than {BUSY:.0%} of a CPU: the machine may have set the limit")
    return "\n".join(text)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    text = f"{middle:.2f}" if middle >= GOAL else f"**{middle:.2f}**"
    return f"{text} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else text
