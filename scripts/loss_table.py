#!/usr/bin/env python3
"""Enumerates the losses of a transfer of 100 segments in virtual time, and holds each against what the RFCs' reasoning expects.

Any one segment, any two, any one ACK, a segment and its first retransmission; with and without SACK, timestamps, super-segments.
Prints a table; ends with status 1 if any run is not as expected.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from sim import loss_expectations as expect
from sim.losses import SEGMENTS, Course, run
from tabulate import tabulate

# Name, options of `run`.
WAYS: dict[str, dict[str, bool]] = {
    "SACK, timestamps": {},
    "SACK": {"timestamps": False},
    "SACK, timestamps, super-segments": {"bursts": True},
    "timestamps": {"sack": False},
    "neither": {"sack": False, "timestamps": False},
}
COUNTED = ("runs", "timeouts", "probes", "recoveries", "resent")
Case = tuple[str, str, tuple[int, ...]]  # kind, way, what is lost


def play(case: Case) -> tuple[Case, Course, bool]:
    """Run one case; the course comes back without its sendings."""
    kind, way, numbers = case
    options = WAYS[way]
    sack = options.get("sack", True)
    if kind == "one ACK":
        course = run((), numbers[:1], **options)
        expected = expect.one_ack(*numbers, sack)
    elif kind == "segment and retransmission":
        course = run([(numbers[0], 0), (numbers[0], 1)], **options)
        expected = expect.retransmission_too(numbers[0], course, sack)
    else:
        course = run([(number, 0) for number in numbers], **options)
        judges: list[Callable[..., expect.Figures]] = [lambda course, sack: (0, 0, 0, 0), expect.one_segment, expect.two_segments]
        expected = judges[len(numbers)](*numbers, course, sack)
    is_right = expect.agrees(course, expected)
    course.sendings, course.acks = [], []
    return case, course, is_right


def cases(way: str, step: int) -> Iterator[Case]:
    """Return all cases of a way; of the pairs of segments only every `step`-th, but all that touch the tail."""
    yield "nothing", way, ()
    for number in range(1, SEGMENTS + 1):
        yield "one segment", way, (number,)
    for index, pair in enumerate(combinations(range(1, SEGMENTS + 1), 2)):
        if index % step == 0 or pair[1] > SEGMENTS - 5:
            yield "two segments", way, pair
    last = run(**WAYS[way]).acks_sent
    for number in range(1, last + 1):
        yield "one ACK", way, (number, last)
    for number in range(1, SEGMENTS + 1):
        yield "segment and retransmission", way, (number,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, metavar="N", help="only every N-th pair (default: all 4950)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)")
    options = parser.parse_args()
    rows: dict[tuple[str, str], Counter[str]] = {}
    wrong = []
    with multiprocessing.Pool(options.workers) as pool:
        for way in WAYS:
            for case, course, is_right in pool.imap(play, cases(way, options.step), 50):
                row = rows.setdefault((way, case[0]), Counter())
                timeouts, probes, recoveries, resent = course.figures
                row.update(runs=1, timeouts=timeouts, probes=probes, recoveries=recoveries, resent=resent, time=course.complete_at)
                row["worst"] = max(row["worst"], course.complete_at)
                if not is_right:
                    wrong.append((case, course.figures))
    table = [
        [way, kind, *(row[name] for name in COUNTED), f"{row['time'] / row['runs'] / 1000:.1f}", f"{row['worst'] / 1000:.1f}"]
        for (way, kind), row in rows.items()
    ]
    print(tabulate(table, ["options", "lost", "runs", "timeouts", "probes", "recoveries", "sent again", "mean ms", "worst ms"]))
    for (kind, way, numbers), figures in wrong[:20]:
        print(f"not as expected: {kind} {numbers} ({way}): timeouts, probes, recoveries, sent again: {figures}")
    print(f"{len(wrong)} of {sum(row['runs'] for row in rows.values())} runs not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
