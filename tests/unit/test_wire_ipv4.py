"""IPv4 packets, held against scapy (M-01, M-08)."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet import fragment as scapy_fragment
from scapy.packet import Raw

from tunstack.wire import ipv4
from tunstack.wire.checksum import checksum

SRC = bytes((10, 77, 0, 1))
DST = bytes((10, 77, 0, 2))


def test_checksum_of_the_example_in_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2


def test_checksum_of_zeros_is_all_ones_and_of_ones_is_zero() -> None:
    assert checksum(b"") == checksum(bytes(6)) == 0xFFFF
    assert checksum(b"\xff" * 6) == checksum(b"", 0xFFFF) == checksum(b"", 0x1FFFE) == 0


def test_checksum_pads_the_last_octet_on_the_right() -> None:
    assert checksum(b"\x01\x02\x03") == checksum(b"\x01\x02\x03\x00")


def test_build_is_read_by_scapy() -> None:
    packet = IP(
        ipv4.build(
            SRC, DST, 17, b"payload", ttl=9, tos=0xB9, ident=0x1234, more_fragments=True, fragment_offset=1480, options=b"\x01\x01\x01\x00"
        )
    )
    built_checksum = packet.chksum
    assert (packet.src, packet.dst, packet.proto, packet.ttl, packet.tos, packet.id) == ("10.77.0.1", "10.77.0.2", 17, 9, 0xB9, 0x1234)
    assert (packet.frag, str(packet.flags), packet.ihl, packet.len) == (185, "MF", 6, 31)
    assert bytes(packet[Raw]) == b"payload"
    del packet.chksum
    assert IP(bytes(packet)).chksum == built_checksum


def test_parse_reads_what_scapy_builds() -> None:
    raw = bytes(IP(src="10.77.0.1", dst="10.77.0.2", proto=1, ttl=3, tos=7, id=99, flags="DF", frag=0) / b"abcdef")
    parsed = ipv4.parse(raw + b"link padding")
    assert parsed is not None
    assert (parsed.src, parsed.dst, parsed.protocol, parsed.ttl, parsed.tos, parsed.ident) == (SRC, DST, 1, 3, 7, 99)
    assert parsed.dont_fragment and not parsed.more_fragments and not parsed.is_fragment
    assert bytes(parsed.payload) == b"abcdef" and not parsed.options


def test_malformed_headers_are_none_never_an_exception() -> None:
    good = ipv4.build(SRC, DST, 17, b"payload", options=bytes(8))
    assert ipv4.parse(good) is not None
    for length in range(len(good)):
        assert ipv4.parse(good[:length]) is None
    for bit in range(28 * 8):  # every bit of the header is covered by its checksum
        broken = bytearray(good)
        broken[bit >> 3] ^= 0x80 >> (bit & 7)
        assert ipv4.parse(broken) is None


def with_checksum(header: str) -> bytes:
    raw = bytearray(bytes.fromhex(header))
    raw[10:12] = checksum(raw).to_bytes(2, "big")
    return bytes(raw)


def test_lengths_that_contradict_each_other_are_refused_though_the_checksum_is_right() -> None:
    assert ipv4.parse(with_checksum("450000140000000040060000 0a4d0001 0a4d0002")) is not None
    assert ipv4.parse(with_checksum("450000130000000040060000 0a4d0001 0a4d0002")) is None  # total length below the header's
    assert ipv4.parse(with_checksum("450000150000000040060000 0a4d0001 0a4d0002")) is None  # and beyond the frame's
    assert ipv4.parse(with_checksum("440000140000000040060000 0a4d0001 0a4d0002")) is None  # IHL 4
    assert ipv4.parse(with_checksum("460000140000000040060000 0a4d0001 0a4d0002")) is None  # IHL 6 in 20 octets
    assert ipv4.parse(with_checksum("650000140000000040060000 0a4d0001 0a4d0002")) is None  # version 6


@pytest.mark.parametrize("mtu", [68, 576, 1006, 1500])
def test_fragments_are_scapys(mtu: int) -> None:
    payload = random.Random(mtu).randbytes(4008)
    packet = ipv4.build(SRC, DST, 1, payload, ident=77)
    fragments = ipv4.fragment(packet, mtu)
    assert fragments == [bytes(part) for part in scapy_fragment(IP(packet), fragsize=(mtu - 20) & ~7)]
    assert max(map(len, fragments)) <= mtu


def test_fragments_put_together_give_the_payload() -> None:
    payload = random.Random(1).randbytes(3001)
    parts = [ipv4.parse(part) for part in ipv4.fragment(ipv4.build(SRC, DST, 1, payload, ident=77), 576)]
    whole = bytearray(3001)
    for part in parts:
        assert part is not None and part.ident == 77 and part.is_fragment
        whole[part.fragment_offset : part.fragment_offset + len(part.payload)] = part.payload
    assert whole == payload
    assert [part.more_fragments for part in parts if part] == [True] * (len(parts) - 1) + [False]


def test_a_fragment_is_cut_further_and_keeps_its_place() -> None:
    middle = ipv4.build(SRC, DST, 1, bytes(1480), more_fragments=True, fragment_offset=1480)
    parts = [ipv4.parse(part) for part in ipv4.fragment(middle, 576)]
    assert [(part.fragment_offset, part.more_fragments) for part in parts if part] == [(1480, True), (2032, True), (2584, True)]


def test_only_copied_options_go_into_later_fragments() -> None:
    record_route, security = b"\x07\x07\x04\0\0\0\0", b"\x82\x05abc"
    packet = ipv4.build(SRC, DST, 1, bytes(200), options=record_route + security)
    parts = [ipv4.parse(part) for part in ipv4.fragment(packet, 100)]
    assert [bytes(part.options) for part in parts if part] == [record_route + security] + [security + bytes(3)] * 2


@pytest.mark.parametrize("options", [b"\x82\x00\0\0", b"\x82\x09\0\0", b"\x01\x01\x01\x82", b"\x00\x82\x03a"])
def test_a_malformed_option_list_is_cut(options: bytes) -> None:
    later = ipv4.parse(ipv4.fragment(ipv4.build(SRC, DST, 1, bytes(200), options=options), 100)[1])
    assert later is not None and not later.options


def test_what_fits_is_not_fragmented_and_df_is_obeyed() -> None:
    packet = ipv4.build(SRC, DST, 1, bytes(100), dont_fragment=True)
    assert ipv4.fragment(packet, 120) == [packet]
    with pytest.raises(ValueError, match="may not be fragmented"):
        ipv4.fragment(packet, 119)


@pytest.mark.parametrize(
    ("payload", "options", "offset"), [(65516, 0, 0), (10, 3, 0), (10, 44, 0), (10, 0, 4), (1000, 0, 65528)], ids=lambda value: str(value)
)
def test_build_refuses_what_no_header_can_say(payload: int, options: int, offset: int) -> None:
    with pytest.raises(ValueError):
        ipv4.build(SRC, DST, 1, bytes(payload), options=bytes(options), fragment_offset=offset)


def test_fragment_refuses_an_invalid_packet_and_an_mtu_below_68() -> None:
    with pytest.raises(ValueError, match="not a valid"):
        ipv4.fragment(b"\x45" + bytes(40), 576)
    with pytest.raises(ValueError, match="at least 68"):
        ipv4.fragment(ipv4.build(SRC, DST, 1, bytes(100)), 67)
