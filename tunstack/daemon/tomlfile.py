"""A TOML file with the line of each of its keys.

TOML 1.0.0. tomllib checks and reads the document but keeps no positions, so the lines are found in a second pass,
which may trust that the document is well formed. Lines count from 1.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

# Where a value stands: the keys, and the indexes of arrays, that lead to it.
Position = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^\n,\]}#]+")
_ERROR_POSITION = re.compile(r" \(at line (\d+), column \d+\)$")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class TomlError(Exception):
    """The document is not TOML; `line` is where that showed."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Document:
    """A parsed document: `values` as tomllib gives them, and `line` for the position of each."""

    def __init__(self, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise TomlError(data.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
        try:
            self.values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            message = str(error)
            found = _ERROR_POSITION.search(message)
            if found:
                raise TomlError(int(found[1]), message[: found.start()]) from error
            message = message.removesuffix(" (at end of document)")
            raise TomlError(len(text.splitlines()) or 1, f"{message} (at the end of the file)") from error
        self._lines = _Locator(text.replace("\r\n", "\n")).locate()

    def line(self, position: Position) -> int:
        """Return the line of a value, or of the nearest thing around it."""
        while position and position not in self._lines:
            position = position[:-1]
        return self._lines.get(position, 1)

    def positions(self) -> dict[Position, int]:
        """Return every position that has a line of its own."""
        return dict(self._lines)


def read(path: Path) -> Document:
    """Read a file; OSError, or TomlError if it is not TOML."""
    return Document(path.read_bytes())


class _Locator:
    """One pass over a well-formed document. `at` is the offset of what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Position, int] = {}
        self.arrays: dict[Position, int] = {}  # tables seen so far of each array of tables
        self.counted = (0, 1)  # an offset, and the line that it is on

    def locate(self) -> dict[Position, int]:
        table: Position = ()
        self._skip(_GAP)
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                self.at += 2
                line, keys = self._line(), self._keys()
                self.at += 2
                array = self._resolve(keys)
                index = self.arrays.get(array, -1) + 1
                self.arrays[array] = index
                self._record(array, line)
                table = (*array, index)
                self._record(table, line)
            elif self.text[self.at] == "[":
                self.at += 1
                line, keys = self._line(), self._keys()
                self.at += 1
                table = self._resolve(keys)
                self._record(table, line)
            else:
                self._pair(table)
            self._skip(_GAP)
        return self.lines

    def _line(self) -> int:
        offset, line = self.counted
        line += self.text.count("\n", offset, self.at)
        self.counted = (self.at, line)
        return line

    def _record(self, position: Position, line: int) -> None:
        """Note the line of a position, and of what it implies around it; the first mention counts."""
        for length in range(1, len(position) + 1):
            self.lines.setdefault(position[:length], line)

    def _resolve(self, keys: list[str]) -> Position:
        """Return the position of a header's keys: a name of an array of tables means its last table."""
        position: Position = ()
        for key in keys[:-1]:
            position = (*position, key)
            if position in self.arrays:
                position = (*position, self.arrays[position])
        return (*position, keys[-1])

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()

    def _keys(self) -> list[str]:
        """Read a dotted key, with the blanks around it."""
        keys = []
        while True:
            self._skip(_BLANK)
            bare = _BARE_KEY.match(self.text, self.at)
            if bare:
                keys.append(bare[0])
                self.at = bare.end()
            else:
                keys.append(self._string())
            self._skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _pair(self, table: Position) -> None:
        line = self._line()
        position = (*table, *self._keys())
        self._record(position, line)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(position)

    def _value(self, position: Position) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(position)
        elif first == "{":
            self._inline_table(position)
        else:
            self._skip(_SCALAR)

    def _array(self, position: Position) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_GAP)
            if self.text[self.at] == "]":
                self.at += 1
                return
            self._record((*position, index), self._line())
            self._value((*position, index))
            index += 1
            self._skip(_GAP)
            if self.text[self.at] == ",":
                self.at += 1

    def _inline_table(self, position: Position) -> None:
        self.at += 1
        while True:
            self._skip(_GAP)  # newlines come in TOML 1.1 only; a parser that takes them is followed
            if self.text[self.at] == "}":
                self.at += 1
                return
            self._pair(position)
            self._skip(_GAP)
            if self.text[self.at] == ",":
                self.at += 1

    def _string(self) -> str:
        """Read a string of any of the four kinds and return its value (of a key: these are never multi-line)."""
        quote = self.text[self.at]
        triple = quote * 3
        if self.text.startswith(triple, self.at):
            return self._multiline(triple)
        self.at += 1
        out: list[str] = []
        while (char := self.text[self.at]) != quote:
            self.at += 1
            if char == "\\" and quote == '"':
                char = self._escape()
            out.append(char)
        self.at += 1
        return "".join(out)

    def _escape(self) -> str:
        letter = self.text[self.at]
        self.at += 1
        if letter in "uU":
            digits = 4 if letter == "u" else 8
            self.at += digits
            return chr(int(self.text[self.at - digits : self.at], 16))
        return _ESCAPES.get(letter, letter)

    def _multiline(self, triple: str) -> str:
        """Pass a multi-line string; up to two quotes may stand right before the closing three."""
        start = self.at = self.at + 3
        while not self.text.startswith(triple, self.at):
            self.at += 2 if self.text[self.at] == "\\" and triple[0] == '"' else 1
        end = self.at
        self.at += 3
        for _ in range(2):
            if self.text.startswith(triple[0], self.at):
                self.at += 1
        return self.text[start:end]
