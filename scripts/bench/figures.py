"""The steady figures of the hot paths: measured, and kept in files. A section holds the figures of one kind under one toolchain."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

import asyncio_paths
import engine_paths
import native_paths
from hot_path import Scenario
from meter import Allocations, Bytecodes, Kept, Meter, MeterError, Probe, no_collector

PACKAGE = Path(__file__).resolve().parent.parent.parent
LENGTH = 500  # units (segments, in and out) a run
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

Figures = dict[str, float]  # "scenario: path" to its cost
Functions = dict[str, Figures]  # scenario to bytecodes for each segment, by function


@dataclass(slots=True)
class Measured:
    """Figures by section, such as ("bytecodes", "3.11"), and what could not be measured with the reason."""

    sections: dict[tuple[str, str], Figures] = field(default_factory=dict)
    functions: Functions = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def scenarios() -> Iterator[tuple[Scenario, Bytecodes]]:
    for scenario in engine_paths.SCENARIOS:
        yield scenario, Bytecodes()
    for scenario in asyncio_paths.SCENARIOS:
        yield scenario, Bytecodes(asyncio_paths.is_counted)


def _run(scenario: Scenario, probe: Probe) -> tuple[Figures, Meter]:
    meter = Meter(probe)
    with no_collector():
        figures = scenario.figures(meter, LENGTH)
    return {f"{scenario.name}: {label}": cost for label, cost in figures.items()}, meter


def function_name(code: CodeType) -> str:
    """Return file and name, the file from its package on."""
    path = Path(code.co_filename)
    short = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else Path(path.parent.name, path.name)
    return f"{short}:{code.co_qualname}"


def measure() -> Measured:
    """Measure everything that can be measured here."""
    measured = Measured()
    bytecodes = measured.sections["bytecodes", PYTHON] = {}
    for scenario, probe in scenarios():
        figures, meter = _run(scenario, probe)
        bytecodes |= figures
        counts = {function_name(code): count / meter.units for code, count in probe.by_function.most_common()}
        measured.functions[scenario.name] = counts
    # After the bytecodes: by now everything is allocated that is allocated once.
    kept = measured.sections["kept", PYTHON] = {}
    for scenario, _ in scenarios():
        _, meter = _run(scenario, Kept())
        kept[f"{scenario.name}: all"] = sum(stage.cost for stage in meter.stages.values()) / meter.units
    try:
        counter = Allocations()
    except MeterError as error:
        measured.left_out.append(f"allocations: {error}")
    else:
        allocations = measured.sections["allocations", PYTHON] = {}
        for scenario, _ in scenarios():
            allocations |= _run(scenario, counter)[0]
    try:
        measured.sections["instructions", native_paths.toolchain()] = native_paths.count()
    except MeterError as error:
        measured.left_out.append(f"instructions of the C extension: {error}")
    return measured


def read(path: Path) -> dict[tuple[str, str], Figures]:
    """Return the sections of a file; none where there is no file."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        tables = tomllib.load(file)
    return {(kind, toolchain): figures for kind, sections in tables.items() for toolchain, figures in sections.items()}


def write(path: Path, head: str, sections: Mapping[tuple[str, str], Figures]) -> None:
    """Write sections to a file, below a comment."""
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for (kind, toolchain), figures in sorted(sections.items()):
        lines += ["", f'[{kind}."{toolchain}"]', *(f"{json.dumps(name)} = {round(value, 2)}" for name, value in figures.items())]
    path.write_text("\n".join(lines) + "\n")


def read_functions(path: Path) -> dict[str, Functions]:
    """Return bytecodes by function, by Python version."""
    functions: dict[str, Functions] = json.loads(path.read_text()) if path.exists() else {}
    return functions


def write_functions(path: Path, functions: Mapping[str, Functions]) -> None:
    """Write them, a line for each scenario."""
    versions = []
    for version, scenarios in sorted(functions.items()):
        rows = [
            f"  {json.dumps(name)}: {json.dumps({key: round(value, 2) for key, value in counts.items()})}"
            for name, counts in scenarios.items()
        ]
        versions.append(f"{json.dumps(version)}: {{\n" + ",\n".join(rows) + "\n}")
    path.write_text("{\n" + ",\n".join(versions) + "\n}\n")
