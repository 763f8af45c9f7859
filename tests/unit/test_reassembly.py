"""Reassembly of IPv4 fragments (M-08). RFC 791 3.2, RFC 815, RFC 5722, RFC 3168 5.3."""

from __future__ import annotations

import random

import pytest

from tunstack.engine.counters import Counters
from tunstack.engine.reassembly import FRAGMENT_OVERHEAD, Reassembler
from tunstack.engine.sysctl import Sysctl
from tunstack.wire import ipv4

HOST = bytes((10, 77, 0, 1))
US = bytes((10, 77, 0, 2))
SECOND = 1_000_000


class Bench:
    """A reassembler with its knobs and counters, and short ways to feed it."""

    def __init__(self, **knobs: int) -> None:
        self.counters = Counters()
        self.reassembler = Reassembler(Sysctl(**knobs), self.counters)

    def add(self, packet: bytes, now: int = 0) -> bytes | None:
        """Feed one fragment from a buffer that is reused afterwards, as a device's is."""
        buffer = bytearray(packet)
        whole = self.reassembler.add(memoryview(buffer), now)
        buffer[:] = b"\xee" * len(buffer)
        return whole

    def add_all(self, packets: list[bytes]) -> list[bytes]:
        """Feed fragments; return the datagrams that became whole."""
        return [whole for packet in packets if (whole := self.add(packet)) is not None]

    @property
    def reasm(self) -> tuple[int, int, int, int]:
        """The counters Reqds, OKs, Fails, Timeout."""
        c = self.counters
        return c.IpReasmReqds, c.IpReasmOKs, c.IpReasmFails, c.IpReasmTimeout


def datagram(length: int = 4000, *, ident: int = 7, seed: int = 1, **header: int) -> bytes:
    payload = random.Random(seed).randbytes(length)
    return ipv4.build(HOST, US, ipv4.UDP, payload, ident=ident, **header)  # type: ignore[arg-type]


def piece(start: int, end: int, *, more: bool = True, fill: int = 0, ident: int = 7, tos: int = 0, options: bytes = b"") -> bytes:
    """A fragment that holds the octets [start, end) of a datagram, all of value `fill`."""
    payload = bytes([fill]) * (end - start)
    return ipv4.build(HOST, US, ipv4.UDP, payload, ident=ident, more_fragments=more, fragment_offset=start, tos=tos, options=options)


@pytest.mark.parametrize("seed", range(20))
def test_fragments_in_any_order_give_the_datagram_back(seed: int) -> None:
    bench = Bench()
    dice = random.Random(seed)
    original = datagram(dice.randrange(600, 60000), tos=0xB8, ttl=33, options=bytes((0x94, 4, 0, 0)))
    fragments = ipv4.fragment(original, dice.randrange(68, 3000))
    dice.shuffle(fragments)
    assert bench.add_all(fragments) == [original], seed
    assert bench.reasm == (len(fragments), 1, 0, 0)
    assert bench.reassembler.octets == 0
    assert bench.reassembler.next_deadline() is None


def test_datagrams_that_differ_in_ident_source_or_protocol_are_kept_apart() -> None:
    bench = Bench()
    payload = bytes(2000)
    originals = [
        ipv4.build(src, US, protocol, payload, ident=ident)
        for src in (HOST, bytes((10, 77, 0, 9)))
        for protocol in (1, 17)
        for ident in (1, 2)
    ]
    cut = [ipv4.fragment(original, 1500) for original in originals]
    assert bench.add_all([first for first, _ in cut]) == []
    assert bench.add_all([last for _, last in cut]) == originals


def test_a_duplicate_is_ignored_and_the_first_copy_stays() -> None:
    bench = Bench()
    assert bench.add(piece(0, 16, fill=1)) is None
    assert bench.add(piece(16, 32, fill=2)) is None
    assert bench.add(piece(0, 16, fill=9)) is None
    assert bench.add(piece(8, 24, fill=9)) is None  # held already, by two pieces together
    whole = bench.add(piece(32, 40, more=False, fill=3))
    assert whole == ipv4.build(HOST, US, ipv4.UDP, b"\1" * 16 + b"\2" * 16 + b"\3" * 8, ident=7)
    assert bench.reasm == (5, 1, 0, 0)


@pytest.mark.parametrize("overlapping", [(8, 24), (24, 40), (8, 48), (0, 40)])
def test_an_overlap_discards_the_whole_datagram(overlapping: tuple[int, int]) -> None:
    bench = Bench()
    bench.add(piece(0, 16))
    bench.add(piece(32, 40))
    assert bench.add(piece(*overlapping, fill=9)) is None
    assert bench.counters.IpExtReasmOverlaps == 1
    assert bench.reasm == (3, 0, 1, 0)
    assert bench.reassembler.octets == 0


@pytest.mark.parametrize(
    "fragments",
    [
        [piece(16, 32), piece(8, 16, more=False)],  # ends before what is held
        [piece(16, 32, more=False), piece(32, 40)],  # goes on behind the end
        [piece(16, 32, more=False), piece(16, 40, more=False)],  # two ends
    ],
    ids=["short", "beyond", "two-ends"],
)
def test_an_end_that_moves_discards_the_datagram(fragments: list[bytes]) -> None:
    bench = Bench()
    assert bench.add_all(fragments) == []
    assert bench.reasm == (2, 0, 1, 0) and bench.reassembler.octets == 0


def test_a_fragment_behind_a_whole_datagram_begins_a_new_one() -> None:
    bench = Bench()
    assert len(bench.add_all([piece(0, 16), piece(16, 24, more=False), piece(24, 32)])) == 1
    assert bench.reasm == (3, 1, 0, 0) and bench.reassembler.octets == 8 + FRAGMENT_OVERHEAD


