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
import pwd
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from tunstack.device import steeringprogram
from tunstack.device.errors import DeviceError
from tunstack.device.netlink import Link, Netlink, with_netlink
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
IFF_TUN = 0x0001
IFF_MULTI_QUEUE = 0x0100
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO_ECN = 0x04  # runs with CWR too, which belongs to their first packet
OFFLOAD = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN
IFREQ = struct.Struct("16sH22x")
NAME_MAX = 15  # IFNAMSIZ without its NUL
VNET_HEADER_LENGTH = 10

# The kernel accepts 68. Below 88 no TCP with all its options fits (Linux's TCP_MIN_SND_MSS of 48 and 40 octets of headers).
MTU_MIN = 88
MTU_MAX = 65535

# What one write takes: a burst, cut to super-segments or packets in C.
MAX_PAYLOAD = 256 * 1024

# The kernel drops in silence what does not fit its queue, which looks to its TCP like congestion. Its senders are local and burst
# up to a whole receive window while we are busy elsewhere: 5000 frames of 1500 octets hold one of tcp_rmem's largest (6 MiB).
TXQUEUELEN = 5000

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
        plan = _Plan(name, _host_address(host_address), ours, mtu, txqueuelen, multi_queue)
        _check_name(name)
        _check_mtu(mtu)
        fd = _open_clone_device()
        try:
            taken_over = with_netlink(lambda netlink: _survey(netlink, plan))
            link = taken_over[0] if taken_over else None
            vnet = _attach(fd, plan, link, offload)
            offload = vnet and offload
            # Always said, since a persistent interface remembers what its last user wanted.
            ioctl(fd, TUNSETOFFLOAD, OFFLOAD if offload else 0)
            if taken_over:
                existing, host = taken_over
                return cls(fd, name, host, existing.mtu, vnet, offload, True)
            with_netlink(lambda netlink: _set_up(netlink, plan))
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


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the user asked for."""

    name: str
    host: IPv4Interface
    addresses: tuple[IPv4Address, ...]
    mtu: int
    txqueuelen: int
    multi_queue: bool


def _check_name(name: str) -> None:
    encoded = name.encode()
    if len(encoded) > NAME_MAX:
        raise DeviceError(errno.ENAMETOOLONG, f"interface name {name!r} is too long: at most {NAME_MAX} characters")
    # As dev_valid_name() has it; '%' asks the kernel to choose a number and is no name either.
    if not name or name in (".", "..") or any(c in "/:%" or c.isspace() or not c.isprintable() for c in name):
        raise DeviceError(errno.EINVAL, f"interface name {name!r} is not valid: no '/', ':', '%' or spaces, and not empty, '.' or '..'")


def _check_mtu(mtu: int) -> None:
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise DeviceError(errno.EINVAL, f"MTU {mtu} is out of range: {MTU_MIN} to {MTU_MAX}")


def _host_address(text: str) -> IPv4Interface:
    """Return the host's address with its subnet; DeviceError unless it is one that a host can bear."""
    try:
        host = IPv4Interface(text)
    except ValueError:
        raise DeviceError(errno.EINVAL, f"host address {text!r} is not an IPv4 address with a prefix, such as 10.77.0.1/24") from None
    subnet = host.network
    if subnet.prefixlen == 32:
        raise DeviceError(errno.EINVAL, f"host address {text!r} leaves no address for the stack: give the subnet too, such as {host.ip}/24")
    reason = _unfit(host.ip, host)
    if reason:
        raise DeviceError(errno.EINVAL, f"host address {host} is not usable: it is {reason}")
    return host


def _unfit(address: IPv4Address, host: IPv4Interface) -> str | None:
    """Return why a host of the subnet cannot bear the address, None if it can."""
    if address.is_multicast:
        return "a multicast address"
    if address.is_loopback:
        return "a loopback address"
    if address in _ZERO_NETWORK or address.is_reserved:
        return "a reserved address"
    if host.network.prefixlen < 31:  # RFC 3021: the two addresses of a /31 are both hosts
        if address == host.network.network_address:
            return f"the address of the subnet {host.network} itself"
        if address == host.network.broadcast_address:
            return f"the broadcast address of {host.network}"
    return None


_ZERO_NETWORK = IPv4Interface("0.0.0.0/8").network


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


