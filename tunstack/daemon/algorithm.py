"""The congestion control that a user names: one of ours, or a class in a file of his own, `mycc.py:MyCC`.

The file is read with the rights that we have at the start, and run once they are given up. What is wrong with it is one line.
"""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from tunstack.daemon.errors import UserError
from tunstack.daemon.kinds import TextKind, suggest

if TYPE_CHECKING:
    from tunstack.engine import Stack

FLAG = "--congestion"


@dataclass(frozen=True, slots=True)
class Choice:
    """An algorithm by name or, with `path`, a class by name."""

    name: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.name if self.path is None else f"{self.path}:{self.name}"

    def below(self, directory: Path) -> Choice:
        """Return the choice with a relative path taken as relative to a directory."""
        return self if self.path is None else Choice(self.name, directory / self.path)


class Algorithm(TextKind[Choice]):
    """NAME or FILE.py:CLASS."""

    metavar = "NAME"

    def from_text(self, text: str) -> Choice:
        file, colon, name = text.rpartition(":")
        if not colon:
            if text.endswith(".py"):
                raise ValueError(f"which class of {text}? Write {text}:CLASS")
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,14}", text):
                raise ValueError(f"{text!r} is neither a congestion control's name nor FILE.py:CLASS")
            return Choice(text)
        if not file or not name.isidentifier():
            raise ValueError(f"{text!r} is not of the form FILE.py:CLASS")
        return Choice(name, Path(file))


def prepare(choice: Choice | None) -> Prepared | None:
    """Read what was chosen, if anything was; UserError if there is no such file or algorithm, or the file is not Python."""
    if choice is None:
        return None
    if choice.path is None:
        from tunstack.engine import congestion_controls  # the whole engine: not for every `--help`

        names = congestion_controls()
        if choice.name not in names:
            raise UserError(f"{FLAG}: there is no {choice.name!r}; there is {', '.join(names)}, or FILE.py:CLASS")
        return Prepared(choice, None)
    try:
        source = choice.path.read_bytes()
    except OSError as error:
        raise UserError(f"{FLAG}: cannot read {choice.path}: {error.strerror}") from error
    try:
        return Prepared(choice, compile(source, str(choice.path), "exec"))
    except SyntaxError as error:
        where = f"{choice.path}:{error.lineno}" if error.lineno else f"{choice.path}"
        raise UserError(f"{FLAG}: {where}: {error.msg}") from error
    except ValueError as error:
        raise UserError(f"{FLAG}: {choice.path}: {error}") from error


class Prepared:
    """An algorithm that was read and can be put to use."""

    def __init__(self, choice: Choice, code: CodeType | None) -> None:
        self._choice = choice
        self._code = code

    def use(self, stack: Stack) -> None:
        """Make it what new connections of a stack use; UserError if the file or the class is no good."""
        if self._code is None:
            stack.use_congestion(self._choice.name)
            return
        path, name = self._choice.path, self._choice.name
        names = self._run(self._code)
        if name not in names:
            classes = [key for key, value in names.items() if isinstance(value, type) and value.__module__ == names["__name__"]]
            raise UserError(f"{FLAG}: {path} has no {name}{suggest(name, classes)}")
        try:
            stack.use_congestion(names[name])  # type: ignore[arg-type]  # it looks for itself
        except Exception as error:
            raise UserError(f"{FLAG}: {self.explain(error)}") from error

    def explain(self, error: BaseException) -> str:
        """Say in a line what went wrong, and where in the user's file."""
        path = str(self._choice.path)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"{path}:{lines[-1]}: {type(error).__name__}: " if lines else f"{path}: "
        return where + (" ".join(str(error).split()) or "no reason given")

    def _run(self, code: CodeType) -> dict[str, object]:
        """Run the file as a module and return its names."""
        path = self._choice.path
        assert path is not None
        module = ModuleType(f"tunstack_user_{path.stem}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # dataclasses, among others, look there
        try:
            exec(code, module.__dict__)
        except (Exception, SystemExit) as error:
            raise UserError(f"{FLAG}: {self.explain(error)}") from error
        return module.__dict__
