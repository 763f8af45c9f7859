"""Samples of this process: which code the processor was in, by CPU time. CPython 3.11 or 3.12; needs root and a C compiler.

sampler.c takes them; here they are begun, ended and given names. A function of a shared object has one only where it is exported or
not stripped. perf(1) would show the interpreter only: its trampolines for Python functions came with Python 3.12, and cost time.
"""

from __future__ import annotations

import bisect
import ctypes
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from meter import MeterError, compile_library

RATE = 1000  # samples a second of CPU time: each costs the machine measured on 60 us, most of them the hypervisor's
MOST = 300_000  # samples kept: a minute of CPU time
CHAIN, FRAMES = 64, 24  # as in sampler.c


class _Sample(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_uint64),
        ("chain", ctypes.c_uint64 * CHAIN),
        ("code", ctypes.c_uint64 * FRAMES),
        ("offset", ctypes.c_uint32 * FRAMES),
        ("in_kernel", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class Place(NamedTuple):
    """Where samples were. Kernel functions from the system call inwards, Python functions as (file, name, line) innermost first."""

    kernel: tuple[str, ...]  # empty: user space
    library: str  # file that the code is of, if it is no kernel's
    symbol: str  # its function, if that has a name
    python: tuple[tuple[str, str, int], ...]


class _Symbols:
    """Names by address, of one file or of the kernel."""

    def __init__(self, lines: list[str]) -> None:
        """Take lines as nm(1) prints them."""
        pairs = []
        for line in lines:
            address, kind, name, *_ = line.split()
            if kind in "tTwWiu":
                pairs.append((int(address, 16), name))
        pairs.sort()
        self._addresses = [address for address, _ in pairs]
        self._names = [name for _, name in pairs]

    def name(self, address: int) -> str:
        index = bisect.bisect_right(self._addresses, address) - 1
        return self._names[index] if index >= 0 and self._addresses[index] else ""


def _symbols_of(library: str) -> _Symbols:
    lines: list[str] = []
    for options in (["--defined-only"], ["--defined-only", "-D"]):
        done = subprocess.run(["nm", *options, library], capture_output=True, text=True)
        lines += [line for line in done.stdout.splitlines() if len(line.split()) >= 3]
    return _Symbols(lines)


class _Maps:
    """What is mapped where in this process."""

    def __init__(self) -> None:
        self._maps: list[tuple[int, int, int, str]] = []
        self._symbols: dict[str, _Symbols | None] = {}
        self._segments: dict[str, list[tuple[int, int, int]]] = {}  # by file: its loadable ones' offset, address and size
        with open("/proc/self/maps") as maps:
            for line in maps:
                span, mode, offset, _, _, *path = line.split()
                if "x" in mode:
                    start, end = (int(part, 16) for part in span.split("-"))
                    self._maps.append((start, end, int(offset, 16), path[0] if path else ""))

    def find(self, address: int) -> tuple[str, str]:
        """Return the file's path and the function's name."""
        for start, end, offset, path in self._maps:
            if start <= address < end:
                if not path.startswith("/"):
                    return path, ""
                if path not in self._symbols:
                    self._symbols[path] = _symbols_of(path) if shutil.which("nm") else None
                symbols = self._symbols[path]
                return path, symbols.name(self._virtual(path, address - start + offset)) if symbols else ""
        return "", ""

    def _virtual(self, path: str, offset: int) -> int:
        """Return the address that the file's symbols have for an octet of the file."""
        done = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True) if path not in self._segments else None
        if done is not None:
            loads = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["LOAD"]]
            self._segments[path] = [(int(load[1], 16), int(load[2], 16), int(load[4], 16)) for load in loads]
        return next((virtual + offset - start for start, virtual, size in self._segments[path] if start <= offset < start + size), offset)


class Sampler:
    """Samples the calling thread from `start` to `stop`; the code that runs in between must stay alive until `places`."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            self._library = ctypes.PyDLL(compile_library("sampler.c", directory))
        self._library.sampler_samples.restype = ctypes.POINTER(_Sample)
        self._library.sampler_count.restype = self._library.sampler_lost.restype = ctypes.c_uint64
        self._library.sampler_start.argtypes = (ctypes.c_uint, ctypes.c_uint64)
        self.cpu_time = 0.0  # s

    def start(self) -> None:
        self.cpu_time = -time.thread_time()
        number = self._library.sampler_start(RATE, MOST)
        if number:
            raise MeterError(f"perf_event_open: {os.strerror(number)}: run as root, and where kernel.perf_event_paranoid lets you")

    def stop(self) -> None:
        self._library.sampler_stop()
        self.cpu_time += time.thread_time()

    @property
    def lost(self) -> int:
        lost: int = self._library.sampler_lost()
        return lost

    def places(self) -> Counter[Place]:
        """Return how many samples there are of each place."""
        kernel = _Symbols(Path("/proc/kallsyms").read_text().splitlines())
        maps = _Maps()
        samples = self._library.sampler_samples()
        places: Counter[Place] = Counter()
        names: dict[tuple[int, int], tuple[str, str, int]] = {}
        found: dict[int, tuple[str, str]] = {}
        for i in range(self._library.sampler_count()):
            sample = samples[i]
            python = []
            for code, offset in zip(sample.code, sample.offset, strict=True):
                if not code:
                    break
                if (code, offset) not in names:
                    names[code, offset] = _name(code, offset)
                python.append(names[code, offset])
            if sample.in_kernel:
                chain = tuple(kernel.name(address) for address in reversed([a for a in sample.chain if a]))
                places[Place(chain, "", "", tuple(python))] += 1
            else:
                if sample.address not in found:
                    found[sample.address] = maps.find(sample.address)
                places[Place((), *found[sample.address], tuple(python))] += 1
        return places


def _name(address: int, offset: int) -> tuple[str, str, int]:
    code: Any = ctypes.cast(address, ctypes.py_object).value
    line = next((line for start, end, line in code.co_lines() if start <= offset < end and line), code.co_firstlineno)
    return code.co_filename, code.co_qualname, line


def write(sampler: Sampler, path: str) -> None:
    """Leave everything in a JSON file."""
    record = {"cpu_time": sampler.cpu_time, "lost": sampler.lost, "places": [[*place, count] for place, count in sampler.places().items()]}
    Path(path).write_text(json.dumps(record))
