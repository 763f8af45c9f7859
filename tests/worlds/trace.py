"""A frame in one line, as the scripts write it, sequence numbers counted from the SYNs."""

from __future__ import annotations

from collections.abc import Callable

from tunstack.seq import MASK
from tunstack.sim.script.packet import ACK, PROTO_TCP, Packet, decode, shifted


def describe(packet: bytes, iss: Callable[[bytes], int]) -> str:
    """Return the line of an IPv4 packet; `iss` tells the initial sequence number of a flow."""
    if packet[9] != PROTO_TCP:
        return f"icmp type {packet[20]} code {packet[21]}"
    try:
        decoded, _, _, _ = decode(packet)
    except ValueError as error:
        return str(error)
    flow = packet[12:24]
    ours, theirs = iss(flow), iss(flow[4:8] + flow[:4] + flow[10:12] + flow[8:10])
    relative: Packet = shifted(decoded, -ours, -theirs & MASK if decoded.flags & ACK else 0, (0, 0), sack_by=-theirs)
    return str(relative)
