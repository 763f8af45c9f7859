#!/usr/bin/env python3
"""Goodput side by side on one emulated link: Linux to Linux, tunstack to Linux, Linux to tunstack, with the same algorithm.

    sudo .venv/bin/python scripts/bench/side_by_side.py                                    # everything: 50 minutes
    sudo .venv/bin/python scripts/bench/side_by_side.py --congestion reno --loss 1 --rtt 20
    .venv/bin/python scripts/bench/side_by_side.py --table                                 # what has been measured so far

Losses of 0, 0.1, 1, 3, 10 % (each frame by itself, both directions) x round trips of 2, 20, 100 ms x reno, cubic, bbr, at 50 Mbit/s.
Each run of a cell measures the three arrangements one after the other, over the same link with the same seed, and gives a ratio of
each to Linux to Linux; the table has medians over the runs, with the least and the most. How the link is the same: same_link.py.

Where loss keeps a connection far below the link's rate, one connection's goodput varies wildly from run to run, with Linux too. There
several connections run at once, as many as together fill less than half of the link, so that they do not meet; the goodput is that of
one on average.

Every measurement is a line of JSON in the output file as soon as it is done, and what is there is not measured again: the program can
be interrupted and called again. A run that failed is tried again. Remove the file to start anew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ratios
from namespaces import Namespace
from processes import ProcessError
from same_link import ARRANGEMENTS, BASE, LINUX, MSS, Arrangement, Conditions, measure

from tunstack.congestion import available

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "bench" / "side_by_side.jsonl"
CONGESTIONS = ratios.ORDER
LOSSES = (0.0, 0.1, 1.0, 3.0, 10.0)  # percent
ROUND_TRIPS = (2.0, 20.0, 100.0)  # ms
SECONDS = ((10.0, 4.0), (50.0, 5.0), (math.inf, 8.0))  # a measurement's length, s, up to a round trip in ms
FLOWS_MAX = 16
RTO = 0.2  # s, the least


@dataclass(frozen=True, slots=True)
class Measurement:
    """One that is to be made; what names it in the output file."""

    congestion: str
    conditions: Conditions
    run: int
    arrangement: Arrangement
    seconds: float

    @property
    def key(self) -> dict[str, Any]:
        return {
            "congestion": self.congestion,
            "loss": self.conditions.loss,
            "rtt": self.conditions.rtt,
            "rate": self.conditions.rate,
            "run": self.run,
            "arrangement": str(self.arrangement),
        }

    @property
    def flows(self) -> int:
        """Return how many connections run at once."""
        if self.congestion == "bbr" or not self.conditions.loss:  # these fill the link
            return 1
        half = self.conditions.rate * 1e6 / 2
        return max(1, min(FLOWS_MAX, int(half / expected_rate(self.conditions.loss / 100, self.conditions.rtt / 1000))))


def expected_rate(loss: float, rtt: float) -> float:
    """Return the bit/s that a loss-limited Reno gets (Padhye et al., Modeling TCP Throughput, equation 30, an ACK a segment)."""
    return 8 * MSS / (rtt * math.sqrt(2 * loss / 3) + (RTO + rtt) * min(1, 3 * math.sqrt(3 * loss / 8)) * loss * (1 + 32 * loss**2))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--congestion", action="append", choices=CONGESTIONS, metavar="NAME", help="only this one, repeatable")
    parser.add_argument("--loss", action="append", type=float, metavar="PERCENT", help="only this one, repeatable; others too")
    parser.add_argument("--rtt", action="append", type=float, metavar="MS", help="only this one, repeatable; others too")
    parser.add_argument("--rate", type=float, default=50.0, metavar="MBIT", help="of the link (default 50)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each cell, counting those in the file (default 3)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of each measurement (default by round trip: 4, 5, 8)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help="default build/bench/side_by_side.jsonl")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table of what is in the file")
    options = parser.parse_args()
    if options.runs < 1 or options.rate <= 0 or not (options.seconds is None or 0 < options.seconds <= 600):
        parser.error("--runs, --rate and --seconds (up to 600) are positive")
    if not all(0 <= loss <= 50 for loss in options.loss or ()) or not all(0 < rtt <= 1000 for rtt in options.rtt or ()):
        parser.error("--loss is 0 to 50 (percent), --rtt up to 1000 (ms)")
    return options


def plan(options: argparse.Namespace) -> Iterator[Measurement]:
    """Give the chosen measurements: all cells once, then all once more; within a run the arrangements follow each other."""
    for run in range(1, options.runs + 1):
        for congestion in options.congestion or CONGESTIONS:
            for loss in options.loss or LOSSES:
                for rtt in options.rtt or ROUND_TRIPS:
                    shift = run % len(ARRANGEMENTS)  # none is always the first
                    seconds = options.seconds or next(length for limit, length in SECONDS if rtt <= limit)
                    for arrangement in (*ARRANGEMENTS[shift:], *ARRANGEMENTS[:shift]):
                        yield Measurement(congestion, Conditions(loss, rtt, options.rate), run, arrangement, seconds)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file; a last line that was cut off by a crash is not one."""
    records = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                print(f"side_by_side: {path}: a line that is not whole is left out", file=sys.stderr)
    return records


