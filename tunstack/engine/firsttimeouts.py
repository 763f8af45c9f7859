"""The first timeouts of all SYN-ACKs of a stack: they are equally long, so that one look of the timer heap is for all.

RFC 6298 2.1. A connection that opens needs no look of its own: most often its handshake is over long before. Times are int microseconds.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from tunstack.engine.timers import LOOKS_A_TURN, NEVER, TimerHeap

if TYPE_CHECKING:
    from tunstack.engine.halfopen import HalfOpen


class FirstTimeouts:
    """Half-open connections whose SYN-ACK was sent once, in the order in which it is due again. One timer owner of the stack.

    One whose time was put off goes to the heap by itself (`move`).
    """

    __slots__ = ("_entries", "_timers", "heap_at")

    def __init__(self, timers: TimerHeap) -> None:
        self._entries: dict[HalfOpen, None] = {}
        self._timers = timers
        self.heap_at = NEVER

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, owner: object) -> bool:
        return owner in self._entries

    def add(self, entry: HalfOpen) -> None:  # hot
        """A SYN-ACK was sent just now."""
        self._entries[entry] = None
        if self.heap_at == NEVER:
            self._timers.arm(self, entry.expires_at)

    def discard(self, entry: HalfOpen) -> None:
        """It is no half-open connection any more."""
        self._entries.pop(entry, None)
        if entry.heap_at < NEVER:
            self._timers.disarm(entry)

    def move(self, entry: HalfOpen) -> None:
        """Its time is another than that of those beside it."""
        self._entries.pop(entry, None)
        self._timers.arm(entry, entry.expires_at)

    def next_deadline(self) -> int:
        """Return when the first is due."""
        first = next(iter(self._entries), None)
        return NEVER if first is None else first.expires_at

    def on_timer(self, now: int) -> None:
        """Send again what is due, so many in a turn as the heap itself looks at."""
        for entry in list(islice(self._entries, LOOKS_A_TURN)):
            if entry.expires_at > now:
                break
            del self._entries[entry]
            entry.on_timer(now)
            if entry.expires_at < NEVER:
                self._timers.arm(entry, entry.expires_at)
