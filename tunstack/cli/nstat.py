"""`tunstack nstat`: the counters of a running program, and what they grew by since the last call, as nstat(8) prints them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from tunstack.cli.parser import Parser
from tunstack.daemon.controlclient import ControlClient, ControlError
from tunstack.daemon.errors import UserError
from tunstack.inspect import nstat

DESCRIPTION = """\
Show by how much the counters of a running tunstack daemon, or of any program that has a control socket, grew since
this command was last called, as nstat(8) does for the kernel's. PATTERN is a shell's, of a counter's name in any
case. The history is in TUNSTACK_NSTAT_HISTORY, or else in a file of the user's; a daemon that started anew has none."""

EPILOG = """\
examples:
  tunstack nstat
  tunstack nstat -az 'TcpExtListen*' TcpRetransSegs
  tunstack nstat -asj"""

ENVIRONMENT = "TUNSTACK_NSTAT_HISTORY"


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Parser("nstat", "[OPTION]... [PATTERN]...", DESCRIPTION, EPILOG)
    parser.add_argument("-a", "--ignore", action="store_true", help="show the counters themselves, not what they grew by")
    parser.add_argument("-z", "--zeros", action="store_true", help="show those that are zero too")
    parser.add_argument("-s", "--noupdate", action="store_true", help="do not remember")
    parser.add_argument("-r", "--reset", action="store_true", help="forget what is remembered first")
    parser.add_argument("-n", "--nooutput", action="store_true", help="remember only")
    parser.add_argument("-j", "--json", action="store_true", help="print JSON")
    parser.add_argument("-p", "--pretty", action="store_true", help="print JSON in lines")
    parser.add_control()
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="which counters")
    given = parser.parse_intermixed_args(arguments)
    with ControlClient(given.control) as client:
        try:
            answer = client.call("snmp")
        except ControlError as error:
            raise UserError(f"nstat: {error}") from error
    now = nstat.History(str(answer["epoch"]), answer["values"])
    path = history_path()
    before = nstat.History() if given.ignore or given.reset else nstat.load(read(path))
    if not given.nooutput:
        chosen = nstat.select(now, before, given.patterns, given.zeros)
        for line in [nstat.as_json(chosen, given.pretty)] if given.json else nstat.lines(chosen):
            print(line)
        sys.stdout.flush()
    if not given.noupdate:
        write(path, now.dump())
    return 0


def history_path() -> Path:
    """Return where the history is."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "tunstack-nstat" if runtime else Path(f"/tmp/.tunstack-nstat.u{os.geteuid()}")


def read(path: Path) -> str:
    """Return a history as it is stored, nothing where there is none; UserError unless it is a file of our own."""
    try:
        with os.fdopen(_open(path, os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path: Path, text: str) -> None:
    """Store a history; UserError if that cannot be."""
    with os.fdopen(_open(path, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8") as file:
        file.truncate()
        file.write(text)


def _open(path: Path, flags: int) -> int:
    """Open the file, which others may have put where we look for ours: no link is followed, and it must be our own."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        if flags & os.O_CREAT:
            raise UserError(f"nstat: the history {path} cannot be stored: there is no such directory") from None
        raise
    except OSError as error:
        raise UserError(f"nstat: the history {path} cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
        os.close(descriptor)
        raise UserError(f"nstat: the history {path} is not a file of your own: remove it, or name another in {ENVIRONMENT}")
    return descriptor
