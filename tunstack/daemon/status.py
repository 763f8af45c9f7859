"""What `/status` says."""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Protocol


class _Info(Protocol):
    @property
    def congestion(self) -> str: ...


class _Connection(Protocol):
    @property
    def state(self) -> Enum: ...

    def info(self) -> _Info: ...


def version() -> str:
    """Return the version of the package that is installed."""
    try:
        return importlib.metadata.version("tunstack")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def resident_memory() -> int:
    """Return the octets of memory that the process has in RAM."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def count_states(connections: Iterable[_Connection]) -> dict[str, int]:
    """Count connections by the RFC's name of their state."""
    return dict(sorted(Counter(connection.state.name for connection in connections).items()))


def count_algorithms(connections: Iterable[_Connection]) -> dict[str, int]:
    """Count connections by the congestion control that they have."""
    return dict(sorted(Counter(connection.info().congestion for connection in connections).items()))
