"""Coalescing of received segments: what is merged, what is not, and nothing lost; C and twin alike."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
from native.support import CODECS, FLOW, fields, make_segment, random_frames

from tunstack.wire import twin
from tunstack.wire.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Segment
from tunstack.wire.virtio import HEADER

both = pytest.mark.parametrize("codec", CODECS, ids=lambda module: module.BACKEND)


def frame(seq: int, size: int, **values: Any) -> bytes:
    return twin.encode(make_segment(size, seq=seq & 0xFFFFFFFF, **values))[0]


def shape(segments: list[Segment]) -> list[tuple[int, int, int, int]]:
    """Return (seq, length, packets, gso_size) of each."""
    for segment in segments:
        assert sum(map(len, segment.payload)) == segment.length and len(segment.payload) <= 1
    return [(segment.seq, segment.length, segment.packets, segment.gso_size) for segment in segments]


def merged(codec: ModuleType, *frames: bytes, vnet: bool = False) -> list[tuple[int, int, int, int]]:
    return shape(codec.Reader(vnet).parse(frames).segments)


@both
def test_a_run_becomes_one_segment_with_contiguous_payload(codec: ModuleType) -> None:
    data = random.Random(3).randbytes(20000)
    whole = make_segment(0, seq=0xFFFFF000, payload=(memoryview(data),), length=20000, gso_size=1448, ts_val=1, ts_ecr=2)
    (segment,) = codec.Reader(False).parse(codec.encode(whole)).segments
    assert shape([segment]) == [(0xFFFFF000, 20000, 14, 1448)]
    (view,) = segment.payload
    assert bytes(view) == data and (segment.ts_val, segment.ts_ecr, segment.flags) == (1, 2, ACK)


@both
def test_coalescing_can_be_switched_off(codec: ModuleType) -> None:
    frames = [frame(1000 + 100 * n, 100) for n in range(5)]
    assert len(codec.Reader(False, coalesce=False).parse(frames).segments) == 5
    assert len(codec.Reader(False).parse(frames).segments) == 1


@both
def test_a_shorter_packet_ends_the_run(codec: ModuleType) -> None:
    assert merged(codec, frame(0, 100), frame(100, 50), frame(150, 50)) == [(0, 150, 2, 100), (150, 50, 1, 0)]


@both
def test_a_longer_packet_begins_another(codec: ModuleType) -> None:
    assert merged(codec, frame(0, 100), frame(100, 101), frame(201, 101)) == [(0, 100, 1, 0), (100, 202, 2, 101)]


@both
@pytest.mark.parametrize("flags", [PSH, FIN, PSH | FIN])
def test_push_and_fin_end_the_run_and_are_kept(codec: ModuleType, flags: int) -> None:
    segments = codec.Reader(False).parse([frame(0, 100), frame(100, 100, flags=ACK | flags), frame(200, 100), frame(300, 100)]).segments
    assert shape(segments) == [(0, 200, 2, 100), (200, 200, 2, 100)]
    assert [segment.flags for segment in segments] == [ACK | flags, ACK]


@both
@pytest.mark.parametrize("flags", [ACK | PSH, ACK | FIN, ACK | ECE, ACK | CWR, ACK | URG, ACK | SYN, ACK | RST, ACK | 0x100, 0, SYN])
def test_only_a_bare_ack_with_data_begins_a_run(codec: ModuleType, flags: int) -> None:
    assert len(merged(codec, frame(0, 100, flags=flags), frame(100, 100, flags=flags))) == 2
    assert len(merged(codec, frame(0, 100, flags=flags), frame(100, 100))) == 2


@both
@pytest.mark.parametrize("flags", [ACK | ECE, ACK | CWR, ACK | URG, ACK | SYN, ACK | RST, ACK | 0x100, 0, PSH])
def test_other_flags_do_not_join(codec: ModuleType, flags: int) -> None:
    assert len(merged(codec, frame(0, 100), frame(100, 100, flags=flags))) == 2


@both
@pytest.mark.parametrize(
    "change",
    [
        {"ack": 2001}, {"window": 501}, {"tos": 3}, {"urgent": 1}, {"ts_val": 2}, {"ts_ecr": 3}, {"ts_val": None},
        {"sack": ((1, 2),)}, {"options": b"\xfd\x04ab"}, {"seq": 101}, {"seq": 99}, {"seq": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_difference_in_anything_else_forbids_it(codec: ModuleType, change: dict[str, Any]) -> None:
    base = {"ts_val": 1, "ts_ecr": 2}
    assert len(merged(codec, frame(0, 100, **base), frame(100, 100, **base))) == 1
    changed = {"seq": 100, **base, **change}
    assert len(merged(codec, frame(0, 100, **base), frame(size=100, **changed))) == 2


@both
def test_identical_sack_blocks_do_not_forbid_it_but_an_unknown_option_does(codec: ModuleType) -> None:
    same = {"ts_val": 1, "sack": ((5, 9),)}
    assert len(merged(codec, frame(0, 100, **same), frame(100, 100, **same))) == 1
    signed = {"options": b"\xfd\x04ab"}
    assert len(merged(codec, frame(0, 100, **signed), frame(100, 100, **signed))) == 2


@both
def test_identification_and_ttl_do_not_matter(codec: ModuleType) -> None:
    first, second = twin.encode(make_segment(100, ident=5), ttl=64)[0], twin.encode(make_segment(100, seq=1100, ident=900), ttl=60)[0]
    assert merged(codec, first, second) == [(1000, 200, 2, 100)]


@both
def test_bare_acks_are_no_part_of_a_run_of_data(codec: ModuleType) -> None:
    assert len(merged(codec, frame(5, 0), frame(5, 0), frame(5, 100), frame(105, 0), frame(105, 100))) == 5


@both
def test_flows_may_interleave_and_keep_the_order_of_their_first_packets(codec: ModuleType) -> None:
    other = bytearray(FLOW)
    other[11] ^= 1
    rng = random.Random(8)
    chunks = {FLOW: [rng.randbytes(500) for _ in range(20)], bytes(other): [rng.randbytes(300) for _ in range(20)]}
    frames = []
    for n in range(20):
        for key, size in ((bytes(other), 300), (FLOW, 500)):
            part = make_segment(0, flow=key, seq=size * n, payload=(memoryview(chunks[key][n]),), length=size)
            frames += twin.encode(part)
    segments = codec.Reader(False).parse(frames).segments
    assert [segment.flow for segment in segments] == [bytes(other), FLOW]
    for segment in segments:
        assert b"".join(segment.payload) == b"".join(chunks[segment.flow]) and segment.packets == 20


@both
def test_segments_of_a_flow_never_change_places(codec: ModuleType) -> None:
    # the retransmission in the middle ends the first run: 200 must not be put before it
    assert merged(codec, frame(0, 100), frame(100, 100), frame(0, 100), frame(200, 100)) == [
        (0, 200, 2, 100),
        (0, 100, 1, 0),
        (200, 100, 1, 0),
    ]


@both
def test_a_run_has_at_most_65535_octets(codec: ModuleType) -> None:
    frames = [frame(5000 * n, 5000) for n in range(15)]
    assert merged(codec, *frames) == [(0, 65000, 13, 5000), (65000, 10000, 2, 5000)]
    exact = [frame(21845 * n, 21845) for n in range(4)]
    assert merged(codec, *exact) == [(0, 65535, 3, 21845), (65535, 21845, 1, 0)]
    assert merged(codec, frame(0, 32768), frame(32768, 32768)) == [(0, 32768, 1, 0), (32768, 32768, 1, 0)]


@both
def test_ecn_marks_are_never_mixed(codec: ModuleType) -> None:
    """M-18: a CE mark speaks for its packet, and RFC 3168's receiver must see it: a run is of one codepoint, in either order."""
    for other in (0, 1, 3):
        marks = [2, 2, other, 2, 2]
        segments = codec.Reader(False).parse([frame(1000 * i, 1000, tos=mark) for i, mark in enumerate(marks)]).segments
        assert [(segment.tos, segment.length) for segment in segments] == [(2, 2000), (other, 1000), (2, 2000)]


