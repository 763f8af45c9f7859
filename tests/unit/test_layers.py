"""scripts/bench/layers.py: to whom a sample of where.py is put down."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = ("/usr/lib/python3.11/asyncio/runners.py", "Runner.run", 118)
WRITE = ("/x/tunstack/wire/native.py", "Writer.write", 279)
ON_DATA = ("/x/tunstack/aio/transport.py", "StreamTransport.on_data", 300)


@pytest.fixture(scope="module")
def layers() -> Any:
    path = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "layers.py"
    spec = importlib.util.spec_from_file_location("layers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kernel", "library", "python", "layer"),
    [
        (("do_syscall_64", "ksys_read", "tun_chr_read_iter", "_copy_to_iter"), "", (WRITE, RUN), "TUN_READ"),
        (("do_syscall_64", "do_writev", "tun_chr_write_iter", "tcp_ack"), "", (WRITE, RUN), "TUN_WRITE"),
        (("asm_exc_page_fault", "exc_page_fault", "clear_page_erms"), "", (ON_DATA, RUN), "MEMORY"),
        (("do_syscall_64", "do_epoll_wait", "schedule"), "", (RUN,), "KERNEL"),
        ((), "/x/tunstack/wire/_native.abi3.so", (WRITE, RUN), "NATIVE"),
        ((), "/usr/lib/libc.so.6", (WRITE, RUN), "NATIVE"),
        ((), "/usr/lib/libc.so.6", (ON_DATA, RUN), "ASYNCIO"),
        ((), "/x/_cffi_backend.so", (WRITE, RUN), "WIRE"),
        ((), "/usr/bin/python3.11", (WRITE, RUN), "WIRE"),
        ((), "/usr/bin/python3.11", (("/x/tunstack/congestion/cubic.py", "Cubic.on_ack", 9), RUN), "ENGINE"),
        ((), "/x/uvloop/loop.so", (ON_DATA, RUN), "LOOP"),
        ((), "/usr/bin/python3.11", (RUN,), "LOOP"),
        ((), "/usr/bin/python3.11", (("/x/scripts/bench/protocols.py", "Echo.data_received", 60), RUN), "APPLICATION"),
    ],
)
def test_a_sample_belongs_to_a_layer(layers: Any, kernel: Any, library: str, python: Any, layer: str) -> None:
    assert layers.layer_of(kernel, library, python) is layers.Layer[layer]


def test_the_start_of_the_server_does_not_count(layers: Any) -> None:
    main = ("/x/scripts/bench/serve_tunstack.py", "main", 50)
    serve = ("/x/scripts/bench/serve_tunstack.py", "serve", 30)
    assert not layers.is_start((ON_DATA, RUN, main))
    assert layers.is_start((ON_DATA, serve, RUN, main))
    assert layers.is_start((("/x/importlib/__init__.py", "import_module", 1), main))
