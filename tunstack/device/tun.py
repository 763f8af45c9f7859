"""The TUN interface: frames to and from this machine's kernel.

Linux's Documentation/networking/tuntap. The virtio header (10 octets before each frame) carries segmentation and checksum
offload in both directions; without offload there is no header and every frame is whole. M-06, M-63.

An interface that does not exist is created, configured and, being tied to the descriptor, removed by the kernel when the
process ends in whatever way; that takes CAP_NET_ADMIN. One that exists because an administrator made it
(`ip tuntap add dev X mode tun user U`) is taken over as he configured it, which takes no capability.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence
from fcntl import ioctl
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from tunstack.device import steeringprogram
from tunstack.device.errors import DeviceError
from tunstack.device.netlink import Link, with_netlink
from tunstack.device.tunplan import IFF_TUN, Plan, busy, check_mtu, check_name, parse_host_address, set_up, survey, user_name
from tunstack.wire import codec
from tunstack.wire.segment import Batch, Segment
from tunstack.wire.steering import Steering

CLONE_DEVICE = "/dev/net/tun"

# <linux/if_tun.h>; the ioctl numbers are those of every architecture that Debian has but MIPS, PowerPC, SPARC and Alpha.
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNGETIFF = 0x800454D2
TUNSETVNETHDRSZ = 0x400454D8
TUNSETSTEERINGEBPF = 0x800454E0
IFF_MULTI_QUEUE = 0x0100
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO_ECN = 0x04  # runs with CWR too, which belongs to their first packet
OFFLOAD = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN
IFREQ = struct.Struct("16sH22x")
VNET_HEADER_LENGTH = 10

# What one write takes: a burst, cut to super-segments or packets in C.
MAX_PAYLOAD = 256 * 1024

# The kernel drops in silence what does not fit its queue, which looks to its TCP like congestion. Its senders are local and burst
# up to a whole receive window while we are busy elsewhere. This holds one of tcp_rmem's largest (6 MiB) in frames of 1500 octets, or the
# windows of 4,000 connections in super-segments, as far as they grow when we are behind (receivewindow.BEHIND_MAX).
TXQUEUELEN = 16_384

# What a write raises when the frame is lost as on a wire: interface down, no memory for it.
LOST = frozenset({errno.EIO, errno.ENOBUFS, errno.ENOMEM})


class TunDevice:
    """A Device (see base.py) on a TUN interface. Made by `open`; `close` gives the interface back."""

    on_readable: Callable[[], None] | None = None  # never called: this device has a descriptor

    def __init__(self, fd: int, name: str, host_address: IPv4Interface, mtu: int, vnet: bool, offload: bool, persistent: bool) -> None:
        """Wrap an attached descriptor, which the device owns from now on; see `open`."""
        self.name = name
        self.host_address = host_address  # the kernel's own address on the interface, with its prefix
        self.mtu = mtu
        self.max_payload = MAX_PAYLOAD
        self.offload = offload  # super-segments with partial checksums pass in both directions
        self.vnet = vnet  # a virtio header precedes every frame
        self.persistent = persistent  # made by an administrator: stays when we go
        self._fd = fd
        self._is_steered = False
        self._dropped = 0  # writes that failed as a wire does
        self._reader = codec.Reader(vnet, coalesce_acks=True)
        self._writer = codec.Writer(fd, vnet, offload)

    @classmethod
    def open(
        cls,
        name: str = "tunstack0",
        *,
        host_address: str = "10.77.0.1/24",
        addresses: Sequence[bytes] = (),
        mtu: int = 1500,
        offload: bool = True,
        txqueuelen: int = TXQUEUELEN,
        multi_queue: bool = False,
    ) -> TunDevice:
        """Create interface `name` in the thread's network namespace, or take over the persistent one of that name.

        `host_address` is the kernel's end and its subnet, `addresses` (packed) are those that the stack will answer to: they are
        checked to be reachable through the interface. A persistent interface keeps its own address, MTU and queue length; ours
        are then ignored. With `multi_queue` there may be further queues (see `open_queues`): a persistent interface must have been made so.
        Blocks for some milliseconds. DeviceError says in one line what is in the way.
        """
        ours = tuple(IPv4Address(address) for address in addresses)
        plan = Plan(name, parse_host_address(host_address), ours, mtu, txqueuelen, multi_queue)
        check_name(name)
        check_mtu(mtu)
        fd = _open_clone_device()
        try:
            taken_over = with_netlink(lambda netlink: survey(netlink, plan))
            link = taken_over[0] if taken_over else None
            vnet = _attach(fd, plan, link, offload)
            offload = vnet and offload
            # Always said, since a persistent interface remembers what its last user wanted.
            ioctl(fd, TUNSETOFFLOAD, OFFLOAD if offload else 0)
            if taken_over:
                existing, host = taken_over
                return cls(fd, name, host, existing.mtu, vnet, offload, True)
            with_netlink(lambda netlink: set_up(netlink, plan))
            return cls(fd, name, plan.host, mtu, vnet, offload, False)
        except BaseException:
            os.close(fd)
            raise

    def steer(self, steering: Steering) -> bool:
        """Have the kernel bring each flow to the queue of its owner, queues counted as they were opened; tell whether it does.

        Where it lets us load no program it goes on as without: a flow comes to the queue that last wrote to it, if that was within
        three seconds, and else to one that a hash of its own chooses.
        """
        try:
            program = steeringprogram.load(steering)
        except OSError:
            return False
        try:
            ioctl(self._fd, TUNSETSTEERINGEBPF, struct.pack("i", program))
        except OSError:
            return False
        finally:
            os.close(program)
        self._is_steered = True
        return True

    @classmethod
    def open_queues(cls, count: int, name: str = "tunstack0", **settings: Any) -> list[TunDevice]:
        """Open an interface as `open` does, with several queues, a device each; the kernel spreads flows over them, see `steer`.

        What a persistent interface is to get back at the end it gets from the first: close that last.
        """
        queues = [cls.open(name, multi_queue=count > 1, **settings)]
        try:
            while len(queues) < count:
                queues.append(queues[0]._open_another())
        except BaseException:
            for queue in reversed(queues):
                queue.close()
            raise
        return queues

    def _open_another(self) -> TunDevice:
        """Open a further queue; in the network namespace that the interface is in, else another of that name would come up elsewhere."""
        fd = _open_clone_device()
        try:
            flags = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE | (IFF_VNET_HDR if self.vnet else 0)
            ioctl(fd, TUNSETIFF, IFREQ.pack(self.name.encode(), flags))
        except OSError as error:
            os.close(fd)
            raise DeviceError(error.errno or errno.EIO, f"interface {self.name} gives no further queue: {error.strerror}") from None
        return TunDevice(fd, self.name, self.host_address, self.mtu, self.vnet, self.offload, False)

    @property
    def coalesce_acks(self) -> bool:
        """Whether bare ACKs of a flow are read as one."""
        return self._reader.coalesce_acks

    @coalesce_acks.setter
    def coalesce_acks(self, wanted: bool) -> None:
        self._reader.coalesce_acks = wanted

    def fileno(self) -> int:
        """Return the descriptor to poll, -1 once closed."""
        return self._fd

    def octets(self) -> tuple[int, int]:
        """Return the octets of IPv4 packets that came and that left, ever; a super-segment is one packet, as where Linux counts it."""
        return self._reader.octets, self._writer.octets

    def read_batch(self) -> Batch:  # hot
        """Return what has arrived; borrowed until the next call. OSError (EBADFD) if the interface was removed."""
        return self._reader.read(self._fd)

    def write(self, item: Segment | bytes) -> bool:  # hot
        """Send a segment or a whole IPv4 packet; False, having sent nothing, if it would block."""
        try:
            if isinstance(item, Segment):
                return self._writer.write(item)
            return self._writer.write_packet(item)
        except OSError as error:
            if error.errno in LOST:
                self._dropped += 1
                return True
            raise

    def set_offload(self, wanted: bool) -> None:
        """Have the kernel hand over super-segments from now on, or none; it takes them in either case. Needs `vnet`.

        What it has queued already comes as it was. OSError (EBADFD) if the interface was removed.
        """
        ioctl(self._fd, TUNSETOFFLOAD, OFFLOAD if wanted else 0)

    @property
    def tx_dropped(self) -> int:
        """Frames and segments lost on writing: interface down, no memory, queue full in the middle of a run."""
        return self._dropped + self._writer.lost

    def close(self) -> None:
        """Give the interface back: ours disappears, a persistent one stays, without our offload. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self._writer.close()
        try:
            if self.persistent:
                ioctl(fd, TUNSETOFFLOAD, 0)  # else it would hand its next user, who may know no virtio header, merged frames
                if self._is_steered:
                    ioctl(fd, TUNSETSTEERINGEBPF, struct.pack("i", -1))
        except OSError as error:
            if error.errno != errno.EBADFD:  # the interface was removed: nothing to restore
                raise
        finally:
            os.close(fd)


