#!/usr/bin/env python3
"""Plays random worlds, a range of seeds over all cores: two engines against each other, checked after every step.

Each seed draws two hosts, a link that misbehaves and applications that behave at random (tests/worlds/draw.py). A world that fails is told
with the command that plays it again and shows every frame. With --journal the run can be broken off and taken up again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from worlds.draw import draw_world
from worlds.play import play

CHUNK = 250  # worlds that a worker plays between two reports
WORLD_LIMIT_S = 60  # of processor time, after which a world is taken for one without an end
LONGEST = 5  # worlds that took the longest in virtual time: where nothing fails, that is where to look
SHOWN = 20  # failures that are told in full

# What the worlds must have met, so that one sees that they reach into every corner: a title and the counters for it.
REACHED = {
    "retransmission timeouts": "TCPTimeouts",
    "recoveries with SACK": "TCPSackRecovery",
    "recoveries without": "TCPRenoRecovery",
    "lost retransmissions found": "TCPLostRetransmit",
    "tail loss probes": "TCPLossProbes",
    "losses found by a probe": "TCPLossProbeRecovery",
    "timeouts found spurious": "TCPSpuriousRTOs",
    "undone: whole": "TCPFullUndo",
    "undone: partly": "TCPPartialUndo",
    "undone: by D-SACK": "TCPDSACKUndo",
    "undone: after a timeout": "TCPLossUndo",
    "reordering seen by SACK": "TCPSACKReorder",
    "D-SACKs received": "TCPDSACKRecv",
    "segments held out of order": "TCPOFOQueue",
    "CE marks by the link": "link: marked",
    "window probes": "TCPWinProbe",
    "keepalive probes": "TCPKeepAlive",
    "dropped by PAWS": "PAWSEstab",
    "challenge ACKs": "TCPChallengeACK",
    "checksum errors": "TcpInCsumErrors",
    "ICMP errors": "IcmpInDestUnreachs",
    "connections in TIME-WAIT": "TW",
    "TIME-WAIT cut short by a new SYN": "TWRecycled",
    "connections by SYN cookie": "SyncookiesRecv",
    "SYNs that found the queue full": "TCPReqQFullDrop",
    "connections that found the accept queue full": "ListenOverflows",
    "bare third segments deferred": "TCPDeferAcceptDrop",
    "orphans too many": "TCPAbortOnMemory",
    "times of memory pressure": "TCPMemoryPressures",
    "resets sent": "TcpOutRsts",
    "given up after timeouts": "TCPAbortOnTimeout",
}


@dataclass(slots=True)
class Report:
    """What a chunk of seeds came to."""

    first: int
    count: int
    cpu_s: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)  # seed and what failed
    longest: list[tuple[int, int]] = field(default_factory=list)  # virtual s and seed, of those that no plan excuses

    def to_json(self) -> str:
        """Return one line of the journal."""
        return json.dumps([self.first, self.count, self.cpu_s, self.counters, self.failures, self.longest])

    @staticmethod
    def from_json(line: str) -> Report:
        first, count, cpu_s, counters, failures, longest = json.loads(line)
        return Report(first, count, cpu_s, Counter(counters), list(map(tuple, failures)), list(map(tuple, longest)))


class Endless(RuntimeError):
    """A world used up its processor time."""


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    raise Endless(f"no end after {WORLD_LIMIT_S} s of processor time")


def play_chunk(bounds: tuple[int, int]) -> Report:
    """Play the worlds of [first, end)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGVTALRM, _on_alarm)
    first, end = bounds
    report = Report(first, end - first)
    started = time.process_time()
    for seed in range(first, end):
        signal.setitimer(signal.ITIMER_VIRTUAL, WORLD_LIMIT_S)
        try:
            outcome = play(draw_world(seed))
            report.counters += outcome.counters
            if not outcome.counters["excused"]:
                report.longest.append((outcome.elapsed // 1_000_000, seed))
        except Exception as error:
            report.failures.append((seed, describe(error)))
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    report.cpu_s = time.process_time() - started
    report.longest = sorted(report.longest)[-LONGEST:]
    return report


def describe(error: Exception) -> str:
    """Return what failed and where, in a line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).splitlines()[0][:200] if str(error) else ""
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})"


def missing(first: int, end: int, done: list[Report]) -> Iterator[tuple[int, int]]:
    """Return what of [first, end) is not done yet, in chunks."""
    covered = {seed for report in done for seed in range(report.first, report.first + report.count)}
    start = first
    while start < end:
        if start in covered:
            start += 1
            continue
        stop = start
        while stop < min(start + CHUNK, end) and stop not in covered:
            stop += 1
        yield start, stop
        start = stop


def run(first: int, count: int, workers: int, journal: Path | None, stop_at: int) -> int:
    """Play [first, first + count); return the exit status."""
    done: list[Report] = []
    if journal is not None and journal.exists():
        reports = [Report.from_json(line) for line in journal.read_text().splitlines()]
        done = [report for report in reports if first <= report.first < first + count]
    chunks = list(missing(first, first + count, done))
    started = time.monotonic()
    before = sum(report.count for report in done)
    failed = sum(len(report.failures) for report in done)
    print(f"{count} worlds from seed {first}, {before} of them played before; {workers} processes", flush=True)
    pool = multiprocessing.Pool(workers)
    try:
        for report in pool.imap_unordered(play_chunk, chunks):
            done.append(report)
            if journal is not None:
                with journal.open("a") as file:
                    file.write(report.to_json() + "\n")
            for seed, text in report.failures:
                failed += 1
                if failed <= SHOWN:
                    print(f"seed {seed}: {text}\n    {replay_command(seed)}", flush=True)
            played = sum(entry.count for entry in done)
            elapsed = time.monotonic() - started
            if played // 5000 != (played - report.count) // 5000:
                rate = (played - before) / elapsed
                print(f"{played} of {count}, {failed} failed, {rate:.0f} a second, {(count - played) / rate / 60:.0f} min left", flush=True)
            if stop_at and failed >= stop_at:
                print(f"{failed} failures: enough")
                break
    except KeyboardInterrupt:
        print("broken off" + (f"; the same command goes on from {journal}" if journal is not None else ""))
    finally:
        pool.terminate()
        pool.join()
    summarize(done, time.monotonic() - started)
    return 1 if failed or sum(report.count for report in done) < count else 0


def replay_command(seed: int) -> str:
    """Return the command that plays one world again."""
    return f"python {os.path.relpath(__file__)} --replay {seed}"


def summarize(reports: list[Report], elapsed: float) -> None:
    """Print what all worlds came to."""
    counters: Counter[str] = Counter()
    kinds: dict[str, list[int]] = {}
    for report in reports:
        counters += report.counters
        for seed, text in report.failures:
            kinds.setdefault(re.sub(r"\d+", "N", text), []).append(seed)
    worlds = sum(report.count for report in reports)
    cpu_s = sum(report.cpu_s for report in reports)
    print(f"\n{worlds} worlds, {sum(map(len, kinds.values()))} failed; {cpu_s:.0f} s of processor time, {elapsed:.0f} s now")
    frames = counters["wire: frames"]
    whole, connections = counters["whole both ways"], counters["connections"]
    print(f"{frames} frames, {connections} connections, {whole} whole both ways, {counters['excused']} excused by their plan")
    print("\nreached:")
    for title, name in REACHED.items():
        print(f"  {title:34} {counters[name]:>10}")
    print("\nall counters:")
    for name in sorted(counters):
        print(f"  {name:34} {counters[name]:>10}")
    longest = sorted(entry for report in reports for entry in report.longest)[-LONGEST:]
    print("\nlongest: " + ", ".join(f"seed {seed} {seconds} s" for seconds, seed in reversed(longest)))
    for text, seeds in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"\nfailed {len(seeds)} times: {text}\n  seeds {' '.join(map(str, sorted(seeds)[:10]))}")


def replay(seed: int) -> int:
    """Play one world and show every frame."""
    plan = draw_world(seed)
    print(plan)
    try:
        play(plan, print)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    try:
        play(plan)  # also as the run does it: twice, where the plan says so
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    print("nothing failed")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=10_000, help="worlds to play (default 10000; the full number is 500000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="note what is done, and go on from there the next time")
    parser.add_argument("--stop-at", type=int, default=0, metavar="N", help="stop after so many failures (default: never)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one world and show every frame")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(options.replay)
    return run(options.first, options.count, options.workers, options.journal, options.stop_at)


if __name__ == "__main__":
    sys.exit(main())
