#!/usr/bin/env python3
"""Where the time goes: CPU time of a tunstack endpoint by layer, for each segment, round trip or connection.

The benchmark's server and client, over a TUN interface in fresh network namespaces. The server's thread is sampled by its CPU time
(sampling.py): a thousand times a second, where the processor is and which Python functions are active. As sampling costs time itself, runs
take turns, one sampled, one not: the shares are those of the sampled ones, the microseconds those of the others. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

try:
    import run
    from endpoints import INTERFACE, SERVER_ADDRESS, TUNSTACK, TUNSTACK_PLAIN, TUNSTACK_STREAMS, Endpoint, Setting
    from layers import Frame, Layer, is_start, layer_of
    from processes import Process, ProcessError
    from tabulate import tabulate

    from tunstack.daemon.benchservices import ECHO_PORT, SINK_PORT, SOURCE_PORT
except ModuleNotFoundError as missing:
    sys.exit(f"where: the module {missing.name} is missing: install the package with its bench extra (pip install -e '.[bench]')")


HERE = Path(__file__).resolve().parent
README = HERE.parent.parent / "README.md"
BEGIN, END = "<!-- where.py begins -->", "<!-- where.py ends -->"
STALL_TIMEOUT = 15.0  # s without a line from the client beyond its window
CONNECTIONS_MAX = 28_000  # as in the benchmark
LEAST = 100  # samples of a case that mean something


@dataclass(frozen=True, slots=True)
class Case:
    """Something to take apart, and what is counted."""

    name: str
    endpoint: Endpoint
    arguments: tuple[str, ...]  # of the client
    port: int
    unit: str
    warmup: float = 0.3  # s
    is_asked_for: bool = False  # not part of the table unless it is named


@dataclass(slots=True)
class Result:
    """What came of a case: microseconds for each unit without the sampler, and samples by layer and by function."""

    cost: list[float] = field(default_factory=list)
    octets: list[float] = field(default_factory=list)  # of payload in a unit
    layers: Counter[Layer] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)

    @property
    def us(self) -> float:
        return statistics.median(self.cost)

    def layer_us(self, layer: Layer) -> float:
        return self.us * self.layers[layer] / self.layers.total()


CASES = (
    Case("up", TUNSTACK, ("up",), SINK_PORT, "segment in"),
    Case("up, streams", TUNSTACK_STREAMS, ("up",), SINK_PORT, "segment in"),
    Case("down", TUNSTACK, ("down",), SOURCE_PORT, "segment out"),
    Case("up, no offload", TUNSTACK_PLAIN, ("up",), SINK_PORT, "packet in"),
    Case("down, no offload", TUNSTACK_PLAIN, ("down",), SOURCE_PORT, "packet out"),
    Case("1000 up", TUNSTACK, ("-n", "1000", "many-up"), SINK_PORT, "segment in", 1.0, True),
    Case("1000 down", TUNSTACK, ("-n", "1000", "many-down"), SOURCE_PORT, "segment out", 1.0, True),
    Case("ping", TUNSTACK, ("ping",), ECHO_PORT, "round trip"),
    Case("connect", TUNSTACK, ("connect",), ECHO_PORT, "connection"),
    Case("connect x 32", TUNSTACK, ("-n", "32", "connect"), ECHO_PORT, "connection"),
)


def _frames() -> tuple[int, int]:
    """Return how many frames the interface has handed to the server, and how many it took from it."""
    with open("/proc/thread-self/net/dev") as table:
        for line in table:
            name, _, counters = line.partition(":")
            if name.strip() == INTERFACE:
                fields = counters.split()
                return int(fields[9]), int(fields[1])
    raise ProcessError(f"there is no {INTERFACE}")


def _sampled(endpoint: Endpoint, path: Path) -> Endpoint:
    def command(setting: Setting) -> list[str]:
        python, _, *arguments = endpoint.command(setting)
        return [python, os.fspath(HERE / "serve_sampled.py"), os.fspath(path), *arguments]

    return replace(endpoint, command=command)


def _measure(
    case: Case, endpoint: Endpoint, client: Path, congestion: str, seconds: float, finish: Callable[[Process], None]
) -> tuple[float, float]:
    """Run a case once; return the server's CPU time for each unit, us, and the octets of payload in one."""
    with endpoint.start(Setting(congestion)) as running:
        arguments = [os.fspath(client), "-t", f"{seconds:g}", "-w", f"{case.warmup:g}", "-c", congestion, "-l", str(CONNECTIONS_MAX)]
        try:
            with Process([*arguments, *case.arguments, SERVER_ADDRESS, str(case.port)], running.client) as process:
                process.expect("begin", case.warmup + STALL_TIMEOUT)
                cpu, (came, left) = running.server.cpu_time(), running.client.run(_frames)
                process.expect("end", seconds + STALL_TIMEOUT)
                cpu, (came_later, left_later) = running.server.cpu_time() - cpu, running.client.run(_frames)
                record: dict[str, Any] = process.record(STALL_TIMEOUT)
        except ProcessError as error:
            complaint = running.server.complaint()
            raise ProcessError(f"{case.name}: {error}{complaint and '; server' + complaint}") from None
        units = {"up": came_later - came, "down": left_later - left}.get(case.arguments[-1].removeprefix("many-"))
        if units is None:
            units = record.get("round_trips", record.get("connections"))
        finish(running.server)
        return (cpu.user + cpu.system) * 1e6 / max(units or 0, 1), record.get("octets", 0) / max(units or 0, 1)


