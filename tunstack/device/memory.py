"""Two devices joined in memory: the second kind of device, for tests, simulations and stacks without root.

What crosses is octets: every segment is encoded when it is written and parsed when it is read, so that checksums,
options and lengths are verified as they are on a real wire. Knows no clock: a frame arrives at once unless a link
(device/link.py) was put between. Lengths in octets.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable

from tunstack.wire import codec, virtio
from tunstack.wire.segment import Batch, Segment

MAX_PAYLOAD = 65535 - 20 - 60  # one IPv4 packet with the longest TCP header
_BATCH = 64  # frames a read takes at most


class MemoryDevice:
    """One end of a memory pipe; made by `memory_pipe`.

    Holds at most `queue` frames that were not read yet; what comes beyond is dropped and counted, as a TUN does.
    `on_readable` is called from inside the peer's `write`: schedule the read, do not read in it.
    """

    def __init__(self, mtu: int, queue: int, offload: bool) -> None:
        self.mtu = mtu
        self.max_payload = MAX_PAYLOAD
        self.offload = offload  # super-segments cross as one frame, under a virtio header
        self.on_readable: Callable[[], None] | None = None
        self.coalesce_acks = False
        self.carry: Callable[[bytes], None] = _lose  # takes each frame that is written; a link or a capture puts itself here
        self.dropped = 0  # frames that found the queue full
        self.oversize = 0  # packets longer than the MTU that were to be sent
        self._sent = 0  # octets of packets
        self._queue = queue
        self._inbox: deque[bytes] = deque()
        self._reader = codec.Reader(vnet=offload, max_frames=_BATCH)
        self._open = True

    def fileno(self) -> int:
        return -1

    def deliver(self, frame: bytes) -> None:
        """Take a frame off the wire."""
        inbox = self._inbox
        if not self._open:
            return
        if len(inbox) >= self._queue:
            self.dropped += 1
            return
        inbox.append(frame)
        if len(inbox) == 1 and self.on_readable is not None:
            self.on_readable()

    @property
    def waiting(self) -> int:
        """Frames that can be read."""
        return len(self._inbox)

    def octets(self) -> tuple[int, int]:
        """Return the octets of IPv4 packets that came and that left, ever."""
        return self._reader.octets, self._sent

    def read_batch(self) -> Batch:
        self._check_open()
        inbox = self._inbox
        frames = [inbox.popleft() for _ in range(min(len(inbox), _BATCH))]
        return self._reader.parse(frames)

    def write(self, item: Segment | bytes) -> bool:
        self._check_open()
        if isinstance(item, bytes):
            packets = [item]
        elif self.offload and 0 < item.gso_size < item.length:
            frame = _encode_whole(item)
            self._sent += len(frame) - virtio.LENGTH
            self.carry(frame)
            return True
        else:
            packets = codec.encode(item)
        for packet in packets:
            if len(packet) > self.mtu:
                self.oversize += 1
            else:
                self._sent += len(packet)
                self.carry(virtio.NO_OFFLOAD + packet if self.offload else packet)
        return True

    def close(self) -> None:
        self._open = False
        self._inbox.clear()
        self.carry = _lose

    def _check_open(self) -> None:
        if not self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def memory_pipe(mtu: int = 1500, *, offload: bool = False, queue: int = 1000) -> tuple[MemoryDevice, MemoryDevice]:
    """Return two devices; what is written to one is read from the other, in order.

    With `offload` a run of segments crosses as one frame with its segment size beside it, as on a TUN with
    TSO; without, it is cut to wire size. `queue` bounds the frames waiting at each end.
    """
    a, b = MemoryDevice(mtu, queue, offload), MemoryDevice(mtu, queue, offload)
    a.carry, b.carry = b.deliver, a.deliver
    return a, b


def _encode_whole(segment: Segment) -> bytes:
    """Encode a run as one frame: complete checksum, virtio header with the size to cut to."""
    gso_size = segment.gso_size
    segment.gso_size = 0
    try:
        (packet,) = codec.encode(segment)
    finally:
        segment.gso_size = gso_size  # the segment is the caller's
    return virtio.HEADER.pack(0, virtio.GSO_TCPV4, len(packet) - segment.length, gso_size, 0, 0) + packet


def _lose(frame: bytes) -> None:
    """Carry a frame nowhere."""
