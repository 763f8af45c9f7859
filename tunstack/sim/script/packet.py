"""Packets as scripts write them, and their octets.

RFC 791 3.1, RFC 9293 3.1, RFC 7323, RFC 2018, RFC 792. This is a second, independent reading of the formats on purpose: what the codec
builds is checked by it, octet by octet. Sequence numbers here are absolute; the runner makes them relative. Lengths in octets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))
LETTERS = (("F", FIN), ("S", SYN), ("R", RST), ("P", PSH), (".", ACK), ("U", URG), ("E", ECE), ("W", CWR), ("A", AE))
ECN_NAMES = ("noecn", "ect1", "ect0", "ce")  # by the two bits of the IPv4 header

PROTO_ICMP, PROTO_TCP = 1, 6

# An option: its name and its values, as in ("mss", 1460), ("TS", 100, 0), ("sack", 1, 1001, 2001, 3001), ("raw", b"...").
Option = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Packet:
    """A TCP packet. None: not said (what is sent), or not checked (what is expected)."""

    flags: int
    seq: int
    length: int
    ack: int | None = None
    win: int | None = None
    urg: int = 0
    options: tuple[Option, ...] | None = None
    ecn: int | None = None
    ports: tuple[int, int] | None = None  # source, destination
    gso: int = 0  # segment size of a run handled as one; 0: one packet

    def __str__(self) -> str:
        words = []
        if self.ports is not None:
            words.append(f"{self.ports[0]}>{self.ports[1]}")
        if self.ecn:
            words.append(f"[{ECN_NAMES[self.ecn]}]")
        words.append("".join(letter for letter, bit in LETTERS if self.flags & bit) or "-")
        words.append(f"{self.seq}:{self.seq + self.length}({self.length})")
        if self.ack is not None:
            words.append(f"ack {self.ack}")
        if self.win is not None:
            words.append(f"win {self.win}")
        if self.urg:
            words.append(f"urg {self.urg}")
        if self.gso:
            words.append(f"gso {self.gso}")
        if self.options is not None:
            words.append(f"<{','.join(map(format_option, self.options))}>")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP error that quotes a segment of the stack's."""

    type: int
    code: int
    mtu: int  # next-hop MTU, 0 where there is none
    seq: int  # of the segment that is quoted
    length: int

    def __str__(self) -> str:
        return f"icmp type {self.type} code {self.code} mtu {self.mtu} [{self.seq}:{self.seq + self.length}({self.length})]"


PERIOD = 65536  # octets after which the test stream repeats


@cache
def _period() -> bytes:
    return bytes((i ^ (i >> 8) * 167) & 0xFF for i in range(PERIOD))


def pattern(position: int, length: int) -> bytes:
    """Return the octets of the test stream at a position: no two stretches of it are alike for 65536 octets."""
    start = position % PERIOD
    return (_period() * ((start + length) // PERIOD + 1))[start : start + length]


# Options.

_FIXED = {"eol": b"\0", "nop": b"\1", "sackOK": b"\4\2"}


def encode_option(option: Option) -> bytes:
    """Return the octets of an option."""
    match option:
        case ("mss", int(value)):
            return struct.pack("!BBH", 2, 4, value)
        case ("wscale", int(value)):
            return struct.pack("!BBB", 3, 3, value)
        case ("TS", int(val), int(ecr)):
            return struct.pack("!BBII", 8, 10, val, ecr)
        case ("sack", *edges):
            return struct.pack(f"!BB{len(edges)}I", 5, 2 + 4 * len(edges), *edges)
        case ("raw", bytes(octets)):
            return octets
        case (str(name),) if name in _FIXED:
            return _FIXED[name]
    raise ValueError(f"no such option: {option}")


def decode_options(data: bytes) -> tuple[Option, ...]:
    """Return the options in these octets, padding included, in their order. ValueError where they are malformed."""
    options: list[Option] = []
    at = 0
    while at < len(data):
        kind = data[at]
        if kind <= 1:
            options.append(("nop" if kind else "eol",))
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        body = data[at : at + size]
        if size < 2 or len(body) < size:
            raise ValueError(f"malformed option at {at}: {data.hex()}")
        at += size
        options.append(_decode_option(kind, size, body))
    return tuple(options)


def _decode_option(kind: int, size: int, body: bytes) -> Option:
    match kind, size:
        case 2, 4:
            return ("mss", int.from_bytes(body[2:], "big"))
        case 3, 3:
            return ("wscale", body[2])
        case 4, 2:
            return ("sackOK",)
        case 8, 10:
            return ("TS", *struct.unpack_from("!II", body, 2))
        case 5, _ if size % 8 == 2:
            return ("sack", *struct.unpack_from(f"!{(size - 2) // 4}I", body, 2))
    return ("raw", body)


def format_option(option: Option) -> str:
    """Return an option as packetdrill writes it."""
    match option:
        case ("TS", val, ecr):
            return f"TS val {'*' if val is None else val} ecr {'*' if ecr is None else ecr}"
        case ("sack", *edges):
            return "sack " + " ".join(f"{left}:{right}" for left, right in zip(edges[::2], edges[1::2], strict=True))
        case ("raw", bytes(octets)):
            return f"raw {octets.hex()}"
    return " ".join(map(str, option))


# Packets.


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) >> 1}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def encode(packet: Packet, src: bytes, dst: bytes, payload: bytes) -> bytes:
    """Return the IPv4 packet. `ports` must be set."""
    assert packet.ports is not None
    options = b"".join(map(encode_option, packet.options or ()))
    options += b"\0" * (-len(options) % 4)
    header = struct.pack(
        "!HHIIHHHH",
        *packet.ports,
        packet.seq,
        packet.ack or 0,
        (20 + len(options)) >> 2 << 12 | packet.flags,
        65535 if packet.win is None else packet.win,
        0,
        packet.urg,
    )
    body = header + options + payload
    check = checksum(src + dst + struct.pack("!HH", PROTO_TCP, len(body)) + body)
    return _ipv4(src, dst, PROTO_TCP, body[:16] + struct.pack("!H", check) + body[18:], packet.ecn or 0)


