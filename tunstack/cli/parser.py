"""argparse as our commands use it: a mistake is one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from tunstack.daemon.errors import UserError


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in lines of a width that is always the same, so that it reads as it was written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


class Parser(argparse.ArgumentParser):
    """A parser for one command. A mistake is a UserError."""

    def __init__(self, command: str, usage: str, description: str, epilog: str = "") -> None:
        super().__init__(
            f"tunstack {command}",
            usage=f"tunstack {command} {usage}",
            description=description,
            epilog=epilog,
            formatter_class=Formatter,
            allow_abbrev=False,
        )
        self._command = command

    def add_control(self) -> None:
        """Add what every command has that asks a running program."""
        self.add_argument("-V", "--version", action=Version, nargs=0, help="show the version and exit")
        self.add_argument("--control", metavar="PATH", help="the program's control socket (default: TUNSTACK_CONTROL, or the only one)")

    def error(self, message: str) -> NoReturn:
        cluster = re.fullmatch(r"argument (\S+): ignored explicit argument '(.*)'", message)
        if cluster:  # argparse's words for the `r` of `-nr` and for that of `--numeric=r`
            message = f"{cluster[2]!r} behind {cluster[1]} is no option, and no value is wanted there"
        raise UserError(f"{self._command}: {message} (see tunstack {self._command} --help)")


class Version(argparse.Action):
    """Print the version, which takes time to find out, only where it is asked for."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: str | Sequence[Any] | None, option: str | None = None
    ) -> None:
        from tunstack.daemon.status import version

        print(f"tunstack {version()}", flush=True)
        parser.exit()
