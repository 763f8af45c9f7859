"""What work in virtual time costs, by stage: in time, bytecodes or allocations. A probe measures, a meter adds up.

Bytecodes are counted as `sys.settrace` sees them, before the interpreter specialises any. An allocation is a block of memory that
the interpreter asked for, its free lists aside (allocations.c). Both are the same on a busy machine as on an idle one.
"""

from __future__ import annotations

import cProfile
import ctypes
import gc
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

HERE = Path(__file__).resolve().parent


class MeterError(Exception):
    """It cannot be measured here; the text is one line for the user."""


class Probe:
    """A way to measure. This one measures nothing."""

    def run(self, work: Callable[[], int]) -> tuple[int, float]:
        """Do work; return what it returned (how much it handled), and what that took."""
        return work(), 0


@dataclass(slots=True)
class Stage:
    """One kind of work: how much it handled, and what that took."""

    units: int = 0
    cost: float = 0

    @property
    def each(self) -> float:
        """The cost of a unit."""
        return self.cost / max(self.units, 1)


class Meter:
    """Adds up by stage what a probe measures. Only what is to be measured runs within `measure`."""

    def __init__(self, probe: Probe) -> None:
        """Begin with the warm-up, which is not measured."""
        self.stages: dict[str, Stage] = {}
        self.probe = probe
        self._active = Probe()

    def start(self) -> None:
        """Begin to measure, and forget the warm-up."""
        self.stages.clear()
        self._active = self.probe

    def measure(self, stage: str, work: Callable[[], int]) -> None:
        """Do work, which returns how many units it handled."""
        units, cost = self._active.run(work)
        entry = self.stages.setdefault(stage, Stage())
        entry.units += units
        entry.cost += cost

    @property
    def units(self) -> int:
        """What was handled in all stages together."""
        return sum(stage.units for stage in self.stages.values())


class Clock(Probe):
    """Microseconds of this machine and this moment."""

    def run(self, work: Callable[[], int]) -> tuple[int, float]:
        started = time.perf_counter_ns()
        units = work()
        return units, (time.perf_counter_ns() - started) / 1000


class Profile(Probe):
    """No cost, but cProfile's statistics."""

    def __init__(self) -> None:
        self.profile = cProfile.Profile()

    def run(self, work: Callable[[], int]) -> tuple[int, float]:
        self.profile.enable()
        try:
            return work(), 0
        finally:
            self.profile.disable()


class Bytecodes(Probe):
    """Bytecodes of the files that are `counted`, all of them by default; `by_function` has them apart."""

    def __init__(self, counted: Callable[[str], bool] = lambda path: True) -> None:
        self.by_function: Counter[CodeType] = Counter()
        self._counted = counted
        self._is_counted: dict[CodeType, bool] = {}
        self._count = 0

    def run(self, work: Callable[[], int]) -> tuple[int, float]:
        self._count = 0
        sys.settrace(self._enter)
        try:
            units = work()
        finally:
            sys.settrace(None)
        return units, self._count

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        counted = self._is_counted.get(code)
        if counted is None:
            counted = self._is_counted[code] = self._counted(code.co_filename)
        if not counted:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            self._count += 1
            self.by_function[frame.f_code] += 1
        return self._step


class Allocations(Probe):
    """Blocks of memory asked for. MeterError without a C compiler."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            self._library = ctypes.PyDLL(compile_library("allocations.c", directory))
        for name in ("allocations_install", "allocations_begin", "allocations_end"):
            getattr(self._library, name).restype = None
        self._library.allocations_count.restype = ctypes.c_uint64
        self._library.allocations_install()
        self._begin, self._end = self._library.allocations_begin, self._library.allocations_end
        self._own = 0.0
        self._own = min(self.run(_nothing)[1] for _ in range(10))  # of the calls themselves

    def run(self, work: Callable[[], int]) -> tuple[int, float]:
        self._begin()
        try:
            units = work()
        finally:
            self._end()
        return units, self._library.allocations_count() - self._own


class Kept(Probe):
    """Blocks of memory that the work leaves allocated, minus those that it freed."""

    def run(self, work: Callable[[], int]) -> tuple[int, float]:
        before = sys.getallocatedblocks()
        units = work()
        return units, sys.getallocatedblocks() - before


def _nothing() -> int:
    return 0


def compile_library(source: str, directory: str) -> str:
    """Compile a C file beside this one to a shared object that knows Python's headers; return its path. MeterError where that fails."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise MeterError("no C compiler: install one (apt-get install gcc libc6-dev)")
    library = os.path.join(directory, source.removesuffix(".c") + ".so")
    include = sysconfig.get_path("include")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-shared", "-fPIC", f"-I{include}", os.fspath(HERE / source)]
    done = subprocess.run([*command, "-o", library], capture_output=True, text=True)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise MeterError(f"{source} does not compile: {reason}")
    return library


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector out of single stages."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
