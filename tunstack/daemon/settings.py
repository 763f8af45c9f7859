"""Every setting there is: its place in the file, its flag, what it may be, its default and its meaning.

The one source for the command line, the TOML file, `--check-config` and the checks. A flag is the setting's place
joined by hyphens, without the word `services`: `services.http.port` is `--http-port`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tunstack.daemon.algorithm import Algorithm
from tunstack.daemon.algorithm import Choice as AlgorithmChoice
from tunstack.daemon.kinds import (
    Address,
    Choice,
    FilePath,
    HostPort,
    Integer,
    InterfaceName,
    Kind,
    Link,
    NetworkAddress,
    Seconds,
    Several,
    SocketPath,
    Switch,
    UserName,
)

if TYPE_CHECKING:
    from tunstack.device.linkspec import LinkSpec

T = TypeVar("T")
Key = tuple[str, ...]

WORKERS_MAX = 64
LOG_LEVELS = ("debug", "info", "warning", "error")

# The services, with the ports that their RFCs (or IANA) give them, in the order in which they are named to people.
SERVICE_PORTS = {"http": 80, "echo": 7, "discard": 9, "daytime": 13, "chargen": 19}
_SERVICE_TEXT = {
    "http": "HTTP/1.1: files, listings, /status",
    "echo": "sends back what comes, RFC 862",
    "discard": "throws away what comes, RFC 863",
    "daytime": "sends the date and time, RFC 867",
    "chargen": "sends characters without end, RFC 864",
}


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One setting. `default` is a value of its kind; None means that it is not set."""

    key: Key
    kind: Kind[T]
    default: T | None
    help: str

    @property
    def name(self) -> str:
        """Its dotted name in the file."""
        return ".".join(self.key)

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        words = self.key[1:] if self.key[0] == "services" else self.key
        return "--" + "-".join(word for word in words if word != "enabled")


def tun(default: str) -> Setting[str]:
    """Return the setting for the interface's name; its default differs from command to command."""
    return Setting(("tun",), InterfaceName(), default, "name of the TUN interface; made, unless it exists and is ours to take")


def host_address(default: str) -> Setting[IPv4Interface]:
    """Return the setting for the kernel's end of the interface."""
    return Setting(("host-address",), NetworkAddress(), IPv4Interface(default), "the kernel's address on the interface, with its network")


def address(default: str) -> Setting[tuple[IPv4Address, ...]]:
    """Return the setting for our own addresses."""
    return Setting(("address",), Several(Address()), (IPv4Address(default),), "address that tunstack answers to; may be repeated")


# Below 88 no TCP header with all its options fits beside some data.
MTU = Setting(("mtu",), Integer(88, 65535), 1500, "largest IPv4 packet on the interface, in octets")
OFFLOAD = Setting(("offload",), Switch(), True, "exchange segments of up to 64 KB with the kernel (virtio header, TSO)")
USER = Setting(("user",), UserName(), "nobody", "user to become, from root, once the interface is open")
LOG_LEVEL = Setting(("log-level",), Choice(LOG_LEVELS), "info", "what to write to standard error; debug has a line for each HTTP request")
LOOP = Setting(("loop",), Choice(("uvloop", "asyncio")), "uvloop", "event loop to run on")
CONGESTION: Setting[AlgorithmChoice] = Setting(
    ("congestion",), Algorithm(), None, "congestion control, such as reno, or a class of your own, FILE.py:CLASS (default cubic)"
)
CONTROL: Setting[Path | str] = Setting(
    ("control",), SocketPath(), None, "Unix socket for tunstack sysctl and the like (default /run/tunstack/TUN.sock; none: no socket)"
)
METRICS: Setting[tuple[str, int]] = Setting(
    ("metrics",), HostPort(), None, "serve metrics for Prometheus on an address of the machine's (default HOST 127.0.0.1)"
)
WORKERS = Setting(("workers",), Integer(1, WORKERS_MAX), 1, "processes that share the work, each with a queue of the interface")
DRAIN_TIMEOUT = Setting(("drain-timeout",), Seconds(3600), 5.0, "how long open connections may go on after SIGTERM or SIGINT")

LINK: Setting[LinkSpec] = Setting(("link",), Link(), None, "trouble on the way to the network and back, such as delay=20ms,loss=1%")

SERVE_TUN = tun("tunstack0")
SERVE_HOST_ADDRESS = host_address("10.77.0.1/24")
SERVE_ADDRESS = address("10.77.0.2")

SERVICE_ENABLED = {
    name: Setting(("services", name, "enabled"), Switch(), True, f"serve {name} ({_SERVICE_TEXT[name]})") for name in SERVICE_PORTS
}
SERVICE_PORT = {
    name: Setting(("services", name, "port"), Integer(1, 65535, "PORT"), port, f"port of {name}") for name, port in SERVICE_PORTS.items()
}
HTTP_ROOT: Setting[Path] = Setting(("services", "http", "root"), FilePath(), None, "directory whose files HTTP serves; none: /status only")
HTTP_UPLOAD = Setting(("services", "http", "upload"), Switch(), False, "let HTTP clients write files below --http-root with PUT")

INTERFACE_SETTINGS: Sequence[Setting[Any]] = (SERVE_TUN, SERVE_HOST_ADDRESS, SERVE_ADDRESS, MTU, OFFLOAD, LINK)
PROCESS_SETTINGS: Sequence[Setting[Any]] = (WORKERS, USER, LOOP, LOG_LEVEL, DRAIN_TIMEOUT, CONTROL, METRICS, CONGESTION)
SERVICE_SETTINGS: Sequence[Setting[Any]] = (
    *(setting for name in SERVICE_PORTS for setting in (SERVICE_ENABLED[name], SERVICE_PORT[name])),
    HTTP_ROOT,
    HTTP_UPLOAD,
)
SERVE_SETTINGS: Sequence[Setting[Any]] = (*INTERFACE_SETTINGS, *PROCESS_SETTINGS, *SERVICE_SETTINGS)
