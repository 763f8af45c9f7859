"""Counters as nstat prints them, and what it remembers between two calls.

A history is the values of the last call. Where it is of another run of the program (another `epoch`), there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tunstack.inspect.snmp import GAUGES

TITLE = "kernel"  # nstat's, for scripts that read it


@dataclass(frozen=True, slots=True)
class History:
    """What the counters were."""

    epoch: str = ""  # which run of the program
    values: Mapping[str, int] = field(default_factory=dict)

    def dump(self) -> str:
        """Return it as it is stored."""
        return json.dumps({"epoch": self.epoch, "values": dict(self.values)})


def load(text: str) -> History:
    """Read what `dump` gave; an empty history from anything else."""
    try:
        stored = json.loads(text)
        values = {str(name): int(value) for name, value in stored["values"].items()}
        return History(str(stored["epoch"]), values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return History()


def select(now: History, before: History, patterns: Sequence[str], zeros: bool) -> dict[str, int]:
    """Return the increments since `before`: of names that one of the patterns matches (shell's, any case), zeros only where wanted."""
    old = before.values if before.epoch == now.epoch else {}
    folded = [pattern.lower() for pattern in patterns]
    chosen = {}
    for name, value in now.values.items():
        if name in GAUGES or (folded and not any(fnmatchcase(name.lower(), pattern) for pattern in folded)):
            continue
        grown = value - old.get(name, 0)
        if grown or zeros:
            chosen[name] = grown
    return chosen


def lines(chosen: Mapping[str, int]) -> Iterator[str]:
    """Return the table. The last column is nstat's rate, which only its own daemon knows: it is always 0.0 without it."""
    yield f"#{TITLE}"
    for name, value in chosen.items():
        yield f"{name:<32}{value:<16}{0:6.1f}"


def as_json(chosen: Mapping[str, int], pretty: bool) -> str:
    """Return the values as `nstat -j` does."""
    return json.dumps({TITLE: dict(chosen)}, indent=4 if pretty else None, separators=None if pretty else (",", ":"))
