"""What a device is: frames in and out.

A device hides the frame format (virtio header, segmentation, checksums) from the engine, which knows
segments only. Lengths in octets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tunstack.wire.segment import Batch, Segment


class Device(Protocol):
    """An interface that IPv4 frames come from and go to.

    One that counts octets has `octets()`: those of IPv4 packets that came and that left, ever. Else IpExtInOctets and IpExtOutOctets
    stay 0.

    A device with a descriptor is polled by it. One without (`fileno()` is -1) calls `on_readable`, where set,
    each time that frames arrive while none were waiting.
    """

    mtu: int  # largest IPv4 packet on the wire
    max_payload: int  # largest TCP payload that `write` takes in one segment; it cuts to `segment.gso_size`
    on_readable: Callable[[], None] | None
    coalesce_acks: bool  # bare ACKs of a flow may be read as one (wire/gro.py); who must have each of them says False

    def fileno(self) -> int:
        """Return the descriptor to poll for reading and writing, or -1."""

    def read_batch(self) -> Batch:
        """Return what has arrived (bounded, possibly nothing); it borrows until the next call.

        OSError if the device is gone.
        """

    def write(self, item: Segment | bytes) -> bool:
        """Send a segment, or a whole IPv4 packet; return False, having sent nothing, if it would block.

        OSError if the device is gone. What the wire would lose (interface down, queue full) is lost silently.
        """

    def close(self) -> None:
        """Give the device back. Idempotent."""


class WaitingDevice(Device, Protocol):
    """A device in memory, which can say how much has arrived: what virtual time takes."""

    @property
    def waiting(self) -> int:
        """Frames that can be read."""
