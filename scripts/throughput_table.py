#!/usr/bin/env python3
"""The throughput table: what each congestion control gets out of a link in virtual time, alone and among others.

    .venv/bin/python scripts/throughput_table.py            # say what differs from the table that is kept, status 1 if anything does
    .venv/bin/python scripts/throughput_table.py --write    # write it anew, for review: git diff tests/sim/throughput.txt

Virtual time repeats exactly, so the table is the same on every machine, and a difference is a change of behaviour. `--only TEXT` keeps to
the lines that contain the text (`--only 'cubic + reno'`).
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunstack.congestion import available
from tunstack.device.impairment import Impairment
from tunstack.sim.measure import FlowPlan, Result, measure
from tunstack.sim.world import SECOND

TABLE = Path(__file__).resolve().parents[1] / "tests" / "sim" / "throughput.txt"

RATE = 20_000_000
QUEUE = 100  # frames: 60 ms
ALONE = 10 * SECOND
WARM_UP = 5 * SECOND  # of flows that share
TOGETHER = 20 * SECOND
MIXED = 40 * SECOND  # of different algorithms, which take longer to find out who has what

ROUND_TRIPS = (2, 20, 100)  # ms
LOSSES = (0, 1, 10, 30, 100)  # per mille

ALONE_HEADER = f"""\
One flow through {RATE // 1_000_000} Mbit/s and a queue of {QUEUE} frames, {ALONE // SECOND} s from its start.
Goodput in Mbit/s, and segments sent again.
"""
TOGETHER_HEADER = f"""\
Flows that share {RATE // 1_000_000} Mbit/s and a queue of {QUEUE} frames (200 where there are 40); they start within a second.
Measured from {WARM_UP // SECOND} s to {TOGETHER // SECOND} s ({MIXED // SECOND} s where two algorithms meet): goodput of all in Mbit/s,
Jain's fairness index, share of the algorithm that is named first, segments sent again, mean and 95 % of the queue's length
in frames, frames dropped there.
"""


@dataclass(frozen=True, slots=True)
class Alone:
    """A line of the first part: every algorithm by itself."""

    round_trip: int  # ms
    loss: int  # per mille

    @property
    def name(self) -> str:
        return f"{self.round_trip:3} ms {tenths(self.loss):>5} %"

    def line(self) -> str:
        """Run it and return the line."""
        forward = Impairment(rate=RATE, queue=QUEUE, loss=self.loss / 1000)
        cells = ""
        for name in available():
            result = measure([FlowPlan(name, self.round_trip * 1000)], forward, duration=ALONE, seed=self.loss)
            cells += f"  {mbit(result.goodput):>7} {result.retransmitted:5}"
        return self.name + cells


@dataclass(frozen=True, slots=True)
class Together:
    """A line of the second part. Where two algorithms meet, each has half of the flows."""

    algorithms: tuple[str, ...]
    flows: int
    shortest: int  # ms; round trips lie evenly between both
    longest: int

    @property
    def name(self) -> str:
        trips = f"{self.shortest}" if self.shortest == self.longest else f"{self.shortest}-{self.longest}"
        return f"{self.flows:2} {' + '.join(self.algorithms):16} {trips:>7} ms"

    @property
    def duration(self) -> int:
        return TOGETHER if len(self.algorithms) == 1 else MIXED

    def line(self) -> str:
        """Run it and return the line."""
        result = self.run()
        queue = result.queue
        index = f"{result.fairness // 1000}.{result.fairness % 1000:03}"
        share = f"{tenths(result.share(self.algorithms[0]))} %" if len(self.algorithms) > 1 else "-"
        figures = f"{share:>7} {result.retransmitted:6} {queue.mean:4} {queue.p95:4} {queue.dropped:6}"
        return f"{self.name}  {mbit(result.goodput):>7}  {index} {figures}"

    def run(self) -> Result:
        """Run it. Flows take turns at the algorithms."""
        step = (self.longest - self.shortest) * 1000 // max(self.flows - 1, 1)
        names = [self.algorithms[number % len(self.algorithms)] for number in range(self.flows)]
        plans = [FlowPlan(name, self.shortest * 1000 + number * step) for number, name in enumerate(names)]
        forward = Impairment(rate=RATE, queue=200 if self.flows >= 40 else QUEUE)
        return measure(plans, forward, duration=self.duration, warm_up=WARM_UP, spread=SECOND, seed=self.flows)


Line = Alone | Together


def mbit(rate: int) -> str:
    """Write bits a second as Mbit/s, rounded down."""
    return f"{rate // 1_000_000}.{rate // 10_000 % 100:02}"


def tenths(per_mille: int) -> str:
    """Write per mille as per cent."""
    whole, tenth = divmod(per_mille, 10)
    return f"{whole}.{tenth}" if tenth else f"{whole}"


def alone() -> list[Alone]:
    """The first part's lines, in order."""
    return [Alone(round_trip, loss) for round_trip in ROUND_TRIPS for loss in LOSSES]


def together() -> list[Together]:
    """The second part's lines, in order."""
    names = [name for name in available() if name != "tahoe"]  # which nobody shares a link with any more
    lines = [Together((name,), flows, 20, 20) for name in names for flows in (2, 10, 40)]
    lines += [Together((name,), flows, 10, 100) for name in names for flows in (2, 10, 40)]
    for pair in (("cubic", "reno"), ("bbr", "cubic")):
        if set(pair) <= set(names):
            lines += [Together(pair, flows, round_trip, round_trip) for round_trip in (10, 100) for flows in (2, 10)]
    return lines


def texts() -> Iterator[Line | str]:
    """The whole table: lines to be computed, and the lines between them."""
    yield from ALONE_HEADER.splitlines()
    yield ""
    yield f"{'':14}" + "".join(f"  {name:>13}" for name in available())
    yield from alone()
    yield ""
    yield from TOGETHER_HEADER.splitlines()
    yield ""
    yield f"{'':30}  goodput  index   share  again mean  p95   drop"
    yield from together()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} anew")
    parser.add_argument("--only", metavar="TEXT", help="print the lines that contain the text, and write nothing")
    given = parser.parse_args(arguments)
    if given.only is not None:
        for item in texts():
            if not isinstance(item, str) and given.only in item.name:
                print(item.line(), flush=True)
        return 0
    started = time.perf_counter()
    fresh = "\n".join(item if isinstance(item, str) else item.line() for item in texts()) + "\n"
    kept = TABLE.read_text() if TABLE.exists() else ""
    sys.stdout.writelines(difflib.unified_diff(kept.splitlines(True), fresh.splitlines(True), "kept", "computed", n=0))
    if given.write:
        TABLE.write_text(fresh)
    virtual = (len(alone()) * len(available()) * ALONE + sum(line.duration for line in together())) // SECOND
    print(f"{virtual} s of virtual time in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return int(fresh != kept and not given.write)


if __name__ == "__main__":
    sys.exit(main())
