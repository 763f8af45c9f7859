"""Looks at every frame that two hosts send.

Frames are sound; a window's right edge and the acknowledgment never go back; nothing is sent beyond the edge that the other side has
shown; the octets are those of the stream, in whatever pieces and however often they leave; options are as agreed; SACK blocks lie where
there is data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tunstack.seq import HALF, MASK
from tunstack.sim.script.packet import decode, decode_options
from tunstack.wire import virtio

FIN, SYN, RST, ACK = 1, 2, 4, 16
_TCP = struct.Struct("!IIHH")  # sequence number, acknowledgment, offset and flags, window
_TS = struct.Struct("!II")
_SAMPLE = 32  # of so many frames one is read by the second, slow decoder, checksums included


@dataclass(slots=True)
class Side:
    """What has been seen of one direction of a connection."""

    iss: int
    edge: int | None = None  # right edge of the window that it showed
    acked: int | None = None  # its latest acknowledgment
    end: int = 0  # behind the newest octet that it sent, FIN included
    fin: int | None = None  # sequence number of its FIN
    wscale: int | None = None
    mss: int = 536
    has_ts: bool = False
    sack_ok: bool = False
    ts_val: int = 0
    stream: bytes = b""  # what it sends
    on_syn: int = 0  # octets of it that its SYN had, before it knew of a window
    has_reset: bool = False  # it sent a RST
    incarnation: int = 0  # how often the ports were used; below zero, or other than in the other direction, it is not judged


@dataclass(slots=True)
class Watch:
    """Both directions of all connections of a world. Whoever opens a connection tells in `streams` what each direction will carry."""

    header: int  # octets before each packet
    judges: bool = True  # whether segments are compared with those before; else each is looked at for itself
    streams: dict[bytes, bytes] = field(default_factory=dict)  # by flow
    frames: int = 0
    retransmitted: int = 0  # frames with data or FIN that had been sent before
    dsacks: int = 0
    _sides: dict[bytes, Side] = field(default_factory=dict)  # by flow

    def iss(self, flow: bytes) -> int:
        """Return the initial sequence number of a direction, 0 before its SYN."""
        side = self._sides.get(flow)
        return side.iss if side is not None else 0

    def look(self, frame: bytes, mtu: int) -> None:
        """Check a frame that leaves."""
        self.frames += 1
        header = self.header
        gso_size = virtio.HEADER.unpack_from(frame)[3] if header else 0
        packet = frame[header:] if header else frame
        assert gso_size or len(packet) <= mtu, f"{len(packet)} octets on a link that takes {mtu}"
        if packet[9] != 6:
            return
        flow = packet[12:24]
        seq, ack, offset_flags, window = _TCP.unpack_from(packet, 24)
        flags = offset_flags & 0x1FF
        offset = offset_flags >> 12 << 2
        length = len(packet) - 20 - offset
        if flags & SYN or self.frames % _SAMPLE == 0:
            decode(packet)
        if flags & SYN:
            self._syn(packet, flow, seq, ack, window, flags, offset)
            return
        if flags & RST:
            if flow in self._sides:
                self._sides[flow].has_reset = True
            return
        assert flags & ACK, "a segment without ACK"
        side, back = self._sides[flow], self._sides[_reverse(flow)]
        # Data that is sent again may bring a SYN cookie back, and what was reset begins anew, knowing nothing.
        if not self.judges or side.incarnation != back.incarnation or side.has_reset or back.has_reset:
            return
        # The acknowledgment and the window.
        assert side.acked is None or (ack - side.acked) & MASK < HALF, f"the acknowledgment went back from {side.acked} to {ack}"
        assert (back.end - ack) & MASK < HALF, f"acknowledges {(ack - back.end) & MASK} octets that were never sent"
        side.acked = ack
        if back.fin is None or ack != back.fin + 1 & MASK:  # behind the FIN nothing comes, and the window means nothing
            shift = side.wscale if side.wscale is not None and back.wscale is not None else 0
            edge = (ack + (window << shift)) & MASK
            assert side.edge is None or (edge - side.edge) & MASK < HALF, f"the window shrank by {(side.edge - edge) & MASK}"
            side.edge = edge
        self._options(packet, side, back, offset, ack)
        if length or flags & FIN:
            self._data(packet, side, back, seq, length, flags, offset, gso_size)
        else:
            assert (side.end - seq) & MASK < HALF or side.end == seq, "an ACK with a sequence number beyond what was sent"

    def _syn(self, packet: bytes, flow: bytes, seq: int, ack: int, window: int, flags: int, offset: int) -> None:
        side = self._sides.get(flow)
        if side is None or side.iss != seq:
            incarnation = abs(side.incarnation) + 1 if side is not None else 1
            if flags & ACK:
                back = self._sides[_reverse(flow)]
                # The SYN-ACK to a SYN that came late means nothing to a peer that has got further.
                covers = 0 <= (ack - back.iss - 1) & MASK <= (back.end - back.iss - 1) & MASK
                # Of two SYN-ACKs with different numbers, a SYN cookie and one from the queue, either may be the one that counts.
                is_second = side is not None and abs(side.incarnation) == back.incarnation
                incarnation = back.incarnation if back.acked is None and covers and not is_second else -back.incarnation
            data = packet[20 + offset :]
            side = self._sides[flow] = Side(seq, end=(seq + 1 + len(data)) & MASK, stream=self.streams[flow], incarnation=incarnation)
            side.on_syn = len(data)
            assert data == side.stream[: len(data)], "the data in the SYN is not the stream's"
            self._agree(side, packet[40 : 20 + offset])
        elif side.has_ts:
            options = decode_options(packet[40 : 20 + offset])
            side.ts_val = next((int(str(option[1])) for option in options if option[0] == "TS"), side.ts_val)
        if flags & ACK:
            side.acked = ack
            side.edge = (ack + window) & MASK

    def _agree(self, side: Side, options: bytes) -> None:
        for option in decode_options(options):
            match option:
                case ("mss", int(value)):
                    side.mss = value
                case ("wscale", int(value)):
                    side.wscale = value
                case ("TS", int(value), _):
                    side.has_ts = True
                    side.ts_val = value
                case ("sackOK",):
                    side.sack_ok = True

    def _options(self, packet: bytes, side: Side, back: Side, offset: int, ack: int) -> None:
        agreed = side.has_ts and back.has_ts
        at = 40
        end = 20 + offset
        has_ts = False
        while at < end:
            kind = packet[at]
            if kind <= 1:
                at += 1
                continue
            size = packet[at + 1]
            if kind == 8:
                has_ts = True
                value, echo = _TS.unpack_from(packet, at + 2)
                assert (value - side.ts_val) & MASK < HALF, "the timestamp went back"
                assert (back.ts_val - echo) & MASK < HALF, "echoes a timestamp that was never sent"
                side.ts_val = value
            elif kind == 5:
                assert side.sack_ok and back.sack_ok, "SACK blocks without the agreement"
                edges = struct.unpack_from(f"!{size - 2 >> 2}I", packet, at + 2)
                for index in range(0, len(edges), 2):
                    left, right = edges[index], edges[index + 1]
                    assert 0 < (right - left) & MASK < HALF, "a SACK block that is empty or the wrong way round"
                    assert (back.end - right) & MASK < HALF, "a SACK block of what was never sent"
                    if (left - ack) & MASK >= HALF or left == ack:  # at or below the acknowledgment: only a D-SACK, and that comes first
                        assert index == 0, "a SACK block at or below the acknowledgment"
                        self.dsacks += 1
            at += size
        assert has_ts == agreed, "timestamps not as agreed"

    def _data(self, packet: bytes, side: Side, back: Side, seq: int, length: int, flags: int, offset: int, gso_size: int) -> None:
        largest = gso_size or length
        assert largest + offset - 20 <= back.mss, f"{largest} octets and options for a peer that takes {back.mss}"
        start = (seq - side.iss - 1) & MASK
        assert packet[20 + offset :] == side.stream[start : start + length], f"not the octets of the stream at {start}"
        end = (seq + length) & MASK
        is_probe = start < side.on_syn and seq == back.acked  # of what went with the SYN, with no window for it
        if back.edge is not None and not is_probe:
            assert not length or (back.edge - end) & MASK < HALF, f"{(end - back.edge) & MASK} octets beyond the window of the other side"
        assert (side.end - seq) & MASK < HALF, "octets were left out"
        if side.fin is not None:
            assert (side.fin - end) & MASK < HALF, "data behind the FIN"
        if flags & FIN:
            assert side.fin is None or side.fin == end, "a second FIN elsewhere"
            side.fin = end
            end = (end + 1) & MASK
        if (end - side.end) & MASK < HALF and end != side.end:
            side.end = end
        else:
            self.retransmitted += 1


def _reverse(flow: bytes) -> bytes:
    return flow[4:8] + flow[:4] + flow[10:12] + flow[8:10]
