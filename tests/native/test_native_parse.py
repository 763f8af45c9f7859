"""Checking and parsing of frames: C against the twin, both against scapy (M-01, M-02, M-10, M-11, M-13)."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native.support import ALL_FLAGS, CODECS, FLOW, content, fields, fixed, make_segment, random_frames, random_options, scapy_frame
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from tunstack.wire import ipv4, native, twin
from tunstack.wire.segment import ACK, SYN, URG, Segment
from tunstack.wire.virtio import HEADER

both = pytest.mark.parametrize("codec", CODECS, ids=lambda module: module.BACKEND)


def parse_one(codec: ModuleType, frame: bytes, vnet: bool = False) -> Segment:
    batch = codec.Reader(vnet).parse([frame])
    assert not batch.packets and not batch.header_errors and not batch.checksum_errors and not batch.ignored
    (segment,) = batch.segments
    assert isinstance(segment, Segment)
    return segment


@both
def test_every_field_of_scapys_segment_is_read(codec: ModuleType) -> None:
    frame = scapy_frame(b"hello", ip={"tos": 0xB9, "id": 0x1234}, seq=0xFFFFFFFE, ack=5, flags=int(ALL_FLAGS), window=0xFEDC, urgptr=0x8001)
    segment = parse_one(codec, frame)
    assert (segment.flow, segment.seq, segment.ack, segment.flags) == (FLOW, 0xFFFFFFFE, 5, ALL_FLAGS)
    assert (segment.window, segment.urgent, segment.tos, segment.ident) == (0xFEDC, 0x8001, 0xB9, 0x1234)
    assert b"".join(segment.payload) == b"hello" and segment.length == 5
    assert (segment.packets, segment.gso_size, segment.ts_val, segment.mss, segment.wscale, segment.sack) == (1, 0, None, None, None, ())
    assert segment.sack_ok is False and segment.options == b""


@both
@pytest.mark.parametrize("bit", range(9))
def test_each_flag_stands_alone(codec: ModuleType, bit: int) -> None:
    assert parse_one(codec, scapy_frame(flags=1 << bit)).flags == 1 << bit


@both
def test_ack_is_zero_without_the_flag(codec: ModuleType) -> None:
    assert parse_one(codec, scapy_frame(flags="S", ack=77)).ack == 0
    assert parse_one(codec, scapy_frame(flags="A", ack=77)).ack == 77


OPTION_CASES: list[tuple[list[Any], dict[str, Any]]] = [
    ([("MSS", 1460)], {"mss": 1460}),
    ([("MSS", 65535), ("WScale", 14)], {"mss": 65535, "wscale": 14}),
    ([("MSS", 0)], {"mss": None}),
    ([("WScale", 255)], {"wscale": 255}),
    ([("SAckOK", b"")], {"sack_ok": True}),
    ([("Timestamp", (0xFFFFFFFF, 1))], {"ts_val": 0xFFFFFFFF, "ts_ecr": 1}),
    ([("NOP", None), ("NOP", None), ("Timestamp", (0, 0))], {"ts_val": 0, "ts_ecr": 0}),
    (
        [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)],
        {"mss": 1460, "sack_ok": True, "ts_val": 1, "ts_ecr": 2, "wscale": 7},
    ),
    ([("NOP", None), ("NOP", None), ("SAck", (1, 2))], {"sack": ((1, 2),)}),
    ([("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4, 5, 6, 0xFFFFFFFF, 0))], {"sack": ((1, 2), (3, 4), (5, 6), (0xFFFFFFFF, 0))}),
    ([("Timestamp", (1, 2)), ("SAck", (9, 8, 7, 6, 5, 4))], {"ts_val": 1, "ts_ecr": 2, "sack": ((9, 8), (7, 6), (5, 4))}),
    ([("MSS", 500), ("MSS", 600)], {"mss": 600}),
]


@both
@pytest.mark.parametrize(("options", "expected"), OPTION_CASES)
def test_options_that_scapy_built(codec: ModuleType, options: list[Any], expected: dict[str, Any]) -> None:
    segment = parse_one(codec, scapy_frame(b"data", flags="A", options=options))
    absent = {"mss": None, "wscale": None, "sack_ok": False, "ts_val": None, "ts_ecr": 0, "sack": (), "options": b""}
    assert {name: getattr(segment, name) for name in absent} == absent | expected
    assert b"".join(segment.payload) == b"data"


RAW_CASES: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("01010101", {}),
    ("00020405b4000000", {}),  # what stands after the end of the list is not looked at
    ("0204 05b4 02", {"mss": 1460}),  # the last option has no length
    ("020405b4 0300", {"mss": 1460}),  # length 0: stop, or it never ends
    ("020405b4 0301", {"mss": 1460}),
    ("0305 0707 07 020405b4", {"mss": 1460}),  # wrong length for its kind: stepped over
    ("0203 05 020405b4", {"mss": 1460}),
    ("0403 00 0402", {"sack_ok": True}),
    ("080a 00000001 0000", {}),  # a timestamp longer than what is left
    ("0808 000000010000 0101", {}),
    ("0502 0101", {}),  # SACK without a block
    ("0509 00000001 000000", {}),
    ("050b 00000001 00000002 ff", {}),  # SACK of no whole blocks
    ("0512 00000001 00000002 00000003 00000004", {"sack": ((1, 2), (3, 4))}),
    ("2202 0101", {"options": bytes.fromhex("22020101")}),  # Fast Open asks for a cookie
    ("020405b4 1312" + "aa" * 16 + "0000", {"mss": 1460, "options": bytes.fromhex("020405b41312" + "aa" * 16 + "0000")}),
    ("02040000", {}),  # Linux: an MSS of 0 is none
    ("fd00 0101", {}),  # an unknown option whose length breaks the list is none
    ("fd", {}),
    ("ff28" + "00" * 38, {"options": bytes.fromhex("ff28" + "00" * 38)}),
    ("ff29" + "00" * 38, {}),
]


@both
@pytest.mark.parametrize(("octets", "expected"), RAW_CASES)
def test_malformed_and_foreign_options(codec: ModuleType, octets: str, expected: dict[str, Any]) -> None:
    raw = bytes.fromhex(octets)
    raw += bytes(-len(raw) & 3)
    frame = bytearray(scapy_frame(flags="S"))
    frame[32] = (5 + len(raw) // 4) << 4
    segment = parse_one(codec, fixed(bytes(frame) + raw + b"payload"))
    absent = {"mss": None, "wscale": None, "sack_ok": False, "ts_val": None, "ts_ecr": 0, "sack": (), "options": b""}
    values = {name: getattr(segment, name) for name in absent}
    if values["options"] and expected.get("options"):
        assert values["options"] == expected["options"] + bytes(-len(expected["options"]) & 3)
        values["options"] = expected["options"]
    assert values == absent | expected
    assert b"".join(segment.payload) == b"payload"


@both
def test_padding_after_the_packet_is_cut_off(codec: ModuleType) -> None:
    segment = parse_one(codec, scapy_frame(b"abc") + bytes(6))
    assert b"".join(segment.payload) == b"abc"


@both
def test_ipv4_options_are_skipped(codec: ModuleType) -> None:
    inner = scapy_frame(b"abc", flags="A", seq=9)[20:]
    segment = parse_one(codec, ipv4.build(FLOW[:4], FLOW[4:8], ipv4.TCP, inner, options=b"\x94\x04\0\0"))
    assert (segment.flow, segment.seq, b"".join(segment.payload)) == (FLOW, 9, b"abc")


@both
def test_every_damaged_bit_is_noticed(codec: ModuleType) -> None:
    frame = scapy_frame(b"payload!", flags="A", options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))])
    reader = codec.Reader(False, coalesce=False)
    for bit in range(len(frame) * 8):
        broken = bytearray(frame)
        broken[bit >> 3] ^= 0x80 >> (bit & 7)
        batch = reader.parse([broken])
        assert not batch.segments and not batch.packets
        # a flip in the version can make it look like IPv6; one in the TCP data offset is caught by length or by checksum
        assert batch.header_errors + batch.checksum_errors + batch.ignored == 1
        if bit < 160 and bit != 2:
            assert batch.header_errors == 1
        elif bit >= 160 and bit // 8 != 32:
            assert batch.checksum_errors == 1


@both
def test_every_truncation_is_noticed(codec: ModuleType) -> None:
    frame = scapy_frame(b"payload!", flags="A", options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))])
    batch = codec.Reader(False).parse([frame[:length] for length in range(len(frame))])
    assert not batch.segments and not batch.packets and batch.header_errors == len(frame)


@both
@pytest.mark.parametrize(("offset", "good"), [(0, False), (4, False), (5, True), (7, True), (8, False), (15, False)])
def test_the_data_offset_must_lie_in_the_segment(codec: ModuleType, offset: int, good: bool) -> None:
    frame = bytearray(scapy_frame(bytes(8)))  # 28 octets of TCP
    frame[32] = offset << 4
    batch = codec.Reader(False).parse([fixed(bytes(frame))])
    assert (len(batch.segments), batch.header_errors) == ((1, 0) if good else (0, 1))


@both
def test_what_is_not_tcp_is_a_packet_whole_and_without_padding(codec: ModuleType) -> None:
    ping = bytes(IP(src="10.77.0.1", dst="10.77.0.2") / ICMP() / b"ping")
    udp = bytes(IP(src="10.77.0.1", dst="10.77.0.2") / UDP() / b"datagram")
    first = bytes(IP(src="10.77.0.1", dst="10.77.0.2", proto=6, flags="MF") / Raw(bytes(8)))
    last = bytes(IP(src="10.77.0.1", dst="10.77.0.2", proto=6, frag=1) / Raw(bytes(8)))
    batch = codec.Reader(False).parse([ping + bytes(10), scapy_frame(), udp, first, last])
    assert [bytes(packet) for packet in batch.packets] == [ping, udp, first, last]
    assert len(batch.segments) == 1 and not batch.header_errors


@both
def test_ipv6_is_ignored_and_counted_apart(codec: ModuleType) -> None:
    batch = codec.Reader(False).parse([b"\x60" + bytes(47), b"\x50" + bytes(47), b""])
    assert (batch.ignored, batch.header_errors) == (1, 2)


@both
def test_a_frame_longer_than_any_packet_is_refused(codec: ModuleType) -> None:
    frame = scapy_frame(b"abc")
    batch = codec.Reader(False).parse([frame + bytes(65535 - len(frame)), frame + bytes(65536 - len(frame)), frame + bytes(70000)])
    assert (len(batch.segments), batch.header_errors) == (1, 2)


def offload(flags: int, gso_type: int = 0, gso_size: int = 0, start: int = 20, offset: int = 16) -> bytes:
    return HEADER.pack(flags, gso_type, 40, gso_size, start, offset)


@both
@pytest.mark.parametrize(("flags", "accepted"), [(0, False), (1, True), (2, True), (3, True), (4, False)])
def test_the_checksum_is_not_looked_at_where_virtio_vouches_for_it(codec: ModuleType, flags: int, accepted: bool) -> None:
    frame = bytearray(scapy_frame(b"abc"))
    frame[36:38] = b"\x12\x34"
    batch = codec.Reader(True).parse([offload(flags) + frame])
    assert (len(batch.segments), batch.checksum_errors) == ((1, 0) if accepted else (0, 1))


@both
@pytest.mark.parametrize(
    ("gso_type", "gso_size", "length", "expected"),
    [(1, 1000, 3500, (1000, 4)), (0x81, 1000, 3000, (1000, 3)), (1, 1000, 1000, (0, 1)), (1, 0, 3000, (0, 1)), (4, 1000, 3000, (0, 1))],
)
def test_a_super_frame_says_how_many_packets_it_was(
    codec: ModuleType, gso_type: int, gso_size: int, length: int, expected: tuple[int, int]
) -> None:
    segment = parse_one(codec, offload(1, gso_type, gso_size) + scapy_frame(bytes(length), flags="A"), vnet=True)
    assert (segment.gso_size, segment.packets) == expected and segment.length == length


@both
def test_a_frame_without_a_whole_virtio_header_is_refused(codec: ModuleType) -> None:
    assert codec.Reader(True).parse([bytes(length) for length in range(10)]).header_errors == 10
    assert codec.Reader(True).parse([bytes(10)]).header_errors == 1


@both
def test_the_partial_checksum_of_a_datagram_is_completed(codec: ModuleType) -> None:
    whole = bytes(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=1, dport=2) / b"datagram")
    partial = bytearray(whole)
    pseudo = whole[12:20] + b"\0\x11" + whole[24:26]
    partial[26:28] = (twin.checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    batch = codec.Reader(True).parse([offload(1, offset=6) + partial])
    assert [bytes(packet) for packet in batch.packets] == [whole]


@both
def test_a_completed_checksum_of_zero_is_sent_as_all_ones(codec: ModuleType) -> None:
    packet = bytearray(bytes(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=1, dport=2, chksum=0) / b"ab"))
    packet[26:28] = (0xFFFF - (twin.checksum(packet[20:]) ^ 0xFFFF)).to_bytes(2, "big")  # now the sum is all ones, its complement 0
    batch = codec.Reader(True).parse([offload(1, offset=6) + packet])
    assert bytes(batch.packets[0][26:28]) == b"\xff\xff"


@both
@pytest.mark.parametrize(
    ("start", "offset", "good"), [(20, 6, True), (20, 14, True), (20, 15, False), (19, 6, False), (0, 0, False), (65535, 65535, False)]
)
def test_a_partial_checksum_outside_its_packet_is_refused(codec: ModuleType, start: int, offset: int, good: bool) -> None:
    packet = bytes(IP(src="10.77.0.1", dst="10.77.0.2") / UDP() / b"datagram")  # 36 octets
    batch = codec.Reader(True).parse([offload(1, start=start, offset=offset) + packet])
    assert (len(batch.packets), batch.header_errors) == ((1, 0) if good else (0, 1))


@both
def test_parse_datagram_takes_one_segment_and_nothing_else(codec: ModuleType) -> None:
    frame = scapy_frame(b"abc", flags="S", options=[("MSS", 1460)])
    segment = codec.parse_datagram(frame)
    assert segment is not None and segment.mss == 1460 and b"".join(segment.payload) == b"abc"
    assert codec.parse_datagram(frame[:-1]) is None
    assert codec.parse_datagram(frame[:-1] + b"x") is None
    assert codec.parse_datagram(b"") is None
    assert codec.parse_datagram(bytes(IP(dst="10.77.0.2") / ICMP())) is None


@both
def test_payload_is_borrowed_until_the_next_batch_and_views_of_one_batch_do_not_overlap(codec: ModuleType) -> None:
    reader = codec.Reader(False, max_frames=4)
    frames = [scapy_frame(bytes([n]) * 100, sport=n, flags="A") for n in range(1, 12)]  # more than max_frames: all the same
    batch = reader.parse(frames)
    assert [b"".join(segment.payload) for segment in batch.segments] == [bytes([n]) * 100 for n in range(1, 12)]


@both
@pytest.mark.parametrize("size", [0, 1025])
def test_a_batch_has_a_sensible_number_of_frames(codec: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match="1 to 1024"):
        codec.Reader(False, max_frames=size)


def test_scapys_random_option_lists_are_read_alike() -> None:
    rng = random.Random(20)
    reader = native.Reader(False, coalesce=False), twin.Reader(False, coalesce=False)
    for _ in range(3000):
        options = random_options(rng)
        frame = bytearray(scapy_base())
        frame[32] = (5 + len(options) // 4) << 4
        raw = fixed(bytes(frame) + options + rng.randbytes(rng.randrange(3)))
        results = [content(each.parse([raw])) for each in reader]
        assert results[0] == results[1], raw.hex()
        assert len(results[0]["segments"]) == 1


def scapy_base(cache: list[bytes] = []) -> bytes:  # noqa: B006
    if not cache:
        cache.append(scapy_frame(flags="A"))
    return cache[0]


@pytest.mark.parametrize("vnet", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_random_batches_are_read_alike(seed: int, vnet: bool) -> None:
    frames = random_frames(random.Random(seed), vnet)
    coalesce = seed % 4 != 0
    one = content(native.Reader(vnet, coalesce=coalesce).parse(frames))
    two = content(twin.Reader(vnet, coalesce=coalesce).parse(frames))
    assert one == two
    for frame in frames:
        raw = frame[10:] if vnet else frame
        segments = [codec.parse_datagram(raw) for codec in CODECS]
        assert (segments[0] and fields(segments[0])) == (segments[1] and fields(segments[1]))


GOOD = [
    twin.encode(make_segment(20, flags=SYN, mss=1460, sack_ok=True, ts_val=1, wscale=7))[0],
    twin.encode(make_segment(9, flags=ACK | URG))[0],
]


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=6), st.integers(0, 90), st.booleans())
@settings(max_examples=800, deadline=None, derandomize=True)
def test_changed_frames_are_read_alike(frame: bytes, changes: list[tuple[int, int]], length: int, repair: bool) -> None:
    raw = bytearray(frame)
    for at, value in changes:
        raw[at % len(raw)] = value
    data = bytes(raw[:length])
    if repair:
        data = fixed(data)
    one, two = (content(codec.Reader(False).parse([data, data])) for codec in CODECS)
    assert one == two
