"""Identifications of IPv4 packets: RFC 6864, RFC 7739."""

from __future__ import annotations

import random
from itertools import pairwise

from tunstack.engine.ident import TICK, IdentSource

US, HOST, OTHER = bytes((10, 77, 0, 2)), bytes((10, 77, 0, 1)), bytes((10, 77, 0, 3))
ICMP, UDP = 1, 17
MINUTE = 60_000_000


def steps(numbers: list[int]) -> list[int]:
    return [(after - before) & 0xFFFF for before, after in pairwise(numbers)]


def test_packets_that_leave_together_are_numbered_one_by_one() -> None:
    """M-08: so that no number comes again while the fragments of 65,535 packets are about."""
    source = IdentSource(random.Random(1))
    numbers = [source.next(US, HOST, ICMP, MINUTE) for _ in range(70_000)]
    assert set(steps(numbers)) == {1} and len(set(numbers)) == 65_536


def test_time_that_passes_adds_a_random_amount_that_it_bounds() -> None:
    """M-08: one at least, one a tick at most; who watches cannot count what we send to others."""
    source = IdentSource(random.Random(2))
    numbers = [source.next(US, HOST, ICMP, MINUTE + index * 100 * TICK) for index in range(1000)]
    seen = set(steps(numbers))
    assert min(seen) >= 1 and max(seen) <= 100 and len(seen) > 80


def test_destinations_and_protocols_have_counters_of_their_own() -> None:
    """M-08."""
    source = IdentSource(random.Random(3))
    ends = [(HOST, ICMP), (OTHER, ICMP), (HOST, UDP)]
    first = [source.next(US, dst, protocol, MINUTE) for dst, protocol in ends]
    for _ in range(1000):
        source.next(US, OTHER, ICMP, MINUTE)
    last = [source.next(US, dst, protocol, MINUTE) for dst, protocol in ends]
    assert [(b - a) & 0xFFFF for a, b in zip(first, last, strict=True)] == [1, 1001, 1]
    assert len(set(first)) == 3


def test_another_key_gives_other_numbers() -> None:
    """M-08: where the counters begin is not to be foreseen."""
    assert len({IdentSource(random.Random(seed)).next(US, HOST, ICMP, MINUTE) for seed in range(100)}) > 90
