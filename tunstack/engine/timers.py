"""Deadlines: stored at their owner, looked after by one lazy heap a stack.

An owner keeps its deadlines as plain attributes. The heap only remembers, for each owner, one moment at which to look
at it (`heap_at`), never later than its earliest deadline: moving a deadline further away costs nothing but the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Protocol

NEVER = 1 << 62
PRUNE_LENGTH = 256  # entries from which on those that mean nothing any more are looked for


class TimerOwner(Protocol):
    """What has deadlines."""

    heap_at: int  # when the heap will look next; NEVER: not in the heap

    def next_deadline(self) -> int:
        """Return the earliest deadline, or NEVER."""

    def on_timer(self, now: int) -> None:
        """Handle what is due."""


class TimerHeap:
    """All the owners that have a deadline. Invariant: `owner.heap_at <= owner.next_deadline()` after `arm`.

    A look that was superseded by an earlier one stays in the heap until its time, which may be hours away (keepalive); so does that
    of an owner that is over. They are thrown out whenever the heap has doubled.
    """

    __slots__ = ("_heap", "_prune_length", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TimerOwner]] = []
        self._serial = 0  # breaks ties in the order of arming, so that runs repeat
        self._prune_length = PRUNE_LENGTH

    def arm(self, owner: TimerOwner, at: int) -> None:
        """See to it that `owner` is looked at no later than `at`."""
        if at < owner.heap_at:
            owner.heap_at = at
            self._serial += 1
            heappush(self._heap, (at, self._serial, owner))
            if len(self._heap) > self._prune_length:
                self._prune()

    def _prune(self) -> None:
        """Keep one entry an owner, and none of those without a deadline."""
        kept: dict[int, tuple[int, int, TimerOwner]] = {}
        for entry in self._heap:
            at, _, owner = entry
            if owner.heap_at == at:
                if owner.next_deadline() < NEVER:
                    kept[id(owner)] = entry
                else:
                    owner.heap_at = NEVER
        self._heap[:] = kept.values()  # in place: `advance` may be in the middle of it
        heapify(self._heap)
        self._prune_length = max(PRUNE_LENGTH, 2 * len(self._heap))

    def owners(self) -> Iterator[TimerOwner]:
        """All that the heap will look at, each as often as it will."""
        return (owner for _, _, owner in self._heap)

    def next_deadline(self) -> int | None:
        """Return when `advance` has something to look at; it may then find nothing due."""
        heap = self._heap
        while heap and heap[0][2].heap_at != heap[0][0]:
            heappop(heap)  # superseded by an earlier look
        return heap[0][0] if heap else None

    def advance(self, now: int) -> None:
        """Run `on_timer` of every owner with a deadline at or before `now`."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, owner = heappop(heap)
            if owner.heap_at != at:
                continue
            owner.heap_at = NEVER
            if owner.next_deadline() <= now:
                owner.on_timer(now)
            deadline = owner.next_deadline()
            if deadline < NEVER:
                self.arm(owner, deadline if deadline > now else now + 1)
