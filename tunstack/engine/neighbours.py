"""Several stacks behind one interface, each with its share of the flows: what comes to the wrong one is handed to its owner.

Who owns a flow is settled by a rule that all know (wire/steering.py), never by who saw it first: so its owner is the same before the
kernel has learnt where it belongs, after it has forgotten, and when another process has taken the owner's place. A segment that
a stack has no connection for is looked at; fragments, once whole, and ICMP errors, by what they quote, likewise: the kernel cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from tunstack.wire import icmp, ipv4
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import Segment
from tunstack.wire.steering import Steering

if TYPE_CHECKING:
    from tunstack.engine.counters import Counters

PORTS = 4  # octets at the head of a TCP segment

HandOver = Callable[[int, Segment | memoryview], bool]  # sends to a worker; False: there is no room, and it is lost as on a full link


class Neighbours:
    """The other stacks, as one of them sees them."""

    __slots__ = ("_counters", "_hand_over", "_index", "_steering")

    def __init__(self, steering: Steering, index: int, hand_over: HandOver, counters: Counters) -> None:
        """`index` is our own; `hand_over` is done with what it is given when it returns."""
        self._steering = steering
        self._index = index
        self._hand_over = hand_over
        self._counters = counters

    def is_ours(self, flow: bytes) -> bool:
        """Tell whether segments of this flow, as they come in, are for us."""
        return self._steering.owner(flow) == self._index

    def keep_ours(self, segments: list[Segment], flows: Container[bytes]) -> list[Segment]:
        """Hand over what is others', and return the rest; `flows` are those that we have."""
        return [seg for seg in segments if seg.flow in flows or not self._is_handed_over(seg, seg.flow)]

    def is_handed_over(self, packet: memoryview) -> bool:
        """Hand a whole datagram over, if it is another's: a TCP segment, or an ICMP error that quotes one. Tell whether it was."""
        flow = flow_of(packet)
        return flow is not None and self._is_handed_over(packet, flow)

    def _is_handed_over(self, item: Segment | memoryview, flow: bytes) -> bool:
        owner = self._steering.owner(flow)
        if owner == self._index:
            return False
        if isinstance(item, Segment) and item.options:
            item = as_it_came(item)
        if self._hand_over(owner, item):
            self._counters.TCPHandedOver += 1
        else:
            self._counters.IpInDiscards += 1
        return True


def as_it_came(seg: Segment) -> Segment:
    """Return a received segment that has options beyond the usual as one to be sent: a received one has all options there, see Segment."""
    return Segment(
        seg.flow,
        seg.seq,
        seg.ack,
        seg.flags,
        seg.window,
        seg.payload,
        seg.length,
        gso_size=seg.gso_size,
        options=seg.options,
        tos=seg.tos,
        urgent=seg.urgent,
        ident=seg.ident,
    )


def flow_of(packet: memoryview) -> bytes | None:
    """Return the flow of the connection that a whole datagram is for, as its segments come in; None if it is for none."""
    parsed = ipv4.parse(packet)
    if parsed is None:
        return None
    if parsed.protocol == ipv4.TCP:
        return parsed.src + parsed.dst + bytes(parsed.payload[:PORTS]) if len(parsed.payload) >= PORTS else None
    if parsed.protocol != ipv4.ICMP:
        return None
    message = icmp.parse(parsed.payload)
    quoted = icmp.parse_error(message) if message is not None and message.is_error else None
    if quoted is None or quoted.protocol != ipv4.TCP or quoted.flow is None:
        return None
    return reverse_flow(quoted.flow)
