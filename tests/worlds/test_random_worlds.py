"""Random worlds: two engines against each other whatever the link and the applications do.

A share of them; scripts/random_worlds.py plays all.
"""

from __future__ import annotations

from collections import Counter

import pytest
from worlds.draw import draw_world
from worlds.play import play

SHARE = 150  # worlds to a seed of the suite


def test_streams_are_equal_every_run_ends_and_nothing_is_left(world_seed: int) -> None:
    """M-02, M-30 to M-42, M-50 to M-59: what holds is in invariants.py, wire.py, application.py and play.py, checked after every step."""
    total: Counter[str] = Counter()
    for seed in range(world_seed * SHARE, (world_seed + 1) * SHARE):
        try:
            total += play(draw_world(seed)).counters
        except Exception as error:
            pytest.fail(f"scripts/random_worlds.py --replay {seed}: {type(error).__name__}: {error}")
    assert total["whole both ways"] > SHARE // 2
    for name in ("TCPTimeouts", "TCPSackRecovery", "TCPRenoRecovery", "TCPLossProbes", "TCPWinProbe", "TCPOFOQueue", "PAWSEstab", "TW"):
        assert total[name], f"no world has come to {name}"


def test_a_world_is_the_same_every_time() -> None:
    """A seed gives every frame again, and its time: what fails can be looked at."""
    for seed in range(20):
        assert play(draw_world(seed)).digest == play(draw_world(seed)).digest
