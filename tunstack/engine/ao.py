"""The TCP Authentication Option: one connection's signer.

RFC 5925: traffic keys (5.2), the MAC (5.1), sequence number extensions (6.2), which key is in use and how both ends go over to another
(6.1, 7.3 to 7.5). ISNs are read off the SYNs that pass, in either direction: the signer needs nothing of the connection, and serves the
half-open connection, the connection and its TIME-WAIT alike.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from tunstack.engine.mac import MAC_LENGTH, Mac, make_mac, traffic_key
from tunstack.engine.signing import attach
from tunstack.seq import HALF, MASK
from tunstack.wire import signed
from tunstack.wire.buffer import Buffer
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.counters import Counters
    from tunstack.engine.keys import Key, KeyChain

OPTION_LENGTH = signed.AO_HEADER + MAC_LENGTH  # a multiple of 4: it needs no padding
_BLANK = bytes(MAC_LENGTH)


class Extended:
    """A sequence number that does not wrap: the highest that passed, with its extension in the upper 32 bits (RFC 5925 6.2)."""

    __slots__ = ("highest",)

    def __init__(self, isn: int) -> None:
        self.highest = isn

    def place(self, seq: int) -> int:
        """Return where a sequence number stands, less than half the space from the highest."""
        ahead = (seq - self.highest) & MASK
        return self.highest + (ahead if ahead < HALF else ahead - MASK - 1)


class AoSigner:
    """Signs what leaves under the current key, and judges what comes by the key that it names.

    `iss` and `irs` are what the keys are derived from; the peer's is None until its SYN or SYN-ACK came. A key that was taken out of the
    chain accepts nothing any more; the connection goes on to sign with it until there is another.
    """

    __slots__ = (
        "_counters",
        "_current",
        "_flow",
        "_flow_in",
        "_keys",
        "_peer",
        "_ports",
        "_received_macs",
        "_rnext",
        "_sent_mac",
        "_version",
        "bad",
        "chain",
        "good",
        "icmps_dropped",
        "irs",
        "iss",
        "key_not_found",
        "received",
        "required",
        "sent",
    )

    is_ao = True
    octets = OPTION_LENGTH  # of options in every segment

    def __init__(
        self, chain: KeyChain, flow: bytes, peer: bytes, ports: tuple[int, int], iss: int, irs: int | None, counters: Counters
    ) -> None:
        self.chain = chain
        self.iss = iss
        self.irs = irs
        self.sent = Extended(iss)
        self.received = Extended(irs or 0)
        self._flow = flow  # of what we send
        self._flow_in = reverse_flow(flow)
        self._peer = peer
        self._ports = ports
        self._counters = counters
        self._version = -1  # of the chain, when `_keys` were looked up
        self._keys: tuple[Key, ...] = ()  # those for this connection
        self._current: Key | None = None  # current_key: we sign with it
        self._rnext: Key | None = None  # rnext_key, where somebody chose it: what the peer shall sign with
        self._sent_mac: tuple[Key, Mac] | None = None  # under Send_other_traffic_key of the key that was used last
        self._received_macs: dict[int, tuple[Key, Mac]] = {}  # likewise under Receive_other_traffic_key, by RecvID
        # TCP_AO_INFO's counters.
        self.good = self.bad = self.key_not_found = self.required = self.icmps_dropped = 0

    # Keys.

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the chain that are for this connection."""
        if self._version != self.chain.version:
            self._version = self.chain.version
            self._keys = tuple(key for key in self.chain.matching(self._peer, self._ports) if key.is_ao)
            self._received_macs.clear()
            if self._rnext not in self._keys:
                self._rnext = None
        return self._keys

    def current(self, now: int) -> Key | None:
        """Return the key to sign with: the one in use as long as it may be, then the one whose time began last."""
        key = self._current
        keys = self.keys
        if key is None or key not in keys or not key.send.has(now):
            usable = [each for each in keys if each.send.has(now)]
            if usable:
                self._current = key = max(usable, key=lambda each: each.send.begin)  # of several the first
        return key

    def rnext(self, now: int) -> Key | None:
        """Return the key that the peer is asked to sign with: the one that was chosen, else the one whose time began last."""
        keys = self.keys
        if self._rnext is not None and self._rnext.accept.has(now):
            return self._rnext
        usable = [each for each in keys if each.accept.has(now) and each.send.begin <= now]
        return max(usable, key=lambda each: each.send.begin) if usable else None

    def forget_keys(self) -> None:
        """The chain is another one: look for the keys anew."""
        self._version = -1

    def renew(self, other: AoSigner) -> None:
        """The keys, and the one in use, are those of another signer now; the ISNs are still our own."""
        self.chain = other.chain
        self._current = other._current
        self.forget_keys()

    def choose(self, current: int | None, rnext: int | None) -> bool:
        """Sign with the key that has this SendID, ask for the one with this RecvID (None: as it is); False if there is no such key."""
        by_send = next((key for key in self.keys if key.send_id == current), None)
        by_recv = next((key for key in self.keys if key.recv_id == rnext), None)
        if (current is not None and by_send is None) or (rnext is not None and by_recv is None):
            return False
        self._current = by_send or self._current
        self._rnext = by_recv or self._rnext
        return True

    def _learn(self, iss: int, irs: int | None) -> None:
        """The connection's ISNs are these: all keys are others if they were not."""
        if (iss, irs) != (self.iss, self.irs):
            self.iss, self.irs = iss, irs
            self.sent = Extended(iss)
            self.received = Extended(irs or 0)
            self._sent_mac = None
            self._received_macs.clear()

    def _mac_of_sent(self, key: Key) -> Mac:
        if self._sent_mac is None or self._sent_mac[0] is not key:
            self._sent_mac = key, self._derive(key, True, self.iss, self.irs or 0)
        return self._sent_mac[1]

    def _mac_of_received(self, key: Key) -> Mac:
        known = self._received_macs.get(key.recv_id)
        if known is None or known[0] is not key:  # a key of a shorter prefix may have the same id, and outlive it
            known = self._received_macs[key.recv_id] = key, self._derive(key, False, self.irs or 0, self.iss)
        return known[1]

    def _derive(self, key: Key, is_sent: bool, source_isn: int, destination_isn: int) -> Mac:
        context = (self._flow if is_sent else self._flow_in) + source_isn.to_bytes(4, "big") + destination_isn.to_bytes(4, "big")
        return make_mac(key.algorithm, traffic_key(key.algorithm, key.secret, context))

    # Segments.

    def sign(self, seg: Segment, now: int) -> None:
        """Put the option into a segment that leaves."""
        key = self.current(now)
        wanted = self.rnext(now)
        if key is None:  # all keys are still to come: what is not signed no peer will take
            return
        flags = seg.flags & (SYN | ACK)
        if flags == SYN:
            if seg.seq != self.iss:
                self._learn(seg.seq, None)
            mac = self._derive(key, True, seg.seq, 0)
        else:
            if flags == SYN | ACK:
                self._learn(seg.seq, (seg.ack - 1) & MASK)
            mac = self._mac_of_sent(key)
        place = self.sent.place(seg.seq)
        self.sent.highest = max(self.sent.highest, place)
        head = bytes((signed.AO, OPTION_LENGTH, key.send_id, (wanted or key).recv_id))
        options = attach(seg, head + _BLANK)
        tag = mac.tag(message(seg, options, len(options) - OPTION_LENGTH, place >> 32 & MASK, key.covers_options))
        seg.options = seg.options[:-MAC_LENGTH] + tag[:MAC_LENGTH]

    def admits(self, seg: Segment, option: signed.Option, now: int) -> bool:
        """Whether a segment has the right MAC; counts, and takes over the key that the peer asks for."""
        counters = self._counters
        if option.kind != signed.AO:
            if option.kind == signed.MD5:
                counters.TCPMD5Unexpected += 1
            else:
                counters.TCPAORequired += 1
                self.required += 1
            return False
        options = seg.options
        recv_id, send_id = options[option.at + 2], options[option.at + 3]
        key = next((key for key in self.keys if key.recv_id == recv_id and key.accept.has(now)), None)
        if key is None:
            counters.TCPAOKeyNotFound += 1
            self.key_not_found += 1
            return False
        if option.length != OPTION_LENGTH:
            return self._refuse()
        place = seg.seq
        if seg.flags & SYN:
            mac = self._derive(key, False, seg.seq, self.iss if seg.flags & ACK else 0)
        elif self.irs is None:  # in SYN_SENT a RST may come: of one who has no ISN but what its segment says
            mac = self._derive(key, False, seg.seq, self.iss)
        else:
            place = self.received.place(seg.seq)
            mac = self._mac_of_received(key)
        tag = mac.tag(message(seg, options, option.at, place >> 32 & MASK, key.covers_options))
        if not hmac.compare_digest(tag[:MAC_LENGTH], options[option.at + 4 : option.at + OPTION_LENGTH]):
            return self._refuse()
        counters.TCPAOGood += 1
        self.good += 1
        if seg.flags & SYN:
            if seg.flags & ACK and self.irs is None:
                self._learn(self.iss, seg.seq)
        elif place > self.received.highest and self.irs is not None:
            self.received.highest = place
        # What a SYN asks for is good for the first key alone: one of long ago, sent again by anybody, is signed as rightly as ever.
        if self._current is None or seg.flags & (SYN | ACK) != SYN:
            self._follow(send_id, now)
        return True

    def _refuse(self) -> bool:
        """Count a MAC that is not the right one."""
        self._counters.TCPAOBad += 1
        self.bad += 1
        return False

    def _follow(self, send_id: int, now: int) -> None:
        """Sign with the key that the peer asks for, if we have it and its time has come (RFC 5925 7.5)."""
        current = self._current
        if current is None or current.send_id != send_id:
            self._current = next((key for key in self.keys if key.send_id == send_id and key.send.has(now)), current)


def message(seg: Segment, options: bytes, at: int, extension: int, covers_options: bool) -> tuple[Buffer, ...]:
    """Return what a MAC is over (RFC 5925 5.1): the option stands at `at` among all option octets, with whatever MAC."""
    begin, end = (0, len(options)) if covers_options else (at, at + OPTION_LENGTH)
    covered = options[begin : at + signed.AO_HEADER] + _BLANK + options[at + OPTION_LENGTH : end]
    header = signed.fixed_header(seg, len(options))
    pseudo = signed.pseudo_header(seg.flow, len(header) + len(options) + seg.length)
    return (extension.to_bytes(4, "big"), pseudo, header, covered, *seg.payload)
