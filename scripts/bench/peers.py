"""The programs that are measured besides ours and the kernel's: each built or installed below build/bench/ when it is first asked for.

A peer that cannot be had raises Missing with a line that says why; what is missing of Debian's packages, `scripts/setup.sh bench` installs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from glob import glob
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "bench"
PEERS = HERE / "peers"
GO_PATH = Path("/usr/share/gocode")  # Debian's Go libraries
GVISOR = GO_PATH / "src" / "gvisor.dev" / "gvisor" / "pkg" / "tcpip"
LWIP = Path("/usr/include/lwip")
BUILD_TIMEOUT = 300.0  # s


class Missing(Exception):
    """A program cannot be had; the text is one line for the user."""


def compile_c(sources: list[Path], program: str, *flags: str) -> Path:
    """Compile a C program, always anew; return where it is."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise Missing("no C compiler: apt-get install gcc libc6-dev")
    target = BUILD / program
    command = [compiler, "-std=gnu11", "-O3", "-Wall", "-Wextra", "-o", os.fspath(target), *map(os.fspath, sources), *flags]
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


@cache
def lwip() -> Path:
    """Return the server on lwIP, built with Debian's library."""
    if not LWIP.is_dir():
        raise Missing("lwIP: apt-get install liblwip-dev")
    return compile_c([PEERS / "lwip.c"], "lwip", "-isystem", os.fspath(LWIP), "-llwip")


@cache
def environment(package: str) -> Path:
    """Return the Python of a virtual environment of its own that has a package of PyPI, and uvloop.

    Wheels only: newer ones of mitmproxy_rs want Python 3.12, so the newest Python there is makes it.
    """
    directory = BUILD / package
    python = directory / "bin" / "python"
    commands = (
        [_newest_python(), "-m", "venv", "--clear", os.fspath(directory)],
        [os.fspath(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "uvloop", package],
    )
    stamp = directory / ".complete"
    if not stamp.exists():
        for command in commands:
            _build(command, python)
        stamp.touch()
    return python


def _newest_python() -> str:
    """Return the newest interpreter that can make a virtual environment: of the PATH, of pyenv, or else our own."""
    for minor in range(14, sys.version_info.minor, -1):
        found = [path for path in (shutil.which(f"python3.{minor}"),) if path is not None]
        found += sorted(glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python")))
        for program in found:  # one of pyenv's on the PATH may be a mere shim
            if subprocess.run([program, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0:
                return program
    return sys.executable
