"""The codec in plain Python: the reference of the C extension, and its stand-in where there is no compiler.

Same names and behaviour as native.py; codec.py chooses. Lengths in octets. Descriptors are non-blocking and keep frames apart
(a TUN interface, a datagram or seqpacket socket).
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EBADF, EMSGSIZE, ENODEV
from io import FileIO

from tunstack.wire import tcp, virtio
from tunstack.wire.buffer import Buffer
from tunstack.wire.checksum import checksum as checksum
from tunstack.wire.checksum import fold, word_sum
from tunstack.wire.gro import Coalescer
from tunstack.wire.ipv4 import MAX_PACKET
from tunstack.wire.segment import CWR, FIN, PSH, SYN, URG, Batch, Segment

BACKEND = "python"

SMALL = 512  # octets of data that are no part of a bulk transfer, which would have filled the frame
LOOKS_TO_SKIP = 15


class Reader:
    """Reads frames from a descriptor, or takes them from memory, and makes a batch of them.

    `vnet`: a virtio header precedes every frame. At most `max_frames` (1 to 1024) frames are read at once, and no further one after
    `max_octets`. `coalesce`: segments that follow each other, among `max_frames` frames, become one (gro.py); `coalesce_acks`: so do
    bare ACKs. The latter can be changed at any time.
    """

    def __init__(
        self, vnet: bool, max_frames: int = 64, max_octets: int = 1 << 19, coalesce: bool = True, coalesce_acks: bool = False
    ) -> None:
        if not 0 < max_frames <= 1024:
            raise ValueError(f"a batch has 1 to 1024 frames: {max_frames}")
        self._vnet = vnet
        self._max_frames = max_frames
        self._max_octets = max_octets
        self._coalesce = coalesce
        self.coalesce_acks = coalesce_acks
        self.octets = 0  # of IPv4 packets that came and were good, ever
        self._looks_to_skip = 0  # so often `read` leaves it at one frame that is small data
        self._file: FileIO | None = None

    def read(self, fd: int) -> Batch:
        """Return what has arrived, possibly nothing, without waiting; it is borrowed until the next call.

        Only where a few octets of data came, and the last look behind such a frame was in vain, it does not look for some time: most
        often the peer waits for an answer. OSError if the device is gone; what was read before the error is returned first.
        """
        if self._file is None or self._file.fileno() != fd:
            self._file = FileIO(fd, "r", closefd=False)
        frames: list[Buffer] = []
        octets = 0
        while len(frames) < self._max_frames and octets < self._max_octets:
            buffer = bytearray(virtio.LENGTH + MAX_PACKET)
            try:
                length = self._file.readinto(buffer)
            except OSError:
                if frames:
                    break
                raise
            if length is None:  # EAGAIN
                if len(frames) == 1 and self._is_small_data(frames[0]):
                    self._looks_to_skip = LOOKS_TO_SKIP
                break
            if not length:
                if frames:
                    break
                raise OSError(ENODEV, "the other end of the device is closed")
            frames.append(memoryview(buffer)[:length])
            octets += length
            if self._looks_to_skip and len(frames) == 1 and self._is_small_data(frames[0]):
                self._looks_to_skip -= 1
                break
        return self.parse(frames)

    def _is_small_data(self, frame: Buffer) -> bool:
        segment = tcp.parse(memoryview(frame)[virtio.LENGTH if self._vnet else 0 :], False).segment
        return segment is not None and 0 < segment.length <= SMALL

    def parse(self, frames: Sequence[Buffer]) -> Batch:
        """Return the batch of frames that are in memory; each with its virtio header if `vnet`."""
        batch = Batch()
        for start in range(0, len(frames), self._max_frames):
            coalescer = Coalescer(self._coalesce, self.coalesce_acks)
            for frame in frames[start : start + self._max_frames]:
                self._take(memoryview(frame), batch, coalescer)
            batch.segments += coalescer.finish()
        return batch

    def _take(self, frame: memoryview, batch: Batch, coalescer: Coalescer) -> None:
        flags = gso_type = gso_size = csum_start = csum_offset = 0
        if self._vnet:
            if len(frame) < virtio.LENGTH:
                batch.header_errors += 1
                return
            flags, gso_type, _, gso_size, csum_start, csum_offset = virtio.HEADER.unpack_from(frame)
            frame = frame[virtio.LENGTH :]
        if len(frame) > MAX_PACKET:
            batch.header_errors += 1
            return
        parsed = tcp.parse(frame, not flags & (virtio.NEEDS_CSUM | virtio.DATA_VALID))
        if parsed.segment is not None:
            segment = parsed.segment
            if gso_type & ~virtio.GSO_ECN == virtio.GSO_TCPV4 and 0 < gso_size < segment.length:
                segment.gso_size = gso_size
                segment.packets = -(-segment.length // gso_size)
            self.octets += len(parsed.packet)
            if segment.options:
                batch.has_options = True
            coalescer.add(segment, parsed.options)
        elif parsed.verdict == tcp.PACKET:
            packet: memoryview | None = parsed.packet
            if flags & virtio.NEEDS_CSUM:
                packet = _complete_checksum(parsed.packet, csum_start, csum_offset)
            if packet is None:
                batch.header_errors += 1
            else:
                self.octets += len(packet)
                batch.packets.append(packet)
        elif parsed.verdict == tcp.IGNORED:
            batch.ignored += 1
        elif parsed.verdict == tcp.CHECKSUM_ERROR:
            batch.checksum_errors += 1
        else:
            batch.header_errors += 1


def _complete_checksum(packet: memoryview, start: int, offset: int) -> memoryview | None:
    """Return a copy of the packet with its partial checksum completed, as Linux does (skb_checksum_help); None if it lies outside."""
    header_length = (packet[0] & 0xF) * 4
    at = start + offset
    if start < header_length or at + 2 > len(packet):
        return None
    whole = bytearray(packet)
    check = fold(word_sum(packet[start:])) ^ 0xFFFF or 0xFFFF  # 0 means "no checksum" in UDP
    whole[at : at + 2] = check.to_bytes(2, "big")
    return memoryview(whole)


def parse_datagram(data: Buffer) -> Segment | None:
    """Return the segment in one whole IPv4 packet (after reassembly), or None where it holds no valid one. The payload views data."""
    return tcp.parse(data).segment


def encode(segment: Segment, ttl: int = 64) -> list[bytes]:
    """Return the packets of a segment, cut to its gso_size, with full checksums; see `cut` for how its fields are spread over them.

    OSError EMSGSIZE where the options or a packet do not fit.
    """
    payload = b"".join(segment.payload)
    return [tcp.build_header(part, payload[start:end], ttl) + payload[start:end] for part, start, end in cut(segment, len(payload))]


def cut(segment: Segment, length: int, size: int | None = None) -> list[tuple[Segment, int, int]]:
    """Return each packet of a segment with the range of the payload that it carries.

    PSH and FIN are for the last packet only, CWR for the first, URG for those before the urgent pointer; the identification counts up.
    A SYN is never cut. `size`: cut to parts of so many octets, whole packets, instead.
    """
    unit = segment.gso_size
    if size is None:
        size = unit
    if not size or size >= length or segment.flags & SYN:
        return [(segment, 0, length)]
    parts = []
    for start in range(0, length, size):
        end = min(start + size, length)
        flags = segment.flags
        if start:
            flags &= ~CWR
        if end < length:
            flags &= ~(PSH | FIN)
        urgent = segment.urgent
        if flags & URG:
            urgent = max(urgent - start, 0)
            if not urgent:
                flags &= ~URG
        part = Segment(segment.flow, (segment.seq + start) & 0xFFFFFFFF, segment.ack, flags, segment.window)
        part.ts_val, part.ts_ecr = segment.ts_val, segment.ts_ecr
        part.mss, part.wscale, part.sack_ok = segment.mss, segment.wscale, segment.sack_ok
        part.sack, part.options = segment.sack, segment.options
        part.tos, part.urgent, part.ident = segment.tos, urgent, (segment.ident + start // unit) & 0xFFFF
        parts.append((part, start, end))
    return parts


class Writer:
    """Sends segments and packets to a descriptor.

    `vnet`: a virtio header precedes every frame. `tso` (needs `vnet`): a segment leaves as one frame, or where an IPv4 datagram does not
    hold it as several of whole packets, its checksum partial, and the other side cuts it to packets; without, it is cut here to
    `segment.gso_size` and checksummed.
    """

    def __init__(self, fd: int, vnet: bool, tso: bool, ttl: int = 64) -> None:
        if tso and not vnet:
            raise ValueError("segmentation offload needs the virtio header")
        self._file = FileIO(fd, "w", closefd=False)
        self._vnet = vnet
        self._tso = tso
        self._ttl = ttl
        self.lost = 0  # packets at the end of a run that found the queue full
        self.octets = 0  # of IPv4 packets, or super-segments, ever

    def close(self) -> None:
        """Know the descriptor no more: whoever closes it may find its number in other hands."""
        self._file.close()

    def write(self, segment: Segment) -> bool:
        """Send a segment; return False, nothing having been sent, where it would block.

        A queue that is full in the middle of a run loses the rest of it, and `lost` counts. OSError where the device is gone,
        EMSGSIZE where the options or a packet do not fit.
        """
        if self._tso and not segment.flags & URG:
            frames = self._super_frames(segment)
            unit = self._room(segment) // segment.gso_size if len(frames) > 1 else 1
        else:
            prefix = virtio.NO_OFFLOAD if self._vnet else b""
            frames = [prefix + packet for packet in encode(segment, self._ttl)]
            unit = 1
        for index, frame in enumerate(frames):
            if not self._put(frame):
                if not index:
                    return False
                self.lost += -(-segment.length // segment.gso_size) - index * unit
                break
        return True

    def write_packet(self, data: Buffer) -> bool:
        """Send one whole IPv4 packet; return False where it would block. OSError where the device is gone."""
        if len(data) > MAX_PACKET:
            raise OSError(EMSGSIZE, "an IPv4 packet has at most 65535 octets")
        return self._put(virtio.NO_OFFLOAD + data if self._vnet else data)

    def _room(self, segment: Segment) -> int:
        """Return how many octets of payload one frame holds."""
        return MAX_PACKET - len(tcp.build_header(segment, b"", self._ttl))

    def _super_frames(self, segment: Segment) -> list[bytes]:
        payload = b"".join(segment.payload)
        room = self._room(segment)
        size = 0
        if len(payload) > room and 0 < segment.gso_size <= room:
            size = room - room % segment.gso_size
        return [self._super_frame(part, payload[start:end], segment.gso_size) for part, start, end in cut(segment, len(payload), size)]

    def _super_frame(self, segment: Segment, payload: bytes, packet_size: int) -> bytes:
        header = tcp.build_header(segment, payload, self._ttl, partial=True)
        gso_type = hdr_len = gso_size = 0
        if 0 < packet_size < len(payload) and not segment.flags & SYN:
            gso_type = virtio.GSO_TCPV4 | (virtio.GSO_ECN if segment.flags & CWR else 0)
            hdr_len, gso_size = len(header), packet_size
        offload = virtio.HEADER.pack(virtio.NEEDS_CSUM, gso_type, hdr_len, gso_size, 20, tcp.CHECKSUM_OFFSET)
        return offload + header + payload

    def _put(self, frame: Buffer) -> bool:
        if self._file.closed:
            raise OSError(EBADF, "the writer is closed")
        if self._file.write(frame) is None:  # EAGAIN
            return False
        self.octets += len(frame) - (virtio.LENGTH if self._vnet else 0)
        return True
