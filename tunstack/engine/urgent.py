"""Urgent data: one octet that the peer points at, and the mark that it sets in the stream.

RFC 9293 3.8.5, RFC 6093, as Linux has it. Receiving: the octet pointed at is taken out of the stream, unless SO_OOBINLINE is set, and is
read by itself (MSG_OOB). Reading stops before it once, and by going on passes the mark: then the octet can be had no more. There is one
mark: a later pointer replaces it, and an octet that reading had not reached is ordinary data then. Sending: until all up to the last
urgent octet is acknowledged, every segment says how far ahead that is, and no segment waits to become full. Knows no clock and no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.errors import socket_error
from tunstack.engine.state import CLOSED, RECEIVING
from tunstack.seq import HALF, MASK, seq_le, seq_lt
from tunstack.wire.segment import SYN, URG, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.receiver import Receiver
    from tunstack.engine.sender import Sender

POINTER_MAX = 0xFFFF


class Urgent:
    """The urgent octet that reading has not passed yet. Invariant: reading stands at or before `seq`."""

    __slots__ = ("is_news", "is_taken", "octet", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq  # of the octet
        self.octet: int | None = None  # None: it has not come
        self.is_taken = False  # read by itself
        self.is_news = True  # the application was not told


# Receiving.


def arrives(conn: Connection, seg: Segment) -> None:
    """Look for an urgent pointer, and for the urgent octet, in a segment that is acceptable; its data was not taken in yet."""
    if conn.state not in RECEIVING:  # a FIN came, there is nothing more (RFC 9293 3.10.7.4, sixth step)
        return
    rx = conn.rx
    if seg.flags & URG:
        _pointer_came(conn, seg)
    urgent = rx.urgent
    if urgent is not None and urgent.octet is None:
        offset = (urgent.seq - seg.seq - (seg.flags >> 1 & 1)) & MASK  # the SYN comes before the data
        if offset < seg.length:
            urgent.octet = seg.payload[0][offset]
            urgent.is_news = True


def _pointer_came(conn: Connection, seg: Segment) -> None:
    rx = conn.rx
    pointer = seg.urgent
    if pointer and not conn.stack.sysctl.tcp_stdurg:
        pointer -= 1  # it points behind the octet (RFC 6093 3.1: what everybody does)
    seq = (seg.seq + pointer) & MASK
    if seq_lt(seq, rx.rcv_nxt):  # the octet was taken for data: it does not become urgent afterwards
        return
    if rx.urgent is not None:
        if seq_le(seq, rx.urgent.seq):
            return
        if rx.queue and not conn.options.oobinline and is_at_mark(rx):
            # Reading stopped before an urgent octet, which then is none of the stream's, although its mark gives way to the new one.
            drop_first(rx)
    rx.urgent = Urgent(seq)


def is_at_mark(rx: Receiver) -> bool:
    """Whether reading stands before the urgent octet (SIOCATMARK)."""
    return rx.urgent is not None and distance_to(rx, rx.urgent) == 0


def distance_to(rx: Receiver, urgent: Urgent) -> int:
    """Return how many octets are to be read before the mark, those to come counted."""
    waiting = rx.eof + rx.queued + sum(map(len, rx.ready))
    return (urgent.seq - rx.rcv_nxt + waiting) & MASK


def drop_first(rx: Receiver) -> None:
    """Take the first octet out of the stream."""
    data = rx.take()
    if len(data) > 1:
        rx.put_back(data[1:])


def begin_read(conn: Connection, max_len: int) -> int:
    """Return how much of `max_len` recv(2) may take: no more than up to the mark. At the mark reading goes on behind it."""
    rx = conn.rx
    assert rx.urgent is not None
    distance = distance_to(rx, rx.urgent)
    if distance:
        return min(max_len, distance)
    if rx.queue and max_len:
        if not conn.options.oobinline:
            drop_first(rx)
        rx.urgent = None
    return max_len


def peek(conn: Connection, max_len: int) -> bytes:
    """Return what recv(2) would, leaving it there (MSG_PEEK)."""
    rx = conn.rx
    data = b"".join(rx.queue)
    if rx.urgent is not None:
        distance = distance_to(rx, rx.urgent)
        if distance:
            return data[: min(max_len, distance)]
        if not conn.options.oobinline:
            data = data[1:]
    return data[:max_len]


def readable(conn: Connection) -> int:
    """Return how many octets can be read without going beyond the mark (SIOCINQ)."""
    rx = conn.rx
    if rx.urgent is None or conn.options.oobinline:
        return rx.queued
    return min(distance_to(rx, rx.urgent), rx.queued)


def take(conn: Connection, peek: bool) -> bytes:
    """recv(2) with MSG_OOB: the urgent octet. OSError EINVAL: there is none (or it is in line, or taken), EAGAIN: it has not come."""
    rx = conn.rx
    urgent = rx.urgent if rx is not None else None
    if urgent is None or urgent.is_taken or conn.options.oobinline:
        raise socket_error("EINVAL")
    if conn.state is CLOSED and not rx.eof:
        raise socket_error("ENOTCONN")
    if urgent.octet is not None:
        urgent.is_taken = not peek
        return bytes((urgent.octet,))
    if rx.eof or conn.state is CLOSED:
        return b""
    raise socket_error("EAGAIN")


# Sending.


def is_sending(tx: Sender) -> bool:
    """Whether something up to the last urgent octet is not acknowledged (`tx.urgent_end` is set)."""
    if tx.urgent_end <= tx.position(tx.snd_una):
        tx.urgent_end = 0
        return False
    return True


def ahead(tx: Sender, seq: int) -> int:
    """Return by how many octets the end of the urgent data lies ahead of `seq`; what is not positive lies behind."""
    offset = (seq - tx.snd_una) & MASK
    if offset >= HALF:
        offset -= MASK + 1
    return tx.urgent_end - tx.position(tx.snd_una) - offset


def point(tx: Sender, seg: Segment) -> None:
    """Put the urgent pointer into a segment that leaves, if it is behind (RFC 9293 3.8.5)."""
    distance = ahead(tx, seg.seq)
    if distance <= 0 or seg.flags & SYN:
        return
    if distance > POINTER_MAX:
        # Only at the front of the stream the end can be beyond reach without a later segment to say better (Linux).
        if (tx.snd_nxt - seg.seq) & MASK >= POINTER_MAX:
            return
        distance = POINTER_MAX
    seg.flags |= URG
    seg.urgent = distance
