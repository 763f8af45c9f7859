"""What the workers of an interface hand to each other: frames as a TUN interface gives them, through a socket a worker.

unix(7), SOCK_SEQPACKET, which keeps frames apart. A frame has the virtio header, so that a run of segments stays one. All ends are
made before the workers are, and stay open as long as the interface: what is meant for a worker that has died waits for the next one.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Iterator, Sequence

from tunstack.wire import codec
from tunstack.wire.segment import Batch, Segment
from tunstack.wire.steering import KEY_BITS, KEYS, Steering

BUFFER = 1 << 20  # octets that wait for a worker, at most, the kernel's own accounting included; it may allow fewer


class Handovers:
    """The sockets of all workers, and the rule whose what is. The process that starts them holds it; each gets `of` its own number."""

    def __init__(self, count: int) -> None:
        self.steering = Steering([secrets.randbits(KEY_BITS) for _ in range(KEYS)], count)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []  # inbox, and where others put frames into it
        try:
            for _ in range(count):
                self._pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        except OSError:
            self.close()
            raise
        for _inbox, outside in self._pairs:
            outside.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

    def filenos(self) -> Iterator[int]:
        """Give all descriptors."""
        return (end.fileno() for pair in self._pairs for end in pair)

    def of(self, index: int) -> Handover:
        """Return a worker's view of them."""
        return Handover(self.steering, index, self._pairs[index][0].fileno(), [outside.fileno() for _inbox, outside in self._pairs])

    def close(self) -> None:
        """Close all. Idempotent."""
        for pair in self._pairs:
            for end in pair:
                end.close()


class Handover:
    """One worker's end: its inbox, and the ways into the others'. It owns no descriptor."""

    def __init__(self, steering: Steering, index: int, inbox: int, outside: Sequence[int]) -> None:
        self.steering = steering
        self.index = index
        self._inbox = inbox
        self._reader = codec.Reader(True)
        self._writers = [codec.Writer(descriptor, True, True) for descriptor in outside]

    def fileno(self) -> int:
        """Return the descriptor of the inbox, to poll."""
        return self._inbox

    def read_batch(self) -> Batch:
        """Return what others have handed to us; borrowed until the next call."""
        return self._reader.read(self._inbox)

    def send(self, worker: int, item: Segment | memoryview) -> bool:
        """Hand a received segment or whole datagram to a worker; False if it is lost: its inbox is full."""
        writer = self._writers[worker]
        try:
            return writer.write(item) if isinstance(item, Segment) else writer.write_packet(item)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS, errno.EPIPE, errno.ECONNREFUSED):
                return False
            raise
