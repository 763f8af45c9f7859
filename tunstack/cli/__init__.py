"""The command line: one file a command, imported only when the command is called."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

COMMANDS = {
    "serve": "run the daemon: HTTP, echo, discard, daytime and chargen on a TUN interface",
    "link": "join two network namespaces by a link that delays, loses, reorders, ... as told",
    "nc": "netcat over a TCP of its own: connect to a port, or listen on one",
    "ss": "show the sockets of a running daemon, or kill some, as ss does for the kernel's",
    "netstat": "show its sockets or counters as net-tools' netstat does",
    "nstat": "show its counters as nstat does, what they grew by since the last time",
    "sysctl": "show and set the knobs of a running daemon",
    "bench": "measure it beside the kernel's TCP, on this machine",
    "lab": "let congestion controls share a bottleneck in virtual time, and measure them",
}

_USAGE = "usage: tunstack COMMAND [OPTION]..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 if it failed, 2 if it was called wrongly, 130 after an interrupt."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # nobody reads our output; nothing is left to flush either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        if name == "help" and len(arguments) > 1:
            return _run([arguments[1], "--help"])
        print(_help(), flush=True)
        return 0
    if name in ("-V", "--version"):
        from tunstack.daemon.status import version

        print(f"tunstack {version()}", flush=True)
        return 0
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        return _complain([f"there is no {what} {name!r}: see tunstack --help"], 2)
    from tunstack.daemon.errors import UserError

    try:
        command = import_module(f"tunstack.cli.{name}")
        status: int = command.main(arguments[1:])
        return status
    except UserError as error:
        return _complain(error.messages, 2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _complain([error.strerror or str(error)], 1)


def _complain(messages: Sequence[str], status: int) -> int:
    for message in messages:
        print(f"tunstack: {message}", file=sys.stderr)
    return status


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """Show what a module warns of as one line of ours: where in the source it was means nothing to a user."""
    print(f"tunstack: warning: {message}", file=file or sys.stderr)


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return (
        f"{_USAGE}\n\nA TCP endpoint in user space, on a TUN interface.\n\ncommands:\n{commands}\n\n"
        "options:\n  -h, --help     show this, or the help of a command (tunstack COMMAND --help)\n  -V, --version  show the version"
    )
