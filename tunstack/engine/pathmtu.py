"""Path MTUs by destination: what ICMP "fragmentation needed" taught.

RFC 1191. Bounds and lifetime are Linux's (net.ipv4.route.min_pmtu, mtu_expires): after ten minutes without news the path is
taken for what the device is, and segments grow again. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tunstack.engine.pathmss import set_mtu
from tunstack.engine.timers import NEVER, TimerHeap
from tunstack.wire.flow import unpack_flow

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.sysctl import Sysctl

ENTRIES_MAX = 4096
SECOND = 1_000_000


class Learned:
    """The MTU to one destination; it has a timer."""

    __slots__ = ("_table", "connections", "destination", "expires_at", "heap_at", "mtu")

    def __init__(self, table: PathMtu, destination: bytes, mtu: int, expires_at: int) -> None:
        self._table = table
        self.destination = destination
        self.mtu = mtu
        self.expires_at = expires_at
        self.heap_at = NEVER
        self.connections: WeakKeyDictionary[Connection, None] = WeakKeyDictionary()  # those to the destination, in order

    def next_deadline(self) -> int:
        """Return when it is forgotten."""
        return self.expires_at

    def on_timer(self, now: int) -> None:
        """Forget it."""
        self._table.forget(self)


class PathMtu:
    """The MTU to each destination where it is less than the device's, and the connections that go there, which hear of every change.

    `connections` gives all of the stack's. They are looked through once for a destination that is learned, not with every packet that
    somebody sends about it; whoever makes a new one calls `join`.
    """

    __slots__ = ("_connections", "_learned", "_sysctl", "_timers", "mtu")

    def __init__(self, mtu: int, sysctl: Sysctl, timers: TimerHeap, connections: Callable[[], Iterable[Connection]]) -> None:
        self.mtu = mtu  # of the device
        self._sysctl = sysctl
        self._timers = timers
        self._connections = connections
        self._learned: dict[bytes, Learned] = {}  # by destination, that which is forgotten first in front

    def __len__(self) -> int:
        return len(self._learned)

    def get(self, flow: bytes) -> int:
        """Return the MTU for segments with this flow."""
        learned = self._learned.get(unpack_flow(flow)[2]) if self._learned else None
        return learned.mtu if learned is not None else self.mtu

    def lower(self, flow: bytes, mtu: int, now: int) -> None:
        """Learn an MTU from a router: a smaller one holds from now on, the same one longer, a larger one is not believed."""
        destination = unpack_flow(flow)[2]
        learned = self._learned.pop(destination, None)
        current = learned.mtu if learned is not None else self.mtu
        if mtu > current:
            if learned is not None:
                self._learned[destination] = learned
            return
        mtu = min(max(mtu, self._sysctl.min_pmtu), current)
        if learned is None:
            if mtu == self.mtu:
                return
            if len(self._learned) >= ENTRIES_MAX:
                self.forget(next(iter(self._learned.values())))
            learned = Learned(self, destination, mtu, NEVER)
            for conn in self._connections():
                if conn.flow.startswith(destination, len(destination)):
                    learned.connections[conn] = None
        learned.mtu = mtu
        learned.expires_at = now + self._sysctl.mtu_expires * SECOND
        self._learned[destination] = learned
        self._timers.arm(learned, learned.expires_at)
        if mtu < current:
            for conn in learned.connections:
                set_mtu(conn, mtu)

    def join(self, conn: Connection) -> None:
        """A connection begins."""
        learned = self._learned.get(unpack_flow(conn.flow)[2]) if self._learned else None
        if learned is not None:
            learned.connections[conn] = None

    def forget(self, learned: Learned) -> None:
        """Take the path for what the device is again."""
        del self._learned[learned.destination]
        learned.expires_at = NEVER
        self._timers.disarm(learned)
        for conn in learned.connections:
            set_mtu(conn, self.mtu)
