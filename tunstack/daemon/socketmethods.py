"""What the control socket tells of sockets and counters, and `kill`: what ss, netstat and nstat ask for.

A record is inspect/record.py's. Parameters: `filter` (inspect/filter.py: `states`, `expression`), `memory` and `info` for what costs more.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunstack.engine.connection import Connection
from tunstack.engine.errors import socket_error
from tunstack.engine.finwait import FinWait2
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.listener import Listener
from tunstack.inspect import filter as filters
from tunstack.inspect import snmpvalues
from tunstack.inspect.census import Work, count
from tunstack.inspect.record import Owner
from tunstack.inspect.sockets import OwnerOf, Socket, Wanted, of_entry, of_listener, snapshot

if TYPE_CHECKING:
    from tunstack.daemon.methods import Context, Params

_STARTTIME = 19  # of the fields behind the name in /proc/PID/stat (proc(5): field 22)


def list_sockets(context: Context, params: Params) -> Iterator[Mapping[str, object] | None]:
    """Every socket that the filter takes."""
    wanted = Wanted(_filter(params).matches, bool(params.get("memory")), bool(params.get("info")))
    return _list(context, wanted)


def _list(context: Context, wanted: Wanted) -> Iterator[Mapping[str, object] | None]:
    endpoint = context.endpoint
    for record in snapshot(endpoint.stack, endpoint.now, wanted, owners(context), os.geteuid()):
        yield None if record is None else record.to_json()


def kill_sockets(context: Context, params: Params) -> Iterator[Mapping[str, object] | None]:
    """Close every socket that the filter takes as `ss -K` does: a peer gets RST, the application ECONNABORTED. Tells which."""
    return _kill(context, _filter(params))


def _kill(context: Context, chosen: filters.Filter) -> Iterator[Mapping[str, object] | None]:
    endpoint = context.endpoint
    stack = endpoint.stack
    owner_of, uid = owners(context), os.geteuid()
    for listener in list(stack.listeners):
        record = of_listener(listener, owner_of(listener), uid)
        if listener.is_closed or not chosen.matches(record):
            yield None
        else:
            listener.close(endpoint.now())
            yield record.to_json()
    for flow_in in list(stack.flows):
        entry = stack.flows.get(flow_in)
        now = endpoint.now()
        gone = None if entry is None else of_entry(entry, now, owner_of, uid)
        if entry is None or gone is None or not chosen.matches(gone):
            yield None
            continue
        if isinstance(entry, Connection):
            abort(entry, now)
        elif isinstance(entry, HalfOpen):
            entry.listener.drop(entry)
        elif isinstance(entry, FinWait2):
            entry.reset()
        else:
            stack.time_wait.remove(entry)
        yield gone.to_json()


def abort(conn: Connection, now: int) -> None:
    """Reset a connection over its application's head."""
    sink = conn.sink
    is_heard = not conn.is_orphan
    conn.abort(now)
    if is_heard:
        sink.on_closed(socket_error("ECONNABORTED"))


def get_snmp(context: Context, params: Params) -> Work[Mapping[str, object]]:
    """Every value of Linux's tables under nstat's name, and which run of the program they are of."""
    stack = context.endpoint.stack
    return {"epoch": f"{run()}.{id(stack):x}", "values": snmpvalues.values(stack, (yield from count(stack)))}


def run() -> str:
    """Return what tells this process from any other: its number and when it started."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    return f"{os.getpid()}.{int(fields[_STARTTIME])}"


def owners(context: Context) -> OwnerOf:
    """Return who owns a socket: the service whose port it is or came by, else the program. The descriptor is that of the interface."""
    names = context.endpoint.labels
    program = Path(sys.argv[0]).name or "python"
    pid, fd = os.getpid(), max(context.endpoint.device.fileno(), 0)

    def owner_of(sock: Socket) -> Owner:
        listener = sock if isinstance(sock, Listener) else sock.listener
        return Owner(names.get(listener.port, program) if isinstance(listener, Listener) else program, pid, fd)

    return owner_of


def _filter(params: Params) -> filters.Filter:
    try:
        return filters.from_json(params.get("filter"))
    except filters.FilterError as error:
        raise OSError(errno.EINVAL, f"filter: {error}") from error