def test_an_empty_fragment_is_a_failure() -> None:
    bench = Bench()
    assert bench.add(piece(8, 8)) is None
    assert bench.add(piece(8, 8, more=False)) is None
    assert bench.reasm == (2, 0, 2, 0)


def test_octets_beyond_a_multiple_of_eight_are_cut_off_unless_last() -> None:
    bench = Bench()
    bench.add(piece(0, 19, fill=1))
    assert bench.add(piece(16, 21, more=False, fill=2)) == ipv4.build(HOST, US, ipv4.UDP, b"\1" * 16 + b"\2" * 5, ident=7)


def test_a_datagram_of_65535_octets_passes_and_a_longer_one_never_gets_whole() -> None:
    bench = Bench()
    largest = datagram(65535 - 20)
    assert bench.add_all(ipv4.fragment(largest, 1500)) == [largest]
    # The "ping of death": the last fragment ends behind the largest length that a header can give.
    assert bench.add(piece(65504, 65516, more=False)) is None
    assert bench.reasm[2] == 1
    # With options in fragment zero the header is longer than the check of a single fragment knows.
    fragments = [
        piece(start, min(start + 8000, 65512), more=start + 8000 < 65512, options=bytes(8) if not start else b"")
        for start in range(0, 65512, 8000)
    ]
    assert bench.add_all(fragments) == []
    assert bench.reasm[1:3] == (1, 2)
    assert bench.reassembler.octets == 0


def test_time_out_comes_ipfrag_time_after_the_first_to_arrive() -> None:
    bench = Bench(ipfrag_time=30)
    bench.add(piece(8, 16, ident=1), now=5 * SECOND)
    bench.add(piece(0, 8, ident=2, fill=5), now=6 * SECOND)
    bench.add(piece(0, 8, ident=1), now=20 * SECOND)  # does not prolong it
    assert bench.reassembler.next_deadline() == 35 * SECOND
    assert bench.reassembler.advance(35 * SECOND - 1) == []
    assert bench.reasm[3] == 0
    assert bench.reassembler.advance(35 * SECOND) == [piece(0, 8, ident=1)]
    assert bench.reassembler.next_deadline() == 36 * SECOND
    assert bench.reassembler.advance(99 * SECOND) == [piece(0, 8, ident=2, fill=5)]
    assert bench.reasm == (3, 0, 2, 2)
    assert bench.reassembler.octets == 0


def test_time_out_without_fragment_zero_is_not_reported() -> None:
    """RFC 792: if fragment zero is not available then no time exceeded need be sent at all; RFC 1122 has it so."""
    bench = Bench()
    bench.add(piece(8, 16))
    assert bench.reassembler.advance(60 * SECOND) == []
    assert bench.reasm == (1, 0, 1, 1)


def test_a_fragment_that_comes_after_the_time_out_begins_anew() -> None:
    bench = Bench()
    first, last = ipv4.fragment(datagram(2000), 1500)
    bench.add(first)
    bench.reassembler.advance(30 * SECOND)
    assert bench.add(last, now=31 * SECOND) is None
    assert bench.reassembler.next_deadline() == 61 * SECOND


def test_a_flood_stays_under_ipfrag_high_thresh_and_passes_with_time() -> None:
    bench = Bench(ipfrag_high_thresh=100_000)
    for ident in range(1000):
        bench.add(piece(8, 16, ident=ident), now=0)
        assert bench.reassembler.octets <= 100_000
    refused = bench.counters.IpReasmFails
    assert refused == 1000 - 100_000 // (8 + FRAGMENT_OVERHEAD)
    original = datagram(4000, ident=2000)
    assert bench.add_all(ipv4.fragment(original, 1500)) == []
    bench.reassembler.advance(30 * SECOND)
    assert bench.reassembler.octets == 0
    assert bench.add_all(ipv4.fragment(original, 1500)) == [original]


def test_a_datagram_alone_cannot_pass_the_limit() -> None:
    bench = Bench(ipfrag_high_thresh=20_000)
    assert bench.add_all(ipv4.fragment(datagram(30_000), 1500)) == []
    assert bench.reassembler.octets <= 20_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [((0, 0), 0), ((1, 1), 1), ((2, 3), 3), ((3, 1), 3), ((0, 3), None), ((2, 0), None)],
)
def test_congestion_experienced_by_one_fragment_marks_the_datagram(fields: tuple[int, int], expected: int | None) -> None:
    """RFC 3168 5.3: CE wins; fragments that do not agree whether the transport is ECN-capable are dropped."""
    bench = Bench()
    bench.add(piece(0, 8, tos=fields[0]))
    whole = bench.add(piece(8, 16, more=False, tos=fields[1]))
    assert (whole is None) if expected is None else (whole is not None and whole[1] == expected)
    assert bench.reasm == (2, int(expected is not None), int(expected is None), 0)


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_raises_and_leaves_nothing_behind(seed: int) -> None:
    bench = Bench(ipfrag_high_thresh=50_000)
    dice = random.Random(seed)
    for now in range(3000):
        start = dice.randrange(64) * 8
        fragment = piece(start, start + dice.randrange(64), more=dice.random() < 0.8, ident=dice.randrange(8), tos=dice.randrange(4))
        bench.add(fragment, now)
        assert 0 <= bench.reassembler.octets <= 50_000, seed
    bench.reassembler.advance(60 * SECOND)
    assert bench.reassembler.octets == 0 and bench.reassembler.next_deadline() is None, seed
    assert bench.counters.IpReasmReqds == 3000
