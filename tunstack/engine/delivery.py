"""Delivery: the end of everything that brings something to a connection. Only on_writable comes from elsewhere (Stack.poll_transmit).

The order of calls is in sink.py. Received data is handed on as it came, and copied only where the application does not take it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tunstack.engine import receivewindow, urgent
from tunstack.engine.ackpolicy import is_due_after_read
from tunstack.engine.receiver import NO_QUEUE
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import RECEIVING

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


def deliver(conn: Connection) -> None:
    """Call the sink for what is due.

    A sink that calls back finds a consistent connection; nested calls leave the rest to the outer one.
    """
    if conn.is_delivering:
        return
    conn.is_delivering = True
    try:
        _deliver(conn)
    finally:
        conn.is_delivering = False


def _deliver(conn: Connection) -> None:
    if conn.is_connected:
        conn.is_connected = False
        if not conn.is_orphan:  # closed in SYN_RECEIVED: nobody is there to be told
            conn.sink.on_established()
    rx = conn.rx
    if rx is not None:
        if conn.is_orphan:
            rx.queue = NO_QUEUE
            rx.queued = 0
            rx.ready = ()
        if rx.urgent is not None:
            _deliver_to_mark(conn)
        if rx.urgent is None:
            if rx.queue and not conn.paused:
                deliver_queue(conn, rx.queued)
            if rx.ready:
                _deliver_ready(conn)
        if conn.eof_due and not conn.paused and not rx.queue:
            conn.eof_due = False
            if not conn.is_orphan:
                conn.sink.on_eof()
    if conn.is_ending and not conn.is_told:
        _end(conn)


def deliver_queue(conn: Connection, limit: int) -> None:
    """Deliver up to `limit` octets of what waited."""
    rx = conn.rx
    while limit and rx.queue and not conn.paused and not conn.is_orphan:
        data = rx.take()
        if len(data) > limit:
            rx.put_back(data[limit:])
            data = data[:limit]
        limit -= len(data)
        conn.sink.on_data(data)
    data_taken(conn)


def _deliver_to_mark(conn: Connection) -> None:
    """Deliver what came up to the mark, and what lies behind it by a further call.

    An urgent octet out of line stays while nothing follows it: whoever reads whenever poll(2) says so does not pass it sooner.
    """
    rx = conn.rx
    for data in rx.ready:
        rx.keep(data)
    rx.ready = ()
    if rx.urgent is not None and rx.urgent.is_news and conn.on_urgent is not None:
        rx.urgent.is_news = False
        conn.on_urgent()
    while rx.urgent is not None and rx.queue and not conn.paused and not conn.is_orphan:
        distance = urgent.distance_to(rx, rx.urgent)
        if distance:
            deliver_queue(conn, distance)
        elif conn.options.oobinline:
            rx.urgent = None
        elif rx.queued > 1 or rx.eof or conn.is_ending:
            urgent.drop_first(rx)
            rx.urgent = None
            data_taken(conn)
        else:
            break


def _deliver_ready(conn: Connection) -> None:  # hot
    rx = conn.rx
    ready = rx.ready
    if len(ready) == 1 and not conn.paused and not rx.queue:
        rx.ready = ()
        conn.sink.on_data(ready[0])
        return
    left = deque(ready)
    rx.ready = left  # type: ignore[assignment]  # a tuple of thousands, cut shorter piece by piece, would take long
    while left and not conn.is_orphan:  # what is left when the application closes was not read: close() looks
        data = left.popleft()
        if conn.paused or rx.queue:
            rx.keep(data)
        else:
            conn.sink.on_data(data)
    rx.ready = ()


def _end(conn: Connection) -> None:
    """Tell the sink that it is over, after all that it can still read.

    An error that cost data not yet acknowledged is told at once, as a socket with something to send would tell it.
    """
    rx = conn.rx
    if not conn.is_orphan:
        if conn.sink is NULL_SINK:  # not accepted yet: whoever accepts it shall hear
            return
        if rx is not None and (rx.queue or conn.eof_due) and not conn.cost_data:
            return
    conn.is_told = True
    sink, conn.sink = conn.sink, NULL_SINK
    sink.on_closed(conn.error_due)


def data_taken(conn: Connection) -> None:
    """The application took data: an ACK may be due for that."""
    rx = conn.rx
    if not rx.acks_due and is_due_after_read(rx, conn.state in RECEIVING):
        rx.acks_due = 1
        conn.mark_dirty()


def read(conn: Connection, max_len: int, now: int) -> bytes:
    """Take up to `max_len` octets of what waits, no further than up to an urgent octet (recv(2) without blocking)."""
    rx = conn.rx
    parts: list[bytes] = []
    queued = rx.queued
    if rx.urgent is not None:
        max_len = urgent.begin_read(conn, max_len)
    while max_len and rx.queue:
        data = rx.take()
        if len(data) > max_len:
            rx.put_back(data[max_len:])
            data = data[:max_len]
        parts.append(data)
        max_len -= len(data)
    if rx.queued != queued:
        if now - rx.space_at >= rx.rcv_rtt:
            receivewindow.tune(rx, now)
        data_taken(conn)
        deliver(conn)
    return b"".join(parts)
