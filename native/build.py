"""Builds the C extension tunstack/wire/_native.abi3.so: cffi in API mode, stable ABI (one file for CPython 3.11 and later).

    python native/build.py              build into the source tree
    python native/build.py --check      compile with every compiler at hand, warnings being errors, and keep nothing
    python native/build.py --sanitize   build into the source tree under ASan and UBSan; see tests/native/README.md

Nothing but a C compiler, Python's headers and cffi is needed. hatch_build.py calls `build` when a wheel is made.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cffi

NATIVE = Path(__file__).resolve().parent
MODULE = "tunstack.wire._native"
TARGET = NATIVE.parent / "tunstack" / "wire" / "_native.abi3.so"
SOURCES = ("checksum.c", "parse.c", "build.c", "gro.c", "reader.c", "writer.c")

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra")
SANITIZE = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")

# What Python sees of tunstack.h. Structures are allocated here and filled in C; of a record Python knows the offsets (native.py).
CDEF = """
struct ts_record { ...; };
struct ts_run { ...; };
struct ts_reader {
    uint8_t *buffer;
    struct ts_record *records;
    struct ts_run *runs;
    uint64_t octets;
    uint32_t slots;
    uint32_t max_frames;
    uint32_t max_octets;
    uint32_t checksum_errors;
    uint32_t header_errors;
    uint32_t ignored;
    uint32_t count;
    bool vnet;
    bool coalesce;
    bool coalesce_acks;
    ...;
};
struct ts_writer {
    uint64_t lost;
    uint64_t octets;
    int fd;
    bool vnet;
    bool tso;
    ...;
};
#define TS_COUNT ...
#define TS_UNUSUAL ...
#define TS_DRAINED ...
#define TS_SLOT ...
#define TS_MAX_VIEWS ...
#define TS_MAX_HEADER ...
uint16_t ts_checksum(const uint8_t *data, size_t length, uint64_t initial);
bool ts_parse_datagram(const uint8_t *packet, size_t length, void *record);
void ts_reader_begin(struct ts_reader *reader);
void ts_reader_add(struct ts_reader *reader, const uint8_t *frame, size_t length);
int ts_reader_read(struct ts_reader *reader, int fd);
void ts_writer_push(struct ts_writer *writer, const uint8_t *data, size_t length);
int ts_writer_send(struct ts_writer *writer, const void *record, const uint8_t *data, size_t length);
int ts_writer_send_packet(struct ts_writer *writer, const uint8_t *packet, size_t length);
int64_t ts_encode(const void *record, const uint8_t *data, size_t length, uint8_t *out, size_t size);
char *strerror(int number);
"""


class BuildError(RuntimeError):
    """The compiler refused; what it said went to standard error."""


def run(command: list[str]) -> None:
    """Run a compiler; BuildError where it fails."""
    if subprocess.run(command).returncode:
        raise BuildError(f"{command[0]} failed, and said above why (are Python's headers installed?)")


def compilers() -> list[str]:
    """Return the compilers to try: $CC, Python's own, then the usual names; only those that exist."""
    names = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]
    found = [shlex.split(name) for name in names if name]
    return list(dict.fromkeys(command[0] for command in found if command and shutil.which(command[0])))


def build(target: Path = TARGET, compiler: str | None = None, flags: tuple[str, ...] = FLAGS) -> None:
    """Compile the extension to target; FileNotFoundError where there is no compiler, BuildError where it fails."""
    if compiler is None:
        found = compilers()
        if not found:
            raise FileNotFoundError("no C compiler (cc, gcc or clang) was found")
        compiler = found[0]
    ffi = cffi.FFI()
    ffi.cdef(CDEF)
    ffi.set_source(MODULE, '#include "tunstack.h"\n')
    with tempfile.TemporaryDirectory() as work:
        face = Path(work, "_native.c")
        with redirect_stdout(StringIO()):  # it says what it generates
            ffi.emit_c_code(str(face))
        shared = Path(work, "_native.abi3.so")
        include = sysconfig.get_path("include")
        platform_include = sysconfig.get_path("platinclude")
        # cffi's generated face has helpers that it does not use and names parameters of ours that it does not need
        quiet = ("-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers")
        includes = (f"-I{NATIVE}", f"-I{include}", f"-I{platform_include}", "-DPy_LIMITED_API=0x030b0000")
        objects = []
        for source in (*(NATIVE / name for name in SOURCES), face):
            made = Path(work, source.name + ".o")
            command = [compiler, *flags, *(quiet if source is face else ()), *includes, "-c", str(source), "-o", str(made)]
            run(command)
            objects.append(str(made))
        links = [flag for flag in flags if flag.startswith("-fsanitize")]
        run([compiler, "-shared", *links, *objects, "-o", str(shared)])
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")  # a process that has the old one mapped keeps it
        shutil.copyfile(shared, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)


def check() -> None:
    """Compile with gcc and clang, as far as they are there, every warning an error."""
    found = [name for name in ("gcc", "clang") if shutil.which(name)] or compilers()
    if not found:
        raise FileNotFoundError("no C compiler (gcc or clang) was found")
    for compiler in found:
        with tempfile.TemporaryDirectory() as work:
            build(Path(work, TARGET.name), compiler, (*FLAGS, "-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Wvla", "-Werror"))
        print(f"native: no warning from {compiler}")


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Build the C extension of tunstack.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="compile with -Werror and keep nothing")
    group.add_argument("--sanitize", action="store_true", help="build with AddressSanitizer and UndefinedBehaviorSanitizer (gcc)")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check()
        elif arguments.sanitize:
            build(compiler="gcc", flags=(*FLAGS, *SANITIZE))
        else:
            build()
    except (OSError, BuildError) as error:
        print(f"native: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
