"""The send buffer: SO_SNDBUF and tcp_wmem, in memory as Linux counts it.

An application's writes are never refused: asyncio has it wait by the octets that are unsent. The buffer bounds what is in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.options import SNDBUF_MIN

if TYPE_CHECKING:
    from tunstack.engine.sender import Sender
    from tunstack.engine.sysctl import Sysctl

CWND_MIN = 10  # segments that there is always room for
HEADER_COST = 640  # of a packet: its headers and what stands behind its data
PACKET_COST = 256  # of a packet, beside the memory that its data is in


def flight_limit(sndbuf: int | None, sysctl: Sysctl) -> int:
    """Return how much may be in flight: SO_SNDBUF doubled, else what the buffer may grow to."""
    return sysctl.tcp_wmem[2] if sndbuf is None else max(2 * sndbuf, SNDBUF_MIN)


def starting_size(mss: int, cwnd: int, sysctl: Sysctl) -> int:
    """Return what a buffer that follows the congestion window is: two windows (tcp_sndbuf_expand), tcp_wmem[1] at least."""
    packet = (1 << (mss + HEADER_COST - 1).bit_length()) + PACKET_COST  # as the allocator rounds it
    segments = max(cwnd // mss, CWND_MIN)
    return max(min(2 * segments * packet, sysctl.tcp_wmem[2]), sysctl.tcp_wmem[1])


def size(sndbuf: int | None, tx: Sender | None, sysctl: Sysctl) -> int:
    """Return what SO_SNDBUF tells of a connection, or of a socket without one."""
    if sndbuf is not None:
        return max(2 * sndbuf, SNDBUF_MIN)
    if tx is None or not hasattr(tx, "cc"):  # there is none before the handshake is done
        return sysctl.tcp_wmem[1]
    return starting_size(tx.mss, tx.cc.cwnd, sysctl)
