"""Deadlines: stored at their owner, looked after by one lazy heap a stack.

An owner keeps its deadlines as plain attributes. The heap only remembers, for each owner, one moment at which to look
at it (`heap_at`), never later than its earliest deadline: moving a deadline further away costs nothing but the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Protocol

NEVER = 1 << 62
SLOT_BITS = 20  # a slot holds the looks of 2^20 us, about a second
LOOKS_A_TURN = 128  # `advance` leaves what is more for its next call
MOVES_A_TURN = 1024  # likewise, from a slot to the heap


class TimerOwner(Protocol):
    """What has deadlines."""

    heap_at: int  # when the heap will look next; NEVER: it will not

    def next_deadline(self) -> int:
        """Return the earliest deadline, or NEVER."""

    def on_timer(self, now: int) -> None:
        """Handle what is due."""


class _Slot:
    """The owners that are to be looked at within one slot of time, in the order of arming."""

    __slots__ = ("first", "owners")

    def __init__(self, first: int) -> None:
        self.first = first  # nothing is due before
        self.owners: dict[TimerOwner, None] = {}


class TimerHeap:
    """All the owners that have a deadline. Invariant: `owner.heap_at <= owner.next_deadline()` after `arm`.

    What is to be looked at soon lies in a heap; what is further away in slots, unsorted, until its slot comes: there 100,000 keepalive
    timers cost little, and an owner can be taken out again. A look in the heap that was superseded by an earlier one, or whose owner is
    over, stays there until its time, which is not far away.
    """

    __slots__ = ("_heap", "_opened", "_order", "_serial", "_slots", "soonest")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TimerOwner]] = []
        self._serial = 0  # breaks ties in the order of arming, so that runs repeat
        self._slots: dict[int, _Slot] = {}  # by number
        self._order: list[int] = []  # a heap of their numbers
        self._opened = -1  # the last slot whose looks are all in the heap
        self.soonest = NEVER  # no look is due before: a bound that costs nothing, as good as `next_deadline` was when last asked

    def arm(self, owner: TimerOwner, at: int) -> None:
        """See to it that `owner` is looked at no later than `at`."""
        heap_at = owner.heap_at
        if at >= heap_at:
            return
        if at < self.soonest:
            self.soonest = at
        if heap_at < NEVER:
            self._take_out(owner)
        owner.heap_at = at
        number = at >> SLOT_BITS
        if number <= self._opened:
            self._serial += 1
            heappush(self._heap, (at, self._serial, owner))
            return
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot(at)
            heappush(self._order, number)
        elif at < slot.first:
            slot.first = at
        slot.owners[owner] = None

    def disarm(self, owner: TimerOwner) -> None:
        """Look no more at an owner that is over, and let it go; soon, where its time is near."""
        slot = self._slots.get(owner.heap_at >> SLOT_BITS)  # `_take_out`
        if slot is not None:
            slot.owners.pop(owner, None)
        owner.heap_at = NEVER

    def _take_out(self, owner: TimerOwner) -> None:
        """Take it out of its slot, if it is in one."""
        slot = self._slots.get(owner.heap_at >> SLOT_BITS)
        if slot is not None:
            slot.owners.pop(owner, None)

    def owners(self) -> Iterator[TimerOwner]:
        """All that will be looked at, each as often as it will."""
        yield from (owner for _, _, owner in self._heap)
        for slot in self._slots.values():
            yield from slot.owners

    def __len__(self) -> int:
        """Return how many looks are stored."""
        return len(self._heap) + sum(len(slot.owners) for slot in self._slots.values())

    def next_deadline(self) -> int | None:
        """Return when `advance` has something to look at; it may then find nothing due."""
        heap = self._heap
        while heap and heap[0][2].heap_at != heap[0][0]:
            heappop(heap)  # superseded by an earlier look
        first = self._first_slot()
        self.soonest = min(heap[0][0] if heap else NEVER, NEVER if first is None else first.first)
        return self.soonest if self.soonest < NEVER else None

    def _first_slot(self) -> _Slot | None:
        """Return the next slot that has something in it."""
        order = self._order
        while order:
            slot = self._slots[order[0]]
            if slot.owners:
                return slot
            del self._slots[heappop(order)]
        return None

    def advance(self, now: int) -> None:
        """Run `on_timer` of owners with a deadline at or before `now`, of LOOKS_A_TURN at most: others have waited long enough then.

        What is left is still due, as `next_deadline` says. So are all, in their order, while a crowded slot moves to the heap.
        """
        if not self._open_slots(now):
            return
        heap = self._heap
        looks = 0
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
            looks += 1
            if looks == LOOKS_A_TURN:
                return

    def _open_slots(self, now: int) -> bool:
        """Move the slots whose time has come to the heap, MOVES_A_TURN looks at most. Return whether that was all."""
        last = now >> SLOT_BITS
        room = MOVES_A_TURN
        while self._order and self._order[0] <= last:
            number = self._order[0]
            owners = self._slots[number].owners
            for owner in list(islice(owners, room)):
                del owners[owner]
                self._serial += 1
                heappush(self._heap, (owner.heap_at, self._serial, owner))
                room -= 1
            if owners:
                return False
            heappop(self._order)
            del self._slots[number]
        if last > self._opened:
            self._opened = last
        return True
