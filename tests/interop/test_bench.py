"""The benchmarks, for a moment: that they run, and that their figures are of what they say. How good the figures are is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "run.py"

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def needs_root() -> None:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root and /dev/net/tun")


def test_benchmark_measures_endpoints_and_writes_what_it_found(tmp_path: Path) -> None:
    chosen = ["--quick", "--workload", "up", "--workload", "ping on one CPU"]
    chosen += ["--endpoint", "kernel", "--endpoint", "tunstack", "--endpoint", "limit"]
    command = [sys.executable, str(SCRIPT), "--seconds", "0.1", *chosen, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "bench.json").read_text())
    for workload, names in {"up": ("kernel", "tunstack", "limit"), "ping on one CPU": ("kernel", "tunstack", "limit")}.items():
        for name in names:
            (sample,) = content["samples"][workload][name]
            assert sample["seconds"] >= 0.1 and sample["server_user_s"] + sample["server_system_s"] >= 0, (workload, name)
            assert sample["octets" if workload == "up" else "round_trips"] > 0
    (ping,) = content["samples"]["ping on one CPU"]["tunstack"]
    assert 0 < ping["p50_us"] <= ping["p99_us"] <= ping["longest_us"]
    assert "idle: not asked for" in content["missing"] and any(line.startswith("smoltcp: ") for line in content["missing"])
    assert "| tunstack, up: throughput / kernel " in (tmp_path / "bench.md").read_text()


def test_bench_command_measures_both_tcps() -> None:
    command = [sys.executable, "-m", "tunstack", "bench", "--runs", "1", "--seconds", "0.1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert sorted(figures) == ["connect", "down", "ping", "up"]
    for by_figure in figures.values():
        for name, by_kind in by_figure.items():
            for kind in ("kernel", "tunstack"):
                (figure,) = by_kind[kind]
                assert figure > 0 or name.startswith("CPU"), (name, kind)  # which is counted in hundredths of a second
