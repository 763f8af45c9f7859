"""The ICMP of an end host: echo replies, errors about what nobody here takes, and errors that come back for our TCP.

RFC 792, RFC 1122 3.2.2 and 4.2.3.9, RFC 1191, RFC 1812 4.3.2.8 (rate limit), RFC 5927. M-07, M-08. Knows no clock and no I/O.
Times are int microseconds, lengths octets.
"""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass

from tunstack.engine.config import Random, StackConfig
from tunstack.engine.counters import Counters
from tunstack.engine.ident import IdentSource
from tunstack.engine.ratelimit import IcmpRateLimit
from tunstack.wire import icmp, ipv4
from tunstack.wire.buffer import Buffer
from tunstack.wire.checksum import checksum
from tunstack.wire.ipv4 import Ipv4Packet

# Replies that wait for the device, octets. More than a batch of pings brings; a device that takes none is no reason to hold more.
OUTPUT_MAX = 1 << 20

TOS_INTERNETWORK_CONTROL = 0xC0  # RFC 1812 4.3.2.5: the precedence of ICMP errors
ECN_MASK = 3
UDP_HEADER_LENGTH = 8

# What a socket sees of destination unreachable, by code, and whether the error is hard: that is, final in RFC 1122's view
# (3.2.2.1, 4.2.3.9) and Linux's. The codes above 5 are those of RFC 1122 3.2.2.1 and RFC 1812 5.2.7.1.
UNREACHABLE: dict[int, tuple[int, bool]] = {
    0: (errno.ENETUNREACH, False),  # network
    1: (errno.EHOSTUNREACH, False),  # host
    2: (errno.ENOPROTOOPT, True),  # protocol
    3: (errno.ECONNREFUSED, True),  # port
    4: (errno.EMSGSIZE, False),  # fragmentation needed: path MTU discovery makes it soft
    5: (errno.EOPNOTSUPP, False),  # source route failed
    6: (errno.ENETUNREACH, True),  # network unknown
    7: (errno.EHOSTDOWN, True),  # host unknown
    8: (errno.ENONET, True),  # source host isolated
    9: (errno.ENETUNREACH, True),  # network prohibited
    10: (errno.EHOSTUNREACH, True),  # host prohibited
    11: (errno.ENETUNREACH, False),  # network, for this type of service
    12: (errno.EHOSTUNREACH, False),  # host, for this type of service
    13: (errno.EHOSTUNREACH, True),  # communication prohibited
    14: (errno.EHOSTUNREACH, True),  # host precedence violation
    15: (errno.EHOSTUNREACH, True),  # precedence cutoff
}
ENDS_HALF_OPEN = frozenset((0, 1))  # codes of destination unreachable: network, host

# What is counted and nothing else, by type.
IGNORED = {
    0: "IcmpInEchoReps",
    4: "IcmpInSrcQuenchs",
    5: "IcmpInRedirects",
    13: "IcmpInTimestamps",
    14: "IcmpInTimestampReps",
    17: "IcmpInAddrMasks",
    18: "IcmpInAddrMaskReps",
}

# RFC 1191 7: the path MTU to try where a router does not say its own.
PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)


@dataclass(frozen=True, slots=True)
class PathError:
    """An ICMP error about a TCP segment that, by its quote, is one of ours.

    Anybody may have sent it: believe it only of a connection for which snd_una <= seq < snd_nxt (RFC 5927 4.1), and count the
    others (`OutOfWindowIcmps`). Any error but that of path MTU discovery ends a connection that is in SYN-SENT, or came from there
    to SYN-RECEIVED, as in Linux; in the synchronized states every error is a hint that is kept for the day that the connection
    times out (RFC 5461, RFC 5927 5.2).
    """

    flow: bytes  # of the quoted segment: the connection's own (flow.py)
    seq: int  # SEG.SEQ of the quoted segment
    errno: int
    is_hard: bool
    mtu: int  # largest packet that the path takes, if it is fragmentation needed; else 0
    ends_half_open: bool = False  # a connection in SYN-RECEIVED by a peer's SYN is dropped for it (Linux: not for the others)


