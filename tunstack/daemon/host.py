"""From a configuration to a running process: the interface, the user, the event loop.

The order is: open the interface (needs CAP_NET_ADMIN), import what will be needed (may need root to read), give root up, start the loop.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunstack.daemon.config import InterfaceConfig
from tunstack.daemon.errors import UserError
from tunstack.daemon.privileges import PrivilegeError, drop_privileges
from tunstack.daemon.status import version
from tunstack.daemon.sysctls import Value, build
from tunstack.device.errors import DeviceError
from tunstack.device.tun import TunDevice
from tunstack.engine import pack_address

# The name, the address or the network is taken: another one may be free.
IN_USE = frozenset({errno.EBUSY, errno.EEXIST, errno.EADDRINUSE})


def open_device(interface: InterfaceConfig, sysctl: Mapping[str, Value]) -> TunDevice:
    """Open the TUN interface; UserError says in a line what is in the way."""
    return open_first([interface], sysctl)[0]


def open_queues(interface: InterfaceConfig, sysctl: Mapping[str, Value], count: int) -> list[TunDevice]:
    """Open the TUN interface with several queues; UserError likewise. What it gets back when all are done is the first one's to give."""
    try:
        return TunDevice.open_queues(count, interface.tun, **_settings(interface, sysctl))
    except DeviceError as error:
        raise UserError(str(error)) from error


def open_first(interfaces: Sequence[InterfaceConfig], sysctl: Mapping[str, Value]) -> tuple[TunDevice, InterfaceConfig]:
    """Open the first of several interfaces that is free; UserError if none is, or if one fails for another reason.

    `sysctl` are the knobs that were set.
    """
    for index, interface in enumerate(interfaces):
        try:
            device = TunDevice.open(interface.tun, **_settings(interface, sysctl))
        except DeviceError as error:
            if error.errno not in IN_USE or index == len(interfaces) - 1:
                raise UserError(str(error)) from error
        else:
            return device, interface
    raise ValueError("no interface to open")


def _settings(interface: InterfaceConfig, sysctl: Mapping[str, Value]) -> dict[str, Any]:
    """Return what TunDevice.open is to be told."""
    return {
        "host_address": str(interface.host_address),
        "addresses": [pack_address(str(address)) for address in interface.addresses],
        "mtu": interface.mtu,
        "offload": interface.offload,
        "txqueuelen": build(sysctl).netdev_max_backlog,
    }


def give_up_root(user: str) -> None:
    """Become `user`, if we are root, and keep no capability; what is imported after this must be readable for that user."""
    # Both would be imported late, by the event loop: for its threads, and for names of hosts.
    import concurrent.futures.thread  # noqa: F401

    codecs.lookup("idna")
    version()  # reads files of the package's, by means of further modules, and remembers it
    try:
        drop_privileges(user)
    except PrivilegeError as error:
        raise UserError(str(error)) from error


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop of a kind, `uvloop` or `asyncio`."""
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError as error:
        raise UserError("uvloop is not installed: install it, or run with --loop asyncio") from error
    return uvloop.new_event_loop
