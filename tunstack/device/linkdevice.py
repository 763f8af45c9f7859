"""A device behind a link: wraps any device, and what passes it fares as on the network that was asked for.

Super-segments meet the link at wire size, both ways. What the stack sends is cut by the codec. What the inner device brings is cut
again: its offload may stay on, since one read, one parse and one cut in C for 45 packets cost less than 45 reads of the kernel's own
cut, and the codec puts a full checksum into each packet, so that corruption is found at the far end as on a wire. What arrives
together is coalesced again, as a network card does.

The same object in real time, on a RealClock whose descriptor is watched together with the inner device's, and in virtual time, on the
clock of a World or a loop. Times int microseconds, lengths octets.
"""

from __future__ import annotations

import errno
import select
from collections import deque
from collections.abc import Callable

from tunstack.device.base import Device
from tunstack.device.link import Clock, Direction, Way, join_ways
from tunstack.device.realclock import RealClock
from tunstack.wire import codec
from tunstack.wire.segment import Batch, Segment

_BATCH = 64  # frames that a read hands on at most


class LinkDevice:
    """A Device (see base.py). `forward` is what happens to frames that are sent, `backward` to those received.

    It owns the inner device and, in real time, the clock. Change `forward.impairment` and `backward.impairment` at any time.
    """

    def __init__(self, inner: Device, forward: Direction, backward: Direction, clock: Clock) -> None:
        self.inner = inner
        self.mtu = inner.mtu
        self.max_payload = inner.max_payload
        self.on_readable: Callable[[], None] | None = None
        self.coalesce_acks = inner.coalesce_acks = False  # each ACK has its own fate on the link
        self.forward = forward
        self.backward = backward
        self.refused = 0  # frames that the inner device took for damaged or had no room for, or that cannot be built again
        self._sent = 0  # octets of packets
        self._clock = clock
        self._out = Way(forward, self._leave, clock)
        self._in = Way(backward, self._arrive, clock)
        join_ways(self._out, self._in)
        self._inbox: deque[bytes] = deque()  # arrived, not read
        self._reader = codec.Reader(vnet=False, max_frames=_BATCH)
        self._errors = Batch()  # what the inner device counted since the last read
        self._is_closed = False
        self._real = clock if isinstance(clock, RealClock) else None
        self._inner_fd = inner.fileno()
        self._epoll: select.epoll | None = None
        if self._real is not None:
            self._epoll = select.epoll()
            self._epoll.register(self._real.fileno(), select.EPOLLIN)
            if self._inner_fd >= 0:
                self._epoll.register(self._inner_fd, select.EPOLLIN)
        elif self._inner_fd >= 0:
            raise ValueError("a device with a descriptor lives in real time: give the link a RealClock")
        if self._inner_fd < 0:
            inner.on_readable = self._on_inner_readable
            self._on_inner_readable()  # what came before we listened

    def fileno(self) -> int:
        """Return a descriptor that is readable when frames came or are due, -1 in virtual time."""
        return -1 if self._epoll is None or self._is_closed else self._epoll.fileno()

    @property
    def waiting(self) -> int:
        """Frames that have arrived and can be read."""
        return len(self._inbox)

    @property
    def in_flight(self) -> int:
        """Frames on the way, both directions."""
        return self._out.in_flight + self._in.in_flight

    @property
    def overflowed(self) -> int:
        """Frames lost because too much was on the way (link.IN_FLIGHT_LIMIT)."""
        return self._out.overflowed + self._in.overflowed

    def octets(self) -> tuple[int, int]:
        """Return the octets of IPv4 packets that came over the link and that were sent over it, ever."""
        return self._reader.octets, self._sent

    def read_batch(self) -> Batch:  # hot
        """Move what is due, and return what has arrived; borrowed until the next call. OSError if the inner device is gone."""
        self._check_open()
        if self._real is not None:
            self._real.run_due()
            if self._inner_fd >= 0:
                self._pull()
        inbox = self._inbox
        batch = self._reader.parse([inbox.popleft() for _ in range(min(len(inbox), _BATCH))]) if inbox else Batch()
        errors = self._errors
        if errors.checksum_errors or errors.header_errors or errors.ignored:
            batch.checksum_errors += errors.checksum_errors
            batch.header_errors += errors.header_errors
            batch.ignored += errors.ignored
            self._errors = Batch()
        if inbox and self._real is not None:
            self._real.call_at(0, _wake)  # the descriptor says that there is more
        return batch

    def write(self, item: Segment | bytes) -> bool:  # hot
        """Send a segment or a whole IPv4 packet over the link, which takes everything."""
        self._check_open()
        carry = self._out.carry
        if isinstance(item, Segment):
            for frame in codec.encode(item):
                self._sent += len(frame)
                carry(frame)
        else:
            self._sent += len(item)
            carry(item)
        return True

    def close(self) -> None:
        """Send what is on the way at once, since nobody will be there to do it later, and close the inner device. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._out.flush()
        except OSError:
            self.refused += 1  # the device is gone already, and the rest with it
        finally:
            self._inbox.clear()
            if self._epoll is not None:
                self._epoll.close()
            if self._real is not None:
                self._real.close()
            self.inner.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBADF, "the device is closed")

    def _leave(self, frame: bytes) -> None:  # hot
        """Hand a frame that has come to the far end of the link to the inner device."""
        try:
            if not self.inner.write(frame):
                self.refused += 1
        except OSError as error:
            if error.errno != errno.EINVAL:  # no IP version that the kernel knows: corruption hit it
                raise
            self.refused += 1

    def _on_inner_readable(self) -> None:
        """The inner device has no descriptor; it is not to be read from within its call."""
        self._clock.call_at(self._clock.now(), self._pull_all)

    def _pull_all(self) -> None:
        while not self._is_closed and self._pull():
            pass

    def _pull(self) -> bool:  # hot
        """Send one batch of the inner device into the link; tell whether there was any."""
        batch = self.inner.read_batch()
        carry = self._in.carry
        for segment in batch.segments:
            try:
                frames = codec.encode(_as_sent(segment))
            except OSError:  # options that no header of ours holds: nothing that a peer sends may raise
                self.refused += 1
                continue
            for frame in frames:
                carry(frame)
        for packet in batch.packets:
            carry(bytes(packet))
        errors = self._errors
        errors.checksum_errors += batch.checksum_errors
        errors.header_errors += batch.header_errors
        errors.ignored += batch.ignored
        return bool(batch.segments or batch.packets or batch.checksum_errors or batch.header_errors or batch.ignored)

    def _arrive(self, frame: bytes) -> None:  # hot
        """Take a frame that has come to our end of the link."""
        if self._is_closed:
            return
        self._inbox.append(frame)
        if len(self._inbox) == 1 and self.on_readable is not None:
            self.on_readable()


def _as_sent(segment: Segment) -> Segment:
    """Return a received segment as the codec is to encode it: where it has all option octets, they alone say the options."""
    if not segment.options:
        return segment
    return Segment(
        segment.flow,
        segment.seq,
        segment.ack,
        segment.flags,
        segment.window,
        segment.payload,
        segment.length,
        gso_size=segment.gso_size,
        options=bytes(segment.options) + bytes(-len(segment.options) & 3),
        tos=segment.tos,
        urgent=segment.urgent,
        ident=segment.ident,
    )


def _wake() -> None:
    """Be the call that makes the clock's descriptor readable."""
