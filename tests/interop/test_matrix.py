"""A share of the interop matrix against Linux (scripts/interop), in which any two option values come together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tunstack.engine.sysctl import Sysctl

MATRIX = Path(__file__).resolve().parents[2] / "scripts" / "interop" / "matrix.py"

pytestmark = pytest.mark.root


def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, MATRIX, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def test_a_share_of_the_matrix_passes() -> None:
    """M-02, M-06, M-10, M-11, M-13, M-18, M-30: what is sent arrives, nothing is stuck, and the options are those asked for."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root and /dev/net/tun")
    done = run("--share", "--limit", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^(\d+) of (\d+) cells passed", done.stdout, re.MULTILINE)
    assert passed and passed[1] == passed[2] and int(passed[2]) >= 100, done.stdout
    link = dict(re.findall(r"(\d+) (\w+)", done.stdout.partition("The lossy links, frames: ")[2]))
    hit = {what: int(count) for count, what in link.items()}
    marks = ("marked",) if "tcp_ecn" in Sysctl.__dataclass_fields__ else ()
    assert all(hit[what] > 20 for what in ("lost", "corrupted", "duplicated", "reordered", *marks)), hit


def test_a_filter_that_names_nothing_is_told_in_one_line() -> None:
    done = run("--only", "mtu=1400")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("--only: mtu is one of 576, 1500, 9000, not 1400")
    assert "Traceback" not in done.stderr


def test_the_matrix_is_whole() -> None:
    cells = run("--list").stdout.split()
    assert len(cells) == len(set(cells)) == 1440
    lossy_echo = run("--list", "--only", "mtu=576+9000,link=lossy,load=echo", "--only", "sack=off,link=lossy,load=echo").stdout.split()
    assert len(lossy_echo) == 2 * (48 + 36 - 24)  # the two overlap
