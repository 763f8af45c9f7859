#!/usr/bin/env python3
"""What idle connections cost: a hundred thousand from Linux, of several addresses, into one process with bare asyncio protocols.

Prints the resident memory and the CPU time of each, at several numbers of them; then what one more takes, and a keepalive sweep in
which Linux answers a probe of every connection. Runs in a network namespace of its own, which vanishes with it. Needs root.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    from namespaces import Namespace
    from processes import Process, ProcessError
    from run import BenchError, compile_client
    from tabulate import tabulate
except ModuleNotFoundError as missing:
    sys.exit(f"idle: the module {missing.name} is missing: install the package with its bench extra (pip install -e '.[bench]')")

HERE = Path(__file__).resolve().parent
HOST_ADDRESS = "10.77.0.1"
SERVER_ADDRESS = "10.77.0.2"
PREFIX = 16
PORT, METRICS_PORT = 5001, 9191  # serve_idle.py's
SOURCES = [f"10.77.1.{number}" for number in range(1, 9)]  # with 64,000 ports each
STEPS = (10, 1000, 10_000, 100_000)
WARM_UP = 100  # connections that are there before anything is counted: imports, tables and caches have their size by then
CONNECTION_KERNEL = 5120  # octets, about, that the kernel's end takes
SPARE_FILES = 64  # of a client, that are no connections
TIMEOUT = 600.0


def check_memory(connections: int) -> None:
    """See whether both ends fit; BenchError if not."""
    with open("/proc/meminfo") as meminfo:
        free = next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable"))
    needed = connections * (CONNECTION_KERNEL + 10_000)
    if free < needed:
        raise BenchError(f"{connections} connections take about {needed >> 20} MiB, and {free >> 20} MiB are available")


class Bench:
    """Server and client, ready. Every figure is of the server."""

    def __init__(self, stack: ExitStack, client: Path, keepalive: bool, plain_gc: bool, control: Path | None) -> None:
        namespace = stack.enter_context(Namespace())
        namespace.set_sysctl("ipv4/ip_local_port_range", "1024 65535")
        arguments = [sys.executable, os.fspath(HERE / "serve_idle.py"), f"{HOST_ADDRESS}/{PREFIX}", SERVER_ADDRESS]
        if control is not None:
            namespace.set_up("lo", "127.0.0.1", 8)
            arguments += ["--control", os.fspath(control)]
        if not keepalive:
            arguments.append("--no-keepalive")
        if plain_gc:
            arguments.append("--plain-gc")
        self._server = stack.enter_context(Process(arguments, namespace))
        self._server.record(TIMEOUT)
        for address in SOURCES:
            namespace.add_address("bench0", address)
        self._stack = stack
        self._namespace = namespace
        self._program = os.fspath(client)
        self._clients: list[Process] = []  # one holds as many connections as it may have files
        self._room = 0  # connections that the last of them may still open

    def open(self, count: int) -> None:
        """Open connections."""
        while count:
            if not self._room:
                arguments = [self._program, SERVER_ADDRESS, str(PORT), *SOURCES]
                self._clients.append(self._stack.enter_context(Process(arguments, self._namespace)))
                self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES
            share = min(count, self._room)
            self._order(self._clients[-1], f"open {share}")
            self._room -= share
            count -= share

    def check(self) -> None:
        """See whether the kernel, too, thinks that all connections are there, and nothing else happened to them."""
        for client in self._clients:
            self._order(client, "check")

    def _order(self, client: Process, order: str) -> None:
        client.say(order)
        try:
            client.line(TIMEOUT)
        except ProcessError as error:
            raise ProcessError(f"{error}{self._server.complaint()}") from None

    def run(self, command: list[str], environment: dict[str, str]) -> tuple[int, int]:
        """Run a tool beside them; return the lines that it prints and the most memory that it had, KiB."""
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, preexec_fn=self._namespace.enter) as tool:
            assert tool.stdout is not None
            lines = sum(1 for _ in tool.stdout)
            _, status, usage = os.wait4(tool.pid, 0)
            tool.returncode = os.waitstatus_to_exitcode(status)
        if tool.returncode:
            raise ProcessError(f"{' '.join(command)} ended with {tool.returncode}")
        return lines, usage.ru_maxrss

    def server(self, order: str) -> dict[str, float]:
        """Ask the server for figures."""
        self._server.say(order)
        return self._server.record(TIMEOUT)


def measure(bench: Bench, steps: list[int]) -> None:
    """Open, count and print."""
    bench.open(WARM_UP)
    base = bench.server("figures")
    rows = []
    before = base
    opened = 0
    for step in steps:
        bench.open(step - opened)
        now = bench.server("figures")
        each = (now["resident"] - base["resident"]) / step
        cpu = (now["cpu_s"] - before["cpu_s"] - before["collection_s"]) / (step - opened)
        if now["connections"] != WARM_UP + step:
            raise ProcessError(f"the server has {now['connections']} connections, not {WARM_UP + step}")
        stop, collection = now["longest_stop_s"] * 1e3, now["collection_s"] * 1e3
        rows.append([step, f"{each:.0f}", f"{cpu * 1e6:.0f}", f"{stop:.0f}", f"{collection:.0f}"])
        before, opened = now, step
    headers = ["connections", "octets each", "CPU us each", "longest turn ms", "gc.collect() ms"]
    print(tabulate(rows, headers, disable_numparse=True, colalign=["right"] * len(headers)), flush=True)
    before = bench.server("figures")
    bench.open(1)
    now = bench.server("figures")
    print(f"\none more connection: {(now['cpu_s'] - before['cpu_s'] - before['collection_s']) * 1e3:.1f} ms of CPU")


def inspect(bench: Bench, control: Path) -> None:
    """Ask for everything that tools ask for, and print what that takes of the tool's time and of the server's."""
    program = [sys.executable, "-m", "tunstack"]
    commands = {
        "ss -tan": [*program, "ss", "-tan"],
        "ss -tani": [*program, "ss", "-tani"],
        "ss -s": [*program, "ss", "-s"],
        "nstat -as": [*program, "nstat", "-as"],
        "GET /metrics": ["curl", "-sf", f"http://127.0.0.1:{METRICS_PORT}/metrics"],
    }
    rows = []
    for name, command in commands.items():
        before = bench.server("turns")
        started = time.monotonic()
        lines, resident = bench.run(command, {**os.environ, "TUNSTACK_CONTROL": os.fspath(control)})
        seconds = time.monotonic() - started
        now = bench.server("turns")
        cpu, turn, grown = now["cpu_s"] - before["cpu_s"], now["longest_stop_s"] * 1e3, (now["resident"] - before["resident"]) >> 10
        rows.append([name, str(lines), f"{seconds:.1f}", f"{cpu:.2f}", f"{turn:.0f}", str(grown), str(resident)])
    headers = ["command", "lines", "seconds", "server's CPU s", "longest turn ms", "server grew KiB", "tool's peak KiB"]
    print()
    print(tabulate(rows, headers, disable_numparse=True, colalign=["left"] + ["right"] * (len(headers) - 1)), flush=True)


def sweep(bench: Bench) -> None:
    """Have every connection probe its peer, and print what that takes."""
    figures = bench.server("sweep")
    if figures["probes"] < figures["connections"] or figures["unanswered"]:
        raise ProcessError(f"{figures['probes']:.0f} probes, {figures['unanswered']:.0f} of them without an answer")
    print(
        f"keepalive sweep: {figures['probes']} probes, all answered: {figures['cpu_s']:.2f} s of CPU in {figures['seconds']:.1f} s,"
        f" {figures['cpu_s'] / figures['probes'] * 1e6:.1f} us each, longest turn {figures['longest_stop_s'] * 1e3:.0f} ms"
    )
    bench.check()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=STEPS[-1], metavar="N", help=f"how many (default {STEPS[-1]})")
    parser.add_argument("--no-keepalive", action="store_true", help="without SO_KEEPALIVE, and without the sweep")
    parser.add_argument("--inspect", action="store_true", help="also what ss, nstat and Prometheus take of the server")
    parser.add_argument("--plain-gc", action="store_true", help="without what the daemon does about the garbage collector's pauses")
    options = parser.parse_args()
    if not 1 <= options.connections <= 400_000:
        parser.error("--connections: between 1 and 400000")
    steps = [step for step in STEPS if step < options.connections] + [options.connections]
    try:
        check_memory(options.connections)
        client = compile_client("idle_client")
        with ExitStack() as stack:
            control = Path(stack.enter_context(TemporaryDirectory())) / "control" if options.inspect else None
            bench = Bench(stack, client, not options.no_keepalive, options.plain_gc, control)
            measure(bench, steps)
            if control is not None:
                inspect(bench, control)
            if not options.no_keepalive:
                sweep(bench)
    except PermissionError:
        sys.exit("idle: making network namespaces needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): run it with sudo")
    except (BenchError, ProcessError) as error:
        sys.exit(f"idle: {error}")


if __name__ == "__main__":
    main()