class IcmpHandler:
    """Takes the datagrams that are not TCP.

    Call order: `receive` for each whole datagram, `time_exceeded` for what `Reassembler.advance` gave up; then `poll_transmit`
    until it returns None.
    """

    def __init__(self, config: StackConfig, counters: Counters, random: Random) -> None:
        self._config = config
        self._sysctl = config.sysctl
        self._counters = counters
        self._ident = IdentSource(random)
        self._addresses = frozenset(config.addresses)
        self._limit = IcmpRateLimit(config.sysctl, counters)
        self.output: deque[bytes] = deque()  # packets, cut to the MTU
        self._output_octets = 0  # their sum

    def receive(self, packet: Buffer, now: int) -> PathError | None:
        """Handle a whole datagram other than TCP; return the error that it brings for a connection, if it does.

        The packet is borrowed for the length of the call; its IPv4 header was checked.
        """
        datagram = ipv4.parse(packet)
        if datagram is None:
            self._counters.IpInHdrErrors += 1
            return None
        # A host takes what is addressed to it, not what is for a group or everybody (RFC 1122 3.2.1.3, 3.2.2.6 for echo), and
        # answers none but a single other host. After this, no error can go to or be about a broadcast (RFC 1122 3.2.2).
        if datagram.dst not in self._addresses or datagram.src in self._addresses or not is_host(datagram.src):
            self._counters.IpInAddrErrors += 1
            return None
        assert not datagram.is_fragment
        if datagram.protocol == ipv4.ICMP:
            return self._receive_icmp(datagram, now)
        if datagram.protocol == ipv4.UDP:
            if self._is_udp_sound(datagram):
                self._counters.UdpNoPorts += 1
                self._send_error(datagram, icmp.destination_unreachable(icmp.PORT_UNREACHABLE, packet), now)
        else:
            self._counters.IpInUnknownProtos += 1
            self._send_error(datagram, icmp.destination_unreachable(icmp.PROTOCOL_UNREACHABLE, packet), now)
        return None

    def time_exceeded(self, first_fragment: Buffer, now: int) -> None:
        """Report that a datagram did not become whole, quoting its fragment zero."""
        fragment = ipv4.parse(first_fragment)
        if fragment is None or fragment.dst not in self._addresses or fragment.src in self._addresses or not is_host(fragment.src):
            return
        if fragment.protocol == ipv4.ICMP and fragment.payload[0] in icmp.ERRORS:  # RFC 1122 3.2.2: no error about an error
            return
        self._send_error(fragment, icmp.time_exceeded(icmp.REASSEMBLY_TIME_EXCEEDED, first_fragment), now)

    def poll_transmit(self) -> bytes | None:
        """Return the next packet to send, None if there is none."""
        if not self.output:
            return None
        packet = self.output.popleft()
        self._output_octets -= len(packet)
        return packet

    def _receive_icmp(self, datagram: Ipv4Packet, now: int) -> PathError | None:
        counters = self._counters
        counters.IcmpInMsgs += 1
        message = icmp.parse(datagram.payload)
        if message is None:
            counters.IcmpInErrors += 1
            if len(datagram.payload) >= icmp.HEADER_LENGTH:
                counters.IcmpInCsumErrors += 1
            return None
        if message.type == icmp.ECHO_REQUEST:
            counters.IcmpInEchos += 1
            # Deviates: record-route and timestamp options are not returned (RFC 1122 3.2.2.6, a SHOULD); options are ignored.
            if not self._sysctl.icmp_echo_ignore_all:
                counters.IcmpOutEchoReps += 1
                self._send(datagram, datagram.tos, icmp.echo_reply(message), now)
        elif message.type == icmp.DESTINATION_UNREACHABLE:
            counters.IcmpInDestUnreachs += 1
            return self._path_error(datagram, message)
        elif message.type == icmp.TIME_EXCEEDED:
            counters.IcmpInTimeExcds += 1
            return self._path_error(datagram, message)
        elif message.type == icmp.PARAMETER_PROBLEM:
            counters.IcmpInParmProbs += 1
            return self._path_error(datagram, message)
        # The others are for us to ignore: source quench (RFC 6633), redirects (there is one way out), replies that nobody waits for.
        elif message.type in IGNORED:
            name = IGNORED[message.type]
            setattr(counters, name, getattr(counters, name) + 1)
        return None

    def _path_error(self, datagram: Ipv4Packet, message: icmp.IcmpMessage) -> PathError | None:
        quote = icmp.parse_error(message)
        if quote is None or quote.src != datagram.dst:  # what it is about was not sent by the one whom it was sent to
            self._counters.IcmpInErrors += 1
            return None
        if quote.protocol != ipv4.TCP or quote.flow is None or quote.seq is None:
            return None
        if message.type == icmp.TIME_EXCEEDED:
            if message.code == icmp.REASSEMBLY_TIME_EXCEEDED:  # a fragment was lost, and we send none: Linux ignores it, too
                return None
            return PathError(quote.flow, quote.seq, errno.EHOSTUNREACH, False, 0, True)
        if message.type == icmp.PARAMETER_PROBLEM:
            return PathError(quote.flow, quote.seq, errno.EPROTO, True, 0, True)
        if message.code not in UNREACHABLE:
            self._counters.IcmpInErrors += 1
            return None
        number, is_hard = UNREACHABLE[message.code]
        mtu = 0
        if message.code == icmp.FRAGMENTATION_NEEDED:
            mtu = quote.next_hop_mtu or plateau_below(quote.total_length)
        return PathError(quote.flow, quote.seq, number, is_hard, mtu, message.code in ENDS_HALF_OPEN)

    def _is_udp_sound(self, datagram: Ipv4Packet) -> bool:
        """Check the length and, where there is one, the checksum (RFC 768, RFC 1122 4.1.3.4)."""
        payload = datagram.payload
        length = int.from_bytes(payload[4:6], "big")
        if not UDP_HEADER_LENGTH <= length <= len(payload):
            self._counters.UdpInErrors += 1
            return False
        if not any(payload[6:8]):
            return True
        pseudo_header = datagram.src + datagram.dst + bytes((0, ipv4.UDP)) + payload[4:6]
        if checksum(pseudo_header + bytes(payload[:length])):
            self._counters.UdpInErrors += 1
            self._counters.UdpInCsumErrors += 1
            return False
        return True

    def _send_error(self, offending: Ipv4Packet, message: bytes, now: int) -> None:
        if not self._limit.allow(offending.src, now):
            return
        if message[0] == icmp.TIME_EXCEEDED:
            self._counters.IcmpOutTimeExcds += 1
        else:
            self._counters.IcmpOutDestUnreachs += 1
        self._send(offending, offending.tos & ~ECN_MASK | TOS_INTERNETWORK_CONTROL, message, now)

    def _send(self, to: Ipv4Packet, tos: int, message: bytes, now: int) -> None:
        """Queue a message to the sender of a packet, from the address that this was sent to (RFC 1122 3.2.2)."""
        packet = ipv4.build(
            to.dst,
            to.src,
            ipv4.ICMP,
            message,
            ttl=self._sysctl.ip_default_ttl,
            tos=tos,
            ident=self._ident.next(to.dst, to.src, ipv4.ICMP, now),
        )
        fragments = ipv4.fragment(packet, self._config.mtu)
        octets = sum(map(len, fragments))
        if self._output_octets + octets > OUTPUT_MAX:
            self._counters.IcmpOutErrors += 1
            return
        self._counters.IcmpOutMsgs += 1
        self._counters.IpOutRequests += 1
        if len(fragments) > 1:
            self._counters.IpFragOKs += 1
            self._counters.IpFragCreates += len(fragments)
        self.output.extend(fragments)
        self._output_octets += octets


def is_host(address: bytes) -> bool:
    """Tell whether an IPv4 address can be that of a single other machine (RFC 1122 3.2.1.3, RFC 6890)."""
    return address[0] not in (0, 127) and address[0] < 224


def plateau_below(length: int) -> int:
    """Return the next lower common MTU (RFC 1191 5 and 7)."""
    for plateau in PLATEAUS:
        if plateau < length:
            return plateau
    return PLATEAUS[-1]
