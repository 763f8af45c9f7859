"""scripts/bench/side_by_side.py: goodput on one link, Linux and tunstack at either end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "side_by_side.py"

pytestmark = pytest.mark.root


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_cell_is_measured_once_and_its_table_printed_again(tmp_path: Path) -> None:
    """M-30, M-38: the link's rate is reached whoever is at its ends, and what is in the file is not measured again."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root and /dev/net/tun")
    output = tmp_path / "results.jsonl"
    chosen = ["--congestion", "reno", "--loss", "0", "--rtt", "2", "--rate", "20", "--runs", "1", "--output", str(output)]
    first = run(*chosen, "--seconds", "1.5")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(record["arrangement"] for record in records) == ["linux-linux", "linux-tunstack", "tunstack-linux"]
    for record in records:
        assert 10 < record["mbit"] < 20, record
        assert record["link"]["up"]["lost"] == 0 and record["link"]["up"]["delivered"] > 1000, record
        assert record["sender"]["segments"] > 1000 and record["sender"]["failed"] == [], record
    with output.open("a") as file:
        file.write('{"cut o')
    output_size = output.stat().st_size
    again = run(*chosen, "--seconds", "1.5")
    assert again.stdout == first.stdout[first.stdout.index("| algorithm") :]
    assert output.stat().st_size == output_size + 1  # the newline that ends it
    rows = [line.split("|") for line in run("--rate", "20", "--table", "--output", str(output)).stdout.splitlines() if "reno" in line]
    assert len(rows) == 1 and 0.6 < float(rows[0][6].strip("* ")) < 1.6, rows


def test_what_failed_is_measured_again_and_a_torn_line_left_out(tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    common = {"congestion": "reno", "loss": 1.0, "rtt": 20.0, "rate": 50.0, "flows": 4, "cpu": {"link": 0.9}, "others": 0.5}
    records = [
        common | {"run": 1, "arrangement": "linux-linux", "mbit": 8.0},
        common | {"run": 1, "arrangement": "tunstack-linux", "mbit": 4.0},
        common | {"run": 1, "arrangement": "linux-tunstack", "error": "no connection"},
        common | {"run": 2, "arrangement": "linux-linux", "mbit": 6.0},
        common | {"run": 2, "arrangement": "tunstack-linux", "mbit": 6.0},
    ]
    output.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"congestion": "re')
    done = run("--table", "--output", str(output))
    assert "| reno        | 1 %    | 20 ms        | 4             | 7.00             | **0.75** (0.50 to 1.00)    | -  " in done.stdout
    assert "- tunstack to Linux: at least 0.9 in 0 of 1 cells\n- Linux to tunstack: at least 0.9 in 0 of 0 cells" in done.stdout
    assert "- CPUs that others took meanwhile: 0.50 in the median, 0.50 at most\n- in 4 measurements the link or an end" in done.stdout
    assert done.stderr.endswith("a line that is not whole is left out\n")
