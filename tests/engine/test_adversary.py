"""Nothing that a peer sends or an application calls raises, hangs or grows without bound."""

from __future__ import annotations

import pytest
from engine.adversary import Game

SHARE = 60  # games to a seed of the suite


@pytest.mark.parametrize("block", range(2))
def test_nothing_breaks_whatever_the_peer_and_the_application_do(world_seed: int, block: int) -> None:
    """RFC 9293 3.10, RFC 5961: no exception, invariants hold, every connection ends or is idle by its application's will."""
    for seed in range((world_seed * 2 + block) * SHARE, (world_seed * 2 + block + 1) * SHARE):
        game = Game(seed)
        try:
            game.play(150)
            game.end()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
