"""How much a write may queue: Linux's send buffer, which counts in packets to be and not in octets alone.

tcp_sendmsg fills one buffer after another, each to the size of a super-segment, and asks for room only when it begins one. So a write
may go beyond SO_SNDBUF and TCP_NOTSENT_LOWAT by what the last buffer takes. Lengths are octets.
"""

from __future__ import annotations

from tunstack.engine import Connection

GSO_MAX = 65536 - 320  # payload of a super-segment: 64 KiB less Linux's MAX_TCP_HEADER
BUFFER_COST = 1280  # memory of a buffer beside its data; near enough, Linux's own varies with its version


def buffer_size(conn: Connection) -> int:
    """Return how much one buffer takes: a super-segment, or half of the largest window that the peer has shown."""
    window = conn.tx.max_window
    size = min(GSO_MAX, (window >> 1 if window > 536 else window) or GSO_MAX)
    return max(size // conn.tx.mss_now, 1) * conn.tx.mss_now


def room_in_last(conn: Connection, size: int) -> int:
    """Return how much still fits into the last buffer, 0 if it is full or on its way."""
    return -conn.unsent % size


def is_room_for_another(conn: Connection, size: int, sndbuf: int, notsent_lowat: int | None) -> bool:
    """Whether another buffer may be begun."""
    if notsent_lowat is not None and conn.unsent >= notsent_lowat:
        return False
    return memory(conn, size) < sndbuf


def must_push(conn: Connection, more: int) -> bool:
    """Whether a write is to be pushed before its end: more than half the peer's largest window is without a push by then."""
    return conn.tx.queue.end + more - conn.tx.push_position > conn.tx.max_window >> 1


def memory(conn: Connection, size: int) -> int:
    """Return the memory of what is queued, sent or not (sk_wmem_queued)."""
    queued = conn.tx.queue.end - conn.tx.queue.start
    return queued + BUFFER_COST * -(-queued // size)
