"""All sockets of a stack, as records: listeners, half-open connections, connections, TIME-WAIT.

Reads the engine and changes nothing. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunstack.engine import receivewindow, sendbuffer
from tunstack.engine.connection import Connection
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import CLOSE_WAIT, CLOSING, FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, State
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import Remnant
from tunstack.inspect import tcpinfo
from tunstack.inspect.record import RCV_SHUTDOWN, SEND_SHUTDOWN, Memory, Owner, SocketRecord, Timer
from tunstack.wire.flow import format_address, unpack_flow

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

Socket = Connection | Listener
Entry = Connection | HalfOpen | Remnant
OwnerOf = Callable[[Socket], Owner | None]

SENT_ALL = frozenset((FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK))
GOT_ALL = frozenset((CLOSE_WAIT, CLOSING, LAST_ACK))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a snapshot is to have: which sockets, and what of each beside what costs nothing."""

    matches: Callable[[SocketRecord], bool] = lambda record: True
    memory: bool = False
    info: bool = False


def snapshot(stack: Stack, clock: Callable[[], int], wanted: Wanted, owner_of: OwnerOf, uid: int) -> Iterator[SocketRecord | None]:
    """Go through the sockets of a stack, listeners first. `clock` tells the engine's time, `uid` is that of the process.

    The stack may go on between two records: what is gone by then is left out, what is new is not looked for. So a caller
    takes a piece at a time, and 100,000 sockets hold nobody up. For one that is not wanted there is None, so that work is counted.
    """
    for listener in list(stack.listeners):
        record = None if listener.is_closed else of_listener(listener, owner_of(listener), uid)
        if record is None or not wanted.matches(record):
            yield None
        else:
            yield replace(
                record,
                memory=memory_of(listener) if wanted.memory else None,
                info=tcpinfo.of_listener(listener) if wanted.info else None,
            )
    for flow_in in list(stack.flows):
        entry = stack.flows.get(flow_in)
        now = clock()
        record = None if entry is None else of_entry(entry, now, owner_of, uid)
        if record is None or not wanted.matches(record):
            yield None
        else:
            yield _complete(record, entry, now, wanted) if isinstance(entry, Connection) else record


def of_entry(entry: Entry, now: int, owner_of: OwnerOf, uid: int) -> SocketRecord:
    """Make the record of what has a four-tuple."""
    if isinstance(entry, Connection):
        return of_connection(entry, now, owner_of, uid)
    if isinstance(entry, HalfOpen):
        return of_half_open(entry, now)
    return of_remnant(entry, now)


def _complete(record: SocketRecord, conn: Connection, now: int, wanted: Wanted) -> SocketRecord:
    if not (wanted.memory or wanted.info):
        return record
    return replace(
        record,
        memory=memory_of(conn) if wanted.memory else None,
        info=tcpinfo.of_connection(conn, now) if wanted.info else None,
    )


def of_listener(listener: Listener, owner: Owner | None, uid: int) -> SocketRecord:
    """Make the record of a port that is listened on."""
    number = _number(listener.address + listener.port.to_bytes(2, "big"))
    return SocketRecord(
        state=State.LISTEN.name,
        local=format_address(listener.address),
        local_port=listener.port,
        remote="0.0.0.0",
        remote_port=0,
        recv_q=listener.acceptable,
        send_q=listener.backlog_limit,
        uid=uid,
        inode=number,
        cookie=number,
        owner=owner,
    )


def of_connection(conn: Connection, now: int, owner_of: OwnerOf, uid: int) -> SocketRecord:
    """Make the record of a connection. Nobody holds one that waits to be accepted, or whose application has gone."""
    local, local_port, remote, remote_port = unpack_flow(conn.flow)
    tx = conn.tx
    is_held = not conn.is_orphan and conn.sink is not NULL_SINK
    number = _number(conn.flow)
    return SocketRecord(
        state=conn.state.name,
        local=format_address(local),
        local_port=local_port,
        remote=format_address(remote),
        remote_port=remote_port,
        recv_q=conn.readable + conn.eof_due,
        send_q=tx.outstanding + tx.unsent + (tx.fin_queued and not tx.fin_sent),
        timer=timer_of(conn, now),
        uid=uid if is_held else 0,
        inode=number if is_held else 0,
        cookie=number,
        shutdown=(RCV_SHUTDOWN if conn.state in GOT_ALL else 0) | (SEND_SHUTDOWN if conn.state in SENT_ALL else 0),
        owner=owner_of(conn) if is_held else None,
    )


def of_half_open(entry: HalfOpen, now: int) -> SocketRecord:
    """Make the record of a connection in SYN_RECEIVED."""
    return _of_flow(entry.flow, State.SYN_RECEIVED.name, Timer("on", max(entry.expires_at - now, 0), entry.timeouts, 0))


def of_remnant(entry: Remnant, now: int) -> SocketRecord:
    """Make the record of what a connection left behind, in TIME_WAIT or FIN_WAIT_2."""
    return _of_flow(entry.flow, entry.state.name, Timer("timewait", max(entry.expires_at - now, 0), 0, 0))


def _of_flow(flow: bytes, state: str, timer: Timer) -> SocketRecord:
    local, local_port, remote, remote_port = unpack_flow(flow)
    return SocketRecord(
        state=state,
        local=format_address(local),
        local_port=local_port,
        remote=format_address(remote),
        remote_port=remote_port,
        timer=timer,
        cookie=_number(flow),
    )


def timer_of(conn: Connection, now: int) -> Timer | None:
    """Return the timer that Linux would tell of: the retransmission's before the persist timer, before the keepalive's."""
    if conn.fin_wait_2_at < NEVER:  # Linux makes it an entry of the TIME-WAIT table
        return Timer("timewait", max(conn.fin_wait_2_at - now, 0), 0, 0)
    if conn.rto_at < NEVER:
        kind, at, probes = "on", conn.rto_at, conn.probes_out
    elif conn.persist_at < NEVER:
        kind, at, probes = "persist", conn.persist_at, conn.probes_out
    elif conn.keepalive_at < NEVER:
        kind, at, probes = "keepalive", conn.keepalive_at, conn.keepalive_probes
    else:
        return None
    return Timer(kind, max(at - now, 0), conn.retransmits, probes)


def memory_of(sock: Socket) -> Memory:
    """Return what a socket holds."""
    options, sysctl = sock.options, sock.stack.sysctl
    if isinstance(sock, Listener) or sock.rx is None:
        rcvbuf = sysctl.tcp_rmem[1] if options.rcvbuf is None else 2 * options.rcvbuf
        return Memory(0, rcvbuf, sendbuffer.size(options.sndbuf, None, sysctl), 0 if isinstance(sock, Listener) else sock.unsent)
    return Memory(receivewindow.held(sock.rx), sock.rx.rcvbuf, sock.sndbuf, sock.unacked + sock.unsent)


def _number(flow: bytes) -> int:
    """Return a number for a socket that is not 0 and stays the same: nothing is stored for it, it follows from the flow."""
    return zlib.crc32(flow) & 0x7FFFFFFF or 1
