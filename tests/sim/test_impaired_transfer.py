"""64 MiB over a link that loses, repeats, reorders and corrupts in both directions: every octet arrives, once, in order."""

from __future__ import annotations

from tunstack.device.impairment import Impairment
from tunstack.sim.transfer import transfer

SIZE = 64 << 20
TROUBLE = Impairment(delay=5000, loss=0.02, duplicate=0.02, reorder=0.02, corrupt=0.02)


def test_every_octet_arrives(world_seed: int) -> None:
    """M-02, M-30, M-34, M-35, M-40: octet for octet, both ends close without error, and no timer is left."""
    outcome = transfer(SIZE, TROUBLE, TROUBLE, seed=world_seed)
    assert outcome.complete and outcome.at_rest, (world_seed, outcome)
    assert outcome.received == SIZE
    assert outcome.retransmitted > SIZE // 1448 // 50  # the link did lose


def test_the_full_way_gives_the_same_as_the_fast_path(world_seed: int) -> None:
    """The fast path is a subset of the slow path: with it switched off every figure is the same."""
    size = SIZE // 16
    outcomes = [transfer(size, TROUBLE, TROUBLE, seed=world_seed, fast_path=fast_path) for fast_path in (True, False)]
    assert outcomes[0] == outcomes[1], world_seed
    assert outcomes[0].complete
