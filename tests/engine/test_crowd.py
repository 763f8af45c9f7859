"""Openings of every kind, let go at every moment: nothing raises, nothing stays."""

from __future__ import annotations

from collections import Counter

from engine.crowd import Crowd

SHARE = 100  # crowds to a seed of the suite
MET = ("SyncookiesRecv", "TCPFastOpenPassive", "TCPDeferAcceptDrop", "ListenOverflows", "EmbryonicRsts", "TCPSYNChallenge", "TW")


def test_nothing_is_left_whoever_opens_and_whoever_leaves(world_seed: int) -> None:
    """M-17, M-20 to M-27, M-58: SYN queue, cookies, Fast Open, deferred accept, simultaneous open, ICMP; knobs change, listeners close."""
    total: Counter[str] = Counter()
    for seed in range(world_seed * SHARE, (world_seed + 1) * SHARE):
        crowd = Crowd(seed)
        try:
            crowd.play(200)
            crowd.end()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        total.update(crowd.stack.counters.as_dict())
    for name in MET:
        assert total[name], f"no crowd has come to {name}"
