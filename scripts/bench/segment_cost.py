#!/usr/bin/env python3
"""What a segment costs in the engine alone, and in the asyncio layer: in virtual time, nothing encoded. Needs no privileges.

Microseconds are of this machine and this moment. Bytecodes and allocations are the same on a busy machine as on an idle one:
budget.py holds them against what they may be. Those of the asyncio layer are without the engine below it, its microseconds with it.
"""

from __future__ import annotations

import argparse
import pstats
from collections.abc import Sequence

import asyncio_paths
import engine_paths
from figures import function_name
from hot_path import Scenario
from meter import Allocations, Bytecodes, Clock, Meter, MeterError, Probe, Profile, no_collector
from tabulate import tabulate

SCENARIOS = {scenario.name: scenario for scenario in (*engine_paths.SCENARIOS, *asyncio_paths.SCENARIOS)}
COUNTED = 500  # units: where a count does not depend on their number


def _bytecodes(scenario: Scenario) -> Bytecodes:
    return Bytecodes(asyncio_paths.is_counted) if scenario in asyncio_paths.SCENARIOS else Bytecodes()


def _figures(scenario: Scenario, probe: Probe, length: int) -> dict[str, float]:
    with no_collector():
        return scenario.figures(Meter(probe), length)


def rows(scenario: Scenario, length: int, repeats: int) -> list[list[str]]:
    """Return the table's rows: the least time of some repeats, and the bytecodes of a shorter run."""
    runs = [_figures(scenario, Clock(), length) for _ in range(repeats)]
    bytecodes = _figures(scenario, _bytecodes(scenario), COUNTED)
    return [
        [scenario.name, label, scenario.unit, f"{min(run[label] for run in runs):.2f}", f"{bytecodes[label]:.0f}"]
        for label in scenario.paths
    ]


def print_functions(scenario: Scenario) -> None:
    """Print the bytecodes of each function, for each unit of all stages together."""
    probe = _bytecodes(scenario)
    meter = Meter(probe)
    connections = scenario.run(meter, COUNTED)
    units = connections or meter.units
    print(f"\n=== {scenario.name}: bytecodes a {scenario.unit}")
    for code, count in probe.by_function.most_common(40):
        print(f"{count / units:10.1f}  {function_name(code)}")


def print_profile(scenario: Scenario, length: int) -> None:
    """Print the top ten of cProfile."""
    probe = Profile()
    scenario.run(Meter(probe), length)
    print(f"\n=== {scenario.name}")
    pstats.Stats(probe.profile).strip_dirs().sort_stats("tottime").print_stats(10)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = "; ".join(SCENARIOS).replace("%", "%%")
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="NAME", help=f"repeatable: {names}")
    parser.add_argument("--segments", type=int, default=20_000, metavar="N", help="segments a run (default 20000)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="runs, of which the fastest counts (default 5)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--functions", action="store_true", help="print instead the bytecodes of each function")
    group.add_argument("--profile", action="store_true", help="print instead the ten functions that cost most, by cProfile")
    options = parser.parse_args(arguments)
    scenarios = [SCENARIOS[name] for name in options.only or SCENARIOS]
    if options.functions or options.profile:
        for scenario in scenarios:
            if options.functions:
                print_functions(scenario)
            else:
                print_profile(scenario, options.segments)
        return
    header = ["scenario", "path", "unit", "us", "bytecodes"]
    table = [row for scenario in scenarios for row in rows(scenario, options.segments, options.repeats)]
    try:
        allocations = Allocations()  # stays in the way from here on, and so comes last
    except MeterError as error:
        print(f"segment_cost: no allocations: {error}")
    else:
        header.append("allocations")
        blocks = {scenario.name: _figures(scenario, allocations, COUNTED) for scenario in scenarios}
        for row in table:
            row.append(f"{blocks[row[0]][row[1]]:.1f}")
    print(tabulate(table, header, tablefmt="simple", disable_numparse=True))


if __name__ == "__main__":
    main()
