"""The programs that are measured besides ours and the kernel's: each built or installed below build/bench/ when it is first asked for.

A peer that cannot be had raises Missing with a line that says why; what is missing of Debian's packages, `scripts/setup.sh bench` installs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "bench"
PEERS = HERE / "peers"
GO_PATH = Path("/usr/share/gocode")  # Debian's Go libraries
GVISOR = GO_PATH / "src" / "gvisor.dev" / "gvisor" / "pkg" / "tcpip"
BUILD_TIMEOUT = 300.0  # s


class Missing(Exception):
    """A program cannot be had; the text is one line for the user."""


def compile_c(sources: list[Path], program: str, *flags: str) -> Path:
    """Compile a C program, always anew; return where it is."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise Missing("no C compiler: apt-get install gcc libc6-dev")
    target = BUILD / program
    command = [compiler, "-std=c11", "-O3", "-Wall", "-Wextra", "-o", os.fspath(target), *map(os.fspath, sources), *flags]
    return _build(command, target)


def _build(command: list[str], target: Path, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, cwd=directory, env={**os.environ, **(environment or {})}
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{target.name}: not built within {BUILD_TIMEOUT:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
        raise Missing(f"{target.name} could not be built: {said[-1]}")
    return target


@cache
def limit() -> Path:
    """Return the program without TCP."""
    return compile_c([PEERS / "limit.c"], "limit")


@cache
def gvisor() -> Path:
    """Return the server on gVisor's netstack, built with Debian's Go and its gVisor library."""
    go = shutil.which("go")
    if go is None or not GVISOR.is_dir():
        raise Missing("gVisor: apt-get install golang-go golang-gvisor-gvisor-dev")
    target = BUILD / "gvisor"
    environment = {"GO111MODULE": "off", "GOPATH": os.fspath(GO_PATH), "GOCACHE": os.fspath(BUILD / "go-cache"), "GOFLAGS": ""}
    return _build([go, "build", "-o", os.fspath(target), "."], target, environment, PEERS / "gvisor")
