"""TCP segments in plain Python: reference and stand-in of native/parse.c and native/build.c.

RFC 9293 3.1 and 3.2, RFC 7323 2 and 3, RFC 2018 2 and 3. Lengths in octets. Each function has its namesake in C,
and the tests hold the two against each other.
"""

from __future__ import annotations

from errno import EMSGSIZE
from struct import Struct
from typing import NamedTuple

from tunstack.wire import ipv4
from tunstack.wire.buffer import Buffer
from tunstack.wire.checksum import checksum, fold, word_sum
from tunstack.wire.segment import ACK, Segment

HEADER = Struct("!HHIIBBHHH")  # ports, SEG.SEQ, SEG.ACK, data offset and AE, flags, window, checksum, urgent pointer
MIN_HEADER = 20
MAX_OPTIONS = 40
CHECKSUM_OFFSET = 16

# option kinds
END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMP = 0, 1, 2, 3, 4, 5, 8

# verdicts on a frame; the numbers are those of native/tunstack.h
SEGMENT = 0
PACKET = 1  # valid IPv4, but not a whole TCP segment
HEADER_ERROR = 2
CHECKSUM_ERROR = 3
IGNORED = 4  # IPv6

_TIMESTAMP = Struct("!BBBBII")
_BLOCK = Struct("!II")


class Parsed(NamedTuple):
    """What a frame turned out to be."""

    verdict: int
    packet: memoryview  # the whole IPv4 packet without link padding; empty unless SEGMENT or PACKET
    segment: Segment | None  # where the verdict is SEGMENT
    options: memoryview  # all option octets of the segment


_NOTHING = memoryview(b"")


def parse(data: Buffer, verify: bool = True) -> Parsed:
    """Check and parse one IPv4 packet; `verify` says whether the TCP checksum is looked at."""
    view = memoryview(data)
    if len(view) and view[0] >> 4 == 6:
        return Parsed(IGNORED, _NOTHING, None, _NOTHING)
    packet = ipv4.parse(view)
    if packet is None:
        return Parsed(HEADER_ERROR, _NOTHING, None, _NOTHING)
    header_length = ipv4.MIN_HEADER + len(packet.options)
    whole = view[: header_length + len(packet.payload)]
    if packet.is_fragment or packet.protocol != ipv4.TCP:
        return Parsed(PACKET, whole, None, _NOTHING)
    body = packet.payload
    if len(body) < MIN_HEADER:
        return Parsed(HEADER_ERROR, _NOTHING, None, _NOTHING)
    _, _, seq, ack, offset, flags, window, _, urgent = HEADER.unpack_from(body)
    data_offset = (offset >> 4) * 4
    if not MIN_HEADER <= data_offset <= len(body):
        return Parsed(HEADER_ERROR, _NOTHING, None, _NOTHING)
    if verify and checksum(body, pseudo_header_sum(packet.src + packet.dst, len(body))):
        return Parsed(CHECKSUM_ERROR, _NOTHING, None, _NOTHING)
    flags |= (offset & 1) << 8
    segment = Segment(
        packet.src + packet.dst + bytes(body[:4]),
        seq,
        ack if flags & ACK else 0,
        flags,
        window,
        tos=packet.tos,
        urgent=urgent,
        ident=packet.ident,
        length=len(body) - data_offset,
    )
    if segment.length:
        segment.payload = (body[data_offset:],)
    options = body[MIN_HEADER:data_offset]
    parse_options(options, segment)
    return Parsed(SEGMENT, whole, segment, options)


def pseudo_header_sum(addresses: bytes, length: int) -> int:
    """Return the sum of the pseudo-header of `length` octets of TCP, RFC 9293 3.1; not folded."""
    return word_sum(addresses) + ipv4.TCP + length


