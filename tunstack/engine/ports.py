"""Local ports: which are taken, by whom, and choosing a free one.

RFC 6056 3.3.4 (a hash of the other three of the four-tuple, and a counter that moves on), ip_local_port_range, ip_local_reserved_ports.
As in Linux connections out are given the even ports first and listeners the odd ones, counted from the lower end of the range, so that
neither finds the other's taken. Which sockets may share a port is bind(2)'s rule there: SO_REUSEADDR on both, neither listening, or
SO_REUSEPORT on both. M-04, M-58.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunstack.engine.config import Random
from tunstack.engine.connection import Connection
from tunstack.engine.errors import socket_error
from tunstack.engine.knob import parse_ports
from tunstack.engine.listener import Listener
from tunstack.engine.reuse import may_take
from tunstack.wire.flow import ANY_IPV4, pack_flow

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

COUNTERS = 1024  # a power of two; RFC 6056 3.3.4 asks for ten
NOISE = 8  # steps by which the counter moves on at most, if nothing is taken (Linux)

LOOK = 32  # ports


class Ports:
    """The local ports of a stack. A connection that chose its own is remembered until it ends, one that was given a port is not."""

    __slots__ = ("_counters", "_own", "_random", "_stack")

    def __init__(self, stack: Stack, random: Random) -> None:
        self._stack = stack
        self._random = random
        self._counters = array("H")  # what was given moves on from here; by a hash of the destination
        self._own: dict[int, list[Connection]] = {}  # those whose port the application chose, by port

    def for_listener(self, address: bytes, port: int, reuseaddr: bool, reuse_port: bool) -> int:
        """Return the port to listen on: `port`, or one that nobody has, if that is 0. OSError EADDRINUSE."""
        stack = self._stack
        if not port:
            taken = {int.from_bytes(flow[-2:], "big") for flow in stack.flows}
            found = self._search(self._random.randrange(0, 1 << 16) | 1, lambda port: port not in taken and not self._is_listened(port))
            if found is None:
                raise socket_error("EADDRINUSE")
            return found[0]
        if any(not (reuse_port and other.reuse_port) for other in stack.listeners.on(address, port)):
            raise socket_error("EADDRINUSE")
        end = port.to_bytes(2, "big")
        for flow in [flow for flow in stack.flows if flow.endswith(end)]:
            conn = stack.flows[flow]
            # Deviates: TIME-WAIT never keeps a listener away, whatever its options were. What is half open has a listener itself.
            if not isinstance(conn, Connection) or not overlaps(address, conn.local[0]):
                continue
            is_group = reuse_port and isinstance(conn.listener, Listener) and conn.listener.reuse_port
            if not is_group and not (reuseaddr and conn.options.reuseaddr):
                raise socket_error("EADDRINUSE")
        return port

    def for_connection(self, local: bytes, port: int, remote: bytes, remote_port: int, reuseaddr: bool, now: int) -> int:
        """Return the port to connect from: `port`, or a free one, if that is 0.

        OSError EADDRINUSE where somebody has the port and does not share it, EADDRNOTAVAIL where the four-tuple is taken or none is free.
        """
        flows = self._stack.flows
        if not port:
            return self._choose(local, remote, remote_port, now)
        sharers = self._own.get(port, ())
        if self._stack.listeners.on(local, port) or any(
            other.local[0] == local and not (reuseaddr and other.options.reuseaddr) for other in sharers
        ):
            raise socket_error("EADDRINUSE")
        flow_in = pack_flow(remote, remote_port, local, port)
        if not self._is_ours(flow_in):
            raise socket_error("EADDRNOTAVAIL")
        owner = flows.get(flow_in)
        if owner is not None and not may_take(owner, True, now):
            raise socket_error("EADDRNOTAVAIL" if reuseaddr else "EADDRINUSE")
        return port

    def keep(self, conn: Connection) -> None:
        """Remember a connection that chose its port."""
        self._own.setdefault(conn.local[1], []).append(conn)

    def release(self, conn: Connection) -> None:
        """A connection is over, or in TIME-WAIT: its port, if it chose it, is free for others."""
        if not self._own:
            return
        port = int.from_bytes(conn.flow_in[-2:], "big")
        sharers = self._own.get(port)
        if sharers is not None and conn in sharers:
            sharers.remove(conn)
            if not sharers:
                del self._own[port]

    def _choose(self, local: bytes, remote: bytes, remote_port: int, now: int) -> int:
        stack = self._stack
        flows = stack.flows
        own = self._own
        prefix = remote + local + remote_port.to_bytes(2, "big")  # of the flow of what comes (flow.py)
        if not self._counters:
            self._counters = array("H", self._random.getrandbits(16 * COUNTERS).to_bytes(2 * COUNTERS, "big"))
        digest = stack.isn.port_offset(prefix)
        index = digest % COUNTERS

        def is_free(port: int) -> bool:
            flow_in = prefix + port.to_bytes(2, "big")
            owner = flows.get(flow_in)
            is_free = (owner is None or may_take(owner, False, now)) and port not in own and not self._is_listened(port)
            return is_free and self._is_ours(flow_in)

        found = self._search((digest // COUNTERS + self._counters[index]) & ~1, is_free)
        if found is None:
            raise socket_error("EADDRNOTAVAIL")
        port, steps = found
        # Where nothing is taken chance is what moves it on, where much is taken it goes straight to behind what was found (Linux).
        self._counters[index] = (self._counters[index] + 2 * max(steps + 1, self._random.randrange(1, NOISE + 1))) & 0xFFFF
        return port

    def _search(self, offset: int, is_free: Callable[[int], bool]) -> tuple[int, int] | None:
        """Return the first free port from an offset on, and how many steps away it is.

        Those of its parity come first. Deviates: only as far as LOOK of them are taken in a row, else each of thousands of connections
        would find all the even ones taken before it came to an odd one.
        """
        low, high = self._stack.sysctl.ip_local_port_range
        reserved = parse_ports(self._stack.sysctl.ip_local_reserved_ports)
        if high == low:
            return (low, 0) if low not in reserved and is_free(low) else None
        half = (high - low + 1) >> 1
        first = (offset >> 1) % half
        for start, stop in ((0, LOOK), (LOOK, half)):
            for parity in (offset & 1, ~offset & 1):
                for step in range(start, min(stop, half)):
                    port = low + 2 * ((first + step) % half) + parity
                    if port not in reserved and is_free(port):
                        return port, step
        return None

    def _is_ours(self, flow_in: bytes) -> bool:
        """Whether the answers to a connection come to us, and not to another worker."""
        neighbours = self._stack.neighbours
        return neighbours is None or neighbours.is_ours(flow_in)

    def _is_listened(self, port: int) -> bool:
        return bool(self._stack.listeners.on(ANY_IPV4, port))


def overlaps(a: bytes, b: bytes) -> bool:
    """Tell whether two listening addresses cover a common one."""
    return a == b or ANY_IPV4 in (a, b)
