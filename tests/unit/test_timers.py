"""The heap of deadlines."""

from __future__ import annotations

import weakref
from random import Random

from tunstack.engine.timers import LOOKS_A_TURN, MOVES_A_TURN, NEVER, TimerHeap

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
    assert len(heap) == 1
    assert len(owner.fired) == 10_000
    assert heap.next_deadline() == HOUR
    heap.advance(HOUR)
    assert owner.fired[-1] == HOUR
    assert heap.next_deadline() is None


def test_a_look_that_was_superseded_is_gone_within_a_second() -> None:
    """A retransmission timer that waits behind delayed ACKs, 25 a second."""
    heap = TimerHeap()
    owner = Owner()
    owner.far = NEVER
    most = 0
    for now in range(0, 400 * 40_000, 40_000):
        owner.far = now + 900_000
        heap.arm(owner, owner.far)
        owner.near = now + 1000
        heap.arm(owner, owner.near)
        heap.advance(now + 1000)
        most = max(most, len(heap))
    assert most <= 25


def test_owners_that_are_over_are_let_go_at_once_where_their_time_is_far_away_and_soon_where_it_is_near() -> None:
    heap = TimerHeap()
    gone = []
    for number in range(1000):
        owner = Owner()
        owner.far = HOUR if number % 2 else 900_000
        heap.arm(owner, owner.far)
        owner.far = NEVER
        heap.disarm(owner)
        gone.append(weakref.ref(owner))
    del owner
    assert not any(ref() for ref in gone)
    heap.advance(500_000)
    owner = Owner()
    owner.far = 900_000
    heap.arm(owner, owner.far)
    owner.far = NEVER
    heap.disarm(owner)
    assert heap.next_deadline() is None


def test_a_burst_is_handled_a_bounded_number_at_a_time_in_its_order() -> None:
    """M-42: 10,000 keepalive timers that are due at once do not hold the loop."""
    heap = TimerHeap()
    fired: list[tuple[int, int]] = []

    class Numbered(Owner):
        number = 0

        def on_timer(self, now: int) -> None:
            fired.append((self.far, self.number))
            self.far = NEVER

    count = 10_000
    for number in range(count):
        owner = Numbered()
        owner.number = number
        owner.far = HOUR + number % 7
        heap.arm(owner, owner.far)
    assert heap.next_deadline() == HOUR
    turns = 0
    while heap.next_deadline() is not None:
        before = len(fired)
        heap.advance(HOUR + 10)
        assert len(fired) - before <= LOOKS_A_TURN
        turns += 1
    assert turns <= count // LOOKS_A_TURN + count // MOVES_A_TURN + 2
    assert fired == sorted(fired) and len(fired) == count


def test_the_earliest_comes_first_and_ties_in_the_order_of_arming() -> None:
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

    owners = [Numbered(number, 1 + number // 7) for number in range(700)]
    for owner in reversed(owners[::2]):
        heap.arm(owner, owner.near)
    for owner in owners[1::2]:
        heap.arm(owner, owner.near)
    while heap.next_deadline() is not None:
        heap.advance(HOUR)
    expected = sorted(
        owners, key=lambda owner: (1 + owner.number // 7, owner.number % 2, owner.number if owner.number % 2 else -owner.number)
    )
    assert order == [owner.number for owner in expected]


def test_the_soonest_look_is_never_told_too_late() -> None:
    """An attribute to read before each flush: no later than the truth."""
    heap = TimerHeap()
    assert heap.soonest == NEVER
    random = Random(1)
    owners = [Owner() for _ in range(20)]
    now = 0
    for _ in range(2000):
        owner = random.choice(owners)
        owner.near = now + random.randrange(1, 3_000_000)
        heap.arm(owner, owner.near)
        if random.random() < 0.1:
            heap.disarm(random.choice(owners))
        looks = [owner.heap_at for owner in owners]
        assert heap.soonest <= min(looks)
        if random.random() < 0.3:
            assert heap.next_deadline() == heap.soonest <= min(looks)
        if random.random() < 0.2:
            now += random.randrange(2_000_000)
            heap.advance(now)
    assert sum(len(owner.fired) for owner in owners) > 100
