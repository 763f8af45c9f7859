"""scripts/bench/budget.py: what it says of figures that grew, fell or have no budget; and that a count repeats."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"
MODULES = ("budget", "figures", "meter", "hot_path", "engine_world", "engine_paths", "asyncio_paths", "native_paths")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The module `budget`, imported as the program is: with its folder on the path."""
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("budget")
    finally:
        sys.path.remove(str(BENCH))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture
def budget(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With files of its own: 1000 bytecodes, 10 allocations, 300 instructions."""
    monkeypatch.setattr(bench, "BUDGET", tmp_path / "budget.toml")
    monkeypatch.setattr(bench, "FUNCTIONS", tmp_path / "functions.json")
    bench.write(measured(bench))
    return bench


def measured(bench: Any, bytecodes: float = 1000, allocations: float = 10, instructions: float = 300, python: str = "") -> Any:
    python = python or bench.PYTHON
    sections = {
        ("bytecodes", python): {"ping-pong: in": bytecodes},
        ("allocations", python): {"ping-pong: in": allocations},
        ("instructions", "cc 1"): {"parse": instructions},
    }
    return bench.Measured(sections, {"ping-pong": {"a.py:f": bytecodes - 400, "a.py:g": 400.0}})


def test_what_stays_within_tolerance_passes(budget: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.compare(measured(budget, 1004, 10.1, 302))
    assert capsys.readouterr().out == "budget: 3 figures compared, none grew beyond tolerance\n"


def test_growth_fails_and_names_path_and_function(budget: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert not budget.compare(measured(budget, bytecodes=1020))
    out = capsys.readouterr().out
    assert "ping-pong: in: bytecodes grew from 1000.00 to 1020.00 (+2.0%)\n    +20.0 bytecodes a segment in a.py:f\n" in out
    assert "a.py:g" not in out


@pytest.mark.parametrize("grown", [{"allocations": 10.5}, {"instructions": 310}])
def test_growth_of_any_kind_fails(budget: Any, grown: dict[str, float]) -> None:
    assert not budget.compare(measured(budget, **grown))


def test_a_fall_passes_and_asks_to_renew(budget: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.compare(measured(budget, bytecodes=900))
    assert "bytecodes, ping-pong: in (-10.0%): renew the budget (make budget)" in capsys.readouterr().out


def test_another_python_says_so_and_still_checks_allocations(budget: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.compare(measured(budget, bytecodes=5000, allocations=10.5, python="9.9"))
    assert "no bytecodes of Python 9.9 in budget.toml; --write adds them\n" in capsys.readouterr().out
    assert not budget.compare(measured(budget, allocations=12, python="9.9"))


def test_writing_keeps_what_other_toolchains_have(budget: Any) -> None:
    budget.write(measured(budget, bytecodes=2000, python="9.9"))
    sections = budget.figures.read(budget.BUDGET)
    assert sections["bytecodes", budget.PYTHON] == {"ping-pong: in": 1000}
    assert sections["bytecodes", "9.9"] == {"ping-pong: in": 2000}


def test_a_figure_without_a_budget_is_told(budget: Any, capsys: pytest.CaptureFixture[str]) -> None:
    more = measured(budget)
    more.sections["instructions", "cc 1"] = {"parse it": 300.0}
    assert budget.compare(more)
    assert "2 figures have no counterpart, such as parse it" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ping-pong", "asyncio, data in, BufferedProtocol"])
def test_bytecodes_are_the_same_in_every_run(bench: Any, name: str) -> None:
    scenarios = {scenario.name: scenario for scenario, _ in bench.figures.scenarios()}
    meter = sys.modules["meter"]
    counts = [scenarios[name].figures(meter.Meter(meter.Bytecodes()), 100) for _ in range(2)]
    assert counts[0] == counts[1]
    assert all(count > 100 for count in counts[0].values())
