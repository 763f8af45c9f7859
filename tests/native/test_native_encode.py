"""Building of frames: C against the twin, and read back by scapy (M-01, M-02, M-06, M-10, M-11, M-13)."""

from __future__ import annotations

import itertools
import random
from errno import EMSGSIZE
from types import ModuleType
from typing import Any

import pytest
from native.support import ALL_FLAGS, CODECS, FLOW, fields, make_segment, random_segment
from scapy.layers.inet import IP, TCP

from tunstack.wire import native, twin
from tunstack.wire.segment import ACK, CWR, FIN, PSH, RST, SYN, URG, Segment

both = pytest.mark.parametrize("codec", CODECS, ids=lambda module: module.BACKEND)


def dissect(frame: bytes) -> Any:
    """Return scapy's view of a frame, having checked that scapy computes the same checksums and lengths."""
    seen = IP(frame)
    for layer, names in ((IP, ("len", "ihl", "chksum")), (TCP, ("chksum", "dataofs"))):
        again = IP(frame)
        for name in names:
            delattr(again[layer], name)
        rebuilt = IP(bytes(again))
        for name in names:
            assert getattr(rebuilt[layer], name) == getattr(seen[layer], name), name
    return seen


@both
def test_scapy_reads_every_field(codec: ModuleType) -> None:
    segment = make_segment(33, seq=0xFFFFFFFF, ack=0x80000000, flags=ALL_FLAGS, window=0xFEDC, urgent=0x1234, tos=0xB9, ident=0xABCD)
    (frame,) = codec.encode(segment, ttl=7)
    seen = dissect(frame)
    assert (seen.version, seen.ihl, seen.tos, seen.len, seen.id, str(seen.flags), seen.frag) == (4, 5, 0xB9, 73, 0xABCD, "DF", 0)
    assert (seen.ttl, seen.proto, seen.src, seen.dst) == (7, 6, "10.77.0.1", "10.77.0.2")
    tcp = seen[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.dataofs, tcp.reserved) == (40000, 80, 0xFFFFFFFF, 0x80000000, 5, 0)
    assert (int(tcp.flags), tcp.window, tcp.urgptr, bytes(tcp.payload)) == (ALL_FLAGS, 0xFEDC, 0x1234, bytes(segment.payload[0]))


@both
@pytest.mark.parametrize("bit", range(9))
def test_each_flag_stands_alone(codec: ModuleType, bit: int) -> None:
    assert int(IP(codec.encode(make_segment(flags=1 << bit))[0])[TCP].flags) == 1 << bit


