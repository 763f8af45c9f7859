#!/usr/bin/env python3
"""Benchmark of a tunstack endpoint beside the same program on the kernel's TCP.

The servers run under uvloop, one on kernel sockets behind a veth pair, one on tunstack and a TUN interface; the client is
the same C program for all. Every measurement has fresh network namespaces, which vanish with it; the machine's own is not touched.
Endpoints take turns within each run. Needs root.
"""

from __future__ import annotations

import argparse
import os
import pstats
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

try:
    import peers
    import report
    import targets
    from endpoints import Endpoint
    from namespaces import Namespace
    from peers import BUILD
    from processes import ProcessError
    from results import Results, machine
    from workloads import WORKLOADS, Manner, Named, Workload
except ModuleNotFoundError as missing:
    sys.exit(f"bench: the module {missing.name} is missing: install the package with its bench extra (pip install -e '.[bench]')")

HERE = Path(__file__).resolve().parent
SETTLE = 0.1  # s after a measurement, in which the kernel takes its namespaces down

# What the README compares with elsewhere, and this program cannot run.
CANNOT = ("smoltcp: a Rust library, which no package of Debian or PyPI has on its own",)


class BenchError(Exception):
    """The benchmark cannot run; the text is one line for the user."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [workload.name for workload in WORKLOADS]
    endpoints = list(dict.fromkeys(endpoint.name for workload in WORKLOADS for endpoint in workload.endpoints))
    parser.add_argument("--quick", action="store_true", help="one run of what the targets name: about a minute, and no spread")
    parser.add_argument("--runs", type=int, metavar="N", help="runs (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="length of a measurement that has none of its own (default 1)"
    )
    parser.add_argument("--workload", action="append", choices=names, metavar="NAME", help=f"only this one, repeatable: {'; '.join(names)}")
    parser.add_argument(
        "--endpoint", action="append", choices=endpoints, metavar="NAME", help=f"only this one, repeatable: {'; '.join(endpoints)}"
    )
    parser.add_argument("--output", type=Path, default=BUILD, metavar="DIR", help="where bench.json and bench.md go (default build/bench)")
    parser.add_argument("--profile", action="store_true", help="no figures: profile each tunstack server once, and print what costs most")
    options = parser.parse_args()
    options.runs = (1 if options.quick else 5) if options.runs is None else options.runs
    options.warmup = 0.2 if options.quick else 0.3
    if options.runs < 1 or not 0 < options.seconds <= 60:
        parser.error("at least one run, of at most 60 s")
    return options


def compile_client(name: str = "client") -> Path:
    """Compile a client, which is a file or a folder of them; return where it is."""
    folder = HERE / name
    sources = sorted(folder.glob("*.c")) if folder.is_dir() else [HERE / f"{name}.c"]
    try:
        return peers.compile_c(sources, name)
    except peers.Missing as missing:
        raise BenchError(str(missing)) from None


def choose_congestion() -> str:
    """Return the congestion control of all ends: cubic, else reno, which every kernel has. Also finds out whether we may do all this."""
    try:
        with Namespace() as namespace:

            def try_cubic() -> str:
                with socket.socket() as probe:
                    try:
                        probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
                    except OSError:
                        return "reno"
                return "cubic"

            return namespace.run(try_cubic)
    except PermissionError:
        raise BenchError("making network namespaces needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): run it with sudo") from None


def plan(options: argparse.Namespace, results: Results) -> list[Workload]:
    """Return the workloads that can be run, and note those that cannot."""
    chosen = []
    for workload in WORKLOADS:
        obstacle = "not asked for" if options.workload and workload.name not in options.workload else workload.obstacle()
        if obstacle:
            results.missing.append(f"{workload.name}: {obstacle}")
        else:
            chosen.append(workload)
    if options.endpoint:
        names = dict.fromkeys(endpoint.name for workload in chosen for endpoint in workload.endpoints)
        results.missing += [f"{name}: not asked for" for name in names if name not in options.endpoint]
    elif options.quick and not options.workload:
        results.missing.append("what no target names: left out by --quick")
    return chosen


@dataclass(frozen=True, slots=True)
class Measurement:
    """One that is to be made."""

    run: int
    workload: Workload
    endpoint: Named


def schedule(options: argparse.Namespace, workloads: list[Workload]) -> list[Measurement]:
    """Return the measurements in their order: within a run the endpoints of a workload follow each other, in every second run backwards.

    What no target names is measured in the first of them only, unless something is asked for by name.
    """
    asked = options.workload or options.endpoint
    return [
        Measurement(run, workload, endpoint)
        for run in range(1, options.runs + 1)
        for workload in workloads
        for endpoint in workload.endpoints[:: 1 if run % 2 else -1]
        if not options.endpoint or endpoint.name in options.endpoint
        if asked or (run <= workload.other_runs and not options.quick) or targets.is_named(workload.name, endpoint.name)
    ]


def run_all(options: argparse.Namespace, manner: Manner, workloads: list[Workload], results: Results) -> None:
    """Measure everything; a measurement that fails is noted, and the rest goes on. A program that cannot be had is noted once."""
    waiting = schedule(options, workloads)
    absent = set()
    show = sys.stderr.isatty()
    for number, one in enumerate(waiting, 1):
        name = one.endpoint.name
        if name in absent:
            continue
        if show:
            print(f"\r\033[K{number}/{len(waiting)} run {one.run}: {one.workload.name}, {name}", end="", file=sys.stderr, flush=True)
        sample = None
        try:
            facts, sample = one.workload.measure(one.endpoint, one.run, manner)
            results.facts[name] = facts
        except peers.Missing as missing:
            absent.add(name)
            results.missing.append(f"{name}: {missing}")
        except ProcessError as error:
            results.missing.append(f"{one.workload.name}, {name}, run {one.run}: {error}")
        results.add(one.workload.name, name, one.run, sample)
        time.sleep(SETTLE)
    if show:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def profile_all(options: argparse.Namespace, manner: Manner, workloads: list[Workload]) -> None:
    """Print where the tunstack servers spend their time; cProfile makes calls dearer than they are, so take shares, not seconds."""
    for workload in workloads:
        for endpoint in workload.endpoints:
            if not isinstance(endpoint, Endpoint) or not endpoint.is_tunstack or endpoint.name not in (options.endpoint or [endpoint.name]):
                continue
            path = options.output / f"{workload.name} {endpoint.name}.prof".replace(" ", "-").replace(",", "")
            _, sample = workload.measure(endpoint, 1, replace(manner, profile=path))
            figures = ", ".join(f"{m.name} {m.of(sample):.{m.digits}f} {m.unit}" for m in workload.metrics)
            print(f"\n=== {workload.name}, {endpoint.name}: {figures} (under cProfile)")
            pstats.Stats(os.fspath(path)).strip_dirs().sort_stats("tottime").print_stats(20)


def load_average() -> str:
    return f"{os.getloadavg()[0]:.2f}"


def main() -> None:
    options = parse_arguments()
    manner = Manner(compile_client(), choose_congestion(), options.seconds, options.warmup)
    options.output.mkdir(parents=True, exist_ok=True)
    settings = {
        "machine": machine(),
        "congestion": manner.congestion,
        "runs": options.runs,
        "seconds": options.seconds,
        "warmup": options.warmup,
        "load_before": load_average(),
    }
    results = Results(settings, {workload.name: workload.metrics for workload in WORKLOADS})
    workloads = plan(options, results)
    if options.profile:
        profile_all(options, manner, workloads)
        return
    began = time.monotonic()
    run_all(options, manner, workloads, results)
    settings |= {"load_after": load_average(), "took_s": round(time.monotonic() - began)}
    results.missing += CANNOT
    print(report.tables(results, workloads, "simple"))
    for path in report.write(results, workloads, options.output):
        print(f"written: {path}")


if __name__ == "__main__":
    try:
        main()
    except (BenchError, ProcessError) as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
