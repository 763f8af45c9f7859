"""ICMP messages: echo, destination unreachable, time exceeded; what an error quotes.

RFC 792, RFC 1122 3.2.2, RFC 1191 4 (next-hop MTU), RFC 1812 4.3.2.3 (how much to quote). No state, no rate limit:
when an error may be sent, and what a received one means, is for the engine to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from tunstack.wire.buffer import Buffer
from tunstack.wire.checksum import checksum
from tunstack.wire.ipv4 import HEADER, MIN_HEADER, OFFSET_MASK, TCP, UDP

ECHO_REPLY = 0
DESTINATION_UNREACHABLE = 3
SOURCE_QUENCH = 4
REDIRECT = 5
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12

ERRORS = frozenset((DESTINATION_UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM))  # RFC 1122 3.2.2

# codes of DESTINATION_UNREACHABLE
NET_UNREACHABLE = 0
HOST_UNREACHABLE = 1
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
SOURCE_ROUTE_FAILED = 5
ADMINISTRATIVELY_PROHIBITED = 13

# codes of TIME_EXCEEDED
TTL_EXCEEDED = 0
REASSEMBLY_TIME_EXCEEDED = 1

HEADER_LENGTH = 8
MAX_QUOTE = 576 - MIN_HEADER - HEADER_LENGTH  # RFC 1812 4.3.2.3: the whole error packet has at most 576 octets

_HEADER = Struct("!BBHHH")  # type, code, checksum, two words whose meaning the type decides
_PORTS_AND_SEQ = Struct("!4sI")


@dataclass(frozen=True, slots=True)
class IcmpMessage:
    """One ICMP message, its checksum right. `body` views the buffer that was parsed and is borrowed like it."""

    type: int
    code: int
    word1: int  # the identifier of an echo
    word2: int  # the sequence number of an echo, the next-hop MTU of FRAGMENTATION_NEEDED
    body: memoryview

    @property
    def is_error(self) -> bool:
        """Tell whether this reports an error; such a message is never answered with another (RFC 1122 3.2.2)."""
        return self.type in ERRORS


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error and what it quotes of the packet that it is about: a packet of ours, if it is not forged."""

    type: int
    code: int
    next_hop_mtu: int  # of FRAGMENTATION_NEEDED; 0 from routers older than RFC 1191, and in other errors
    protocol: int  # of the quoted packet
    src: bytes
    dst: bytes
    total_length: int  # of the quoted packet as its header has it
    flow: bytes | None  # of the quoted TCP or UDP packet, as in the packet (ours: source is we); None where no ports are quoted
    seq: int | None  # SEG.SEQ of the quoted TCP segment


def parse(data: Buffer) -> IcmpMessage | None:
    """Return the message in the payload of an IPv4 packet; None where it is truncated or its checksum is wrong."""
    view = memoryview(data)
    if len(view) < HEADER_LENGTH or checksum(view):
        return None
    kind, code, _, word1, word2 = _HEADER.unpack_from(view)
    return IcmpMessage(kind, code, word1, word2, view[HEADER_LENGTH:])


def build(kind: int, code: int, word1: int, word2: int, body: Buffer) -> bytes:
    """Return a message, the payload of an IPv4 packet, its checksum filled in."""
    message = bytearray(_HEADER.pack(kind, code, 0, word1, word2))
    message += body
    message[2:4] = checksum(message).to_bytes(2, "big")
    return bytes(message)


def echo_request(ident: int, seq: int, body: Buffer = b"") -> bytes:
    """Return an echo request."""
    return build(ECHO_REQUEST, 0, ident, seq, body)


def echo_reply(request: IcmpMessage) -> bytes:
    """Return the answer to an echo request: its identifier, sequence number and data (RFC 1122 3.2.2.6); its code, too, as Linux does."""
    return build(ECHO_REPLY, request.code, request.word1, request.word2, request.body)


def destination_unreachable(code: int, packet: Buffer, next_hop_mtu: int = 0) -> bytes:
    """Return the error about an IPv4 packet, which is quoted as far as it fits 576 octets; the MTU is for FRAGMENTATION_NEEDED."""
    return build(DESTINATION_UNREACHABLE, code, 0, next_hop_mtu, memoryview(packet)[:MAX_QUOTE])


def time_exceeded(code: int, packet: Buffer) -> bytes:
    """Return the error about an IPv4 packet, or about the first fragment of a datagram."""
    return build(TIME_EXCEEDED, code, 0, 0, memoryview(packet)[:MAX_QUOTE])


def parse_error(message: IcmpMessage) -> IcmpError | None:
    """Return what an error is about; None where it is no error, or quotes no IPv4 header.

    A quoted packet is mostly cut short, and its header may have changed on the way, so lengths and checksums are not checked
    (RFC 5927 4.1: what makes an error credible is the sequence number, and the engine knows it).
    """
    quoted = message.body
    if not message.is_error or len(quoted) < MIN_HEADER:
        return None
    version_ihl, _, total_length, _, fragment, _, protocol, _, src, dst = HEADER.unpack_from(quoted)
    header_length = (version_ihl & 0xF) * 4
    if version_ihl >> 4 != 4 or header_length < MIN_HEADER:
        return None
    flow: bytes | None = None
    seq: int | None = None
    # RFC 792: at least 8 octets after the header are quoted; only the first fragment begins with the ports
    if protocol in (TCP, UDP) and not fragment & OFFSET_MASK and len(quoted) >= header_length + 8:
        ports, word = _PORTS_AND_SEQ.unpack_from(quoted, header_length)
        flow = src + dst + ports
        seq = word if protocol == TCP else None
    needed = message.type == DESTINATION_UNREACHABLE and message.code == FRAGMENTATION_NEEDED
    return IcmpError(message.type, message.code, message.word2 if needed else 0, protocol, src, dst, total_length, flow, seq)