def _survey(netlink: Netlink, plan: _Plan) -> tuple[Link, IPv4Interface] | None:
    """Return the persistent interface of that name and its address, None if one is to be made; DeviceError if neither can be."""
    link = netlink.link(plan.name)
    if link is None:
        _check_addresses(plan)
        _check_conflicts(netlink, plan)
        return None
    if link.kind != "tun" or link.tun_type != IFF_TUN:
        kind = "tap" if link.kind == "tun" else link.kind
        raise DeviceError(
            errno.EEXIST, f"interface name {plan.name} is taken{f' by a {kind} interface' if kind else ''}: choose another name"
        )
    if not link.tun_persist or link.tun_queues:
        raise _busy(plan.name)
    if plan.multi_queue and not link.tun_multi_queue:
        raise DeviceError(
            errno.EINVAL,
            f"interface {plan.name} was made with one queue: make it anew with `ip tuntap add dev {plan.name} mode tun multi_queue"
            f" user {_user_name(os.geteuid())}`, or serve with one worker",
        )
    return link, _host_of(netlink, link, plan)


def _check_addresses(plan: _Plan) -> None:
    for address in plan.addresses:
        if address not in plan.host.network:
            raise DeviceError(errno.EADDRNOTAVAIL, f"address {address} is not within the interface's subnet {plan.host.network}")
        if address == plan.host.ip:
            raise DeviceError(errno.EADDRINUSE, f"address {address} is the host's own: the stack needs another one of {plan.host.network}")
        reason = _unfit(address, plan.host)
        if reason:
            raise DeviceError(errno.EADDRNOTAVAIL, f"address {address} is not usable: it is {reason}")


def _check_conflicts(netlink: Netlink, plan: _Plan) -> None:
    """Refuse addresses and subnets that the machine uses already; the kernel itself would not object."""
    names = netlink.link_names()
    for index, own in netlink.addresses():
        if own.ip == plan.host.ip or own.ip in plan.addresses:
            raise DeviceError(
                errno.EADDRINUSE, f"address {own.ip} is already in use on interface {names.get(index, index)}: choose another subnet"
            )
    subnet = plan.host.network
    for route in netlink.routes():
        # A wider route through a gateway is overridden, as every narrower route does; a narrower one would override ours.
        if route.network.subnet_of(subnet) or (route.is_link and route.network.overlaps(subnet)):
            via = f"interface {names.get(route.index, route.index)}" if route.index else "a blackhole or unreachable route"
            raise DeviceError(
                errno.EADDRINUSE, f"subnet {subnet} overlaps {route.network}, which is in use by {via}: choose another subnet"
            )


def _attach(fd: int, plan: _Plan, existing: Link | None, offload: bool) -> bool:
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
        return _busy(name)
    if number == errno.EPERM and existing is None:
        return DeviceError(
            number,
            f"creating interface {name} needs CAP_NET_ADMIN: run as root, or have root make one for you to take over"
            f" (`ip tuntap add dev {name} mode tun user {_user_name(os.geteuid())}`, then its address, and up)",
        )
    if number == errno.EPERM:
        owner = existing.tun_owner if existing else None
        whose = f"to user {_user_name(owner)}" if owner is not None else "to another group"
        return DeviceError(number, f"interface {name} belongs {whose}: run as its owner, or with CAP_NET_ADMIN")
    return DeviceError(number, f"interface {name} cannot be opened: {error.strerror}")


def _busy(name: str) -> DeviceError:
    return DeviceError(errno.EBUSY, f"interface {name} is in use by another process: end that one or choose another name")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _set_up(netlink: Netlink, plan: _Plan) -> None:
    """Configure the interface that we have just made."""
    link = netlink.link(plan.name)
    try:
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        netlink.set_up(link.index, plan.host, plan.mtu, plan.txqueuelen)
    except OSError as error:
        raise DeviceError(error.errno or errno.EIO, f"interface {plan.name} cannot be configured: {error.strerror}") from None


def _host_of(netlink: Netlink, link: Link, plan: _Plan) -> IPv4Interface:
    """Return the address that the administrator gave a persistent interface; DeviceError if he left it unready."""
    _check_mtu(link.mtu)
    if not link.is_up:
        raise DeviceError(errno.ENETDOWN, f"interface {link.name} is down: bring it up first (`ip link set {link.name} up`)")
    own = [address for index, address in netlink.addresses() if index == link.index]
    if not own:
        raise DeviceError(
            errno.EADDRNOTAVAIL,
            f"interface {link.name} has no IPv4 address: give it one first (`ip address add {plan.host} dev {link.name}`)",
        )
    for address in plan.addresses:
        if any(address == host.ip for host in own):
            raise DeviceError(errno.EADDRINUSE, f"address {address} is the host's own on {link.name}: the stack needs another one")
        if netlink.route_index(address) != link.index:
            raise DeviceError(
                errno.EADDRNOTAVAIL, f"address {address} is not reached through interface {link.name} ({', '.join(map(str, own))})"
            )
    return own[0]