def run_all(options: argparse.Namespace, records: list[dict[str, Any]]) -> int:
    """Make the measurements that are not in `records`, and add them; return how many failed."""
    done = [{name: record.get(name) for name in next(plan(options)).key} for record in records if "error" not in record]
    waiting = [measurement for measurement in plan(options) if measurement.key not in done]
    missing = {one.congestion for one in waiting if one.arrangement.sender != LINUX} - set(available())
    for name in sorted(missing):
        print(f"side_by_side: this tunstack has no {name}: its sending is not measured", file=sys.stderr)
    waiting = [one for one in waiting if one.arrangement.sender == LINUX or one.congestion not in missing]
    failed = 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("a") as output:
        if output.tell() and not options.output.read_bytes().endswith(b"\n"):
            output.write("\n")  # behind a line that was cut off
        for number, one in enumerate(waiting, 1):
            record: dict[str, Any] = one.key | {"flows": one.flows, "seconds": one.seconds, "at": time.strftime("%Y-%m-%dT%H:%M:%S")}
            try:
                record |= measure(one.arrangement, one.conditions, one.congestion, one.flows, one.seconds, seed(one))
                result = f"{record['mbit']:8.3f} Mbit/s"
            except ProcessError as error:
                failed += 1
                record["error"] = str(error)
                result = f"failed: {error}"
            print(json.dumps(record), file=output, flush=True)
            records.append(record)
            condition = f"{one.congestion:5} loss {one.conditions.loss:4g} % rtt {one.conditions.rtt:3g} ms run {one.run}"
            print(f"{number:3}/{len(waiting)} {condition} {one.arrangement!s:14} x{one.flows:<2} {result}", flush=True)
    return failed


def seed(one: Measurement) -> int:
    """Return the same for all arrangements of a run."""
    return one.run * 1_000_000 + round(one.conditions.loss * 10) * 1000 + round(one.conditions.rtt)


def main() -> int:
    options = parse_arguments()
    records = read(options.output)
    failed = 0
    if not options.table:
        if os.geteuid() != 0:
            print("side_by_side: making network namespaces and interfaces needs root: run it with sudo", file=sys.stderr)
            return 2
        if unknown := {measurement.congestion for measurement in plan(options)} - set(kernel_has()):
            print(f"side_by_side: this kernel has no {', '.join(sorted(unknown))}: modprobe tcp_{min(unknown)}", file=sys.stderr)
            return 2
        failed = run_all(options, records)
    wanted = [record for record in records if record["rate"] == options.rate]
    print(ratios.table(wanted, str(BASE), [str(one) for one in ARRANGEMENTS if one != BASE]))
    return 1 if failed else 0


def kernel_has() -> list[str]:
    """Return the algorithms of the kernel, in a new namespace."""
    with Namespace() as namespace:
        return namespace.run(lambda: Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