def _ipv4(src: bytes, dst: bytes, proto: int, body: bytes, tos: int = 0) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(body), 0, 0x4000, 64, proto, 0) + src + dst
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def encode_icmp(icmp: Icmp, src: bytes, dst: bytes, quoted: Packet) -> bytes:
    """Return an ICMP error from `src` that quotes the first 8 octets of a segment that `dst` sent to it (RFC 792)."""
    whole = encode(quoted, dst, src, bytes(icmp.length))
    body = struct.pack("!BBHHH", icmp.type, icmp.code, 0, 0, icmp.mtu) + whole[:28]
    return _ipv4(src, dst, PROTO_ICMP, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def decode(data: bytes) -> tuple[Packet, bytes, bytes, bytes]:
    """Return (packet, payload, source, destination) of a packet that the stack sent. ValueError where it is no sound TCP packet."""
    if len(data) < 40 or data[0] != 0x45:
        raise ValueError(f"not an IPv4 packet with a plain header: {data.hex()}")
    length, _, fragment = struct.unpack_from("!HHH", data, 2)
    if length != len(data):
        raise ValueError(f"IPv4 total length {length}, {len(data)} octets sent")
    if checksum(data[:20]):
        raise ValueError("wrong IPv4 header checksum")
    if data[9] != PROTO_TCP:
        raise ValueError(f"not TCP but protocol {data[9]}: {data.hex()}")
    if fragment != 0x4000:
        raise ValueError("DF not set, or a fragment")
    src, dst, body = data[12:16], data[16:20], data[20:]
    if checksum(src + dst + struct.pack("!HH", PROTO_TCP, len(body)) + body):
        raise ValueError("wrong TCP checksum")
    sport, dport, seq, ack, offset_flags, win, _, urg = struct.unpack_from("!HHIIHHHH", body)
    offset = offset_flags >> 12 << 2
    flags = offset_flags & 0x1FF
    if not 20 <= offset <= len(body):
        raise ValueError(f"TCP header length {offset}")
    payload = body[offset:]
    packet = Packet(
        flags,
        seq,
        len(payload),
        ack if flags & ACK else None,
        win,
        urg,
        decode_options(body[20:offset]),
        data[1] & 3,
        (sport, dport),
    )
    return packet, payload, src, dst


def shifted(packet: Packet, seq_by: int, ack_by: int, ts_by: tuple[int, int], *, sack_by: int) -> Packet:
    """Return the packet with sequence numbers, acknowledgment, SACK edges and timestamps moved, modulo 2^32."""
    options = packet.options
    if options is not None:
        options = tuple(_shifted_option(option, ts_by, sack_by) for option in options)
    ack = None if packet.ack is None else (packet.ack + ack_by) & 0xFFFFFFFF
    return replace(packet, seq=(packet.seq + seq_by) & 0xFFFFFFFF, ack=ack, options=options)


def _shifted_option(option: Option, ts_by: tuple[int, int], sack_by: int) -> Option:
    match option:
        case ("TS", int(val), int(ecr)):
            return ("TS", (val + ts_by[0]) & 0xFFFFFFFF, (ecr + ts_by[1]) & 0xFFFFFFFF if ecr else 0)
        case ("sack", *edges):
            return ("sack", *((edge + sack_by) & 0xFFFFFFFF for edge in edges if isinstance(edge, int)))
    return option
