"""Whose work a sample is: kernel, C extension, engine, asyncio layer, event loop, application."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

Frame = Sequence[str | int]  # file, function, line


class Layer(Enum):
    """In the order in which tables have them."""

    TUN_READ = "kernel: TUN read"
    TUN_WRITE = "kernel: TUN write, with the peer's TCP in it"
    MEMORY = "kernel: memory (page faults, mapping)"
    KERNEL = "kernel: the rest (waiting, switching, system calls)"
    NATIVE = "C extension, with libc for it"
    WIRE = "its Python face, cffi and device"
    ENGINE = "engine and congestion control"
    ASYNCIO = "asyncio layer: driver, transport, servers"
    LOOP = "uvloop and asyncio"
    APPLICATION = "application"


PACKAGES = (
    ("/tunstack/wire/", Layer.WIRE),
    ("/tunstack/device/", Layer.WIRE),
    ("/tunstack/engine/", Layer.ENGINE),
    ("/tunstack/congestion/", Layer.ENGINE),
    ("/tunstack/seq.py", Layer.ENGINE),
    ("/tunstack/aio/", Layer.ASYNCIO),
    ("/scripts/bench/", Layer.APPLICATION),
)
MEMORY = frozenset(("exc_page_fault", "__x64_sys_munmap", "__x64_sys_mmap", "__x64_sys_mremap", "__x64_sys_brk", "__x64_sys_madvise"))
START = "serve_tunstack.py"  # what runs below a function of this file, but for the loop, is the server's start or its end


def is_start(python: Sequence[Frame]) -> bool:
    """Whether a sample belongs to the server's start or end: below its own coroutine, or before the loop runs."""
    names = [str(frame[1]) for frame in python if str(frame[0]).endswith(START)]
    return any(name != "main" and name != "<module>" for name in names) or not any(frame[1] == "Runner.run" for frame in python)


def layer_of(kernel: Sequence[str], library: str, python: Sequence[Frame]) -> Layer:
    """Return the layer of a sample. Code of libc and of the interpreter belongs to the innermost Python function."""
    if kernel:
        if "tun_chr_read_iter" in kernel:
            return Layer.TUN_READ
        if "tun_chr_write_iter" in kernel:
            return Layer.TUN_WRITE
        return Layer.MEMORY if MEMORY.intersection(kernel) else Layer.KERNEL
    name = library.rpartition("/")[2]
    file = str(python[0][0]) if python else ""
    if name.startswith("_native.") or (name.startswith("libc.") and file.endswith("/tunstack/wire/native.py")):
        return Layer.NATIVE
    if name.startswith("_cffi_backend"):
        return Layer.WIRE
    if "uvloop" in library:
        return Layer.LOOP
    return next((layer for part, layer in PACKAGES if part in file), Layer.LOOP)
