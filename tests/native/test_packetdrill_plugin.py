"""The library that packetdrill loads: built, loaded by a program of our own, and a connection played through it.

packetdrill itself is no part of this; scripts/conformance.py runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "native" / "packetdrill" / "build.py"
DRIVER = Path(__file__).with_name("packetdrill_driver.c")
COMPILER = next((name for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and shutil.which(name)), None)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library, or skip where it cannot be."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    target = tmp_path_factory.mktemp("plugin") / "plugin.so"
    done = subprocess.run([sys.executable, str(BUILD), "--output", str(target)], capture_output=True, text=True)
    if done.returncode and "no Python that can be embedded" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("driver") / "driver"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", f"-I{BUILD.parent}"]
    subprocess.run([COMPILER, *flags, str(DRIVER), "-o", str(program), "-ldl", "-lpthread"], check=True)
    return program


def play(driver: Path, library: Path, preload: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if preload:
        environment["LD_PRELOAD"] = str(library)
    return subprocess.run([str(driver), str(library)], capture_output=True, text=True, timeout=60, env=environment)


def test_a_program_plays_connections_through_the_library(driver: Path, library: Path) -> None:
    done = play(driver, library)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", 2 * "tunstack: no packet leaves, now or later\n")


def test_the_driver_notices_what_is_wrong(driver: Path, library: Path) -> None:
    """Not preloaded, the C library's getsockopt knows nothing of our sockets."""
    done = play(driver, library, preload=False)
    assert done.returncode == 1
    assert "getsockopt(fd, IPPROTO_TCP, TCP_INFO" in done.stderr


def test_flags_that_make_no_sense_are_told_in_one_line(library: Path, tmp_path: Path) -> None:
    source = tmp_path / "flags.c"
    source.write_text(
        '#include <dlfcn.h>\n#include "interface.h"\n'
        "int main(int n, char **a) { struct packetdrill_interface t; void *l = dlopen(a[1], RTLD_NOW);\n"
        'void (*f)(const char *, struct packetdrill_interface *) = dlsym(l, "packetdrill_interface_init"); f(a[n - 1], &t); return 0; }\n'
    )
    program = tmp_path / "flags"
    assert COMPILER is not None
    subprocess.run([COMPILER, "-w", f"-I{BUILD.parent}", str(source), "-o", str(program), "-ldl"], check=True)
    for flags, line in (
        ("mtu=nine", "tunstack: --so_flags: mtu is a number from 68 to 65535, not 'nine'"),
        ("tcp_sack", "tunstack: --so_flags: 'tcp_sack' is not name=value"),
        ("tcp_sock=1", "tunstack: --so_flags: no knob 'tcp_sock'"),
        ("local=here", "tunstack: --so_flags: not an IPv4 address: 'here'"),
    ):
        done = subprocess.run([str(program), str(library), flags], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (2, line + "\n")
