"""Sockets as ss prints them: its columns, its words, and behind them what -o -e -p -m -i ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunstack.inspect import sstcp
from tunstack.inspect.columns import Column, format_row, measure, title_widths
from tunstack.inspect.names import EPHEMERAL_PORTS, SS_STATES, host_name, service_name
from tunstack.inspect.quantities import remaining
from tunstack.inspect.record import RCV_SHUTDOWN, SEND_SHUTDOWN, SocketRecord

PIECE = 8192  # rows whose widths are found together; those of the next are no less
NETID = Column("Netid", "")
STATE = Column("State")
ALWAYS = (
    Column("Recv-Q"),
    Column("Send-Q"),
    Column("Local Address:", is_right=True),
    Column("Port", ""),
    Column("Peer Address:", is_right=True),
    Column("Port", ""),
    Column("Process", ""),
)


@dataclass(frozen=True, slots=True)
class Style:
    """What is shown, by ss's options."""

    has_netid: bool = False  # sockets of other kinds could be there too
    has_state: bool = True
    has_header: bool = True  # not -H
    numeric: bool = False  # -n
    resolve: bool = False  # -r
    timer: bool = False  # -o
    extended: bool = False  # -e
    processes: bool = False  # -p
    memory: bool = False  # -m
    info: bool = False  # -i
    oneline: bool = False  # -O
    terminal: int | None = None  # its width


def lines(records: Iterable[SocketRecord], style: Style) -> Iterator[str]:
    """Return the lines of the table; a socket may have two of them in one string."""
    columns = ([NETID] if style.has_netid else []) + ([STATE] if style.has_state else []) + list(ALWAYS)
    columns[0] = Column(columns[0].title, "", columns[0].is_right)
    least = title_widths(columns) if style.has_header else [0] * len(columns)
    titles: list[str] | None = [column.title for column in columns] if style.has_header else None
    for rows in _pieces(records, style):
        least = measure(columns, rows, least)
        widths = least if style.terminal is None else measure(columns, (), least, style.terminal)
        if titles is not None:
            yield format_row(columns, widths, titles)
            titles = None
        for row in rows:
            yield format_row(columns, widths, row)


def _pieces(records: Iterable[SocketRecord], style: Style) -> Iterator[list[list[str]]]:
    rows = []
    is_first = True
    for record in records:
        rows.append(row_of(record, style))
        if len(rows) == PIECE:
            yield rows
            rows = []
            is_first = False
    if rows or is_first:
        yield rows


def row_of(record: SocketRecord, style: Style) -> list[str]:
    """Return the texts of one socket."""
    row = ["tcp"] if style.has_netid else []
    if style.has_state:
        row.append(SS_STATES.get(record.state, record.state))
    row += [str(record.recv_q), str(record.send_q)]
    for address, port in ((record.local, record.local_port), (record.remote, record.remote_port)):
        row += [_address(address, style) + ":", _port(port, style)]
    row.append(details(record, style))
    return row


def _address(address: str, style: Style) -> str:
    return (style.resolve and address != "0.0.0.0" and host_name(address)) or address


def _port(port: int, style: Style) -> str:
    if not port:
        return "*"
    if style.numeric or port in EPHEMERAL_PORTS:
        return str(port)
    return service_name(port) or str(port)


def details(record: SocketRecord, style: Style) -> str:
    """Return what the last column has, which -m and -i continue in the next line."""
    text = ""
    if style.processes and record.owner is not None:
        owner = record.owner
        text += f' users:(("{owner.name}",pid={owner.pid},fd={owner.fd}))'
    if (style.timer or style.extended) and record.timer is not None:
        # ss has one number, of the timer that it tells of
        count = record.timer.retransmits if record.timer.kind == "on" else record.timer.probes
        text += f" timer:({record.timer.kind},{remaining(record.timer.remaining)},{count})"
    if style.extended:
        text += (f" uid:{record.uid}" if record.uid else "") + f" ino:{record.inode} sk:{record.cookie:x}"
        if record.state not in ("TIME_WAIT", "SYN_RECEIVED"):
            text += f" {'-' if record.shutdown & RCV_SHUTDOWN else '<'}-{'-' if record.shutdown & SEND_SHUTDOWN else '>'}"
    if style.memory or style.info:
        text += "" if style.oneline else "\n\t"
    if style.memory and record.memory is not None:
        memory = record.memory
        text += f" skmem:(r{memory.received},rb{memory.rcvbuf},t0,tb{memory.sndbuf},f0,w{memory.queued},o0,bl0,d{memory.drops})"
    if style.info and record.info is not None:
        text += sstcp.describe(
            record.info, numeric=style.numeric, options=style.timer or style.extended, is_listener=record.state == "LISTEN"
        )
    return text
