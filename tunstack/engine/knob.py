"""A knob: what `sysctl.py` declares of each, and how a value is read, checked and written.

As Linux's /proc/sys takes them: decimal, 0x and 0 for octal; several numbers with blanks between; on and off are 1 and 0. A
configuration file's booleans, integers and arrays are taken too. Knows nothing of a stack.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

from tunstack.engine.errors import TEXTS

Value = bool | int | str | tuple[int, ...]
Effect = Literal["at once", "new connections", "new listeners", "start", "never"]  # start: of the interface; never: it can only be read
T = TypeVar("T", bound=Value)

INT_MAX = 2**31 - 1  # most of Linux's knobs are C ints
SECONDS_MAX = INT_MAX // 1000  # Linux keeps seconds in jiffies, of which there are up to 1000 in one

_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,22})")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,8}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,14}")
_TYPES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "null",
    list: "an array",
    dict: "a table",
}


def check_name(text: str) -> object:
    """Check the name of an algorithm; OSError EINVAL."""
    if not _NAME.fullmatch(text):
        raise invalid(f"{text!r} is not a name")
    return text


def knob(
    default: T,
    doc: str,
    unit: str = "",
    *,
    low: int = 0,
    high: int = INT_MAX,
    folder: str = "net.ipv4.",
    effect: Effect = "at once",
    linux: bool = True,
    deviates: str = "",
    check: Callable[[str], object] = check_name,
    form: str = "name",
    secret: bool = False,
) -> T:
    """Declare a field of Sysctl; see `Knob` for the arguments."""
    metadata = {
        "doc": doc,
        "unit": unit,
        "low": low,
        "high": high,
        "folder": folder,
        "effect": effect,
        "linux": linux,
        "deviates": deviates,
        "check": check,
        "form": form,
        "secret": secret,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Knob:
    """What is known of a knob. Its kind is that of its default; `low` and `high` are for each of its numbers."""

    field: str  # of Sysctl: the last part of the name
    default: Value
    doc: str  # one line
    unit: str  # of its numbers; nothing for a count, a name or a choice
    low: int
    high: int
    folder: str  # the name without its last part, with the dot
    effect: Effect  # for whom a change counts
    linux: bool  # Linux has it too, under this name; else it is ours, or a route's or a module's there
    deviates: str  # why default or range are not Linux's
    check: Callable[[str], object] = check_name  # raises EINVAL for a text that will not do; knobs that are texts only
    form: str = "name"  # of the text, for people
    secret: bool = False  # is not written to a log

    @classmethod
    def of(cls, name: str, default: object, metadata: Any) -> Knob:
        """Make it of a field's default and metadata, as `knob` has put them there."""
        if default is MISSING or not metadata:
            raise TypeError(f"declare the field {name} of Sysctl with knob()")
        return cls(field=name, default=cast("Value", default), **metadata)

    @property
    def name(self) -> str:
        """The full name, with dots."""
        return self.folder + self.field

    @property
    def kind(self) -> str:
        """What it takes, for people."""
        if isinstance(self.default, bool):
            return "0 or 1"
        if isinstance(self.default, tuple):
            return f"{len(self.default)} numbers, {self.low} to {self.high}, none less than the one before"
        return f"{self.low} to {self.high}" if isinstance(self.default, int) else self.form

    def take(self, value: object) -> Value:
        """Return what a field is set to for `value`: a text, or what TOML or JSON has; OSError EINVAL says what is wrong with it."""
        if isinstance(self.default, bool):
            return self._boolean(value)
        if isinstance(self.default, tuple):
            return self._numbers(value, self.default)
        if isinstance(self.default, int):
            return self._number(value)
        text = value.strip() if isinstance(value, str) else value
        if not isinstance(text, str):
            raise invalid(f"must be a string, not {describe(value)}")
        self.check(text)
        return text

    def _boolean(self, value: object) -> bool:
        number = self._parse(value) if isinstance(value, str) else value
        if isinstance(number, int) and number in (0, 1):
            return bool(number)
        raise invalid(f"{show(value)} is neither 0 nor 1")

    def _number(self, value: object) -> int:
        number = self._parse(value) if isinstance(value, str) else value
        if not isinstance(number, int) or isinstance(number, bool):
            raise invalid(f"{show(value)} is not a whole number")
        if not self.low <= number <= self.high:
            raise invalid(f"{number} is not between {self.low} and {self.high}")
        return number

    def _numbers(self, value: object, example: tuple[int, ...]) -> tuple[int, ...]:
        items: list[object] = [*value.split()] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
        if len(items) != len(example):
            raise invalid(f"must be {len(example)} whole numbers, such as {' '.join(map(str, example))}")
        numbers = tuple(self._number(item) for item in items)
        if list(numbers) != sorted(numbers):
            raise invalid(f"{' '.join(map(str, numbers))}: the numbers must not fall from one to the next")
        return numbers

    @staticmethod
    def _parse(text: str) -> int | None:
        """Read a number as C's strtol does with base 0; None if it is none."""
        text = text.strip()
        if not _NUMBER.fullmatch(text):
            return None
        digits = text.removeprefix("-")
        try:
            number = int(digits, 8 if digits[0] == "0" and digits[1:].isdigit() else 0)
        except ValueError:  # an 8 or 9 in an octal number
            return None
        return -number if text[0] == "-" else number


@lru_cache(maxsize=4)
def parse_ports(text: str) -> frozenset[int]:
    """Return the ports of a list such as `8080,9148-9150`; OSError EINVAL where it is none."""
    ports: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        if not (part.isascii() and first.isdecimal() and (last.isdecimal() or not dash) and len(part) < 20):
            raise invalid(f"{part.strip()!r} is neither a port nor a range of ports")
        low, high = int(first), int(last or first)
        if not low <= high <= 65535:
            raise invalid(f"{part.strip()!r} is not a range of ports from 0 to 65535")
        ports.update(range(low, high + 1))
    return frozenset(ports)


def parse_keys(text: str) -> bytes:
    """Return the keys of sixteen octets, one after another, of a text such as `1f-2e-3d-4c,5-6-7-8`; none if it is empty.

    OSError EINVAL where it is not one or two; what it is, is not told: it is a secret.
    """
    keys = b""
    for part in text.split(",") if text.strip() else ():
        words = part.strip().split("-")
        if len(words) != 4 or not all(_HEXADECIMAL.fullmatch(word) for word in words):
            raise invalid("a key is four hexadecimal numbers, such as 1f-2e-3d-4c; a second one follows a comma")
        keys += struct.pack("<4I", *(int(word, 16) for word in words))
    if len(keys) > 32:
        raise invalid("there are two keys at most")
    return keys


def to_text(value: Value) -> str:
    """Write a value as /proc/sys has it: tabs between numbers."""
    if isinstance(value, tuple):
        return "\t".join(map(str, value))
    return str(int(value)) if isinstance(value, int) else value


def invalid(message: str) -> OSError:
    """Return the error of a value that a knob does not take."""
    return OSError(errno.EINVAL, message or TEXTS["EINVAL"])


def describe(value: object) -> str:
    """Name the type of a value out of a TOML or JSON file, for a message."""
    return _TYPES.get(type(value), "a date or time")


def show(value: object) -> str:
    """Write a value that is wrong, for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, str) else str(value) if isinstance(value, int) else describe(value)
