"""What a signature option covers, and where it stands: TCP MD5 (RFC 2385) and TCP-AO (RFC 5925 2.2 and 5.1). No state, no keys.

A signature is made over octets as they are on the wire. A received segment has all of its option octets beside the parsed values
(`Segment.options`), since the option is not among those that are parsed; of one to be sent the octets are what `tcp.build_options` says,
to which the C extension is held. Lengths in octets.
"""

from __future__ import annotations

from typing import NamedTuple

from tunstack.wire.buffer import Buffer
from tunstack.wire.ipv4 import TCP
from tunstack.wire.segment import Segment
from tunstack.wire.tcp import END, HEADER, MIN_HEADER, NOP

MD5 = 19
MD5_LENGTH = 18
AO = 29
AO_HEADER = 4  # kind, length, KeyID, RNextKeyID; the MAC follows


class Option(NamedTuple):
    """Where a signature option stands among the option octets."""

    kind: int  # MD5, AO, or one of those below
    at: int
    length: int


NONE = Option(0, 0, 0)
INVALID = Option(-1, 0, 0)  # two of them, or options that cannot be read to their end: there is no telling what was signed


def find(options: Buffer) -> Option:
    """Return the signature option among all option octets of a segment."""
    found = NONE
    i = 0
    end = len(options)
    while i < end and options[i] != END:
        if options[i] == NOP:
            i += 1
            continue
        length = options[i + 1] if i + 1 < end else 0
        if length < 2 or i + length > end:
            return INVALID
        kind = options[i]
        if (kind == MD5 and length == MD5_LENGTH) or (kind == AO and length > AO_HEADER):
            if found is not NONE:
                return INVALID
            found = Option(kind, i, length)
        i += length
    return found


def pseudo_header(flow: bytes, length: int) -> bytes:
    """Return the pseudo-header of `length` octets of TCP (RFC 9293 3.1; RFC 8200 8.1 where addresses have 16 octets)."""
    addresses = flow[:-4]
    if len(addresses) == 8:
        return addresses + bytes((0, TCP)) + length.to_bytes(2, "big")
    return addresses + length.to_bytes(4, "big") + bytes((0, 0, 0, TCP))


def fixed_header(segment: Segment, option_octets: int) -> bytes:
    """Return the TCP header without its options, the checksum being zero."""
    flow = segment.flow
    return (
        flow[-4:]
        + HEADER.pack(
            0,
            0,
            segment.seq,
            segment.ack,
            (MIN_HEADER + option_octets) << 2 | segment.flags >> 8 & 1,
            segment.flags & 0xFF,
            segment.window,
            0,
            segment.urgent,
        )[4:]
    )
