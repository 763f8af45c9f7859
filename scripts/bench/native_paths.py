"""Machine instructions of the C extension's hot paths, by valgrind's callgrind: native_paths.c.

They are those of the extension's own code; copying by libc is left out, and so is the kernel. Another compiler makes other
instructions: figures compare only where `toolchain` is the same.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

from meter import MeterError

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent.parent / "native"
COUNT = 500  # calls of each path

# Label: the path's name in native_paths.c.
PATHS = {
    "reader, a 64 KB frame": "read_super",
    "reader, a frame of one packet": "read_packet",
    "reader and GRO, a frame of one packet": "coalesce",
    "parse, without checksum": "parse",
    "build a header": "header",
    "checksum, 1 KiB": "checksum",
    "writer, a 64 KB segment": "send_super",
    "writer, an ACK": "send_ack",
    "segmentation, a packet": "segmentation",
}


def _build_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def toolchain() -> str:
    """Return compiler and machine, such as "gcc 12 x86_64"; MeterError where something is missing that it takes to count."""
    if shutil.which("valgrind") is None:
        raise MeterError("valgrind is not installed")
    compilers = _build_module().compilers()
    if not compilers:
        raise MeterError("no C compiler")
    name = "clang" if "clang" in subprocess.run([compilers[0], "--version"], capture_output=True, text=True).stdout else "gcc"
    version = subprocess.run([compilers[0], "-dumpversion"], capture_output=True, text=True).stdout.strip().partition(".")[0]
    return f"{name} {version} {platform.machine()}"


def count() -> dict[str, float]:
    """Return the instructions for each unit of each path. MeterError where they cannot be counted."""
    toolchain()
    build = _build_module()
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "native_paths")
        sources = [os.fspath(NATIVE / name) for name in build.SOURCES]
        command = [build.compilers()[0], *build.FLAGS, f"-I{NATIVE}", *sources, os.fspath(HERE / "native_paths.c"), "-o", program]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise MeterError(f"native_paths.c does not compile: {done.stderr.strip().splitlines()[0]}")
        return {label: _count_path(program, path, directory) for label, path in PATHS.items()}


def _count_path(program: str, path: str, directory: str) -> float:
    out = os.path.join(directory, path)
    options = ["--tool=callgrind", "--toggle-collect=measured", f"--callgrind-out-file={out}", "--compress-strings=no", "--compress-pos=no"]
    done = subprocess.run(["valgrind", *options, program, path, str(COUNT)], capture_output=True, text=True)
    if done.returncode:
        raise MeterError(f"valgrind failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    return _own_instructions(Path(out).read_text(), program) / int(done.stdout)


def _own_instructions(text: str, program: str) -> int:
    """Add up the cost lines of functions of the program itself in callgrind's format; a line behind `calls=` is its callee's."""
    total = 0
    is_own = is_call = False
    for line in text.splitlines():
        if line.startswith("ob="):
            is_own = line[3:] == program
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[0-9+*-]", line):
            if is_own and not is_call:
                total += int(line.split()[1])
            is_call = False
    return total


if __name__ == "__main__":
    for label, instructions in count().items():
        print(f"{label:40} {instructions:10.1f}")
