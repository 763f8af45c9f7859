"""Bare ACKs that become one: which, and that nothing of what they say is lost; C and twin alike. RFC 9293 3.4, RFC 5681 2."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
from native.support import CODECS, FLOW, content, make_segment, scapy_frame

from tunstack.wire import twin
from tunstack.wire.segment import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, Segment

both = pytest.mark.parametrize("codec", CODECS, ids=lambda module: module.BACKEND)


def ack(number: int, **values: Any) -> bytes:
    return twin.encode(make_segment(values.pop("size", 0), ack=number & 0xFFFFFFFF, **values))[0]


def read(codec: ModuleType, *frames: bytes) -> list[Segment]:
    segments: list[Segment] = codec.Reader(False, coalesce_acks=True).parse(frames).segments
    assert sum(segment.packets for segment in segments) == len(frames)
    return segments


def numbers(codec: ModuleType, *frames: bytes) -> list[tuple[int, int]]:
    """Return (ack, packets) of each."""
    return [(segment.ack, segment.packets) for segment in read(codec, *frames)]


@both
def test_acks_that_advance_become_the_last_of_them(codec: ModuleType) -> None:
    frames = [ack(100 * n, window=500 + n, ts_val=n, ts_ecr=10 + n, ident=n) for n in range(1, 6)]
    first, last = read(codec, *frames)
    assert (first.ack, first.packets, first.window) == (100, 1, 501)
    assert (last.ack, last.packets, last.window, last.ts_val, last.ts_ecr, last.ident, last.length) == (500, 4, 505, 5, 15, 5, 0)


@both
def test_it_must_be_asked_for(codec: ModuleType) -> None:
    frames = [ack(100 * n) for n in range(5)]
    reader = codec.Reader(False)
    assert len(reader.parse(frames).segments) == 5
    reader.coalesce_acks = True
    assert reader.coalesce_acks and len(reader.parse(frames).segments) == 2
    reader.coalesce_acks = False
    assert len(reader.parse(frames).segments) == 5
    assert len(codec.Reader(False, coalesce=False, coalesce_acks=True).parse(frames).segments) == 2


@both
def test_what_may_be_a_duplicate_stays(codec: ModuleType) -> None:
    """The first ACK of a batch may repeat what came before it, and one with the number of the last does."""
    assert numbers(codec, ack(1), ack(2)) == [(1, 1), (2, 1)]
    assert numbers(codec, ack(1), ack(2), ack(3)) == [(1, 1), (3, 2)]
    assert numbers(codec, ack(1), ack(1), ack(2), ack(2), ack(3)) == [(1, 1), (1, 1), (2, 1), (2, 1), (3, 1)]
    assert numbers(codec, ack(1), ack(2), ack(2), ack(3), ack(4)) == [(1, 1), (2, 1), (2, 1), (4, 2)]


@both
def test_what_goes_back_is_not_merged(codec: ModuleType) -> None:
    assert numbers(codec, ack(1), ack(3), ack(2), ack(4)) == [(1, 1), (3, 1), (2, 1), (4, 1)]


@both
def test_the_sequence_space_wraps(codec: ModuleType) -> None:
    assert numbers(codec, ack(-20), ack(-10), ack(10)) == [(0xFFFFFFEC, 1), (10, 2)]
    assert numbers(codec, ack(0), ack(1), ack(0x80000000)) == [(0, 1), (0x80000000, 2)]
    assert numbers(codec, ack(0), ack(1), ack(0x80000001)) == [(0, 1), (1, 1), (0x80000001, 1)]


@both
@pytest.mark.parametrize(
    "change",
    [
        {"seq": 1001}, {"tos": 3}, {"tos": 2}, {"urgent": 1}, {"ts_val": None}, {"ts_val": 6}, {"ts_val": 0x80000007},
        {"sack": ((5, 9),)}, {"options": b"\xfd\x04ab"}, {"mss": 1000}, {"wscale": 3}, {"sack_ok": True}, {"size": 1},
        *({"flags": ACK | flag} for flag in (FIN, SYN, RST, PSH, URG, ECE, CWR, AE)),
    ],
    ids=str,
)  # fmt: skip
def test_one_that_says_anything_else_neither_joins_nor_gives_way(codec: ModuleType, change: dict[str, Any]) -> None:
    base = {"ts_val": 7, "ts_ecr": 2}
    assert numbers(codec, ack(1, **base), ack(2, **base), ack(3, **base)) == [(1, 1), (3, 2)]
    assert numbers(codec, ack(1, **base), ack(2, **base), ack(3, **{**base, **change})) == [(1, 1), (2, 1), (3, 1)]
    if change.get("ts_val") is None:  # an older timestamp may well be followed by a newer one
        assert numbers(codec, ack(1, **base), ack(2, **{**base, **change}), ack(3, **base)) == [(1, 1), (2, 1), (3, 1)]


@both
def test_an_ack_behind_data_that_advances_beyond_it_gives_way(codec: ModuleType) -> None:
    assert numbers(codec, ack(1, size=9), ack(2, seq=1009), ack(3, seq=1009)) == [(1, 1), (3, 2)]
    assert numbers(codec, ack(2, size=9), ack(2, seq=1009), ack(3, seq=1009)) == [(2, 1), (2, 1), (3, 1)]


@both
def test_what_has_no_ack_says_nothing_of_one(codec: ModuleType) -> None:
    assert numbers(codec, ack(0, flags=SYN), ack(1), ack(2)) == [(0, 1), (1, 1), (2, 1)]


@both
def test_options_that_are_padding_do_not_matter(codec: ModuleType) -> None:
    frames = [scapy_frame(ack=n, flags="A", options=[("NOP", None)] * 4) for n in (1, 2, 3)]
    assert numbers(codec, *frames) == [(1, 1), (3, 2)]


@both
def test_flows_are_kept_apart(codec: ModuleType) -> None:
    other = FLOW[:11] + bytes((FLOW[11] ^ 1,))
    frames = [ack(n, flow=flow) for n in range(5) for flow in (FLOW, other)]
    assert [(segment.flow, segment.ack, segment.packets) for segment in read(codec, *frames)] == [
        (FLOW, 0, 1), (other, 0, 1), (FLOW, 4, 4), (other, 4, 4),
    ]  # fmt: skip


def random_acks(rng: random.Random) -> list[bytes]:
    """Return what a peer may send that gets data: most of it ACKs that advance."""
    number, seq, stamp = rng.choice((1000, 0xFFFFF000)), 5000, 1
    frames = []
    for _ in range(60):
        number += rng.choice((0, 1448, 2896, 2896, 65160))
        stamp += rng.choice((0, 0, 1))
        size = rng.choice((0,) * 15 + (10,))
        odd = rng.choice(({},) * 12 + ({"flags": ACK | ECE}, {"sack": ((7, 9),)}, {"tos": 2}, {"ts_val": None}, {"ack": number - 3000}))
        values: dict[str, Any] = {"ack": number, "seq": seq, "ts_val": stamp, "window": rng.choice((500, 500, 400, 0)), **odd}
        values["ack"] &= 0xFFFFFFFF
        frames.append(twin.encode(make_segment(size, **values))[0])
        seq += size
    return frames


@pytest.mark.parametrize("seed", range(40))
def test_both_merge_alike_and_lose_nothing(seed: int) -> None:
    frames = random_acks(random.Random(seed))
    for coalesce in (True, False):
        batches = [codec.Reader(False, coalesce=coalesce, coalesce_acks=True).parse(frames) for codec in CODECS]
        assert content(batches[0]) == content(batches[1])
    single = twin.Reader(False, coalesce=False).parse(frames).segments
    merged = batches[0].segments
    assert sum(segment.packets for segment in merged) == len(single) and len(merged) < 58
    # of those that vanished each advanced, and was followed by one that did: the numbers that a sender goes through are the same
    kept = {(segment.seq, segment.ack, segment.ts_val) for segment in merged}
    for before, gone, after in zip(single, single[1:], single[2:], strict=False):
        if (gone.seq, gone.ack, gone.ts_val) not in kept:
            assert 0 < (gone.ack - before.ack) & 0xFFFFFFFF < 1 << 31 and 0 < (after.ack - gone.ack) & 0xFFFFFFFF < 1 << 31
            assert (gone.flags, gone.length, gone.sack, gone.tos) == (ACK, 0, (), after.tos)
    assert merged[-1].ack == single[-1].ack and merged[-1].window == single[-1].window
