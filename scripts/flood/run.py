#!/usr/bin/env python3
"""A SYN flood against `tunstack serve`, and honest clients meanwhile (M-28).

    sudo .venv/bin/python scripts/flood/run.py [--rate 50000] [--seconds 30] [--curls 1000] [--cookies 0,1]

In a network namespace of its own, which goes away with it: a daemon on a TUN interface, curl on the kernel's side of it, and a program
that sends SYNs to port 80 from addresses drawn from 10.78.0.0/16, a range that exists in this namespace only and leads into a black
hole. While the flood lasts curl fetches a page `--curls` times, first one after another, then as often 50 at a time. Each curl gives
up after --patience seconds; the flood lasts for --seconds at least, and until the last curl is done, but --longest at most, when the
curls that are left count as failed. Prints a table, as Markdown. Needs cc, curl and root.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET, PORT = "10.77.0.2", 80
NETWORK, PREFIX = "10.78.0.0", 16
AT_ONCE = 50
READY_TIMEOUT = 20.0
COUNTERS = ("SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPReqQFullDoCookies", "TCPReqQFullDrop", "ListenDrops")


class FloodError(Exception):
    """It cannot be run; the text is one line for the user."""


@dataclass
class Curls:
    """What became of the curls of one phase."""

    succeeded: int
    tried: int
    slowest: float  # s, of those that succeeded
    median: float

    def __str__(self) -> str:
        times = f", median {self.median * 1000:.0f} ms, slowest {self.slowest:.2f} s" if self.succeeded else ""
        return f"{self.succeeded} of {self.tried}{times}"


@dataclass
class Result:
    """One run."""

    cookies: int
    sent: int  # SYNs
    refused: int
    seconds: float
    dropped: int  # frames that found the interface's queue full
    one_by_one: Curls
    at_once: Curls
    rss_before: int  # octets
    rss_most: int
    cpu: float  # s
    counters: dict[str, int]
    after: int  # curls of ten that succeed when the flood is over


class Arena:
    """A network namespace with a daemon and a flood in it."""

    def __init__(self, cookies: int, binary: Path) -> None:
        self.name = f"tunstack-flood-{os.getpid()}-{cookies}"
        self._binary = binary
        self._cleanup = ExitStack()
        self._ip("netns", "add", self.name)
        self._cleanup.callback(self._ip, "netns", "del", self.name)
        try:
            self._inside("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=False)
            self._inside("ip", "link", "set", "lo", "up")
            self.daemon = self._start_daemon(cookies)
            self._inside("ip", "route", "add", "blackhole", f"{NETWORK}/{PREFIX}")
        except BaseException:
            self.close()
            raise

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def _command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def _inside(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(self._command(*words), check=check, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def _popen(self, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._cleanup.callback(_end, process)
        return process

    def _start_daemon(self, cookies: int) -> subprocess.Popen[bytes]:
        daemon = self._popen(sys.executable, "-m", "tunstack", "serve", "--sysctl", f"net.ipv4.tcp_syncookies={cookies}")
        assert daemon.stdout is not None
        said = b""
        deadline = time.monotonic() + READY_TIMEOUT
        while b"serving on" not in said:
            readable, _, _ = select.select([daemon.stdout], [], [], max(deadline - time.monotonic(), 0))
            chunk = os.read(daemon.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                raise FloodError(f"tunstack serve did not start: {said.decode().strip()}")
            said += chunk
        return daemon

    def flood(self, rate: int, seconds: float) -> subprocess.Popen[bytes]:
        """Start the flood."""
        return self._popen(str(self._binary), TARGET, str(PORT), NETWORK, str(PREFIX), str(rate), str(seconds))

    def curl(self, patience: float) -> float | None:
        """Fetch a page; return the seconds that it took, None if it failed."""
        begin = time.monotonic()
        command = self._command("curl", "-sS", "--fail", "-m", f"{patience:g}", "-o", "/dev/null", f"http://{TARGET}/")
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            return None
        return time.monotonic() - begin

    def counters(self) -> dict[str, int]:
        """Return the daemon's, by a request that is repeated until it succeeds."""
        for _ in range(20):
            done = subprocess.run(self._command("curl", "-s", "-m", "10", f"http://{TARGET}/status"), stdout=subprocess.PIPE)
            if not done.returncode:
                counters: dict[str, int] = json.loads(done.stdout)["counters"]
                return counters
        raise FloodError("the daemon does not answer, though there is no flood any more")

    def memory(self) -> int:
        """Return the daemon's resident memory, octets."""
        for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu(self) -> float:
        """Return the seconds of CPU time that the daemon has taken."""
        fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def dropped(self) -> int:
        """Return the frames that the kernel dropped because the daemon did not read them in time."""
        link = json.loads(self._inside("ip", "-j", "-s", "link", "show", "tunstack0"))
        return int(link[0]["stats64"]["tx"]["dropped"])

    def close(self) -> None:
        """End everything."""
        self._cleanup.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def run_curls(arena: Arena, count: int, at_once: int, patience: float, until: float) -> Curls:
    """Run curls, `at_once` of them together; none begins after `until`."""

    def one(_: int) -> float | None:
        return arena.curl(patience) if time.monotonic() < until else None

    with ThreadPoolExecutor(at_once) as pool:
        took = sorted(seconds for seconds in pool.map(one, range(count)) if seconds is not None)
    return Curls(len(took), count, took[-1] if took else 0.0, took[len(took) // 2] if took else 0.0)


def run(cookies: int, binary: Path, options: argparse.Namespace) -> Result:
    """Run one flood."""
    arena = Arena(cookies, binary)
    try:
        for _ in range(3):
            if arena.curl(options.patience) is None:
                raise FloodError("curl gets nothing even without a flood")
        run_curls(arena, 2 * AT_ONCE, AT_ONCE, options.patience, time.monotonic() + 60)  # what memory the clients alone take
        rss_before, cpu_before, dropped_before = arena.memory(), arena.cpu(), arena.dropped()
        flood = arena.flood(options.rate, options.longest)
        begin = time.monotonic()
        time.sleep(1)
        if flood.poll() is not None:
            assert flood.stdout is not None
            raise FloodError(f"the flood ended: {flood.stdout.read().decode().strip()}")
        rss_most = arena.memory()
        phases = []
        for index, at_once in enumerate((1, AT_ONCE)):
            until = begin + options.longest * (index + 1) / 2
            phases.append(run_curls(arena, options.curls, at_once, options.patience, until))
            rss_most = max(rss_most, arena.memory())
        time.sleep(max(begin + options.seconds - time.monotonic(), 0))
        rss_most = max(rss_most, arena.memory())
        cpu = arena.cpu() - cpu_before
        flood.terminate()
        said = flood.communicate(timeout=10)[0].decode().split()
        dropped = arena.dropped() - dropped_before
        after = run_curls(arena, 10, 1, options.patience, time.monotonic() + 60).succeeded
        return Result(
            cookies,
            int(said[0]),
            int(said[1]),
            float(said[2]),
            dropped,
            phases[0],
            phases[1],
            rss_before,
            rss_most,
            cpu,
            arena.counters(),
            after,
        )
    finally:
        arena.close()


def table(results: list[Result]) -> str:
    """Return the results as Markdown."""
    mib = 1 << 20
    rows: list[tuple[str, list[str]]] = [
        ("flood, SYN/s x s", [f"{r.sent / r.seconds:.0f} x {r.seconds:.0f}" for r in results]),
        ("SYNs sent (refused by the kernel)", [f"{r.sent} ({r.refused})" for r in results]),
        ("lost in the interface's queue", [f"{100 * r.dropped / r.sent:.1f} %" for r in results]),
        ("curls, one after another", [str(r.one_by_one) for r in results]),
        (f"curls, {AT_ONCE} at a time", [str(r.at_once) for r in results]),
        ("ten curls after the flood", [f"{r.after} of 10" for r in results]),
        (
            "memory before, most, growth (MiB)",
            [f"{r.rss_before / mib:.1f}, {r.rss_most / mib:.1f}, {(r.rss_most - r.rss_before) / mib:.1f}" for r in results],
        ),
        ("CPU time of the daemon", [f"{100 * r.cpu / r.seconds:.0f} %" for r in results]),
        *((name, [str(r.counters.get(name, 0)) for r in results]) for name in COUNTERS),
    ]
    lines = ["| | " + " | ".join(f"tcp_syncookies={r.cookies}" for r in results) + " |", "|---" * (len(results) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(values) + " |" for name, values in rows]
    return "\n".join(lines)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description="SYN flood against tunstack serve, and curl meanwhile")
    parser.add_argument("--rate", type=int, default=50_000, help="SYNs a second (default 50000)")
    parser.add_argument("--seconds", type=float, default=30, help="how long the flood lasts at least (default 30)")
    parser.add_argument("--longest", type=float, default=300, help="and at most (default 300, at most 600)")
    parser.add_argument("--curls", type=int, default=1000, help="of each of the two kinds (default 1000)")
    parser.add_argument("--patience", type=float, default=30, help="seconds after which a curl gives up (default 30)")
    parser.add_argument("--cookies", default="1", help="values of tcp_syncookies, with commas between (default 1)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("needs root: makes a network namespace")
    for program in ("cc", "curl", "ip"):
        if shutil.which(program) is None:
            parser.error(f"needs {program}")
    try:
        values = [int(word) for word in options.cookies.split(",")]
    except ValueError:
        parser.error(f"--cookies takes numbers with commas between, not {options.cookies!r}")
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "synflood")
        subprocess.run(["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(binary), str(HERE / "synflood.c")], check=True)
        try:
            results = [run(cookies, binary, options) for cookies in values]
        except FloodError as error:
            print(f"run.py: {error}", file=sys.stderr)
            return 2
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
