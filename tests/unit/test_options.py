"""What setting an option makes of others: one object for all that set the same, and no more of them than a few."""

from __future__ import annotations

import gc

from tunstack.engine.options import DEPTH_MAX, MADE_MAX, SocketOptions


def test_who_sets_the_same_option_to_the_same_value_shares_an_object() -> None:
    before = SocketOptions()
    after = before.having("nodelay", True)
    assert after is before.having("nodelay", True)
    assert (before.nodelay, after.nodelay) == (False, True)
    assert after == SocketOptions(nodelay=True)
    assert after.having("keepidle", 5).having("cork", True) is after.having("keepidle", 5).having("cork", True)


def test_values_that_are_equal_but_not_the_same_are_kept_apart() -> None:
    before = SocketOptions()
    assert before.having("quickack", 1).quickack is not True
    assert before.having("quickack", True).quickack is True
    assert before.having("quickack", 1).quickack is not True


def test_to_and_fro_keeps_no_more_than_the_first_steps() -> None:
    gc.collect()
    before = sum(isinstance(thing, SocketOptions) for thing in gc.get_objects())
    first = options = SocketOptions()
    for number in range(1000):
        options = options.having("cork", number % 2 == 0)
        first.having("tos", 4 * (number % 60))
    gc.collect()
    assert sum(isinstance(thing, SocketOptions) for thing in gc.get_objects()) - before <= DEPTH_MAX + MADE_MAX + 2
    assert not options.cork
