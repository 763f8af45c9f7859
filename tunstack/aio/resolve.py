"""Hosts and ports as programs give them -> packed addresses and numbers.

Dotted addresses are taken as they are, without a look-up; names go through the event loop's resolver, which is the
machine's. IPv4 so far: the stack has no other addresses.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from tunstack.engine import format_address, pack_address


async def resolve(host: str, port: int | str | None, *, family: int = 0, flags: int = 0) -> list[tuple[bytes, int]]:
    """Return the addresses and port that a host has, at least one.

    OSError (socket.gaierror) where the name or the service is unknown, or the family is not IPv4.
    """
    if family in (0, socket.AF_INET) and (number := _port_number(port)) is not None:
        try:
            return [(pack_address(host), number)]
        except ValueError:
            pass  # a name
    loop = asyncio.get_running_loop()
    if family not in (0, socket.AF_INET):
        raise socket.gaierror(socket.EAI_FAMILY, "Address family not supported: the stack has IPv4 addresses only")
    infos = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_STREAM, flags=flags)
    ends = [(pack_address(str(info[4][0])), int(info[4][1])) for info in infos]
    if not ends:
        raise OSError("getaddrinfo() returned empty list")
    return list(dict.fromkeys(ends))


async def resolve_listening(
    hosts: str | Iterable[str | None] | None, port: int | str | None, *, family: int, flags: int
) -> list[tuple[bytes, int]]:
    """Return what to listen on; None and "" mean every address of the stack."""
    several: list[str | None] = [hosts] if isinstance(hosts, str) or hosts is None else list(hosts)
    ends: list[tuple[bytes, int]] = []
    for host in several:
        ends += await resolve(host or "0.0.0.0", port, family=family, flags=flags)
    return list(dict.fromkeys(ends))


def bind_error(error: OSError, address: bytes, port: int) -> OSError:
    """Return the error of binding to an address in asyncio's words."""
    text = f"error while attempting to bind on address {(format_address(address), port)!r}: {str(error.strerror).lower()}"
    return OSError(error.errno, text)


def connect_error(error: OSError, address: bytes, port: int) -> OSError:
    """Return the error of connecting to an address in asyncio's words."""
    return OSError(error.errno, f"Connect call failed {(format_address(address), port)}")


def _port_number(port: int | str | None) -> int | None:
    """Return the number, None if the port is the name of a service; OverflowError out of range, as bind(2) in Python has it."""
    if isinstance(port, str):
        if not port.isdecimal():
            return None
        port = int(port)
    number = port or 0
    if not 0 <= number <= 65535:
        raise OverflowError("bind(): port must be 0-65535.")
    return number