def _open_clone_device() -> int:
    try:
        return os.open(CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR):
            message = (
                f"there is no {CLONE_DEVICE}: load the module with `modprobe tun`, or give a container the device (--device {CLONE_DEVICE})"
            )
        elif error.errno in (errno.EACCES, errno.EPERM):
            message = f"{CLONE_DEVICE} may not be opened: its mode or the container's device rules forbid it ({error.strerror})"
        else:
            message = f"{CLONE_DEVICE} cannot be opened: {error.strerror}"
        raise DeviceError(error.errno or errno.EIO, message) from None


def _attach(fd: int, plan: Plan, existing: Link | None, offload: bool) -> bool:
    """Bind the descriptor to the interface; return whether frames have a virtio header."""
    name = plan.name
    flags = IFF_TUN | IFF_NO_PI
    if offload:
        flags |= IFF_VNET_HDR
    if existing is None:
        flags |= IFF_TUN_EXCL  # one that came up since we looked is not ours to configure
    if plan.multi_queue if existing is None else existing.tun_multi_queue:
        flags |= IFF_MULTI_QUEUE  # must be as it was made; the other flags are the user's
    try:
        ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), flags))
    except OSError as error:
        raise _attach_error(error, name, existing) from None
    _, flags = IFREQ.unpack(ioctl(fd, TUNGETIFF, bytes(IFREQ.size)))
    if flags & IFF_VNET_HDR:
        ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_LENGTH))  # also remembered by a persistent interface
        return True
    return False


def _attach_error(error: OSError, name: str, existing: Link | None) -> DeviceError:
    number = error.errno or errno.EIO
    if number == errno.EBUSY:
        return busy(name)
    if number == errno.EPERM and existing is None:
        return DeviceError(
            number,
            f"creating interface {name} needs CAP_NET_ADMIN: run as root, or have root make one for you to take over"
            f" (`ip tuntap add dev {name} mode tun user {user_name(os.geteuid())}`, then its address, and up)",
        )
    if number == errno.EPERM:
        owner = existing.tun_owner if existing else None
        whose = f"to user {user_name(owner)}" if owner is not None else "to another group"
        return DeviceError(number, f"interface {name} belongs {whose}: run as its owner, or with CAP_NET_ADMIN")
    return DeviceError(number, f"interface {name} cannot be opened: {error.strerror}")
