"""The garbage collector, kept from holding the loop up.

Connections are freed without it (tests/aio/test_idle_connections.py). Yet each of its full passes looks at all of them, a second for
100,000, again and again. So what has survived a pass is set aside (`gc.freeze`): later passes look at what is new. What was set aside
and has become garbage in cycles, which an application may make, stays until most connections are gone, or more is set aside than so many
connections explain: then all is looked at once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

OLDEST = 2  # the generation of a full pass
FEW = 1000  # connections: up to so many a full pass takes no time to speak of
PASSES = 16  # full ones, after which what is set aside is counted again: it is a long list
OBJECTS = 64  # a connection may explain, the application's own with it


class Collector:
    """Takes charge of this process's collector from `start` to `stop`. `count` tells how many connections there are."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._most = 0  # connections at most when something was set aside, since all was looked at
        self._kept = 0  # objects that were left when all was looked at ...
        self._connections = 0  # ... and connections
        self._passes = 0  # full ones since it was counted
        self._looks_at_all = True  # the pass under way does

    def start(self) -> None:
        """Set aside what is there: the program, its modules."""
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._on_pass)

    def stop(self) -> None:
        """Leave it as it was. Idempotent, and harmless without `start`."""
        if self._on_pass in gc.callbacks:
            gc.callbacks.remove(self._on_pass)
            gc.unfreeze()

    def _on_pass(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != OLDEST:
            return
        count = self._count()
        if phase == "stop":
            gc.freeze()
            self._most = max(self._most, count)
            if self._looks_at_all:
                self._looks_at_all = False
                self._kept = gc.get_freeze_count()
                self._connections = count
        elif 2 * count < self._most or self._most < FEW or self._is_unexplained(count):
            gc.unfreeze()
            self._looks_at_all = True
            self._most = 0

    def _is_unexplained(self, count: int) -> bool:
        """Whether twice as much is set aside as was left before, connections that have come since left out."""
        self._passes += 1
        if self._passes < PASSES:
            return False
        self._passes = 0
        return gc.get_freeze_count() > 2 * self._kept + OBJECTS * max(count - self._connections, 0)
