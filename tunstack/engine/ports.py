"""Which local ports are taken, and choosing a free one.

RFC 6056 3.3.1 (random start, then in order), ip_local_port_range; which listening addresses exclude each other is as in Linux.
"""

from __future__ import annotations

from collections.abc import Callable

from tunstack.engine.config import Random
from tunstack.engine.errors import socket_error
from tunstack.wire.flow import ANY_IPV4


def choose_port(port_range: tuple[int, int], random: Random, is_free: Callable[[int], bool]) -> int:
    """Return a free port of the range, searched from a random one on; EADDRNOTAVAIL if there is none (M-04)."""
    low, high = port_range
    count = high - low + 1
    start = random.randrange(0, count)
    for step in range(count):
        port = low + (start + step) % count
        if is_free(port):
            return port
    raise socket_error("EADDRNOTAVAIL")


def overlaps(a: bytes, b: bytes) -> bool:
    """Tell whether two listening addresses cover a common one."""
    return a == b or ANY_IPV4 in (a, b)
