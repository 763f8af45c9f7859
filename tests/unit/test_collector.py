"""The daemon's way with the garbage collector (daemon/collector.py)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tunstack.daemon.collector import FEW, Collector


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def count() -> Iterator[list[int]]:
    """The number of connections, in a list; a collector that looks there."""
    number = [0]
    collector = Collector(lambda: number[0])
    collector.start()
    yield number
    collector.stop()
    gc.collect()
    assert gc.get_freeze_count() == 0


def test_what_is_there_at_the_start_is_set_aside(count: list[int]) -> None:
    assert gc.get_freeze_count() > 10_000


def test_what_has_survived_a_full_pass_is_not_looked_at_again(count: list[int]) -> None:
    count[0] = 10 * FEW
    old = [Cycle() for _ in range(1000)]
    gc.collect()
    assert len(gc.get_objects()) < 1000
    refs = [weakref.ref(cycle) for cycle in old]
    del old
    gc.collect()
    assert all(ref() is not None for ref in refs)


def test_garbage_among_it_goes_once_half_of_the_connections_have_gone(count: list[int]) -> None:
    count[0] = 10 * FEW
    old = Cycle()
    gc.collect()
    ref = weakref.ref(old)
    del old
    count[0] = 6 * FEW
    gc.collect()
    assert ref() is not None
    count[0] = 4 * FEW
    gc.collect()
    assert ref() is None


def test_with_few_connections_each_full_pass_looks_at_all(count: list[int]) -> None:
    count[0] = FEW // 2
    old = Cycle()
    gc.collect()
    ref = weakref.ref(old)
    del old
    gc.collect()
    assert ref() is None


def test_a_young_pass_sets_nothing_aside(count: list[int]) -> None:
    count[0] = 10 * FEW
    gc.collect()
    before = gc.get_freeze_count()
    kept = [Cycle() for _ in range(1000)]
    gc.collect(1)
    assert gc.get_freeze_count() == before
    del kept


def test_connections_that_come_are_reason_enough_for_more_objects(count: list[int]) -> None:
    """Or opening 100,000 would be held up by a look at all of them at each doubling."""
    count[0] = 10 * FEW
    gc.collect()
    old = Cycle()
    gc.collect()
    ref = weakref.ref(old)
    del old
    connections = []
    for _ in range(20):
        count[0] += 2 * FEW
        connections.append([Cycle() for _ in range(40 * FEW)])
        gc.collect()
    assert ref() is not None


def test_garbage_that_grows_goes_though_the_connections_stay_as_many(count: list[int]) -> None:
    """A server with a steady number of connections, whose application leaves cycles behind, must not grow for ever."""
    count[0] = 10 * FEW
    gc.collect()
    refs = []
    for _ in range(40):
        old = [Cycle() for _ in range(10_000)]
        gc.collect()
        refs.append(weakref.ref(old[0]))
        del old
    gc.collect()
    assert refs[0]() is None and sum(ref() is not None for ref in refs) < 35
