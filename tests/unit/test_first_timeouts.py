"""The first timeouts of SYN-ACKs: one look of the timer heap for all of them, each at its time (M-23)."""

from __future__ import annotations

from tunstack.engine.firsttimeouts import FirstTimeouts
from tunstack.engine.timers import LOOKS_A_TURN, NEVER, TimerHeap

SECOND = 1_000_000


class Entry:
    """Stands for a half-open connection: it notes when it was called, and waits two seconds more."""

    def __init__(self, expires_at: int) -> None:
        self.expires_at = expires_at
        self.heap_at = NEVER
        self.called: list[int] = []

    def next_deadline(self) -> int:
        return self.expires_at

    def on_timer(self, now: int) -> None:
        self.called.append(now)
        self.expires_at = now + 2 * SECOND


def test_each_is_called_at_its_time_and_from_then_on_by_the_heap() -> None:
    timers = TimerHeap()
    first = FirstTimeouts(timers)
    entries = [Entry(SECOND + 10 * number) for number in range(3)]
    for entry in entries:
        first.add(entry)  # type: ignore[arg-type]
    assert (len(first), len(timers)) == (3, 1)
    for now in range(SECOND - 20, SECOND + 40, 10):
        timers.advance(now)
    assert [entry.called for entry in entries] == [[SECOND], [SECOND + 10], [SECOND + 20]]
    assert len(first) == 0 and timers.next_deadline() == 3 * SECOND
    for now in range(3 * SECOND, 3 * SECOND + 40, 10):
        timers.advance(now)
    assert [entry.called[1:] for entry in entries] == [[3 * SECOND], [3 * SECOND + 10], [3 * SECOND + 20]]


def test_one_that_is_gone_or_put_off_does_not_hold_up_the_others() -> None:
    timers = TimerHeap()
    first = FirstTimeouts(timers)
    gone, later, last = entries = [Entry(SECOND + number) for number in range(3)]
    for entry in entries:
        first.add(entry)  # type: ignore[arg-type]
    first.discard(gone)  # type: ignore[arg-type]
    later.expires_at = 5 * SECOND
    first.move(later)  # type: ignore[arg-type]
    timers.advance(SECOND)
    timers.advance(SECOND + 2)
    assert (gone.called, later.called, last.called) == ([], [], [SECOND + 2])
    timers.advance(5 * SECOND)
    assert later.called == [5 * SECOND]


def test_a_crowd_is_called_in_turns() -> None:
    timers = TimerHeap()
    first = FirstTimeouts(timers)
    entries = [Entry(SECOND) for _ in range(3 * LOOKS_A_TURN)]
    for entry in entries:
        first.add(entry)  # type: ignore[arg-type]
    called = []
    for now in range(SECOND, SECOND + 4):
        timers.advance(now)
        called.append(sum(bool(entry.called) for entry in entries))
    assert called[0] == LOOKS_A_TURN and called[-1] == len(entries)
    assert timers.next_deadline() == 3 * SECOND
