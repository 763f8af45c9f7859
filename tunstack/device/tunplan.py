"""Which TUN interface is asked for, and whether it can be had: names, addresses, what the machine has already, and what is to be set up.

Asks netlink and changes nothing but in `set_up`. DeviceError says in one line what is in the way.
"""

from __future__ import annotations

import errno
import os
import pwd
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from tunstack.device.errors import DeviceError
from tunstack.device.netlink import Link, Netlink

IFF_TUN = 0x0001  # <linux/if_tun.h>
NAME_MAX = 15  # IFNAMSIZ without its NUL

# The kernel accepts 68. Below 88 no TCP with all its options fits (Linux's TCP_MIN_SND_MSS of 48 and 40 octets of headers).
MTU_MIN = 88
MTU_MAX = 65535

_ZERO_NETWORK = IPv4Interface("0.0.0.0/8").network


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user asked for."""

    name: str
    host: IPv4Interface
    addresses: tuple[IPv4Address, ...]
    mtu: int
    txqueuelen: int
    multi_queue: bool


def check_name(name: str) -> None:
    """DeviceError unless the kernel takes the name."""
    encoded = name.encode()
    if len(encoded) > NAME_MAX:
        raise DeviceError(errno.ENAMETOOLONG, f"interface name {name!r} is too long: at most {NAME_MAX} characters")
    # As dev_valid_name() has it; '%' asks the kernel to choose a number and is no name either.
    if not name or name in (".", "..") or any(c in "/:%" or c.isspace() or not c.isprintable() for c in name):
        raise DeviceError(errno.EINVAL, f"interface name {name!r} is not valid: no '/', ':', '%' or spaces, and not empty, '.' or '..'")


def check_mtu(mtu: int) -> None:
    """DeviceError unless a TCP fits."""
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise DeviceError(errno.EINVAL, f"MTU {mtu} is out of range: {MTU_MIN} to {MTU_MAX}")


def parse_host_address(text: str) -> IPv4Interface:
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


def survey(netlink: Netlink, plan: Plan) -> tuple[Link, IPv4Interface] | None:
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
        raise busy(plan.name)
    if plan.multi_queue and not link.tun_multi_queue:
        raise DeviceError(
            errno.EINVAL,
            f"interface {plan.name} was made with one queue: make it anew with `ip tuntap add dev {plan.name} mode tun multi_queue"
            f" user {user_name(os.geteuid())}`, or serve with one worker",
        )
    return link, _host_of(netlink, link, plan)


def _check_addresses(plan: Plan) -> None:
    for address in plan.addresses:
        if address not in plan.host.network:
            raise DeviceError(errno.EADDRNOTAVAIL, f"address {address} is not within the interface's subnet {plan.host.network}")
        if address == plan.host.ip:
            raise DeviceError(errno.EADDRINUSE, f"address {address} is the host's own: the stack needs another one of {plan.host.network}")
        reason = _unfit(address, plan.host)
        if reason:
            raise DeviceError(errno.EADDRNOTAVAIL, f"address {address} is not usable: it is {reason}")


def _check_conflicts(netlink: Netlink, plan: Plan) -> None:
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


def busy(name: str) -> DeviceError:
    """Return the error for an interface that somebody else has."""
    return DeviceError(errno.EBUSY, f"interface {name} is in use by another process: end that one or choose another name")


def user_name(uid: int) -> str:
    """Return the name of a user, or his number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def set_up(netlink: Netlink, plan: Plan) -> None:
    """Configure the interface that we have just made."""
    link = netlink.link(plan.name)
    try:
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        netlink.set_up(link.index, plan.host, plan.mtu, plan.txqueuelen)
    except OSError as error:
        raise DeviceError(error.errno or errno.EIO, f"interface {plan.name} cannot be configured: {error.strerror}") from None


def _host_of(netlink: Netlink, link: Link, plan: Plan) -> IPv4Interface:
    """Return the address that the administrator gave a persistent interface; DeviceError if he left it unready."""
    check_mtu(link.mtu)
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
