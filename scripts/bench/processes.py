"""Processes in a namespace: started, watched and ended with us, and what CPU time they took."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from namespaces import Namespace

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
STOP_TIMEOUT = 5.0  # s that a process may take to end after SIGTERM
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


class ProcessError(Exception):
    """A process did not do what it was to do; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU time."""

    user: float
    system: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.system - earlier.system)


def machine_busy() -> float:
    """Return the seconds that all CPUs together were busy since boot."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


class Process:
    """A program in a namespace: its standard output read, its standard input written line by line. It dies with us, however we end."""

    def __init__(self, arguments: Sequence[str], namespace: Namespace, cpus: frozenset[int] | None = None) -> None:
        """Start it; `cpus` are those that it may run on."""

        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            namespace.enter()
            if cpus is not None:
                os.sched_setaffinity(0, cpus)

        self._name = os.path.basename(arguments[1] if arguments[0].endswith("python") and len(arguments) > 1 else arguments[0])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._rest = b""
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            preexec_fn=prepare,
            start_new_session=True,  # Ctrl-C is ours alone
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def line(self, timeout: float) -> str:
        """Return the next line of its output; ProcessError if there is none in time."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(timeout):
                    raise ProcessError(f"{self._name} said nothing for {timeout:g} s{self.complaint()}")
                octets = os.read(stdout.fileno(), 65536)
                if not octets:
                    self._process.wait()
                    raise ProcessError(f"{self._name} ended early{self.complaint()}")
                self._rest += octets
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def record(self, timeout: float) -> dict[str, Any]:
        """Return the JSON object in the next line."""
        record: dict[str, Any] = json.loads(self.line(timeout))
        return record

    def expect(self, line: str, timeout: float) -> None:
        """Wait for a line of which the text is known."""
        got = self.line(timeout)
        if got != line:
            raise ProcessError(f"{self._name} said {got!r} where {line!r} was due")

    def say(self, line: str) -> None:
        """Write a line to its standard input; ProcessError if it reads no more."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise ProcessError(f"{self._name} ended early{self.complaint()}") from None

    def last_words(self, timeout: float, count: int) -> list[str]:
        """Ask it to end (SIGTERM), and return the lines that it says to that."""
        self._process.terminate()
        return [self.line(timeout) for _ in range(count)]

    def cpu_time(self) -> CpuTime:
        """Return what it took so far."""
        with open(f"/proc/{self._process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return CpuTime(int(fields[11]) / TICKS, int(fields[12]) / TICKS)  # utime and stime, proc(5)

    def resident(self) -> int:
        """Return the octets of its memory that are in RAM."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * PAGE

    def complaint(self) -> str:
        """Return the last line that it wrote to standard error, behind a colon; nothing if there is none."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def stop(self) -> None:
        """End it and wait until it is gone. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._errors.close()
