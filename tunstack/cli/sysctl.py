"""`tunstack sysctl`: the knobs of a running program, in sysctl(8)'s words."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunstack.cli.parser import Parser
from tunstack.daemon.controlclient import ControlClient, ControlError
from tunstack.daemon.errors import UserError

DESCRIPTION = """\
Show and set the knobs of a running tunstack daemon, or of any program that has a control socket, as sysctl(8)
does for the kernel's: names and units are Linux's. A name without its last parts means all below it, slashes may
stand for the dots. What is set counts from then on, and is gone when the daemon ends: what is to stay belongs in
[sysctl] of its configuration file. --explain says for whom a change counts."""

EPILOG = """\
examples:
  tunstack sysctl net.ipv4.tcp_congestion_control
  tunstack sysctl -w net.ipv4.tcp_fin_timeout=15 net.ipv4.tcp_rmem='4096 131072 16777216'
  tunstack sysctl -a -r keepalive
  tunstack sysctl --explain net.ipv4.tcp_ecn
exit status: 0, 1 if a knob could not be shown or set, 2 if it was called wrongly or there is no such daemon."""

Knob = Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Parser("sysctl", "[OPTION]... NAME[=VALUE]...\n       tunstack sysctl [OPTION]... -a | -p FILE...", DESCRIPTION, EPILOG)
    parser.add_argument("items", nargs="*", metavar="NAME[=VALUE]", help="knob to show or, with a value, to set")
    parser.add_argument("-a", "-A", "-X", "--all", action="store_true", help="show every knob")
    parser.add_argument("-w", "--write", action="store_true", help="set only: a name without a value is a mistake")
    parser.add_argument("-p", "-f", "--load", action="append", default=[], metavar="FILE", help="set what a file says (-: standard input)")
    parser.add_argument("-r", "--pattern", metavar="REGEX", help="only knobs whose name has this in it")
    parser.add_argument("-n", "--values", action="store_true", help="print values without names")
    parser.add_argument("-N", "--names", action="store_true", help="print names without values")
    parser.add_argument("-b", "--binary", action="store_true", help="print values without names and newlines")
    parser.add_argument("-e", "--ignore", action="store_true", help="say nothing of knobs that there are not")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not print what was set")
    parser.add_argument("--explain", action="store_true", help="show what a knob does, what it takes, and for whom a change counts")
    parser.add_control()
    given = parser.parse_args(arguments)
    if not (given.items or given.all or given.load):
        parser.error("name a knob, or say -a for all")
    try:
        pattern = re.compile(given.pattern or "")
    except re.error as error:
        parser.error(f"-r: {given.pattern!r} is no regular expression: {error}")
    with ControlClient(given.control) as client:
        return Run(given, pattern, client).run()


class Run:
    """One call of the command."""

    def __init__(self, given: Namespace, pattern: re.Pattern[str], client: ControlClient) -> None:
        self._given = given
        self._pattern = pattern
        self._client = client
        self._knobs: dict[str, Knob] | None = None  # by name, once they are needed
        self._status = 0

    def run(self) -> int:
        """Do everything in turn; return the exit status."""
        given = self._given
        for path in given.load:
            for name, value in self._read(path):
                self._set(name, value)
        if given.all:
            for knob in self._list().values():
                self._show(knob)
        else:
            for item in given.items:
                name, equals, value = item.partition("=")
                if equals and name.strip():
                    self._set(name.strip(), value.strip())
                elif equals or given.write or not name.strip():
                    self._complain(f"{item!r} is not of the form NAME=VALUE")
                else:
                    self._show_all(name)
        sys.stdout.flush()
        return self._status

    def _complain(self, message: str) -> None:
        sys.stdout.flush()  # so that both come in their order where they go to one place
        print(f"tunstack: sysctl: {message}", file=sys.stderr)
        self._status = 1

    def _list(self) -> dict[str, Knob]:
        if self._knobs is None:
            self._knobs = {knob["name"]: knob for knob in self._client.stream("sysctl.list")}
        return self._knobs

    def _show_all(self, name: str) -> None:
        """Show a knob, or all below a name."""
        try:
            self._show(self._client.call("sysctl.get", name=name))
        except ControlError as error:
            if error.code != "ENOENT":
                self._complain(f"{name}: {error}")
                return
            prefix = name.replace("/", ".").rstrip(".") + "."
            below = [knob for full, knob in self._list().items() if full.startswith(prefix)]
            for knob in below:
                self._show(knob)
            if not below:
                self._complain_of(name, error)

    def _show(self, knob: Knob) -> None:
        if not self._pattern.search(knob["name"]):
            return
        given = self._given
        if given.explain:
            unit = f" {knob['unit']}" if knob["unit"] else ""
            print(f"{knob['name']} = {knob['value']}\n    {knob['doc']}")
            print(f"    takes {knob['kind']}{unit}; default {knob['default']}; {EFFECTS.get(knob['effect'], knob['effect'])}")
        elif given.names:
            print(knob["name"])
        elif given.binary:
            print(knob["value"], end="")
        elif given.values:
            print(knob["value"])
        else:
            print(f"{knob['name']} = {knob['value']}")

    def _set(self, name: str, value: str) -> None:
        if not self._pattern.search(name):
            return
        try:
            done = self._client.call("sysctl.set", name=name, value=value)
        except ControlError as error:
            self._complain_of(name, error)
            return
        self._knobs = None
        if not self._given.quiet:
            self._show_set(done["name"], value)

    def _show_set(self, name: str, value: str) -> None:
        given = self._given
        if given.names:
            print(name)
        elif given.values or given.binary:
            print(value, end="" if given.binary else "\n")
        else:
            print(f"{name} = {value}")

    def _complain_of(self, name: str, error: ControlError) -> None:
        if error.code != "ENOENT" or name.replace("/", ".") in self._list():
            self._complain(f'setting key "{name}": {error}')
        elif not self._given.ignore:
            self._complain(f"cannot stat {name}: {error}")

    def _read(self, path: str) -> Iterator[tuple[str, str]]:
        """Give what a file of sysctl.conf(5)'s form says; UserError if it cannot be read."""
        try:
            if path == "-":
                lines = sys.stdin.read().splitlines()
            else:
                with open(path, encoding="utf-8") as file:
                    lines = file.read().splitlines()
        except OSError as error:
            raise UserError(f'sysctl: cannot open "{path}": {error.strerror}') from error
        except UnicodeDecodeError as error:
            raise UserError(f'sysctl: "{path}" is not text') from error
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text[0] in "#;":
                continue
            name, equals, value = text.removeprefix("-").partition("=")
            if equals and name.strip():
                yield name.strip(), value.strip()
            else:
                self._complain(f"{path}({number}): invalid syntax, continuing...")


EFFECTS = {
    "at once": "a change counts at once",
    "new connections": "a change counts for new connections",
    "new listeners": "a change counts for new listeners",
    "start": "counts when the interface is opened",
    "never": "can only be read",
}