@both
def test_cwr_and_ece_stay_with_their_packets(codec: ModuleType) -> None:
    """M-18: CWR ends an echo once; merged away, or spread, it would end the next one too."""
    for flag in (CWR, ECE):
        segments = codec.Reader(False).parse([frame(1000 * i, 1000, flags=ACK | (flag if i == 2 else 0)) for i in range(5)]).segments
        assert [(segment.flags & (CWR | ECE), segment.length) for segment in segments] == [(0, 2000), (flag, 1000), (0, 2000)]


@both
def test_a_super_frame_with_cwr_is_a_run_whose_first_packet_bears_it(codec: ModuleType) -> None:
    """M-18: virtio's GSO_ECN. What is written again is cut so."""
    octets = HEADER.pack(1, 0x81, 40, 1000, 20, 16) + frame(0, 4000, flags=ACK | CWR, tos=2)
    (segment,) = codec.Reader(True).parse([octets]).segments
    assert (segment.flags, segment.gso_size, segment.packets, segment.tos) == (ACK | CWR, 1000, 4, 2)
    cut = codec.Reader(False, coalesce=False).parse(codec.encode(segment)).segments
    assert [(each.flags, each.tos) for each in cut] == [(ACK | CWR, 2), (ACK, 2), (ACK, 2), (ACK, 2)]


