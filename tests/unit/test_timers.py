"""The heap of deadlines."""

from __future__ import annotations

import gc
import weakref

from tunstack.engine.timers import NEVER, PRUNE_LENGTH, TimerHeap

HOUR = 3_600_000_000


class Owner:
    """Has a deadline far away, and now and then a near one."""

    def __init__(self) -> None:
        self.heap_at = NEVER
        self.far = HOUR
        self.near = NEVER
        self.fired: list[int] = []

    def next_deadline(self) -> int:
        return min(self.far, self.near)

    def on_timer(self, now: int) -> None:
        self.fired.append(now)
        if self.near <= now:
            self.near = NEVER
        else:
            self.far = NEVER


def test_looks_that_were_superseded_do_not_pile_up() -> None:
    """A connection with keepalive whose ACKs are delayed 25 times a second."""
    heap = TimerHeap()
    owner = Owner()
    heap.arm(owner, owner.far)
    for now in range(0, 10_000 * 40_000, 40_000):
        owner.near = now + 1000
        heap.arm(owner, owner.near)
        heap.advance(now + 1000)
    assert len(list(heap.owners())) <= PRUNE_LENGTH
    assert len(owner.fired) == 10_000
    assert heap.next_deadline() == HOUR
    heap.advance(HOUR)
    assert owner.fired[-1] == HOUR
    assert heap.next_deadline() is None


def test_owners_that_are_over_are_let_go_long_before_their_time() -> None:
    heap = TimerHeap()
    gone = []
    for _ in range(10 * PRUNE_LENGTH):
        owner = Owner()
        heap.arm(owner, owner.far)
        owner.far = NEVER
        gone.append(weakref.ref(owner))
    del owner
    gc.collect()
    assert sum(ref() is not None for ref in gone) <= PRUNE_LENGTH + 1


def test_the_earliest_comes_first_and_ties_in_the_order_of_arming_however_often_the_heap_is_pruned() -> None:
    heap = TimerHeap()
    order: list[int] = []

    class Numbered(Owner):
        def __init__(self, number: int, at: int) -> None:
            super().__init__()
            self.number = number
            self.near = at
            self.far = NEVER

        def on_timer(self, now: int) -> None:
            self.near = NEVER
            order.append(self.number)

    owners = [Numbered(number, 1 + number // 7) for number in range(3 * PRUNE_LENGTH)]
    for owner in reversed(owners[::2]):
        heap.arm(owner, owner.near)
    for owner in owners[1::2]:
        heap.arm(owner, owner.near)
    heap.advance(HOUR)
    expected = sorted(
        owners, key=lambda owner: (1 + owner.number // 7, owner.number % 2, owner.number if owner.number % 2 else -owner.number)
    )
    assert order == [owner.number for owner in expected]
