"""Addresses and flow keys: who talks to whom, as octets.

An address is its packed form: 4 octets are IPv4, 16 will be IPv6; the length is the family.
A flow is source address, destination address, source port and destination port as they stand
in the packet, packed together (12 octets for IPv4). A packet's flow is what it is looked up by,
and a connection's own flow is copied into every header that it sends.
RFC 9293 3.3.1.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

ANY_IPV4 = b"\0\0\0\0"


def pack_address(text: str) -> bytes:
    """Return the packed form of a dotted address; ValueError if it is none."""
    try:
        return IPv4Address(text).packed
    except AddressValueError as error:
        raise ValueError(f"not an IPv4 address: {text!r}") from error


def format_address(address: bytes) -> str:
    """Return the dotted form of a packed address."""
    return ".".join(map(str, address))


def pack_flow(src: bytes, sport: int, dst: bytes, dport: int) -> bytes:
    """Return the flow of packets from (src, sport) to (dst, dport)."""
    return src + dst + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")


def unpack_flow(flow: bytes) -> tuple[bytes, int, bytes, int]:
    """Return (src, sport, dst, dport)."""
    n = (len(flow) - 4) >> 1
    return (
        flow[:n],
        int.from_bytes(flow[-4:-2], "big"),
        flow[n : 2 * n],
        int.from_bytes(flow[-2:], "big"),
    )


def source(flow: bytes) -> bytes:
    """Return the source address."""
    return flow[: (len(flow) - 4) >> 1]


def reverse_flow(flow: bytes) -> bytes:
    """Return the flow of the packets in the other direction."""
    n = (len(flow) - 4) >> 1
    return flow[n : 2 * n] + flow[:n] + flow[-2:] + flow[-4:-2]
