"""What turns frames into segments and back: the C extension, or its plain Python twin where that was not built.

The two have one interface, documented in twin.py. Import the module, not the names: `codec.Reader(...)`.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Literal

__all__ = ["BACKEND", "Reader", "Writer", "checksum", "encode", "parse_datagram", "select"]

BACKEND: str

if TYPE_CHECKING:
    from tunstack.wire.twin import Reader, Writer, checksum, encode, parse_datagram


def select(backend: Literal["native", "python"]) -> None:
    """Take this implementation from now on, for tests and for comparisons; ImportError where the extension was not built."""
    chosen = import_module("tunstack.wire.native" if backend == "native" else "tunstack.wire.twin")
    for name in ("BACKEND", "Reader", "Writer", "checksum", "encode", "parse_datagram"):
        globals()[name] = getattr(chosen, name)


try:
    select("native")
except ImportError:
    select("python")
    warnings.warn(
        "tunstack runs without its C extension, several times slower; install a C compiler and reinstall to have it",
        RuntimeWarning,
        stacklevel=2,
    )
