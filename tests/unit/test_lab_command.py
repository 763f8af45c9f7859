"""`tunstack lab`: what it prints, a user's own algorithm, mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunstack.cli import main
from tunstack.cli.lab import parse

FIXED = '''\
from tunstack.congestion import CongestionControl


class Fixed(CongestionControl):
    """A window that never changes."""

    def __init__(self, mss, cwnd):
        super().__init__(mss, 6 * mss)
        self.ssthresh = self.cwnd


class Broken(Fixed):
    def on_ack(self, acked, flight, rtt, now, cwnd_limited):
        raise RuntimeError("out of ideas")
'''
SHORT = ("--duration", "6", "--warm-up", "2")


@pytest.fixture
def mycc(tmp_path: Path) -> Path:
    path = tmp_path / "mycc.py"
    path.write_text(FIXED)
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Return the lines that a right call prints."""
    assert main(["lab", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("6 s of virtual time in ") and err.count("\n") == 1
    return out.splitlines()


def test_flows_are_told_of_one_by_one_and_together(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--congestion", "reno", "--congestion", "cubic", "--flows", "3", "--rtt", "5ms", "--rtt", "10ms", *SHORT)
    lines = printed(capsys, *arguments, "--link", "delay=1ms,rate=10mbit,queue=20")
    assert lines[0].split() == ["flow", "congestion", "rtt", "Mbit/s", "sent", "again"]
    rows = [line.split() for line in lines[1:4]]
    assert [row[:4] for row in rows] == [["1", "reno", "5", "ms"], ["2", "cubic", "10", "ms"], ["3", "reno", "5", "ms"]]
    shares = [line.split() for line in lines[5:7]]
    assert [share[0] for share in shares] == ["reno", "cubic"]
    assert 99.8 <= sum(float(share[1]) for share in shares) <= 100
    together = lines[8].split()
    assert together[0] == "together"
    assert float(together[1]) == pytest.approx(sum(float(row[4]) for row in rows), abs=0.02) == pytest.approx(9.65, abs=0.1)
    assert lines[9].startswith("queue     mean ") and " most 20 frames" in lines[9]
    assert lines[10].endswith(" dropped, 0 lost, 0 marked")
    assert printed(capsys, *arguments, "--link", "delay=1ms,rate=10mbit,queue=20") == lines


def test_an_algorithm_of_ones_own_is_measured(capsys: pytest.CaptureFixture[str], mycc: Path) -> None:
    """M-38: six segments each round trip, which is 20 ms and what the link takes for one of them, as they are acknowledged."""
    lines = printed(capsys, "--congestion", f"{mycc}:Fixed", "--rtt", "20ms", *SHORT, "--link", "rate=10mbit")
    assert lines[1].split()[:2] == ["1", f"{mycc}:Fixed"]
    assert float(lines[1].split()[-2]) == pytest.approx(6 * 1448 * 8 / 21_200, rel=0.01)


def test_an_algorithm_that_raises_is_told_once_with_its_line(capsys: pytest.CaptureFixture[str], mycc: Path) -> None:
    assert main(["lab", "--congestion", f"{mycc}:Broken", "--flows", "3", *SHORT]) == 0
    told, took = capsys.readouterr().err.splitlines()
    assert told == f"tunstack: lab: congestion control Broken failed, and reno took its place: {mycc}:14: RuntimeError: out of ideas"
    assert took.startswith("6 s of virtual time")


def test_defaults() -> None:
    config = parse([])
    assert [str(choice) for choice in config.congestion] == ["cubic"]
    assert (config.flows, config.rtts, config.duration, config.warm_up) == (1, (20_000,), 30_000_000, 5_000_000)
    assert (config.up.rate, config.up.queue) == (20_000_000, 100)
    assert parse(["--congestion", "reno", "--congestion", "tahoe"]).flows == 2
    assert str(parse(["--sysctl", "net.ipv4.tcp_congestion_control=reno"]).congestion[0]) == "reno"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--congestion", "vegas"], "--congestion: there is no 'vegas'; there is "),
        (["--congestion", "nowhere.py:My"], "--congestion: cannot read nowhere.py: No such file or directory"),
        (["--rtt", "20"], "lab: argument --rtt: not a time with a unit (us, ms, s)"),
        (["--link", "delay=1ms"], "lab: --link: it is no bottleneck without a rate, such as rate=20mbit"),
        (["--warm-up", "9", "--duration", "9"], "lab: --warm-up: nothing of the run is left to be measured: its --duration is 9 s"),
        (["--flows", "0"], "lab: argument --flows: 0 is not between 1 and 1000"),
        (["reno"], "lab: unrecognized arguments: reno"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str) -> None:
    assert main(["lab", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"tunstack: {complaint}")
