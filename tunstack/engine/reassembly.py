"""Reassembly of IPv4 fragments, bounded in octets and in time.

RFC 791 3.2, RFC 815, RFC 1122 3.3.2, RFC 3168 5.3; an overlap discards the datagram (RFC 5722's rule, which Linux has for
IPv4 too). M-08. Knows no clock and no I/O. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from tunstack.engine.counters import Counters
from tunstack.engine.sysctl import Sysctl
from tunstack.wire import ipv4
from tunstack.wire.ipv4 import Ipv4Packet

# What a held fragment may cost beside its payload: its header, the objects around it, a datagram's record. Counted, as Linux
# counts an skb's truesize, else a flood of fragments of 8 octets would hold many times ipfrag_high_thresh.
FRAGMENT_OVERHEAD = 768

ECN_MASK = 3
NOT_ECT = 0
CE = 3

Piece = tuple[int, int, memoryview]  # start, end, the payload between them


class Reassembler:
    """Collects fragments until a datagram is whole.

    Call order: `add` for each fragment to one of our addresses; `advance` when `next_deadline` has come.
    Invariants: the pieces of a datagram are sorted and disjoint; `octets` is the sum of what the datagrams cost.
    """

    def __init__(self, sysctl: Sysctl, counters: Counters) -> None:
        self.octets = 0  # held, all datagrams together; at most sysctl.ipfrag_high_thresh
        self._sysctl = sysctl
        self._counters = counters
        self._datagrams: dict[tuple[bytes, bytes, int, int], _Datagram] = {}  # RFC 791's buffer identifier; in order of creation

    def add(self, packet: memoryview, now: int) -> bytes | None:
        """Take a fragment (copied); return the whole datagram that it completes, if it does."""
        fragment = ipv4.parse(bytes(packet))
        if fragment is None:
            return None
        counters = self._counters
        counters.IpReasmReqds += 1
        start = fragment.fragment_offset
        payload = fragment.payload
        if fragment.more_fragments:
            payload = payload[: len(payload) & ~7]  # as Linux does: what follows begins at a multiple of 8
        end = start + len(payload)
        key = (fragment.src, fragment.dst, fragment.protocol, fragment.ident)
        datagram = self._datagrams.get(key)
        cost = len(payload) + FRAGMENT_OVERHEAD
        if self.octets + cost > self._sysctl.ipfrag_high_thresh:
            counters.IpReasmFails += 1
            return None
        if datagram is None:
            datagram = self._datagrams[key] = _Datagram(now)
        if not datagram.may_hold(start, end, fragment.more_fragments):
            self._discard(key)
            return None
        i = bisect_right(datagram.pieces, start, key=_piece_start)
        if i and datagram.pieces[i - 1][1] > start:
            i -= 1
        if i < len(datagram.pieces) and datagram.pieces[i][0] < end:
            if not datagram.is_covered(i, start, end):
                counters.IpExtReasmOverlaps += 1
                self._discard(key)
            return None  # a duplicate: what came first stays
        datagram.pieces.insert(i, (start, end, payload))
        datagram.note(fragment, end)
        datagram.cost += cost
        self.octets += cost
        if datagram.held != datagram.total:
            return None
        self._forget(key)
        whole = datagram.join()
        if whole is None:
            counters.IpReasmFails += 1
        else:
            counters.IpReasmOKs += 1
        return whole

    def advance(self, now: int) -> list[bytes]:
        """Give up datagrams that were begun `ipfrag_time` ago; return the first fragments of those that have one.

        For each of them an ICMP time exceeded is due (RFC 792, RFC 1122 3.3.2: "fragment zero" only).
        """
        first_fragments: list[bytes] = []
        timeout = self._sysctl.ipfrag_time * 1_000_000
        while self._datagrams:
            key, datagram = next(iter(self._datagrams.items()))
            if now - datagram.begun_at < timeout:
                break
            self._counters.IpReasmTimeout += 1
            self._discard(key)
            if datagram.first is not None:
                first_fragments.append(_packet(datagram.first))
        return first_fragments

    def next_deadline(self) -> int | None:
        """Return when `advance` is to be called, None if nothing is held."""
        for datagram in self._datagrams.values():
            return datagram.begun_at + self._sysctl.ipfrag_time * 1_000_000
        return None

    def _discard(self, key: tuple[bytes, bytes, int, int]) -> None:
        self._counters.IpReasmFails += 1
        self._forget(key)

    def _forget(self, key: tuple[bytes, bytes, int, int]) -> None:
        self.octets -= self._datagrams.pop(key).cost


class _Datagram:
    """One datagram on the way to being whole. `held` is the sum of its pieces, `total` the length of its payload once known."""

    __slots__ = ("begun_at", "cost", "ecn_seen", "first", "held", "pieces", "reached", "total")

    def __init__(self, now: int) -> None:
        self.begun_at = now  # when its first fragment came, whichever that was
        self.cost = 0  # octets that it holds of the limit
        self.ecn_seen = 0  # bit set of the ECN fields of its fragments
        self.first: Ipv4Packet | None = None  # fragment zero, whose header is the datagram's
        self.held = 0  # octets of payload held
        self.pieces: list[Piece] = []
        self.reached = 0  # the largest end of a piece
        self.total: int | None = None  # where the last fragment ends

    def may_hold(self, start: int, end: int, more_fragments: bool) -> bool:
        """Tell whether a fragment is consistent with the others: not empty, not beyond the end, and the end does not move."""
        if start == end or end > ipv4.MAX_PACKET - ipv4.MIN_HEADER:
            return False
        if more_fragments:
            return self.total is None or end <= self.total
        return end >= self.reached and self.total in (None, end)

    def is_covered(self, i: int, start: int, end: int) -> bool:
        """Tell whether the pieces from i on hold all of [start, end)."""
        while i < len(self.pieces) and self.pieces[i][0] <= start < end:
            start = self.pieces[i][1]
            i += 1
        return start >= end

    def note(self, fragment: Ipv4Packet, end: int) -> None:
        """Keep what a fragment that was just inserted says about the datagram."""
        self.held += end - fragment.fragment_offset
        self.reached = max(self.reached, end)
        self.ecn_seen |= 1 << (fragment.tos & ECN_MASK)
        if not fragment.more_fragments:
            self.total = end
        if not fragment.fragment_offset:
            self.first = fragment

    def join(self) -> bytes | None:
        """Return the whole datagram; None if it is too long, or if its fragments disagree on ECN capability (RFC 3168 5.3)."""
        header = self.first
        assert header is not None
        tos = header.tos
        if self.ecn_seen & (1 << CE):
            tos |= CE
        if self.ecn_seen & (1 << NOT_ECT) and self.ecn_seen != 1 << NOT_ECT:
            return None
        payload = b"".join(piece[2] for piece in self.pieces)
        if ipv4.MIN_HEADER + len(header.options) + len(payload) > ipv4.MAX_PACKET:
            return None
        whole = replace(header, payload=memoryview(payload), tos=tos, more_fragments=False)
        return _packet(whole)


def _packet(packet: Ipv4Packet) -> bytes:
    """Return the octets of a packet that begins a datagram. DF is not kept: it has no meaning in what was fragmented."""
    return ipv4.build(
        packet.src,
        packet.dst,
        packet.protocol,
        packet.payload,
        ttl=packet.ttl,
        tos=packet.tos,
        ident=packet.ident,
        more_fragments=packet.more_fragments,
        options=packet.options,
    )


def _piece_start(piece: Piece) -> int:
    return piece[0]
