#!/usr/bin/env python3
"""The interop matrix: tunstack against Linux, on real TUNs, as client and as server (M-30).

    make interop                                      all 1440 cells: a minute or two
    make interop ARGS='--only mtu=576,load=up+down'   some of them; NAME=VALUE with sack, ts, ws, ecn, mtu, link, role, load
    make interop ARGS=--share                         a share, in which any two option values come together, as the tests run it

{SACK, timestamps, window scaling: on, off} x {ECN 0, 1, 2} x {MTU 576, 1500, 9000} x {bulk up, bulk down, echo, half-close, many small}
over a clean link and over one with loss, reordering, duplication and corruption. A cell passes when every octet is the right one, both
ends come to rest within the time limit, and both ends negotiated exactly what was asked for. Whose option is off when one is off:
cells.py. Ends in a table; the exit status is 1 if a cell failed, 2 if the command line is wrong.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection, wait
from typing import IO

import group
from cells import Cell, Filter, Setting, all_settings, cells_of, share
from group import Outcome, Total
from table import table

MARGIN = 20.0  # s beyond the limit of a cell that its process may take to start, report and end


class Job:
    """A setting being run in a process of its own."""

    def __init__(self, setting: Setting, cells: list[Cell], options: argparse.Namespace) -> None:
        self.setting = setting
        self.missing = list(cells)  # no report of them came yet
        self.deadline = time.monotonic() + options.limit + MARGIN
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self.reports, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")  # the imports are done: a process takes milliseconds to begin
        self._process = context.Process(target=_work, args=(self._errors, theirs, setting, cells, options), daemon=True)
        self._process.start()
        theirs.close()

    def end(self, how: str) -> list[Outcome]:
        """Make sure that it has ended; return an outcome for each cell that it owes one."""
        if self._process.is_alive():
            self._process.join(0 if self.missing else MARGIN)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._errors.seek(0)
        detail = self._errors.read().decode(errors="replace")
        self._errors.close()
        self.reports.close()
        return [Outcome(cell, 0.0, f"{how} (exit status {self._process.exitcode})", detail) for cell in self.missing]


def _work(errors: IO[bytes], reports: Connection, setting: Setting, cells: list[Cell], options: argparse.Namespace) -> None:
    """Be the process of a setting."""
    os.dup2(errors.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    group.run(setting, cells, options.limit, options.seed + setting.number, options.fast_path, reports.send)


class Run:
    """The whole run: so many settings at a time."""

    def __init__(self, plan: list[tuple[Setting, list[Cell]]], options: argparse.Namespace) -> None:
        self._plan = plan
        self._options = options
        self._total = sum(len(cells) for _, cells in plan)
        self.outcomes: dict[Cell, Outcome] = {}
        self.failures: list[Outcome] = []
        self.link_counts: dict[str, int] = {}

    def go(self) -> None:
        """Run everything."""
        waiting = list(reversed(self._plan))
        jobs: dict[Connection, Job] = {}
        while waiting or jobs:
            while waiting and len(jobs) < self._options.jobs:
                setting, cells = waiting.pop()
                job = Job(setting, cells, self._options)
                jobs[job.reports] = job
            now = time.monotonic()
            ready = wait(jobs, max(min(job.deadline for job in jobs.values()) - now, 0))
            for reports in ready:
                self._take(jobs, jobs[reports])  # type: ignore[index]
            for job in [job for job in jobs.values() if job.deadline <= time.monotonic()]:
                self._finish(jobs, job, "stuck: the process of its setting did not end")

    def _take(self, jobs: dict[Connection, Job], job: Job) -> None:
        try:
            message = job.reports.recv()
        except (EOFError, OSError):
            self._finish(jobs, job, "the process of its setting ended early")
            return
        if isinstance(message, Total):
            for name, count in message.counts.items():
                self.link_counts[name] = self.link_counts.get(name, 0) + count
        else:
            job.missing.remove(message.cell)
            self._note(message)

    def _finish(self, jobs: dict[Connection, Job], job: Job, how: str) -> None:
        del jobs[job.reports]
        for outcome in job.end(how):
            self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        """Keep an outcome; tell of a failure at once."""
        self.outcomes[outcome.cell] = outcome
        if outcome.error is not None:
            self.failures.append(outcome)
        if sys.stderr.isatty():
            print(f"\r\033[K{len(self.outcomes)}/{self._total}, {len(self.failures)} failed", end="", file=sys.stderr, flush=True)
        if outcome.error is not None:
            print(f"\r\033[KFAILED {outcome.cell}: {outcome.error}" if sys.stderr.isatty() else f"FAILED {outcome.cell}: {outcome.error}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", metavar="NAME=VALUE[+VALUE]...[,...]", help="these cells; repeatable, which adds to the choice"
    )
    parser.add_argument("--share", action="store_true", help="only settings in which any two option values come together")
    parser.add_argument("--limit", type=float, default=60.0, metavar="S", help="seconds that a cell may take (default 60)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=2 * cpus, metavar="N", help=f"settings at a time (default {2 * cpus})")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the lossy links (default 1)")
    parser.add_argument("--no-fast-path", dest="fast_path", action="store_false", help="have every segment take the full way")
    parser.add_argument("--list", action="store_true", help="print the names of the cells, and run none")
    options = parser.parse_args()
    try:
        options.filters = [Filter(text) for text in options.only or ()]
    except ValueError as error:
        parser.error(f"--only: {error}")
    if options.jobs < 1 or options.limit <= 0:
        parser.error("--jobs and --limit are positive")
    return options


def plan(options: argparse.Namespace) -> list[tuple[Setting, list[Cell]]]:
    """Return the chosen cells by setting."""
    chosen = []
    for setting in share() if options.share else all_settings():
        cells = [cell for cell in cells_of(setting) if not options.filters or any(one.takes(cell) for one in options.filters)]
        if cells:
            chosen.append((setting, cells))
    return chosen


def main() -> int:
    options = parse_arguments()
    chosen = plan(options)
    if not chosen:
        print("interop: --only leaves no cell", file=sys.stderr)
        return 2
    if options.list:
        for _, cells in chosen:
            print(*cells, sep="\n")
        return 0
    if os.geteuid() != 0:
        print("interop: making network namespaces and interfaces needs root: run it with sudo, or by `make interop`", file=sys.stderr)
        return 2
    begun = time.monotonic()
    run = Run(chosen, options)
    run.go()
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    for failure in run.failures:
        print(f"\n{failure.cell}\n  {failure.error}\n  alone: make interop ARGS='--only {failure.cell}'")
        for line in failure.detail.splitlines():
            print(f"  | {line}")
    print()
    print(table([setting for setting, _ in chosen], run.outcomes))
    if run.link_counts:
        print("\nThe lossy links, frames: " + ", ".join(f"{count} {name}" for name, count in run.link_counts.items()))
    passed = len(run.outcomes) - len(run.failures)
    print(f"\n{passed} of {len(run.outcomes)} cells passed in {time.monotonic() - begun:.0f} s")
    return 1 if run.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