def _take_apart(path: Path, result: Result) -> None:
    """Add the samples that a server left behind."""
    for kernel, library, symbol, python, count in json.loads(path.read_text())["places"]:
        if is_start(python):
            continue
        layer = layer_of(kernel, library, python)
        result.layers[layer] += count
        if layer is Layer.MEMORY and python:
            result.functions[f"{layer.value} in {_function(python[0])}"] += count
        elif kernel:
            result.functions[f"{layer.value}: {kernel[-1]}"] += count
        elif layer is Layer.NATIVE:
            result.functions[f"{library.rpartition('/')[2]}: {symbol}"] += count
        elif python:
            result.functions[_function(python[0])] += count


def _function(frame: Frame) -> str:
    file, name, _ = frame
    return f"{'/'.join(Path(str(file)).parts[-3:])}: {name}"


def take_apart(case: Case, client: Path, congestion: str, seconds: float, runs: int) -> Result:
    """Run a case in turns, with and without the sampler."""
    result = Result()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "samples.json")

        def finish(server: Process) -> None:
            server.last_words(STALL_TIMEOUT, 1)

        for _ in range(runs):
            cost, octets = _measure(case, case.endpoint, client, congestion, seconds, lambda server: None)
            result.cost.append(cost)
            result.octets.append(octets)
            _measure(case, _sampled(case.endpoint, path), client, congestion, seconds, finish)
            _take_apart(path, result)
    if result.layers.total() < LEAST:
        raise ProcessError(f"{case.name}: no more than {result.layers.total()} samples: measure for longer (--seconds)")
    return result


def _figure(us: float) -> str:
    return f"{us:.0f}" if us >= 100 else f"{us:.1f}" if us >= 10 else f"{us:.2f}"


def table(results: dict[Case, Result]) -> str:
    """Return the table, in Markdown."""
    header = ["us of CPU time", *(f"{case.name}: a {case.unit}" for case in results)]
    rows = [[layer.value, *(_figure(result.layer_us(layer)) for result in results.values())] for layer in Layer]
    rows.append(["**all**", *(f"**{_figure(result.us)}**" for result in results.values())])
    rows.append(
        ["octets of payload", *(f"{statistics.median(result.octets):,.0f}" if any(result.octets) else "" for result in results.values())]
    )
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=("left", *("right" for _ in results)))


def functions(case: Case, result: Result, count: int) -> str:
    """Return the functions that cost most, each without those that it calls."""
    scale = result.us / result.layers.total()
    rows = [
        [f"{samples * scale:.2f}", f"{samples / result.layers.total():.1%}", name] for name, samples in result.functions.most_common(count)
    ]
    return f"{case.name}: us for each {case.unit}\n\n" + tabulate(rows, ["us", "share", "where"], disable_numparse=True)


def put_into_readme(text: str) -> None:
    """Replace what stands between the two marks."""
    readme = README.read_text()
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ProcessError(f"README.md has no {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, metavar="NAME", help=f"only this one, repeatable: {'; '.join(names)}")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="length of a run (default 2)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="pairs of runs of each case (default 3)")
    parser.add_argument("--functions", type=int, metavar="N", help="print the N functions that cost most in each case too")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    if options.runs < 1 or not 0 < options.seconds <= 60:
        parser.error("at least one run, of at most 60 s")
    load = run.load_average()
    congestion = run.choose_congestion()
    client = run.compile_client()
    results = {}
    for case in CASES:
        if case.name in options.case if options.case else not case.is_asked_for:
            results[case] = take_apart(case, client, congestion, options.seconds, options.runs)
    text = f"{table(results)}\n\n(pairs of runs of {options.seconds:g} s: {options.runs}; load before: {load})"
    print(text)
    for case, result in results.items():
        if options.functions:
            print(f"\n{functions(case, result, options.functions)}")
    if options.readme:
        put_into_readme(text)


if __name__ == "__main__":
    try:
        main()
    except (run.BenchError, ProcessError) as failure:
        sys.exit(f"where: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
