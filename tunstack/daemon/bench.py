"""`tunstack bench` at work: the kernel's TCP and tunstack by turns, and the ratios run by run."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from tunstack.daemon import benchends
from tunstack.daemon.benchends import Sample
from tunstack.daemon.errors import UserError

KINDS = ("kernel", "tunstack")
TIMEOUT = 20.0  # s beyond its own time that an end may say nothing


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What `tunstack bench` runs with."""

    runs: int
    seconds: float
    as_json: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the result."""

    workload: str
    name: str
    digits: int
    of: Callable[[Sample], float]


def percentile(values: Sequence[int], percent: float) -> int:
    """Return the least value that so many percent of all do not exceed; `values` ascend."""
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _cpu(sample: Sample, scale: float) -> float:
    return (sample.server_cpu + sample.client_cpu) * scale / sample.count


FIGURES = (
    Figure("up", "up, Gbit/s", 2, lambda sample: sample.count * 8e-9 / sample.seconds),
    Figure("up", "  CPU of both ends, s/GB", 3, lambda sample: _cpu(sample, 1e9)),
    Figure("down", "down, Gbit/s", 2, lambda sample: sample.count * 8e-9 / sample.seconds),
    Figure("down", "  CPU of both ends, s/GB", 3, lambda sample: _cpu(sample, 1e9)),
    Figure("ping", "ping, p50, us", 1, lambda sample: percentile(sample.latencies, 50) / 1e3),
    Figure("ping", "  p99, us", 1, lambda sample: percentile(sample.latencies, 99) / 1e3),
    Figure("connect", "connections, 1/s", 0, lambda sample: sample.count / sample.seconds),
    Figure("connect", "  CPU of both ends, us each", 1, lambda sample: _cpu(sample, 1e6)),
)

Samples = dict[str, dict[str, list[Sample]]]  # by workload and kind, one a run


def run(config: BenchConfig) -> None:
    """Measure, and print."""
    samples: Samples = {workload: {kind: [] for kind in KINDS} for workload in benchends.WORKLOADS}
    show = sys.stderr.isatty()
    for number in range(config.runs):
        for workload, by_kind in samples.items():
            for kind in KINDS[:: 1 if number % 2 == 0 else -1]:
                if show:
                    print(f"\r\033[Krun {number + 1} of {config.runs}: {workload}, {kind}", end="", file=sys.stderr, flush=True)
                by_kind[kind].append(measure(kind, workload, config.seconds))
    if show:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    print(as_json(samples) if config.as_json else "\n".join(lines(samples, config)))


def measure(kind: str, workload: str, seconds: float) -> Sample:
    """Run one measurement in fresh namespaces. UserError says in a line what is in the way."""
    context = multiprocessing.get_context("fork")
    ends: list[BaseProcess] = []

    def start(work: Callable[..., None], *arguments: object) -> Connection:
        ours, theirs = context.Pipe()
        process = context.Process(target=benchends.run_end, args=(work, theirs, *arguments), daemon=True)
        process.start()
        theirs.close()  # so that we read the end of it, should the process die
        ends.append(process)
        return ours

    try:
        _answer(start(benchends.serve, kind), f"{kind}: the server", TIMEOUT)
        client = start(benchends.measure, kind, ends[0].pid, workload, seconds)
        sample = _answer(client, f"{kind}, {workload}", seconds + TIMEOUT)
        assert isinstance(sample, Sample)
        return sample
    finally:
        for process in ends:
            process.kill()
            process.join()


def _answer(pipe: Connection, what: str, timeout: float) -> object:
    if not pipe.poll(timeout):
        raise UserError(f"bench: {what} said nothing for {timeout:g} s")
    try:
        kind, answer = pipe.recv()
    except EOFError:
        raise UserError(f"bench: {what} ended early") from None
    if kind == "error":
        raise UserError(f"bench: {what}: {answer}")
    return answer


def lines(samples: Samples, config: BenchConfig) -> Iterator[str]:
    """Give the result as a table."""
    yield f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    yield f"{config.runs} runs of {config.seconds:g} s, the endpoints by turns; medians; ratios within a run (from least to most)"
    yield f"{'':28}{KINDS[0]:>12}{KINDS[1]:>12}   ratio"
    for figure in FIGURES:
        kernel, ours = ([figure.of(sample) for sample in samples[figure.workload][kind]] for kind in KINDS)
        ratios = [b / a for a, b in zip(kernel, ours, strict=True) if a]
        cells = "".join(f"{statistics.median(values):12,.{figure.digits}f}" for values in (kernel, ours))
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
        yield f"{figure.name:28}{cells}   {ratio}"


def as_json(samples: Samples) -> str:
    """Return the figures of every run."""
    content: dict[str, dict[str, dict[str, list[float]]]] = {}
    for figure in FIGURES:
        by_kind = {kind: [figure.of(sample) for sample in runs] for kind, runs in samples[figure.workload].items()}
        content.setdefault(figure.workload, {})[figure.name.strip()] = by_kind
    return json.dumps(content, indent=1)
