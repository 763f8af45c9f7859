"""IPv4 datagrams that are not one TCP segment each: fragments, ICMP, and what protocols that we do not have are answered.

RFC 791 3.2, RFC 792, RFC 5927 4.1. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ecn
from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.icmp import IcmpHandler, PathError
from tunstack.engine.reassembly import Reassembler
from tunstack.engine.state import SYN_RECEIVED
from tunstack.seq import seq_ge, seq_lt
from tunstack.wire import codec, ipv4
from tunstack.wire.flow import reverse_flow

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack


class Datagrams:
    """The little of IP that an endpoint needs, for one stack."""

    __slots__ = ("_addresses", "_icmp", "_reassembler", "_stack", "output")

    def __init__(self, stack: Stack, config: StackConfig) -> None:
        self._stack = stack
        self._addresses = frozenset(config.addresses)
        self._reassembler = Reassembler(config.sysctl, stack.counters)
        self._icmp = IcmpHandler(config, stack.counters, stack.random)
        self.output = self._icmp.output  # what `poll_transmit` has

    def poll_transmit(self) -> bytes | None:
        """Return the next packet to send, None when there is nothing."""
        return self._icmp.poll_transmit()

    def next_deadline(self) -> int | None:
        """Return when the oldest fragments are given up, None if there are none."""
        return self._reassembler.next_deadline()

    def advance(self, now: int) -> None:
        """Give up the datagrams whose fragments did not all come in time."""
        for fragment in self._reassembler.advance(now):
            self._icmp.time_exceeded(fragment, now)

    def receive(self, packet: memoryview, now: int) -> None:
        """Handle a fragment, or a datagram other than TCP."""
        stack = self._stack
        counters = stack.counters
        parsed = ipv4.parse(packet)
        if parsed is None:
            counters.IpInHdrErrors += 1
            return
        neighbours = stack.neighbours
        if neighbours is not None and not parsed.is_fragment and neighbours.is_handed_over(packet):
            counters.IpInReceives -= 1  # its owner counts it
            return
        ecn.count_mark(counters, parsed.tos, 1)
        if parsed.dst not in self._addresses:
            counters.IpInAddrErrors += 1
            return
        if parsed.is_fragment:
            whole = self._reassembler.add(packet, now)
            if whole is None:
                return
            packet = memoryview(whole)
            if neighbours is not None and neighbours.is_handed_over(packet):
                return
        counters.IpInDelivers += 1
        if parsed.protocol == ipv4.TCP:
            seg = codec.parse_datagram(packet)
            counters.TcpInSegs += 1
            if seg is None:
                counters.TcpInErrs += 1
            else:
                stack.receive_reassembled(seg, now)
            return
        error = self._icmp.receive(packet, now)
        if error is not None:
            self._on_path_error(error, now)
        if self.output and stack.on_dirty is not None:
            stack.on_dirty()

    def _on_path_error(self, error: PathError, now: int) -> None:
        """An ICMP error about a segment: believed only if it is in flight (RFC 5927 4.1)."""
        stack = self._stack
        owner = stack.flows.get(reverse_flow(error.flow))
        if owner is None:
            stack.counters.IcmpInErrors += 1
            return
        if isinstance(owner, Connection):
            oldest = owner.tx.iss if owner.state is SYN_RECEIVED else owner.tx.snd_una  # Fast Open's SYN-ACK is before snd_una
            if not (seq_ge(error.seq, oldest) and seq_lt(error.seq, owner.tx.snd_nxt)):
                stack.counters.OutOfWindowIcmps += 1
                return
        if stack.signing is None or not stack.signing.ignores(error, owner):
            owner.on_icmp(error, now)
