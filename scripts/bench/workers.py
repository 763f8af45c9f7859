"""What several workers bring: `tunstack serve` with one process and with several, in turn, the client on the same CPUs.

For each number of workers: connections a second, so many at a time (echo), and throughput up (discard) and down (chargen), of several
connections at once; with the CPU time of all processes at the server's end, and of the clients. Needs root. See --help.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path

from namespaces import Namespace
from processes import TICKS, CpuTime, Process, ProcessError

HERE = Path(__file__).parent
ADDRESS = "10.77.0.2"
ECHO_PORT, DISCARD_PORT, CHARGEN_PORT = 7, 9, 19
START_TIMEOUT = 20.0  # s
STALL_TIMEOUT = 15.0  # s without a line from a client beyond its own window
WARMUP = 0.5  # s
CONNECTIONS_MAX = 28_000  # of one measurement: the ephemeral ports are not endless


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients do: so many processes, each with its arguments to the client program."""

    name: str
    clients: int
    arguments: tuple[str, ...]
    port: int
    counted: str  # in the client's record
    unit: str
    scale: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: how much a second, and the seconds of CPU time that a second of it took."""

    rate: float
    server: float
    client: float


def workloads(parallel: int, flows: int) -> list[Workload]:
    """Return what is measured."""
    connect = ("-n", str(parallel), "-l", str(CONNECTIONS_MAX), "connect")
    return [
        Workload(f"connections, {parallel} at a time", 1, connect, ECHO_PORT, "connections", "1/s", 1),
        Workload(f"up, {flows} connections", flows, ("up",), DISCARD_PORT, "octets", "Gbit/s", 8e-9),
        Workload(f"down, {flows} connections", flows, ("down",), CHARGEN_PORT, "octets", "Gbit/s", 8e-9),
    ]


def compile_client(directory: Path) -> Path:
    """Compile the client; return where it is."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise ProcessError("no C compiler: apt-get install gcc libc6-dev")
    sources = [HERE / "client.c"] if (HERE / "client.c").exists() else sorted((HERE / "client").glob("*.c"))
    target = directory / "client"
    subprocess.run([compiler, "-std=gnu11", "-O2", "-o", os.fspath(target), *map(os.fspath, sources)], check=True)
    return target


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_time(pids: Sequence[int]) -> CpuTime:
    """Return what processes took so far, together."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return CpuTime(user / TICKS, system / TICKS)


def measure(client: Path, workers: int, workload: Workload, seconds: float, flags: Sequence[str]) -> Sample:
    """Run one measurement; ProcessError says what went wrong."""
    with ExitStack() as stack:
        namespace = stack.enter_context(Namespace())
        command = [sys.executable, "-m", "tunstack", "serve", "--workers", str(workers), "--control", "none", "--no-http"]
        before_it = set(children(os.getpid()))
        server = stack.enter_context(Process([*command, "--drain-timeout", "0", *flags], namespace))
        (pid,) = set(children(os.getpid())) - before_it
        server.line(START_TIMEOUT)
        pids = [pid, *children(pid)]
        arguments = [os.fspath(client), "-t", f"{seconds:g}", "-w", f"{WARMUP:g}", *workload.arguments, ADDRESS, str(workload.port)]
        clients = [stack.enter_context(Process(arguments, namespace)) for _ in range(workload.clients)]
        for each in clients:
            each.expect("begin", WARMUP + STALL_TIMEOUT)
        before = cpu_time(pids)
        for each in clients:
            each.expect("end", seconds + STALL_TIMEOUT)
        taken = cpu_time(pids) - before
        records = [each.record(STALL_TIMEOUT) for each in clients]
        length = max(float(record["seconds"]) for record in records)
        return Sample(
            sum(record[workload.counted] * workload.scale / record["seconds"] for record in records),
            (taken.user + taken.system) / length,
            sum(record["client_user_s"] + record["client_system_s"] for record in records) / length,
        )


def describe(workers: int, taken: Sequence[Sample], base: Sequence[Sample]) -> str:
    """Return a line on the samples of a number of workers; CPU time also for each unit, which a busy machine changes least."""
    rates = [sample.rate for sample in taken]
    rate, server, client = (statistics.median(column) for column in zip(*map(astuple, taken), strict=True))
    ratio = rate / statistics.median(sample.rate for sample in base)
    cost = statistics.median(sample.server / sample.rate for sample in taken) / statistics.median(s.server / s.rate for s in base)
    return (
        f"{workers} worker{'s' * (workers > 1)}: median {rate:.4g} ({min(rates):.4g} to {max(rates):.4g}), ratio {ratio:.2f};"
        f" CPUs: server {server:.2f}, client {client:.2f}; CPU time of the server for each: ratio {cost:.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="numbers of workers to compare (default 1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, in turn (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one (default 1)")
    parser.add_argument("--parallel", type=int, default=32, help="connections at a time, where they are counted (default 32)")
    parser.add_argument("--flows", type=int, default=8, help="connections of a transfer (default 8)")
    parser.add_argument("--json", type=Path, help="write all samples to a file")
    parser.add_argument("flags", nargs="*", help="further flags for tunstack serve, behind --")
    options = parser.parse_args()
    samples: dict[str, dict[int, list[Sample]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            client = compile_client(Path(directory))
            for workload in workloads(options.parallel, options.flows):
                rows = samples[workload.name] = {workers: [] for workers in options.workers}
                for _ in range(options.rounds):
                    for workers in options.workers:
                        rows[workers].append(measure(client, workers, workload, options.seconds, options.flags))
                print(f"{workload.name}, {workload.unit}")
                for workers, taken in rows.items():
                    print(f"  {describe(workers, taken, rows[options.workers[0]])}", flush=True)
        except ProcessError as error:
            print(f"workers: {error}", file=sys.stderr)
            return 1
    if options.json is not None:
        plain = {
            name: {workers: [[sample.rate, sample.server, sample.client] for sample in taken] for workers, taken in rows.items()}
            for name, rows in samples.items()
        }
        options.json.write_text(json.dumps(plain, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
