"""What `/status` says."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping
from functools import cache

from tunstack.engine.state import State
from tunstack.inspect.census import Work

Status = Callable[[], Mapping[str, object] | Work[Mapping[str, object]]]  # at once, or in pieces


@cache
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


def by_name(states: Mapping[State, int]) -> dict[str, int]:
    """Return numbers of connections by the RFC's name of their state."""
    return {state.name: number for state, number in sorted(states.items(), key=lambda each: each[0].name)}
