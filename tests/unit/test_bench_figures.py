"""scripts/bench: the arithmetic of its report, on samples that were made up. `tunstack bench`: the same of its own."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunstack.cli import bench as bench_command
from tunstack.cli import main
from tunstack.daemon import bench
from tunstack.daemon.benchends import Sample

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "bench"
MODULES = ("latency", "metrics", "report", "results", "run", "targets", "workloads")
OTHERS = ("endpoints", "namespaces", "peers", "processes", "same_link")  # that those import


@pytest.fixture(scope="module")
def scripts() -> SimpleNamespace:
    """The modules of scripts/bench, which find each other on sys.path."""
    known = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    try:
        return SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in (*MODULES, *OTHERS):  # short names, that others may have too
            if name not in known:
                sys.modules.pop(name, None)


def bulk(gbit: float, cpu: float = 0.5) -> dict[str, float]:
    times = {"client_user_s": 0.0, "client_system_s": cpu, "server_user_s": cpu, "server_system_s": 0.0, "others_s": 0.0}
    return {"octets": gbit / 8e-9 * 2, "seconds": 2.0, **times}


def results_of(scripts: SimpleNamespace, samples: dict[str, dict[str, list[float | None]]]) -> SimpleNamespace:
    """Results in which each endpoint moved so many Gbit/s in each run."""
    settings = {
        "machine": {"cpu": "abacus", "cpus": 2, "kernel": "6", "python": "3"},
        "congestion": "cubic",
        "runs": 3,
        "seconds": 2.0,
        "warmup": 0.1,
        "load_before": "0.00",
        "load_after": "0.10",
        "took_s": 9,
    }
    results = scripts.results.Results(settings, {workload.name: workload.metrics for workload in scripts.workloads.WORKLOADS})
    for workload, by_endpoint in samples.items():
        for endpoint, figures in by_endpoint.items():
            for run, gbit in enumerate(figures, 1):
                results.add(workload, endpoint, run, None if gbit is None else bulk(gbit))
    return results


def test_jains_index_is_one_among_equals_and_one_nth_where_one_has_all(scripts: SimpleNamespace) -> None:
    jain = scripts.metrics.jain
    assert jain([7, 7, 7, 7]) == 1
    assert jain([0, 0, 5, 0]) == 0.25
    assert jain([1, 2, 3]) == pytest.approx(36 / (3 * 14))
    assert jain([0, 0]) == 0


def test_figures_of_a_bulk_sample(scripts: SimpleNamespace) -> None:
    figures = {metric.name: metric.of(bulk(4.0)) for metric in scripts.metrics.BULK}
    expected = {"throughput": 4.0, "CPU of the server": 0.5, "CPU of the client": 0.5, "CPU of both": 1.0}
    assert figures == pytest.approx(expected)


def test_ratios_are_taken_within_each_run(scripts: SimpleNamespace) -> None:
    """A machine that was slow for a run was slow for both; a run in which one of them failed has no ratio."""
    results = results_of(scripts, {"up": {"kernel": [40, 10, 20, None], "tunstack": [20, 8, None, 9]}})
    assert results.ratios("up", "tunstack", "kernel", "throughput") == pytest.approx([0.5, 0.8])
    assert results.values("up", "tunstack", "throughput") == pytest.approx([20, 8, 9])
    assert results.ratios("up", "tunstack", "nobody", "throughput") == []


def test_a_run_that_was_left_out_keeps_its_place(scripts: SimpleNamespace) -> None:
    results = results_of(scripts, {})
    results.add("up", "kernel", 1, bulk(10))
    results.add("up", "kernel", 3, bulk(30))
    assert results.figures("up", "kernel", "throughput") == pytest.approx([10, None, 30])


@pytest.mark.parametrize(("ours", "verdict"), [([24, 30, 12], "reached"), ([23.9, 30, 12], "MISSED")])
def test_a_target_is_judged_by_the_median(scripts: SimpleNamespace, ours: list[float | None], verdict: str) -> None:
    results = results_of(scripts, {"up": {"kernel": [40, 40, 40], "tunstack": ours}})
    (row,) = scripts.targets.rows(results)
    assert row[0] == "tunstack, up: throughput / kernel"
    assert (row[1], row[4], row[5]) == ("at least 0.60", "3", verdict)
    assert row[3] == "0.30 to 0.75"


def test_a_target_may_be_an_upper_bound_without_another_to_compare_with(scripts: SimpleNamespace) -> None:
    results = results_of(scripts, {})
    sample = {"resident_before": 0, "resident_after": 40_960_000, "connections": 10_000}
    results.add("idle", "tunstack", 1, sample)
    results.add("idle", "tunstack, streams", 1, {**sample, "resident_after": 81_930_000})
    assert [(row[0], row[2], row[5]) for row in scripts.targets.rows(results)] == [
        ("tunstack, idle: resident", "4,096", "reached"),
        ("tunstack, streams, idle: resident", "8,193", "MISSED"),
    ]


def test_one_of_many_is_compared_with_one_alone(scripts: SimpleNamespace) -> None:
    results = results_of(scripts, {"down": {"tunstack": [20]}})
    results.add("1000 down", "tunstack", 1, {**bulk(15), "shares": [3, 1]})
    rows = {row[0]: row[2] for row in scripts.targets.rows(results)}
    assert rows == {"tunstack, 1000 down: throughput / tunstack, down": "0.75", "tunstack, 1000 down: Jain's index": "0.80"}


def test_every_target_names_figures_that_there_are(scripts: SimpleNamespace) -> None:
    known = {
        (workload.name, endpoint.name, metric.name)
        for workload in scripts.workloads.WORKLOADS
        for endpoint in workload.endpoints
        for metric in workload.metrics
    }
    named = {
        (figure.workload, figure.endpoint, figure.metric)
        for target in scripts.targets.TARGETS
        for figure in (target.figure, target.base)
        if figure is not None
    }
    assert len(named) > 20 and named <= known


def test_runs_alternate_and_what_no_target_names_is_measured_less_often(scripts: SimpleNamespace) -> None:
    options = Namespace(workload=None, endpoint=None, quick=False, runs=3)
    up = [workload for workload in scripts.workloads.WORKLOADS if workload.name == "up"]
    runs: dict[int, list[str]] = {1: [], 2: [], 3: []}
    for one in scripts.run.schedule(options, up):
        runs[one.run].append(one.endpoint.name)
    assert runs[1] == runs[2][::-1]
    assert runs[3] == [name for name in runs[1] if scripts.targets.is_named("up", name)]
    assert "pmd-pytcp" in runs[1] and "pmd-pytcp" not in runs[3]
    options.endpoint = ["pmd-pytcp"]
    assert [one.run for one in scripts.run.schedule(options, up)] == [1, 2, 3]


def test_latencies_of_several_runs_are_put_together(scripts: SimpleNamespace) -> None:
    first, second, both = (scripts.latency.Latencies() for _ in range(3))
    first.record([(10_000, 500), (20_000, 400)])
    second.record([(90_000, 99), (1_000_000, 1)])
    both.add(first.encode())
    both.add(second.encode())
    assert len(both) == 1000
    percentiles = [both.percentile(percent) for percent in (50, 90, 99, 99.9)]
    assert percentiles == pytest.approx([10, 20, 90, 90], rel=1e-3)
    assert both.longest() == pytest.approx(1000, rel=1e-3)


def test_the_report_has_medians_spread_ratios_and_what_is_missing(scripts: SimpleNamespace, tmp_path: Path) -> None:
    results = results_of(scripts, {"up": {"kernel": [40, 10, 20], "tunstack": [20, 8, 14]}})
    results.missing.append("gVisor: apt-get install something")
    text = scripts.report.tables(results, scripts.workloads.WORKLOADS, "github")
    overview, _, rest = text.partition("up: bulk transfer")
    assert "| kernel     | 20.00        |\n| tunstack   | 14.00        |" in overview
    assert "| 14.00 (8.00 to 20.00)" in rest and "| 0.70 (0.50 to 0.80) of kernel |" in rest
    assert text.endswith("Not measured:\n\n- gVisor: apt-get install something\n")
    data, table = scripts.report.write(results, scripts.workloads.WORKLOADS, tmp_path)
    assert table.read_text() == text and '"kernel": [' in data.read_text()


@pytest.mark.parametrize(("count", "percent", "expected"), [(1, 50, 1), (100, 50, 50), (100, 99, 99), (101, 99, 100), (3, 99, 3)])
def test_percentile_is_the_least_value_that_so_many_do_not_exceed(count: int, percent: float, expected: int) -> None:
    assert bench.percentile(range(1, count + 1), percent) == expected


def test_bench_command_prints_medians_and_ratios_of_runs() -> None:
    def moved(gbit: float) -> Sample:
        return Sample(int(gbit * 1e9 / 8), 1.0, 0.1, 0.1, (1000, 2000, 3000))

    samples = {
        workload: {"kernel": [moved(8), moved(4)], "tunstack": [moved(2), moved(2)]} for workload in ("up", "down", "ping", "connect")
    }
    header, about, _, up, cpu, *rest = bench.lines(samples, bench.BenchConfig(2, 1.0, False))
    assert "CPUs, Linux" in header and about.startswith("2 runs of 1 s")
    assert up.split() == ["up,", "Gbit/s", "6.00", "2.00", "0.38", "(0.25", "to", "0.50)"]
    assert cpu.split()[-6:-4] == ["0.300", "0.800"]
    assert any(line.split()[:5] == ["ping,", "p50,", "us", "2.0", "2.0"] for line in rest)


@pytest.mark.parametrize("wrong", [["--runs", "0"], ["--seconds", "0"], ["--seconds", "x"], ["more"]])
def test_bench_command_says_in_a_line_what_is_wrong(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *wrong]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("tunstack: bench: ") and said.err.count("\n") == 1 and not said.out


def test_bench_command_needs_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_command.os, "geteuid", lambda: 1000)
    assert main(["bench"]) == 2
    assert capsys.readouterr().err == "tunstack: bench: making network namespaces and interfaces needs root: run it with sudo\n"
