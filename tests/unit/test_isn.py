"""Initial sequence numbers and timestamp offsets, as whoever collects them sees them. RFC 6528, RFC 7323 5.4. M-05."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from tunstack.engine.isn import IsnGenerator
from tunstack.wire.flow import pack_address, pack_flow

US, HOST = pack_address("10.77.0.2"), pack_address("10.77.0.1")
SPACE = 1 << 32
SAMPLES = 1 << 15


def generator(seed: int = 1) -> IsnGenerator:
    return IsnGenerator(random.Random(seed).randbytes(16))


def flow(port: int, address: bytes = HOST) -> bytes:
    return pack_flow(US, 80, address, port)


def assert_uniform(values: list[int], buckets: int = 256) -> None:
    """Chi squared over equal parts of the space, within five standard deviations of its mean."""
    counts = Counter(value * buckets // SPACE for value in values)
    expected = len(values) / buckets
    chi = sum((counts[bucket] - expected) ** 2 / expected for bucket in range(buckets))
    assert abs(chi - (buckets - 1)) < 5 * math.sqrt(2 * (buckets - 1)), chi


def test_the_clock_ticks_every_four_microseconds() -> None:
    """M-05, RFC 6528 3, RFC 9293 3.4.1: and goes round in 4.77 hours."""
    isn = generator()
    first = isn.isn(flow(5000), 0)
    for now in (4, 1000, 1_000_000, 3_600_000_000):
        assert (isn.isn(flow(5000), now) - first) % SPACE == now // 4
    assert isn.isn(flow(5000), SPACE * 4) == first


def test_a_four_tuple_that_comes_again_begins_behind_what_it_sent() -> None:
    """M-05, M-55, RFC 6528 3: as long as it sent less than 250,000 octets a second, for which PAWS is there."""
    isn = generator()
    for port in range(1000, 1100):
        assert 0 < (isn.isn(flow(port), 60_000_000) - isn.isn(flow(port), 0)) % SPACE < SPACE // 2


@pytest.mark.parametrize("draw", [lambda g, f: g.isn(f, 0), lambda g, f: g.ts_offset(f)], ids=["isn", "timestamp"])
def test_numbers_of_neighbouring_connections_tell_nothing_of_each_other(draw: Callable[[IsnGenerator, bytes], int]) -> None:
    """M-05: ports or addresses one after another; the numbers, their differences and those of these are uniform, and few are alike."""
    own = generator()
    for flows in (
        [flow(port) for port in range(SAMPLES)],
        [flow(4000, bytes((10, 78, index >> 8, index & 255))) for index in range(SAMPLES)],
    ):
        numbers = [draw(own, each) for each in flows]
        differences = [(b - a) % SPACE for a, b in pairwise(numbers)]
        assert_uniform(numbers)
        assert_uniform(differences)
        assert_uniform([(b - a) % SPACE for a, b in pairwise(differences)])
        expected_pairs = SAMPLES**2 / 2 / SPACE
        assert SAMPLES - len(set(numbers)) <= expected_pairs + 6
        for bit in range(32):  # half of each bit, within six standard deviations
            ones = sum(number >> bit & 1 for number in numbers)
            assert abs(ones - SAMPLES / 2) < 6 * math.sqrt(SAMPLES) / 2


def test_one_bit_of_the_four_tuple_changes_half_of_the_number() -> None:
    """M-05: so do two bits, and the key."""
    isn = generator()
    changed = []
    for sample in range(64):
        base = bytearray(random.Random(sample).randbytes(12))
        before = isn.isn(bytes(base), 0)
        for bit in range(96):
            base[bit >> 3] ^= 1 << (bit & 7)
            changed.append((before ^ isn.isn(bytes(base), 0)).bit_count())
            base[bit >> 3] ^= 1 << (bit & 7)
    assert abs(sum(changed) / len(changed) - 16) < 0.25 and min(changed) >= 2
    keys = [generator(seed).isn(flow(1), 0) for seed in range(4096)]
    assert_uniform(keys, 64)


def test_isn_timestamp_and_port_of_a_connection_do_not_give_each_other_away() -> None:
    """M-05, RFC 7323 5.4, RFC 6056: three hashes of one secret."""
    isn = generator()
    drawn = [(isn.isn(flow(port), 0), isn.ts_offset(flow(port)), isn.port_offset(flow(port))) for port in range(SAMPLES)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert_uniform([(each[one] - each[other]) % SPACE for each in drawn])
        assert_uniform([each[one] ^ each[other] for each in drawn])


def test_a_secret_that_is_too_short_is_refused() -> None:
    """M-05."""
    with pytest.raises(ValueError, match="16 octets"):
        IsnGenerator(bytes(15))
