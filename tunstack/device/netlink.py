"""The kernel's view of interfaces, addresses and routes, over netlink (pyroute2).

IPv4 of the network namespace of the calling thread. Everything here is done in a short-lived thread with an event loop
of its own: pyroute2 runs one inside its synchronous calls, which neither nests in a running loop nor works on uvloop's.
A call blocks for some milliseconds, so it belongs to opening a device, not to its traffic.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, TypeVar

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl import rt_scope, rt_type  # type: ignore[import-untyped]

T = TypeVar("T")

AF_INET = 2
IFF_UP = 0x1
RT_TABLE_MAIN = 254


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. The `tun_*` fields say how it was made and mean nothing unless `kind` is "tun"."""

    index: int
    name: str
    kind: str  # "tun", "veth", ...; "" where the driver has no name (a network card)
    mtu: int
    is_up: bool
    tun_type: int = 0  # IFF_TUN or IFF_TAP
    tun_persist: bool = False
    tun_multi_queue: bool = False
    tun_queues: int = 0  # queues that some process has attached; known for multi-queue interfaces only
    tun_owner: int | None = None  # uid that may attach without CAP_NET_ADMIN


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table; `index` is None where it leads to no interface (blackhole, unreachable)."""

    network: IPv4Network
    index: int | None
    is_link: bool  # a subnet that is directly on the interface


class Netlink:
    """One conversation with the kernel; only inside `with_netlink`. Raises OSError with the kernel's errno."""

    def __init__(self, ipr: Any) -> None:
        self._ipr = ipr

    def link(self, name: str) -> Link | None:
        """Return the interface of that name, None if there is none."""
        try:
            for message in self._ipr.link("get", ifname=name):
                return _link(message)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise OSError(error.code, str(error)) from error
        return None

    def link_names(self) -> dict[int, str]:
        """Return the names of all interfaces by their index."""
        return {message["index"]: message.get_attr("IFLA_IFNAME") for message in self._ipr.get_links()}

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """Return (interface index, own address) of all interfaces. With a peer, the prefix is the peer's."""
        return [
            (message["index"], IPv4Interface((message.get_attr("IFA_LOCAL"), message["prefixlen"])))
            for message in self._ipr.get_addr(family=AF_INET)
        ]

    def routes(self) -> list[Route]:
        """Return the main table without its default routes."""
        return [
            Route(
                IPv4Network((message.get_attr("RTA_DST"), message["dst_len"])),
                message.get_attr("RTA_OIF"),
                message["scope"] == rt_scope["link"] and message["type"] == rt_type["unicast"],
            )
            for message in self._ipr.get_routes(family=AF_INET, table=RT_TABLE_MAIN)
            if message["dst_len"]
        ]

    def route_index(self, address: IPv4Address) -> int | None:
        """Return the index of the interface that packets for the address leave through, None if they leave nowhere."""
        try:
            for message in self._ipr.route("get", dst=str(address)):
                index: int | None = message.get_attr("RTA_OIF")
                return index
        except NetlinkError:
            return None  # ENETUNREACH, or EHOSTUNREACH, EACCES of an unreachable or prohibit route
        return None

    def set_up(self, index: int, address: IPv4Interface, mtu: int, txqueuelen: int) -> None:
        """Give an interface its MTU, queue length and address, and bring it up."""
        try:
            self._ipr.link("set", index=index, mtu=mtu, txqlen=txqueuelen)
            self._ipr.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            self._ipr.link("set", index=index, state="up")
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error


def with_netlink(work: Callable[[Netlink], T]) -> T:
    """Run `work` in a thread of its own and return what it returns; its exceptions come out here."""

    def run() -> T:
        loop = asyncio.SelectorEventLoop()
        try:
            with IPRoute(use_event_loop=loop) as ipr:
                result = work(Netlink(ipr))
            loop.run_until_complete(asyncio.sleep(0))  # lets the closed transport give its descriptor back
            return result
        finally:
            loop.close()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(run).result()


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    link = Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind or "",
        mtu=message.get_attr("IFLA_MTU"),
        is_up=bool(message["flags"] & IFF_UP),
    )
    data = info.get_attr("IFLA_INFO_DATA") if kind == "tun" else None
    if data is None:
        return link
    return replace(
        link,
        tun_type=data.get_attr("IFLA_TUN_TYPE"),
        tun_persist=bool(data.get_attr("IFLA_TUN_PERSIST")),
        tun_multi_queue=bool(data.get_attr("IFLA_TUN_MULTI_QUEUE")),
        tun_queues=(data.get_attr("IFLA_TUN_NUM_QUEUES") or 0) + (data.get_attr("IFLA_TUN_NUM_DISABLED_QUEUES") or 0),
        tun_owner=data.get_attr("IFLA_TUN_OWNER"),
    )
