"""The matrix as a table: a row for each option set, a column for each load, role and link."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cells import FACTORS, SETTING_FACTORS, Cell, Setting
from group import Outcome

MARKS = {"up": "u", "down": "d", "echo": "e", "half-close": "h", "small": "s"}
SLOWEST = 5  # cells that are named
PASSED, FAILED, ABSENT = "+", "F", "."
LEGEND = (
    "One mark a cell: + passed, F failed, . not run; in the order up, down, echo, half-close, small; client and server are our role.\n"
    "An option that is off is off on our side, on Linux's, or on both; ECN is our tcp_ecn / Linux's; it was negotiated as\n"
    "c (we as client), s (as server), b (both), - (neither)."
)


def table(settings: Sequence[Setting], outcomes: Mapping[Cell, Outcome]) -> str:
    """Return the table, its legend and its sums."""
    option_sets: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        option_sets.setdefault(tuple(getattr(setting, name) for name in SETTING_FACTORS[:-1]), []).append(setting)
    columns = [(link, role) for link in FACTORS["link"] for role in FACTORS["role"]]
    letters = "".join(MARKS[load] for load in FACTORS["load"])
    headers = ["sack", "timestamps", "wscale", "ecn", "mtu", *(f"{link} {role}" for link, role in columns)]
    rows = [["", "", "", "", "", *(letters for _ in columns)]]
    for members in option_sets.values():
        sides = members[0].off_sides
        words = [f"off: {sides[name]}" if name in sides else "on" for name in ("sack", "ts", "ws")]
        negotiated = "".join(role[0] for role in FACTORS["role"] if members[0].negotiated(role).ecn)
        ecn = f"{members[0].ours.ecn}/{members[0].linux.ecn} {'b' if negotiated == 'cs' else negotiated or '-'}"
        marks = [_marks(replace(members[0], link=link), role, outcomes) for link, role in columns]
        rows.append([*words, ecn, members[0].mtu, *marks])
    slowest = sorted(outcomes.values(), key=lambda outcome: -outcome.seconds)[:SLOWEST]
    lines = [f"{outcome.seconds:6.2f} s  {outcome.cell}" for outcome in slowest]
    return "\n\n".join([_aligned([headers, *rows]), LEGEND, _sums(outcomes.values()), "\n".join(["The slowest:", *lines])])


def _marks(setting: Setting, role: str, outcomes: Mapping[Cell, Outcome]) -> str:
    found = [outcomes.get(Cell(setting, role, load)) for load in FACTORS["load"]]
    return "".join(ABSENT if outcome is None else FAILED if outcome.error else PASSED for outcome in found)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _sums(outcomes: Iterable[Outcome]) -> str:
    """Return how many passed, by link and role, and how long a cell took."""
    rows = [["link", "role", "passed", "of", "median s", "slowest s"]]
    by_kind: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault((outcome.cell.setting.link, outcome.cell.role), []).append(outcome)
    for (link, role), members in sorted(by_kind.items()):
        times = sorted(outcome.seconds for outcome in members)
        passed = sum(outcome.error is None for outcome in members)
        rows.append([link, role, str(passed), str(len(members)), f"{times[len(times) // 2]:.2f}", f"{times[-1]:.2f}"])
    return _aligned(rows)
