#!/usr/bin/env python3
"""Holds the steady figures of the hot paths against the committed budget (budget.toml): bytecodes, allocations, instructions.

They are counted, in virtual time, so that they are the same on a busy machine as on an idle one. A figure that grew by more than
its tolerance is named, with the functions that changed, and the exit status is 1. Figures that fell are no failure: renew the budget.
Bytecodes and allocations are of one version of Python, instructions of one compiler; what has no budget yet is said. No privileges.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import figures
    from figures import PYTHON, Figures, Measured
except ModuleNotFoundError as missing:
    sys.exit(f"budget: the module {missing.name} is missing: make build, or pip install -e .")

HERE = Path(__file__).resolve().parent
BUDGET = HERE / "budget.toml"
FUNCTIONS = HERE / "budget_functions.json"
HEAD = """What the hot paths may cost: counted by budget.py, which `make check` runs; `make budget` renews it. Review it like code.

bytecodes     of the engine, and of the asyncio layer without the engine below it, for each unit
allocations   blocks of memory asked for, for each unit; in the asyncio layer of all that happens in its event loop
kept          blocks of memory that are left behind, for each segment
instructions  of the C extension's own code, for each unit, by compiler

A unit is a segment, in or out; in scenarios named "connections" it is a connection, from its SYN to its end."""

# What a figure may grow by: a share of it, and that much besides.
TOLERANCE = {"bytecodes": (0.005, 0.5), "allocations": (0.005, 0.1), "kept": (0.01, 0.1), "instructions": (0.01, 1.0)}
OTHER_PYTHON = 0.1  # share that allocations may differ by from another version's of Python
LOWER = 0.02  # share that a figure has to fall by for the budget to be worth renewing


def _grown(kind: str, budget: float, now: float, share: float) -> bool:
    return now > budget * (1 + share) + TOLERANCE[kind][1]


def _where(scenario: str, measured: Measured, budget: dict[str, figures.Functions]) -> Iterator[str]:
    """Yield the functions whose bytecodes changed most."""
    before = budget.get(PYTHON, {}).get(scenario)
    if before is None:
        return
    now = measured.functions.get(scenario, {})
    changes = [(now.get(name, 0.0) - before.get(name, 0.0), name) for name in {*before, *now}]
    for difference, name in sorted(changes, key=lambda change: (-abs(change[0]), change[1]))[:6]:  # what fell too: code may have moved
        if abs(difference) >= 0.5:
            new = "" if name in before else ", which was not called before"
            yield f"    {difference:+.1f} bytecodes a segment in {name}{new}"


def compare(measured: Measured) -> bool:
    """Print what differs from the budget; return whether nothing grew."""
    sections = figures.read(BUDGET)
    functions = figures.read_functions(FUNCTIONS)
    compared = grown = 0
    lower: list[str] = []
    unknown: list[str] = []
    for (kind, toolchain), now in measured.sections.items():
        share = TOLERANCE[kind][0]
        budget = sections.get((kind, toolchain))
        if budget is None:
            other = max((name for name in sections if name[0] == kind), default=None, key=_version) if kind == "allocations" else None
            print(f"budget: no {kind} of {_named(kind, toolchain)} in {BUDGET.name}" + ("; --write adds them" if other is None else ""))
            if other is None:
                continue
            budget, share = sections[other], OTHER_PYTHON
            print(f"budget: allocations are held against those of Python {other[1]}, with {OTHER_PYTHON:.0%} to spare")
        for name, value in now.items():
            if name not in budget:
                unknown.append(name)
                continue
            compared += 1
            if _grown(kind, budget[name], value, share):
                grown += 1
                percent = f" ({value / budget[name] - 1:+.1%})" if budget[name] > 0 else ""
                print(f"budget: {name}: {kind} grew from {budget[name]:.2f} to {value:.2f}{percent}")
                for line in _where(name.rpartition(": ")[0], measured, functions) if kind == "bytecodes" else ():
                    print(line)
            elif value < budget[name] * (1 - LOWER) - TOLERANCE[kind][1]:
                lower.append(f"{kind}, {name} ({value / budget[name] - 1:+.1%})" if budget[name] > 0 else f"{kind}, {name}")
        unknown += [f"{name} (in the budget, but measured no more)" for name in budget if name not in now]
    for line in measured.left_out:
        print(f"budget: left out: {line}")
    if lower:
        print(f"budget: {len(lower)} figures fell, such as {'; '.join(lower[:3])}: renew the budget (make budget)")
    if unknown:
        print(f"budget: {len(unknown)} figures have no counterpart, such as {unknown[0]}: renew the budget (make budget)")
    print(f"budget: {compared} figures compared, {grown or 'none'} grew beyond tolerance")
    return not grown


def _version(section: tuple[str, str]) -> list[int]:
    return [int(part) for part in section[1].split(".")]


def _named(kind: str, toolchain: str) -> str:
    return toolchain if kind == "instructions" else f"Python {toolchain}"


def write(measured: Measured) -> None:
    """Make what was measured the budget; the sections of other toolchains stay."""
    figures.write(BUDGET, HEAD, figures.read(BUDGET) | measured.sections)
    figures.write_functions(FUNCTIONS, figures.read_functions(FUNCTIONS) | {PYTHON: measured.functions})
    for line in measured.left_out:
        print(f"budget: left as it was: {line}")
    print(f"written: {BUDGET.name}, {FUNCTIONS.name}")


def show(measured: Measured) -> None:
    """Print every figure."""
    for (kind, toolchain), now in measured.sections.items():
        print(f"\n{kind} ({_named(kind, toolchain)})")
        _print(now)


def _print(now: Figures) -> None:
    width = max(map(len, now))
    for name, value in now.items():
        print(f"  {name:{width}}  {value:10.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", action="store_true", help="make the figures of now the budget")
    group.add_argument("--show", action="store_true", help="print the figures of now, and compare with nothing")
    options = parser.parse_args(arguments)
    try:
        figures.read(BUDGET), figures.read_functions(FUNCTIONS)
    except ValueError as error:
        sys.exit(f"budget: {BUDGET.name} or {FUNCTIONS.name} cannot be read ({error}): take a version of both from git, then make budget")
    measured = figures.measure()
    if options.write:
        write(measured)
    elif options.show:
        show(measured)
    elif not compare(measured):
        sys.exit(1)


if __name__ == "__main__":
    main()