def parse_options(options: Buffer, segment: Segment) -> None:
    """Put the options of a header into the segment; of a repeated option the last one counts.

    As Linux has it (tcp_parse_options): at an option that is shorter than 2 octets or longer than what is left the rest is
    not looked at, an option of the wrong length for its kind is stepped over, and the segment is kept.
    """
    view = memoryview(options)
    i = 0
    while i < len(view) and view[i] != END:
        kind = view[i]
        if kind == NOP:
            i += 1
            continue
        length = view[i + 1] if i + 1 < len(view) else 0
        if length < 2 or i + length > len(view):
            return
        value = view[i + 2 : i + length]
        if kind == MSS:
            if length == 4 and any(value):  # Linux: an MSS of 0 is none
                segment.mss = int.from_bytes(value, "big")
        elif kind == WINDOW_SCALE:
            if length == 3:
                segment.wscale = value[0]
        elif kind == SACK_PERMITTED:
            if length == 2:
                segment.sack_ok = True
        elif kind == SACK:
            if length >= 10 and length & 7 == 2:
                segment.sack = tuple(_BLOCK.iter_unpack(value))
        elif kind == TIMESTAMP:
            if length == 10:
                segment.ts_val, segment.ts_ecr = _BLOCK.unpack(value)
        else:
            segment.options = bytes(view)
        i += length


def build_options(segment: Segment) -> bytes:
    """Return the option octets of a segment in Linux's order (tcp_options_write), a multiple of 4.

    Of the SACK blocks as many go as the other options leave room for. OSError EMSGSIZE where the rest does not fit 40 octets.
    """
    options = bytearray()
    if segment.mss is not None:
        options += bytes((MSS, 4)) + segment.mss.to_bytes(2, "big")
    if segment.ts_val is not None:
        first = (SACK_PERMITTED, 2) if segment.sack_ok else (NOP, NOP)
        options += _TIMESTAMP.pack(*first, TIMESTAMP, 10, segment.ts_val, segment.ts_ecr)
    elif segment.sack_ok:
        options += bytes((NOP, NOP, SACK_PERMITTED, 2))
    if segment.wscale is not None:
        options += bytes((NOP, WINDOW_SCALE, 3, segment.wscale))
    further = checked_options(segment)
    room = MAX_OPTIONS - len(options) - len(further)
    if room < 0:
        raise OSError(EMSGSIZE, "the TCP options do not fit a header")
    blocks = segment.sack[: (room - 4) // 8] if room >= 12 else ()  # 4 at most, 40 octets being the room
    if blocks:
        options += bytes((NOP, NOP, SACK, 2 + 8 * len(blocks)))
        for block in blocks:
            options += _BLOCK.pack(*block)
    return bytes(options) + further


def checked_options(segment: Segment) -> bytes:
    """Return `segment.options`; ValueError where they are not padded, OSError EMSGSIZE where no header holds them."""
    if len(segment.options) & 3:
        raise ValueError(f"TCP options are padded to 4 octets: {segment.options!r}")
    if len(segment.options) > MAX_OPTIONS:
        raise OSError(EMSGSIZE, "the TCP options do not fit a header")
    return segment.options


def build_header(segment: Segment, payload: Buffer, ttl: int, partial: bool = False) -> bytes:
    """Return the IPv4 and TCP header of a segment that carries `payload`, one packet or a super-segment.

    DF is set: TCP never relies on fragmentation. With `partial` the TCP checksum is the pseudo-header's sum, for virtio's
    NEEDS_CSUM. OSError EMSGSIZE where the packet has more than 65535 octets.
    """
    options = build_options(segment)
    tcp_header_length = MIN_HEADER + len(options)
    length = tcp_header_length + len(payload)
    total_length = ipv4.MIN_HEADER + length
    if total_length > ipv4.MAX_PACKET:
        raise OSError(EMSGSIZE, "the segment does not fit an IPv4 packet")
    src, dst = segment.flow[:4], segment.flow[4:8]
    ip = bytearray(ipv4.HEADER.pack(0x45, segment.tos, total_length, segment.ident, ipv4.DONT_FRAGMENT, ttl, ipv4.TCP, 0, src, dst))
    ip[10:12] = checksum(ip).to_bytes(2, "big")
    sport, dport = int.from_bytes(segment.flow[8:10], "big"), int.from_bytes(segment.flow[10:12], "big")
    offset = tcp_header_length << 2 | segment.flags >> 8 & 1
    tcp = bytearray(HEADER.pack(sport, dport, segment.seq, segment.ack, offset, segment.flags & 0xFF, segment.window, 0, segment.urgent))
    tcp += options
    pseudo = pseudo_header_sum(segment.flow[:8], length)
    check = fold(pseudo) if partial else checksum(payload, pseudo + word_sum(tcp))
    tcp[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2] = check.to_bytes(2, "big")
    return bytes(ip + tcp)