def super_frame(seq: int, size: int, gso_size: int, flags: int = ACK) -> bytes:
    return HEADER.pack(1, 1 if gso_size else 0, 40, gso_size, 20, 16) + frame(seq, size, flags=flags)


@both
def test_super_frames_of_whole_packets_are_merged(codec: ModuleType) -> None:
    run = [super_frame(0, 4000, 1000), super_frame(4000, 3000, 1000), super_frame(7000, 1000, 0), super_frame(8000, 2500, 1000)]
    assert merged(codec, *run, vnet=True) == [(0, 10500, 11, 1000)]
    assert merged(codec, *run, super_frame(10500, 1000, 0), vnet=True) == [(0, 10500, 11, 1000), (10500, 1000, 1, 0)]


@both
def test_super_frames_of_another_packet_size_are_not(codec: ModuleType) -> None:
    assert merged(codec, super_frame(0, 4000, 1000), super_frame(4000, 3000, 900), vnet=True) == [(0, 4000, 4, 1000), (4000, 3000, 4, 900)]
    assert merged(codec, super_frame(0, 4500, 1000), super_frame(4500, 1000, 0), vnet=True) == [(0, 4500, 5, 1000), (4500, 1000, 1, 0)]


@both
@pytest.mark.parametrize("seed", range(60))
def test_coalescing_changes_nothing_that_is_said(codec: ModuleType, seed: int) -> None:
    vnet = seed % 2 == 1
    frames = random_frames(random.Random(1000 + seed), vnet)
    single = codec.Reader(vnet, coalesce=False).parse(frames)
    packets = sum(segment.packets for segment in single.segments)
    batch = codec.Reader(vnet).parse(frames)
    assert sum(segment.packets for segment in batch.segments) == packets
    assert (batch.header_errors, batch.checksum_errors, batch.ignored) == (single.header_errors, single.checksum_errors, single.ignored)
    # each flow's octets, in order, are the same
    for flow in {segment.flow for segment in single.segments}:
        streams = []
        for segments in (single.segments, batch.segments):
            stream: list[tuple[int, int]] = []
            for segment in segments:
                if segment.flow == flow:
                    stream += [((segment.seq + i) & 0xFFFFFFFF, octet) for i, octet in enumerate(b"".join(segment.payload))]
            streams.append(stream)
        assert streams[0] == streams[1]


@both
def test_merging_leaves_the_frames_that_lie_in_memory_alone(codec: ModuleType) -> None:
    frames = [bytearray(frame(1000 + 100 * n, 100)) for n in range(3)]
    before = [bytes(each) for each in frames]
    assert len(codec.Reader(False).parse(frames).segments) == 1
    assert [bytes(each) for each in frames] == before


def test_both_describe_a_run_alike() -> None:
    frames = [frame(1000 + 100 * n, 100, ts_val=5, ident=n) for n in range(9)] + [frame(1900, 30, ts_val=5, flags=ACK | PSH)]
    one, two = (codec.Reader(False).parse(frames).segments for codec in CODECS)
    assert [fields(segment) for segment in one] == [fields(segment) for segment in two] and one[0].packets == 10