@both
@pytest.mark.parametrize("mss", [None, 1460])
@pytest.mark.parametrize("wscale", [None, 0, 14])
@pytest.mark.parametrize("sack_ok", [False, True])
@pytest.mark.parametrize("ts_val", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("blocks", range(5))
@pytest.mark.parametrize("further", [b"", b"\x22\x06abcd\x01\x01"])
def test_every_combination_of_options_comes_back(
    codec: ModuleType, mss: int | None, wscale: int | None, sack_ok: bool, ts_val: int | None, blocks: int, further: bytes
) -> None:
    sack = tuple((n, n + 1) for n in range(0, 10 * blocks, 10))
    segment = make_segment(5, flags=ACK, mss=mss, wscale=wscale, sack_ok=sack_ok, ts_val=ts_val, ts_ecr=9 if ts_val is not None else 0)
    segment.sack, segment.options = sack, further
    (frame,) = codec.encode(segment)
    used = sum((4 if mss else 0, 0 if wscale is None else 4, 12 if ts_val is not None else 4 * sack_ok, len(further)))
    fit = min(blocks, max(0, (40 - used - 4) // 8))
    parsed = twin.parse_datagram(frame)
    assert parsed is not None
    assert (parsed.mss, parsed.wscale, parsed.sack_ok, parsed.ts_val, parsed.ts_ecr) == (mss, wscale, sack_ok, ts_val, segment.ts_ecr)
    assert parsed.sack == sack[:fit]
    assert parsed.options == (frame[40 : len(frame) - 5] if further else b"")
    assert parsed.options.endswith(further)
    assert frame == next(iter(twin.encode(segment)))


@both
@pytest.mark.parametrize(
    ("values", "order"),
    [
        ({"mss": 1460, "sack_ok": True, "ts_val": 1, "wscale": 7}, ["MSS", "SAckOK", "Timestamp", "NOP", "WScale"]),
        ({"mss": 1460, "sack_ok": True, "wscale": 7}, ["MSS", "NOP", "NOP", "SAckOK", "NOP", "WScale"]),
        ({"mss": 1460, "ts_val": 1, "wscale": 7}, ["MSS", "NOP", "NOP", "Timestamp", "NOP", "WScale"]),
        ({"ts_val": 1}, ["NOP", "NOP", "Timestamp"]),
        ({"ts_val": 1, "sack": ((1, 2), (3, 4), (5, 6), (7, 8))}, ["NOP", "NOP", "Timestamp", "NOP", "NOP", "SAck"]),
        ({"sack": ((1, 2),) * 4}, ["NOP", "NOP", "SAck"]),
        ({"ts_val": 1, "options": b"\xfd\x04ab"}, ["NOP", "NOP", "Timestamp", 253]),
        ({}, []),
    ],
)
def test_the_order_of_options_is_linuxs(codec: ModuleType, values: dict[str, Any], order: list[Any]) -> None:
    (frame,) = codec.encode(make_segment(**values))
    assert [name for name, _ in dissect(frame)[TCP].options] == order


@both
def test_as_many_sack_blocks_as_fit(codec: ModuleType) -> None:
    blocks = tuple((n, n + 1) for n in range(0, 50, 10))
    sent = {}
    for ts_val, options in itertools.product((None, 1), (b"", b"\xfd\x04ab", bytes((0xFD, 24)) + bytes(22))):
        parsed = twin.parse_datagram(codec.encode(make_segment(sack=blocks, ts_val=ts_val, options=options))[0])
        assert parsed is not None and tuple(parsed.sack) == blocks[: len(parsed.sack)]
        sent[ts_val, len(options)] = len(parsed.sack)
    assert sent == {(None, 0): 4, (None, 4): 4, (None, 24): 1, (1, 0): 3, (1, 4): 2, (1, 24): 0}


@both
@pytest.mark.parametrize(
    "values",
    [
        {"options": bytes(44)},
        {"options": bytes(32), "ts_val": 1},
        {"options": bytes(40), "mss": 5},
        {"payload": (memoryview(bytes(65496)),)},
    ],
)
def test_what_does_not_fit_is_emsgsize(codec: ModuleType, values: dict[str, Any]) -> None:
    with pytest.raises(OSError) as caught:
        codec.encode(make_segment(**values))
    assert caught.value.errno == EMSGSIZE
    assert codec.encode(make_segment(options=bytes(40), payload=(memoryview(bytes(65455)),)))


@both
def test_options_that_are_not_padded_are_a_mistake_of_the_caller(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match="padded to 4"):
        codec.encode(make_segment(options=b"\xfd\x03a"))


@both
def test_a_run_is_cut_and_its_marks_are_spread(codec: ModuleType) -> None:
    segment = make_segment(3500, seq=0xFFFFFC00, flags=ACK | PSH | FIN | CWR, gso_size=1000, ident=0xFFFE, ts_val=1)
    frames = [dissect(frame) for frame in codec.encode(segment)]
    assert [frame[TCP].seq for frame in frames] == [0xFFFFFC00, 0xFFFFFC00 + 1000, 976, 1976]
    assert [int(frame[TCP].flags) for frame in frames] == [ACK | CWR, ACK, ACK, ACK | PSH | FIN]
    assert [frame.id for frame in frames] == [0xFFFE, 0xFFFF, 0, 1]
    assert [len(frame[TCP].payload) for frame in frames] == [1000, 1000, 1000, 500]
    assert b"".join(bytes(frame[TCP].payload) for frame in frames) == bytes(segment.payload[0])


@both
def test_the_urgent_pointer_counts_from_each_packet(codec: ModuleType) -> None:
    frames = [IP(frame)[TCP] for frame in codec.encode(make_segment(4000, flags=ACK | URG, gso_size=1000, urgent=2000))]
    assert [(int(frame.flags), frame.urgptr) for frame in frames] == [(ACK | URG, 2000), (ACK | URG, 1000), (ACK, 0), (ACK, 0)]


@both
@pytest.mark.parametrize(
    ("size", "gso_size", "count"), [(0, 0, 1), (0, 1000, 1), (1000, 0, 1), (1000, 1000, 1), (1001, 1000, 2), (2000, 1000, 2)]
)
def test_how_many_packets(codec: ModuleType, size: int, gso_size: int, count: int) -> None:
    assert len(codec.encode(make_segment(size, gso_size=gso_size))) == count


@both
def test_a_syn_is_never_cut(codec: ModuleType) -> None:
    assert len(codec.encode(make_segment(3000, flags=SYN, gso_size=1000))) == 1


@both
def test_a_run_that_was_cut_is_put_together_again(codec: ModuleType) -> None:
    segment = make_segment(40000, gso_size=1448, ts_val=1, ts_ecr=2, ident=9, tos=2)
    segment.packets = 28
    (received,) = codec.Reader(False).parse(codec.encode(segment)).segments
    assert fields(received) == fields(segment)


@both
def test_the_payload_may_lie_in_many_views(codec: ModuleType) -> None:
    data = random.Random(4).randbytes(5000)
    cuts = [0, 1, 1, 3, 1000, 1001, 2447, 4999, 5000]
    views = tuple(memoryview(data)[a:b] for a, b in itertools.pairwise(cuts))
    whole = make_segment(0, payload=(memoryview(data),), gso_size=999)
    assert codec.encode(make_segment(0, payload=views, gso_size=999)) == codec.encode(whole)


@pytest.mark.parametrize("seed", range(400))
def test_random_segments_are_encoded_alike(seed: int) -> None:
    segment = random_segment(random.Random(seed))
    ttl = seed % 256
    results: list[Any] = []
    for codec in CODECS:
        try:
            results.append(codec.encode(segment, ttl))
        except OSError as error:
            results.append(error.errno)
    assert results[0] == results[1]
    if results[0] != EMSGSIZE:
        payload = b"".join(segment.payload)
        assert (
            b"".join(bytes(dissect(frame)[TCP].payload) for frame in results[0][:3])
            == payload[: sum(len(IP(f)[TCP].payload) for f in results[0][:3])]
        )
        parsed = [native.parse_datagram(frame) for frame in results[0]]
        assert all(parsed) and b"".join(b"".join(part.payload) for part in parsed if part) == payload


@both
def test_a_rst_without_options(codec: ModuleType) -> None:
    seen = dissect(codec.encode(Segment(FLOW, 5, 0, RST, 0))[0])
    assert (int(seen[TCP].flags), seen[TCP].ack, seen[TCP].window, len(seen)) == (RST, 0, 0, 40)
