"""scripts/bench/where.py: the CPU time of an endpoint on a real interface, by layer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
WHERE = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "where.py"


def test_every_layer_has_its_share_of_a_round_trip() -> None:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root and /dev/net/tun")
    command = [sys.executable, str(WHERE), "--case", "ping", "--runs", "1", "--seconds", "2", "--functions", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if "perf_event_open" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    rows = {
        cells[1]: cells[2]
        for line in done.stdout.splitlines()
        if line.startswith("| ") and len(cells := list(map(str.strip, line.split("|")))) > 3
    }
    total = float(rows.pop("**all**").strip("*"))
    del rows["us of CPU time"], rows["octets of payload"]
    shares = {layer: float(us) for layer, us in rows.items()}
    assert len(shares) == 10
    assert sum(shares.values()) == pytest.approx(total, rel=0.05)
    # where a round trip is: in two system calls and some thousand bytecodes of the engine
    assert shares["engine and congestion control"] > 0.1 * total
    assert shares["kernel: TUN write, with the peer's TCP in it"] > 0
    assert "tunstack/engine/" in done.stdout
