"""`tunstack netstat`: the sockets and counters of a running program, as net-tools' netstat(8) prints them."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence

from tunstack.cli.parser import Parser
from tunstack.daemon.controlclient import ControlClient, ControlError
from tunstack.daemon.errors import UserError
from tunstack.inspect import netstattable, netstatwords, snmp
from tunstack.inspect.filter import Filter
from tunstack.inspect.record import from_json

DESCRIPTION = """\
Show the sockets (or, with -s, the counters) of a running tunstack daemon, or of any program that has a control
socket, as netstat(8) shows the kernel's: options, columns and words are those of net-tools."""

EPILOG = """\
examples:
  tunstack netstat -napt
  tunstack netstat -n | awk '/^tcp/ {++S[$NF]} END {for(a in S) print a, S[a]}'
  tunstack netstat -s"""

FLAGS = (
    ("-a", "all", "show listening sockets and all others"),
    ("-l", "listening", "show listening sockets only"),
    ("-n", "numeric", "look for no names of hosts, ports and users"),
    ("-p", "programs", "show process and service"),
    ("-o", "timers", "show timers"),
    ("-c", "continuous", "again each second, until interrupted"),
    ("-s", "statistics", "show counters"),
    ("-W", "wide", "do not cut long names"),
    ("-t", "tcp", "TCP (there is nothing else, but for the counters)"),
    ("-v", "verbose", "(changes nothing)"),
    ("-4", "inet", "IPv4 (there is nothing else)"),
)
OTHERS = {"-u": "udp", "-U": "udplite", "-S": "sctp", "-w": "raw", "-x": "unix"}
PERIOD = 1.0  # s, of -c


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Parser("netstat", "[OPTION]...", DESCRIPTION, EPILOG)
    for short, name, text in FLAGS:
        parser.add_argument(short, f"--{name}", action="store_true", help=text)
    parser.add_argument("-e", "--extend", action="count", default=0, help="show user and inode too")
    for name in ("hosts", "ports", "users"):
        parser.add_argument(f"--numeric-{name}", action="store_true", help=f"look for no names of {name}")
    for short, name in OTHERS.items():
        parser.add_argument(short, f"--{name}", action="append_const", const=name, dest="others", help=f"{name}: there is none")
    parser.add_argument("-6", "--inet6", action="store_true", help="IPv6: there is none")
    parser.add_control()
    given = parser.parse_args(arguments)
    with ControlClient(given.control) as client:
        try:
            _repeat(given, client)
        except ControlError as error:
            raise UserError(f"netstat: {error}") from error
    return 0


def _repeat(given: Namespace, client: ControlClient) -> None:
    while True:
        for line in _statistics(given, client) if given.statistics else _sockets(given, client):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if not given.continuous:
            return
        time.sleep(PERIOD)


def _statistics(given: Namespace, client: ControlClient) -> Iterator[str]:
    chosen = set()
    if given.tcp:
        chosen.add("Tcp")
    if "udp" in (given.others or ()):
        chosen.add("Udp")
    if "raw" in (given.others or ()):
        chosen |= {"Ip", "Icmp"}
    return netstatwords.lines(snmp.tables(client.call("snmp")["values"]), frozenset(chosen) or None)


def _sockets(given: Namespace, client: ControlClient) -> Iterator[str]:
    style = netstattable.Style(
        all=given.all,
        listening=given.listening,
        numeric_hosts=given.numeric or given.numeric_hosts,
        numeric_ports=given.numeric or given.numeric_ports,
        numeric_users=given.numeric or given.numeric_users,
        extended=given.extend > 0,
        programs=given.programs,
        timers=given.timers,
        wide=given.wide,
    )
    has_tcp = (given.tcp or not given.others) and (given.inet or not given.inet6)
    answers = client.stream("sockets", filter=Filter().to_json()) if has_tcp else iter(())
    return netstattable.lines(map(from_json, answers), style)
