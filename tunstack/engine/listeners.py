"""Which listener takes a SYN: the table of those of a stack, and what those that share a port have in common.

RFC 9293 3.10.7.2, SO_REUSEPORT as Linux does it (M-58). Times are int microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tunstack.engine.ports import overlaps

if TYPE_CHECKING:
    from tunstack.engine.listener import Listener


class PortGroup:
    """The listeners of one address and port; more than one only with SO_REUSEPORT.

    Whichever of them a SYN came to, the third segment of its handshake may come to another, once one has joined or gone: cookies are
    the group's.
    """

    __slots__ = ("cookies_until", "members")

    def __init__(self) -> None:
        self.members: list[Listener] = []
        self.cookies_until = 0  # when the last cookie that was sent is stale; before, third segments are looked at


class Listeners:
    """All listeners of a stack. `pick(flow)` is a keyed hash, by which a group is shared out: nobody can aim at one listener."""

    __slots__ = ("_groups", "_pick", "_ports")

    def __init__(self, pick: Callable[[bytes], int]) -> None:
        self._pick = pick
        self._groups: dict[bytes, PortGroup] = {}  # by address and port as they stand in a flow
        self._ports: dict[int, list[Listener]] = {}  # whatever the address

    def __iter__(self) -> Iterator[Listener]:
        return (listener for group in self._groups.values() for listener in group.members)

    def add(self, listener: Listener) -> None:
        """Take a listener in, and tell it its group."""
        group = listener.group = self._groups.setdefault(_end(listener), PortGroup())
        group.members.append(listener)
        self._ports.setdefault(listener.port, []).append(listener)

    def remove(self, listener: Listener) -> None:
        """A listener closed."""
        listener.group.members.remove(listener)
        if not listener.group.members:
            del self._groups[_end(listener)]
        port = self._ports[listener.port]
        port.remove(listener)
        if not port:
            del self._ports[listener.port]

    def on(self, address: bytes, port: int) -> list[Listener]:
        """Return those that listen on a port of an address, or of one that covers it."""
        return [other for other in self._ports.get(port, ()) if overlaps(other.address, address)]

    def find(self, flow: bytes) -> Listener | None:  # hot
        """Return the listener for an incoming flow: the exact address before the wildcard; of several, one by the flow's hash."""
        n = (len(flow) - 4) >> 1  # octets of an address, see flow.py
        port = flow[-2:]
        group = self._groups.get(flow[n : n + n] + port) or self._groups.get(bytes(n) + port)
        if group is None:
            return None
        members = group.members
        return members[0] if len(members) == 1 else members[self._pick(flow) % len(members)]


def _end(listener: Listener) -> bytes:
    return listener.address + listener.port.to_bytes(2, "big")
