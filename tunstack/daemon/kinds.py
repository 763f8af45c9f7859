"""Kinds of setting: how a value is written on the command line and in TOML, and what it may be.

A kind turns either form into the value that the daemon uses, or raises ValueError with a message that completes the
sentence "NAME: ...".
"""

from __future__ import annotations

import difflib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from tunstack.device.linkspec import LinkSpec

T = TypeVar("T")

NO_SOCKET = "none"

_TOML_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string", list: "an array", dict: "a table"}
_TOML_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class ItemError(ValueError):
    """A member of an array is wrong; `index` says which."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def describe(value: object) -> str:
    """Name the TOML type of a value, for a message."""
    return _TOML_NAMES.get(type(value), "a date or time")


def quote(text: str) -> str:
    """Write a TOML basic string."""
    return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda match: _TOML_ESCAPES.get(match[0], f"\\u{ord(match[0]):04x}"), text) + '"'


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that was probably meant, or nothing."""
    # An underscore for a hyphen is the commonest slip.
    near = difflib.get_close_matches(name.replace("_", "-"), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class Kind(ABC, Generic[T]):
    """One kind of value."""

    metavar = "VALUE"

    @abstractmethod
    def from_text(self, text: str) -> T:
        """Read what stands on the command line."""

    @abstractmethod
    def from_toml(self, value: object) -> T:
        """Take what tomllib read."""

    @abstractmethod
    def to_toml(self, value: T) -> str:
        """Write the value as it would stand in a file."""


class TextKind(Kind[T]):
    """A kind that is a string in TOML, of the same form as on the command line."""

    def from_toml(self, value: object) -> T:
        if not isinstance(value, str):
            raise ValueError(f"must be a string, not {describe(value)}")
        return self.from_text(value)

    def to_toml(self, value: T) -> str:
        return quote(str(value))


class Integer(Kind[int]):
    """A whole number within bounds, both included."""

    metavar = "N"

    def __init__(self, low: int, high: int, metavar: str = "N") -> None:
        self.low = low
        self.high = high
        self.metavar = metavar

    def from_text(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise ValueError(f"{text!r} is not a whole number")
        return self._check(int(text))

    def from_toml(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be an integer, not {describe(value)}")
        return self._check(value)

    def to_toml(self, value: int) -> str:
        return str(value)

    def _check(self, value: int) -> int:
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not between {self.low} and {self.high}")
        return value


class Seconds(Kind[float]):
    """A length of time in seconds, fractions allowed."""

    metavar = "SECONDS"

    def __init__(self, high: float) -> None:
        self.high = high

    def from_text(self, text: str) -> float:
        if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", text):
            raise ValueError(f"{text!r} is not a number of seconds")
        return self._check(float(text))

    def from_toml(self, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"must be a number of seconds, not {describe(value)}")
        return self._check(float(value))

    def to_toml(self, value: float) -> str:
        return f"{value:g}"

    def _check(self, value: float) -> float:
        if math.isnan(value) or not 0 <= value <= self.high:
            raise ValueError(f"{value:g} is not between 0 and {self.high:g} seconds")
        return value


class Switch(Kind[bool]):
    """On or off. On the command line it is a flag with a `--no-` form, so `from_text` serves `KEY=VALUE` only."""

    def from_text(self, text: str) -> bool:
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"

    def from_toml(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {describe(value)}")
        return value

    def to_toml(self, value: bool) -> str:
        return "true" if value else "false"


class Choice(TextKind[str]):
    """One of a few words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.metavar = "{" + ",".join(words) + "}"

    def from_text(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"{text!r} is none of {', '.join(self.words)}")
        return text


class InterfaceName(TextKind[str]):
    """The name of a network interface, by Linux's rules (at most 15 octets)."""

    metavar = "NAME"

    def from_text(self, text: str) -> str:
        if not 1 <= len(text.encode()) <= 15:
            raise ValueError(f"{text!r} is not an interface name: it must have 1 to 15 octets")
        if text in (".", "..") or re.search(r"[\s/:%]", text) or not text.isprintable():
            raise ValueError(f"{text!r} is not an interface name: it must not have blanks, '/', ':' or '%' in it")
        return text


class UserName(TextKind[str]):
    """A user's name or number; whether there is such a user is known when root is given up."""

    metavar = "USER"

    def from_text(self, text: str) -> str:
        if not text or not text.isprintable() or re.search(r"[\s:]", text):
            raise ValueError(f"{text!r} is not a user's name")
        return text


class Address(TextKind[IPv4Address]):
    """An IPv4 address of one host."""

    metavar = "ADDRESS"

    def from_text(self, text: str) -> IPv4Address:
        try:
            address = IPv4Address(text)
        except AddressValueError as error:
            raise ValueError(f"{text!r} is not an IPv4 address") from error
        if address.is_multicast or address.is_unspecified or address.is_loopback or address == IPv4Address("255.255.255.255"):
            raise ValueError(f"{text} cannot be the address of a host on an interface")
        return address


class NetworkAddress(TextKind[IPv4Interface]):
    """An IPv4 address with the length of its network's prefix, as `ip address` writes it."""

    metavar = "ADDRESS/PREFIX"

    def from_text(self, text: str) -> IPv4Interface:
        address, slash, prefix = text.partition("/")
        if not slash or not re.fullmatch("[0-9]{1,2}", prefix):
            raise ValueError(f"{text!r} is not an address with a prefix length, such as 10.77.0.1/24")
        Address().from_text(address)
        try:
            interface = IPv4Interface(text)
        except (AddressValueError, NetmaskValueError) as error:
            raise ValueError(f"{text!r} has a prefix length beyond 32") from error
        if not 1 <= interface.network.prefixlen <= 31:
            raise ValueError(f"{text}: the prefix must leave room for a second address (at most /31)")
        check_host(interface.ip, interface)
        return interface


def check_host(address: IPv4Address, interface: IPv4Interface) -> None:
    """Raise ValueError if an address within an interface's network is no host's."""
    network = interface.network
    if network.prefixlen < 31 and address in (network.network_address, network.broadcast_address):
        name = "network" if address == network.network_address else "broadcast"
        raise ValueError(f"{address} is the {name} address of {network}")


class FilePath(TextKind[Path]):
    """A path. One that a file gives is relative to the directory of that file (see config.py)."""

    metavar = "DIR"

    def from_text(self, text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is not a path")
        return Path(text)


class SocketPath(TextKind[Path | str]):
    """The path of a Unix socket, or NO_SOCKET: there is to be none."""

    metavar = "PATH"

    def from_text(self, text: str) -> Path | str:
        return NO_SOCKET if text == NO_SOCKET else FilePath().from_text(text)


class HostPort(TextKind[tuple[str, int]]):
    """An address of the machine and a port, `[HOST:]PORT`; without HOST it is 127.0.0.1. Port 0 chooses one."""

    metavar = "[HOST:]PORT"

    def from_toml(self, value: object) -> tuple[str, int]:
        """A port alone may be a number."""
        return super().from_toml(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)

    def from_text(self, text: str) -> tuple[str, int]:
        host, _, port = text.rpartition(":")
        try:
            return str(IPv4Address(host or "127.0.0.1")), Integer(0, 65535).from_text(port)
        except ValueError as error:
            raise ValueError(f"{text!r} is not of the form [HOST:]PORT, with an IPv4 address") from error

    def to_toml(self, value: tuple[str, int]) -> str:
        return quote(f"{value[0]}:{value[1]}")


class Link(TextKind["LinkSpec"]):
    """What a link between us and the network does, such as `delay=20ms,loss=1%` (device/linkspec.py)."""

    metavar = "SPEC"

    def from_text(self, text: str) -> LinkSpec:
        from tunstack.device import linkspec  # with the codec: not needed for help

        return linkspec.parse(text)


class Time(TextKind[int]):
    """A length of time in µs, written with its unit, as the items of a link are."""

    metavar = "TIME"

    def from_text(self, text: str) -> int:
        from tunstack.device import linkspec

        return linkspec.parse_time(text)

    def to_toml(self, value: int) -> str:
        return quote(f"{value}us")


class Several(Kind[tuple[T, ...]]):
    """One or more values: an array in TOML, a flag that is repeated on the command line."""

    def __init__(self, kind: Kind[T]) -> None:
        self.kind = kind
        self.metavar = kind.metavar

    def from_text(self, text: str) -> tuple[T, ...]:
        return (self.kind.from_text(text),)

    def from_toml(self, value: object) -> tuple[T, ...]:
        items: Sequence[object] = value if isinstance(value, list) else [value]
        if not items:
            raise ValueError("must not be empty")
        values = []
        for index, item in enumerate(items):
            try:
                values.append(self.kind.from_toml(item))
            except ValueError as error:
                raise ItemError(index, str(error)) from error
        return tuple(values)

    def to_toml(self, value: tuple[T, ...]) -> str:
        return "[" + ", ".join(self.kind.to_toml(item) for item in value) + "]"
