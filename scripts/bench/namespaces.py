"""Network namespaces, and the links in them.

A namespace here has no name: it lives as long as a descriptor or a process holds it, so that nothing is left behind
however the benchmark ends, killed or not. Interfaces go with their namespace.
"""

from __future__ import annotations

import array
import asyncio
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from pyroute2 import IPRoute  # type: ignore[import-untyped]

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
SIOCETHTOOL = 0x8946  # <linux/sockios.h>
# <linux/ethtool.h>: the commands that set transmit checksums, scatter and gather, TSO, GSO and GRO.
OFFLOAD_COMMANDS = (0x17, 0x19, 0x1F, 0x24, 0x2C)

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own: a thread has a network namespace of its own, and takes it along when it ends."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


class Namespace:
    """A network namespace of our own, with nothing in it but a loopback interface that is down. PermissionError without CAP_SYS_ADMIN."""

    def __init__(self) -> None:
        def create() -> int:
            _check(_libc.unshare(CLONE_NEWNET))
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = _in_thread(create)
        self.set_sysctl("ipv6/conf/all/disable_ipv6", "1")  # no solicitations in between
        self.set_sysctl("ipv6/conf/default/disable_ipv6", "1")

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)

    def enter(self) -> None:
        """Move the calling thread, or the child process before its exec, into the namespace."""
        _check(_libc.setns(self.fd, CLONE_NEWNET))

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` inside."""

        def inside() -> T:
            self.enter()
            return work()

        return _in_thread(inside)

    def set_sysctl(self, name: str, value: str) -> None:
        """Set net/`name`. Where the kernel has no such knob, there is nothing to set."""

        def write() -> None:
            try:
                with open(f"/proc/sys/net/{name}", "w") as knob:
                    knob.write(value)
            except FileNotFoundError:
                pass

        self.run(write)

    def set_up(self, interface: str, address: str, prefix: int) -> None:
        """Give an interface its address and bring it up."""

        def configure() -> None:
            with IPRoute(use_event_loop=asyncio.SelectorEventLoop()) as route:
                (index,) = route.link_lookup(ifname=interface)
                route.addr("add", index=index, address=address, prefixlen=prefix)
                route.link("set", index=index, state="up")

        self.run(configure)

    def add_address(self, interface: str, address: str) -> None:
        """Give an interface that is up one more address."""

        def configure() -> None:
            with IPRoute(use_event_loop=asyncio.SelectorEventLoop()) as route:
                (index,) = route.link_lookup(ifname=interface)
                route.addr("add", index=index, address=address, prefixlen=32)

        self.run(configure)

    def add_route(self, network: str, interface: str) -> None:
        """Send what is for a network out of an interface."""

        def configure() -> None:
            with IPRoute(use_event_loop=asyncio.SelectorEventLoop()) as route:
                (index,) = route.link_lookup(ifname=interface)
                route.route("add", dst=network, oif=index)

        self.run(configure)

    def disable_offloads(self, interface: str) -> None:
        """Have each packet cut and checksummed before it leaves through the interface, and none merged that came in."""

        def command() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                for number in OFFLOAD_COMMANDS:
                    value = array.array("I", (number, 0))  # struct ethtool_value
                    pointer, _ = value.buffer_info()
                    fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), pointer))

        self.run(command)


def connect(left: Namespace, right: Namespace, interface: str) -> None:
    """Join two namespaces by a veth pair; its end has the same name in both."""

    def create() -> None:
        with IPRoute(use_event_loop=asyncio.SelectorEventLoop()) as route:
            route.link("add", ifname=interface, kind="veth", peer={"ifname": interface, "net_ns_fd": right.fd})

    left.run(create)
