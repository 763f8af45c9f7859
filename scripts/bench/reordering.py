#!/usr/bin/env python3
"""Needless retransmissions under reordering without loss: Linux to Linux over `tunstack link`, tunstack to tunstack in virtual time.

    sudo .venv/bin/python scripts/bench/reordering.py            # two and a half minutes
    .venv/bin/python scripts/bench/reordering.py --virtual-only  # without root: only ours

The link has a round trip of 20 ms and a rate, drops nothing, and holds a share of the frames back until `depth` others have overtaken
them. So whatever is sent again is sent in vain. Shares are of the data segments, in percent, over all runs; "undone" counts the
reductions of the window that were taken back, "goodput" is Mbit/s.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flow_end import UNDONE
from processes import ProcessError
from same_link import BASE, Conditions, measure
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from sim.reordering import QUEUE, RMEM, Course, Reordering, run

DEPTHS = (0, 3, 10, 30)
CONGESTIONS = ("reno", "cubic")
TRIES = 3  # where the machine was too busy for the link
KNOBS = {"ipv4/tcp_rmem": "{} {} {}".format(*RMEM)}


@dataclass(frozen=True, slots=True)
class Link(Conditions):
    """The conditions as `tunstack link` reads them."""

    reordering: Reordering

    def spec(self, seed: int) -> str:
        """Write them."""
        how = self.reordering
        items = [f"delay={how.rtt // 2}us", f"rate={how.rate}bit", f"queue={QUEUE}", f"seed={seed}"]
        if how.depth:
            items.append(f"reorder={100 * how.share:g}%/{how.depth}")
        return ",".join(items)


def linux(conditions: Reordering, seconds: float, seed: int) -> Course:
    """Measure the kernels. ProcessError says what went wrong."""
    link = Link(0.0, conditions.rtt / 1000, conditions.rate / 1e6, conditions)
    for left in range(TRIES - 1, -1, -1):
        try:
            found = measure(BASE, link, conditions.congestion, 1, seconds, seed, KNOBS)
            break
        except ProcessError:
            if not left:
                raise
    lost = {name: found["link"][way][name] for way in ("up", "down") for name in ("lost", "dropped") if name in found["link"][way]}
    if any(lost.values()):
        raise ProcessError(f"the link lost frames: {lost}")
    sender = found["sender"]
    return Course(
        sent=sender["TCPOrigDataSent"],
        resent=sender["retransmitted"],
        recoveries=sender["TCPSackRecovery"],
        reordered=sender["TCPSACKReorder"] + sender["TCPTSReorder"],
        undone=sum(sender[name] for name in UNDONE),
        timeouts=sender["timeouts"],
        received=sum(found["octets"]),
    )


def cells(courses: Sequence[Course], seconds: float) -> list[str]:
    """Return the columns of one side: all runs together, the share also of the least and the most."""
    if not courses:
        return ["-"] * 5
    shares = [course.spurious for course in courses]
    total = 100 * sum(course.resent for course in courses) / sum(course.sent for course in courses)
    goodput = sum(course.received for course in courses) * 8e-6 / seconds / len(courses)
    counts = [sum(getattr(course, name) for course in courses) for name in ("resent", "recoveries", "undone")]
    return [f"{total:.2f} ({min(shares):.2f} to {max(shares):.2f})", *map(str, counts), f"{goodput:.1f}"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", action="append", type=int, metavar="N", help="only this one, repeatable; others too (0: none)")
    parser.add_argument("--congestion", action="append", choices=CONGESTIONS, metavar="NAME", help="only this one, repeatable")
    parser.add_argument("--share", type=float, default=2.0, metavar="PERCENT", help="of the frames that are overtaken (default 2)")
    parser.add_argument("--rate", type=float, default=20.0, metavar="MBIT", help="of the link (default 20)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="length of a run (default 4)")
    parser.add_argument("--runs", type=int, default=4, metavar="N", help="runs of each (default 4)")
    parser.add_argument("--virtual-only", action="store_true", help="do not measure Linux")
    options = parser.parse_args()
    if not 0 < options.share <= 50 or not 0 < options.rate <= 1000 or not 0 < options.seconds <= 60 or not 0 < options.runs <= 100:
        parser.error("--share is up to 50, --rate up to 1000, --seconds up to 60, --runs up to 100, all more than 0")
    if not all(0 <= depth <= 100 for depth in options.depth or ()):
        parser.error("--depth is 0 to 100")
    return options


def main() -> int:
    options = parse_arguments()
    if not options.virtual_only and os.geteuid() != 0:
        print("reordering: making network namespaces needs root: run it with sudo, or with --virtual-only", file=sys.stderr)
        return 2
    rows = []
    for congestion in options.congestion or CONGESTIONS:
        for depth in options.depth or DEPTHS:
            conditions = Reordering(congestion, depth, options.share / 100, rate=round(options.rate * 1e6))
            seeds = range(1, options.runs + 1)
            theirs = []
            for seed in seeds if not options.virtual_only else ():
                try:
                    theirs.append(linux(conditions, options.seconds, seed))
                except ProcessError as error:
                    print(f"reordering: {congestion}, depth {depth}, seed {seed}: {error}", file=sys.stderr)
            ours = [run(conditions, options.seconds, seed) for seed in seeds]
            rows.append([congestion, str(depth), *cells(theirs, options.seconds), *cells(ours, options.seconds)])
    columns = ["share", "resent", "recoveries", "undone", "goodput"]
    headers = ["algorithm", "depth", *(f"Linux: {columns[0]}", *columns[1:]), *(f"tunstack: {columns[0]}", *columns[1:])]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
