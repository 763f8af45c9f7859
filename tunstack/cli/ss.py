"""`tunstack ss`: the sockets of a running program, in ss(8)'s words and columns."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence

from tunstack.cli.parser import Parser
from tunstack.daemon.controlclient import ControlClient, ControlError
from tunstack.daemon.errors import UserError
from tunstack.inspect import filter as filters
from tunstack.inspect import sstable, summary
from tunstack.inspect.record import SocketRecord, from_json

DESCRIPTION = """\
Show the sockets of a running tunstack daemon, or of any program that has a control socket, as ss(8) shows the
kernel's: options, columns and words are those of iproute2. FILTER is
  [ state STATE | exclude STATE ]... [ EXPRESSION ]
with conditions such as sport = :http, dport \\> :1024, src 10.0.0.0/24, dst 10.0.0.1:80, joined by and, or, not
and parentheses; STATE is all, connected, synchronized, bucket, big, established, syn-sent, syn-recv, fin-wait-1,
fin-wait-2, time-wait, closed, close-wait, last-ack, listening or closing."""

EPILOG = """\
examples:
  tunstack ss -tan                                all sockets, in numbers
  tunstack ss -tinp state established             connections, with what the TCP knows of each, and whose they are
  tunstack ss -tano '( sport = :80 or sport = :443 )'
  tunstack ss -K dst 10.77.0.1 dport = 40000      reset a connection
  tunstack ss -tj -i | jq '.[] | .info.rtt'"""

CONNECTED = filters.STATE_GROUPS["connected"] - filters.STATE_GROUPS["bucket"]  # what ss shows without -a and -l
LISTENING = frozenset(("LISTEN", "CLOSED"))
# Kinds of sockets that there are none of.
OTHERS = {"-0": "packet", "-M": "mptcp", "-S": "sctp", "-u": "udp", "-d": "dccp", "-w": "raw", "-x": "unix"}
FAMILIES = frozenset(("inet", "inet6", "link", "unix", "netlink", "vsock", "tipc", "xdp"))
SEVERAL = frozenset(("all", "inet", "unix", "packet", "vsock"))  # kinds that stand for several
KINDS = SEVERAL | {
    *("tcp", "mptcp", "udp", "raw", "unix_dgram", "unix_stream", "unix_seqpacket", "packet_raw", "packet_dgram"),
    *("netlink", "dccp", "sctp", "vsock_stream", "vsock_dgram", "tipc", "xdp"),
}
FLAGS = (
    ("-n", "numeric", "do not look for the names of ports"),
    ("-r", "resolve", "look for the names of hosts"),
    ("-a", "all", "show listening sockets and all others"),
    ("-l", "listening", "show listening sockets only"),
    ("-o", "options", "show timers"),
    ("-e", "extended", "show uid, inode and cookie too"),
    ("-m", "memory", "show the memory that a socket holds"),
    ("-p", "processes", "show whose a socket is: the service, its process, its interface's descriptor"),
    ("-i", "info", "show what the TCP knows (TCP_INFO)"),
    ("-s", "summary", "show how many there are"),
    ("-K", "kill", "reset them, and show which"),
    ("-H", "no-header", "leave the titles out"),
    ("-O", "oneline", "one line a socket, also with -i and -m"),
    ("-t", "tcp", "TCP sockets (there are no others)"),
    ("-j", "json", "print JSON: all that is known, or what -i and -m add"),
)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Parser("ss", "[OPTION]... [FILTER]", DESCRIPTION, EPILOG)
    for short, name, text in FLAGS:
        parser.add_argument(short, f"--{name}", action="store_true", help=text)
    for short, name in OTHERS.items():
        parser.add_argument(short, f"--{name}", action="append_const", const=name, dest="others", help=f"{name} sockets: there are none")
    for flag, name, family, text in (("-4", "--ipv4", "inet", "(there are no others)"), ("-6", "--ipv6", "inet6", "(there are none)")):
        parser.add_argument(flag, name, action="store_const", const=family, dest="family", help=f"IP{name[4:]} sockets {text}")
    parser.add_argument("-f", "--family", metavar="FAMILY", help="sockets of a family; there is inet")
    parser.add_argument("-A", "--query", "--socket", metavar="KIND[,KIND]...", help="sockets of some kinds; there is tcp")
    parser.add_argument("-F", "--filter", metavar="FILE", help="read a filter from a file (-: standard input)")
    parser.add_control()
    parser.add_argument("words", nargs="*", metavar="FILTER", help="which sockets")
    given = parser.parse_intermixed_args(arguments)
    if given.family not in (None, *FAMILIES):
        parser.error(f"-f: there is no family {given.family!r}; there is {', '.join(sorted(FAMILIES))}")
    for kind in _kinds(given) - KINDS:
        parser.error(f"-A: there is no kind of sockets {kind!r}; there is {', '.join(sorted(KINDS))}")
    try:
        chosen = filters.parse([*_read(given.filter), *given.words], _states(given))
    except filters.FilterError as error:
        parser.error(str(error))
    if given.summary:
        chosen = filters.Filter()
    with ControlClient(given.control) as client:
        try:
            _print(given, chosen, _records(client, given, chosen))
        except ControlError as error:
            raise UserError(f"ss: {error}") from error
    return 0


def _states(given: Namespace) -> frozenset[str]:
    return filters.ALL if given.all else LISTENING if given.listening else CONNECTED


def _read(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        if path == "-":
            return sys.stdin.read().split()
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"ss: the filter {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error


def _kinds(given: Namespace) -> frozenset[str]:
    """Return the kinds of sockets that are named; none of them is all."""
    named = given.query.split(",") if given.query is not None else []
    return frozenset([*named, *(given.others or ()), *(["tcp"] if given.tcp else [])])


def _has_tcp(given: Namespace) -> bool:
    """Tell whether TCP over IPv4 is among what is asked for."""
    if given.family not in (None, "inet"):
        return False
    kinds = _kinds(given)
    return not kinds or not kinds.isdisjoint(("all", "inet", "tcp"))


def _records(client: ControlClient, given: Namespace, chosen: filters.Filter) -> Iterator[SocketRecord]:
    if not _has_tcp(given):
        return iter(())
    if given.kill:
        answers = client.stream("kill", filter=chosen.to_json())
    else:
        answers = client.stream("sockets", filter=chosen.to_json(), memory=given.memory, info=given.info)
    return map(from_json, answers)


def _print(given: Namespace, chosen: filters.Filter, records: Iterator[SocketRecord]) -> None:
    if given.summary:
        lines: Iterable[str] = summary.lines(records)
    elif given.json:
        lines = _json(records)
    else:
        lines = sstable.lines(records, _style(given, chosen))
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _json(records: Iterable[SocketRecord]) -> Iterator[str]:
    """Give a JSON array, a socket a line, so that any number of them is no burden."""
    before = "["
    for record in records:
        yield before + json.dumps(record.to_json(), separators=(",", ":"))
        before = ","
    yield "]" if before == "," else "[]"


def _style(given: Namespace, chosen: filters.Filter) -> sstable.Style:
    kinds = _kinds(given)
    return sstable.Style(
        has_netid=len(kinds) != 1 or not kinds.isdisjoint(SEVERAL),
        has_state=len(chosen.states) != 1,
        has_header=not given.no_header,
        numeric=given.numeric,
        resolve=given.resolve,
        timer=given.options,
        extended=given.extended,
        processes=given.processes,
        memory=given.memory,
        info=given.info,
        oneline=given.oneline,
        terminal=os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None,
    )
