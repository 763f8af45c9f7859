"""IPv4 packets: parsing, building, fragmenting.

RFC 791 3.1 and 3.2, RFC 6864 (identification). No state: reassembly is the engine's. Lengths in octets.
The hot path of received TCP does not come here, it is parsed in C (see codec.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from tunstack.wire.buffer import Buffer
from tunstack.wire.checksum import checksum

ICMP = 1
TCP = 6
UDP = 17

DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
OFFSET_MASK = 0x1FFF  # of the fragment offset, in units of 8 octets

MIN_HEADER = 20
MAX_HEADER = 60
MAX_PACKET = 65535
MIN_MTU = 68  # RFC 791 3.2: what every link must carry

# version and IHL, TOS, total length, identification, flags and fragment offset, TTL, protocol, checksum, source, destination
HEADER = Struct("!BBHHHBBH4s4s")

_OPTION_END = 0
_OPTION_NOP = 1
_OPTION_COPIED = 0x80  # RFC 791 3.1: this option goes into every fragment


@dataclass(frozen=True, slots=True)
class Ipv4Packet:
    """One IPv4 packet, checked. `options` and `payload` view the buffer that was parsed and are borrowed like it."""

    src: bytes
    dst: bytes
    protocol: int
    payload: memoryview
    ttl: int
    tos: int
    ident: int
    dont_fragment: bool
    more_fragments: bool
    fragment_offset: int  # octets
    options: memoryview

    @property
    def is_fragment(self) -> bool:
        """Tell whether this is a part of a datagram only."""
        return self.more_fragments or self.fragment_offset != 0


def parse(data: Buffer) -> Ipv4Packet | None:
    """Return the packet in data, link padding cut off; None where the header is malformed, truncated or fails its checksum."""
    view = memoryview(data)
    if len(view) < MIN_HEADER:
        return None
    version_ihl, tos, total_length, ident, fragment, ttl, protocol, _, src, dst = HEADER.unpack_from(view)
    header_length = (version_ihl & 0xF) * 4
    if version_ihl >> 4 != 4 or not MIN_HEADER <= header_length <= total_length <= len(view) or checksum(view[:header_length]):
        return None
    return Ipv4Packet(
        src,
        dst,
        protocol,
        view[header_length:total_length],
        ttl,
        tos,
        ident,
        bool(fragment & DONT_FRAGMENT),
        bool(fragment & MORE_FRAGMENTS),
        (fragment & OFFSET_MASK) * 8,
        view[MIN_HEADER:header_length],
    )


def build(
    src: bytes,
    dst: bytes,
    protocol: int,
    payload: Buffer,
    *,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    dont_fragment: bool = False,
    more_fragments: bool = False,
    fragment_offset: int = 0,
    options: Buffer = b"",
) -> bytes:
    """Return a whole packet, its header's checksum filled in.

    `fragment_offset` is in octets, a multiple of 8; `options` a multiple of 4, at most 40. ValueError for what does not fit a header.
    """
    header_length = MIN_HEADER + len(options)
    total_length = header_length + len(payload)
    if header_length & 3 or header_length > MAX_HEADER:
        raise ValueError(f"IPv4 options are padded to 4 octets and at most 40: {len(options)}")
    if total_length > MAX_PACKET:
        raise ValueError(f"an IPv4 packet has at most {MAX_PACKET} octets: {total_length}")
    if fragment_offset & 7 or fragment_offset + len(payload) > MAX_PACKET:
        raise ValueError(f"not the offset of a fragment: {fragment_offset}")
    fragment = (DONT_FRAGMENT if dont_fragment else 0) | (MORE_FRAGMENTS if more_fragments else 0) | fragment_offset >> 3
    header = bytearray(HEADER.pack(0x40 | header_length >> 2, tos, total_length, ident, fragment, ttl, protocol, 0, src, dst))
    header += options
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytes(header) + payload


def fragment(packet: Buffer, mtu: int) -> list[bytes]:
    """Cut a whole, valid packet into fragments of at most mtu octets; one that fits is returned alone.

    A fragment may be cut further. ValueError where the packet is malformed or larger than the MTU with DF set.
    """
    parsed = parse(packet)
    if parsed is None:
        raise ValueError("not a valid IPv4 packet")
    if mtu < MIN_MTU:
        raise ValueError(f"an MTU is at least {MIN_MTU}: {mtu}")
    if MIN_HEADER + len(parsed.options) + len(parsed.payload) <= mtu:
        return [bytes(packet)]
    if parsed.dont_fragment:
        raise ValueError("the packet is larger than the MTU and may not be fragmented")
    fragments: list[bytes] = []
    options: Buffer = parsed.options
    start = 0
    while start < len(parsed.payload):
        size = mtu - MIN_HEADER - len(options)
        more = start + size < len(parsed.payload)
        end = start + (size & ~7) if more else len(parsed.payload)
        fragments.append(
            build(
                parsed.src,
                parsed.dst,
                parsed.protocol,
                parsed.payload[start:end],
                ttl=parsed.ttl,
                tos=parsed.tos,
                ident=parsed.ident,
                more_fragments=more or parsed.more_fragments,
                fragment_offset=parsed.fragment_offset + start,
                options=options,
            )
        )
        start = end
        options = _copied_options(parsed.options)
    return fragments


def _copied_options(options: memoryview) -> bytes:
    """Return those options that go into every fragment, padded; a malformed list is cut where it breaks (RFC 791 3.1)."""
    copied = bytearray()
    i = 0
    while i < len(options) and options[i] != _OPTION_END:
        if options[i] == _OPTION_NOP:
            i += 1
            continue
        length = options[i + 1] if i + 1 < len(options) else 0
        if length < 2 or i + length > len(options):
            break
        if options[i] & _OPTION_COPIED:
            copied += options[i : i + length]
        i += length
    copied += bytes(-len(copied) & 3)
    return bytes(copied)
