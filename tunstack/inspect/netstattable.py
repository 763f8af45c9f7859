"""Sockets as net-tools' netstat prints them."""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tunstack.inspect.names import NETSTAT_STATES, host_name, service_name
from tunstack.inspect.record import SocketRecord, Timer

ADDRESS_WIDTH = 23
TIMERS = {"on": "on", "keepalive": "keepalive", "timewait": "timewait", "persist": "probe"}


@dataclass(frozen=True, slots=True)
class Style:
    """What is shown, by netstat's options."""

    all: bool = False  # -a
    listening: bool = False  # -l
    numeric_hosts: bool = False  # -n, or --numeric-hosts
    numeric_ports: bool = False
    numeric_users: bool = False
    extended: bool = False  # -e
    programs: bool = False  # -p
    timers: bool = False  # -o
    wide: bool = False  # -W


def header(style: Style) -> list[str]:
    """Return the lines above the table."""
    which = "servers and established" if style.all else "only servers" if style.listening else "w/o servers"
    line = "Proto Recv-Q Send-Q Local Address           Foreign Address         State      "
    if style.extended:
        line += " User       Inode     "
    if style.programs:
        line += " PID/Program name    "
    if style.timers:
        line += " Timer"
    return [f"Active Internet connections ({which})", line]


def is_shown(record: SocketRecord, style: Style) -> bool:
    """Tell whether a socket is listed: listeners by -l, all by -a, else all but listeners."""
    return style.all or (record.state == "LISTEN") == style.listening


def lines(records: Iterable[SocketRecord], style: Style) -> Iterator[str]:
    """Return the table, a line a socket."""
    yield from header(style)
    for record in records:
        if is_shown(record, style):
            yield line_of(record, style)


def line_of(record: SocketRecord, style: Style) -> str:
    """Return the line of one socket. A listener's Send-Q is 0 here, not the limit of its queue."""
    local = _end(record.local, record.local_port, style)
    remote = _end(record.remote, record.remote_port, style)
    send_q = 0 if record.state == "LISTEN" else record.send_q
    state = NETSTAT_STATES.get(record.state, record.state)
    line = f"tcp   {record.recv_q:6} {send_q:6} {local:{ADDRESS_WIDTH}} {remote:{ADDRESS_WIDTH}} {state:11}"
    if style.extended:
        line += f" {_user(record.uid, style):10} {record.inode:<10}"
    if style.programs:
        owner = f"{record.owner.pid}/{record.owner.name}" if record.owner is not None else "-"
        line += f" {owner:20}"
    if style.timers:
        line += f" {_timer(record.timer)}"
    return line


def _end(address: str, port: int, style: Style) -> str:
    """Return an address with its port; a long name is cut unless the style is wide."""
    name = address if style.numeric_hosts or address == "0.0.0.0" else host_name(address) or address
    service = "*" if not port else str(port) if style.numeric_ports else service_name(port) or str(port)
    if not style.wide:
        name = name[: ADDRESS_WIDTH - 1 - len(service)]
    return f"{name}:{service}"


def _user(uid: int, style: Style) -> str:
    return str(uid) if style.numeric_users else _user_name(uid)


@cache
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _timer(timer: Timer | None) -> str:
    if timer is None:
        return "off (0.00/0/0)"
    return f"{TIMERS[timer.kind]} ({timer.remaining / 1e6:.2f}/{timer.retransmits}/{timer.probes})"
