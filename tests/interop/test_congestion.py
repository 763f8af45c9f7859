"""A user's own congestion control on a real TUN, with curl. M-38."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon, random_file, sha256
from interop.namespaces import Namespace

Start = Callable[..., Daemon]

FILE = """
from tunstack.congestion import CongestionControl

class Mine(CongestionControl):
    def on_ack(self, acked, flight, rtt, now, cwnd_limited):
        self.cwnd += acked if self.cwnd < self.ssthresh else 2 * self.mss * acked // self.cwnd

    def on_congestion(self, flight, now):
        self.ssthresh = self.cwnd * 3 // 4

    on_rto = on_congestion

class Broken(Mine):
    def on_ack(self, acked, flight, rtt, now, cwnd_limited):
        raise LookupError("where am I?")

class Mad(Mine):
    def on_ack(self, acked, flight, rtt, now, cwnd_limited):
        self.cwnd = -self.cwnd
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of the user's, which only root can read."""
    path = tmp_path / "mycc.py"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def download(daemon: Daemon, tmp_path: Path, size: int) -> None:
    digest = random_file(daemon.root / "file", size)
    daemon.curl(f"-o {tmp_path / 'copy'} http://{ADDRESS}/file")
    assert sha256(tmp_path / "copy") == digest


def test_a_class_in_a_file_carries_a_download(start_daemon: Start, file: Path, tmp_path: Path) -> None:
    """M-38: over a link that loses."""
    daemon = start_daemon("--congestion", f"{file}:Mine", "--link", "delay=2ms,loss=1%,seed=3")
    download(daemon, tmp_path, 2 << 20)
    status = daemon.status()
    assert status["congestion"]["default"] == "mine" and status["congestion"]["connections"]["mine"] >= 1
    assert {"cubic", "mine", "reno", "tahoe"} <= set(status["congestion"]["available"])
    assert status["counters"]["TcpRetransSegs"] > 0 and status["counters"]["TCPCongestionFallback"] == 0
    assert "WARNING" not in daemon.stop()


def test_a_class_that_raises_does_not_end_the_daemon(start_daemon: Start, file: Path, tmp_path: Path) -> None:
    """M-38: each connection falls back to Reno; one line tells."""
    daemon = start_daemon("--congestion", f"{file}:Broken")
    download(daemon, tmp_path, 8 << 20)
    download(daemon, tmp_path, 8 << 20)
    assert daemon.status()["counters"]["TCPCongestionFallback"] >= 2
    warnings = [line for line in daemon.stop().splitlines() if "WARNING" in line]
    assert warnings == [
        f"tunstack: WARNING: congestion control broken failed, and reno took its place: {file}:15: LookupError: where am I?"
    ]


def test_nonsense_is_survived(start_daemon: Start, file: Path, tmp_path: Path) -> None:
    """M-38: a negative window is one segment."""
    daemon = start_daemon("--congestion", f"{file}:Mad")
    download(daemon, tmp_path, 1 << 17)  # one segment each delayed ACK, it may be
    assert daemon.status()["counters"]["TCPCongestionFallback"] == 0
    daemon.stop()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("{file}:Mnie", "has no Mnie (did you mean Mine?)"),
        ("{file}x:Mine", "x: No such file or directory"),
        ("renno", "there is no 'renno'; there is "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(namespace: Namespace, file: Path, choice: str, message: str) -> None:
    for command in ([*TUNSTACK, "serve", "--control", "none"], [*TUNSTACK, "nc", "10.78.0.1", "7"]):
        done = namespace.run([*command, "--congestion", choice.format(file=file)], check=False)
        assert done.returncode == 2 and done.stdout.count("\n") == 1 and message in done.stdout, done.stdout
        assert namespace.links() == []


def test_nc_takes_a_class_of_a_file(namespace: Namespace, file: Path) -> None:
    """M-38."""
    listener = namespace.popen(
        [*TUNSTACK, "nc", "-N", "-v", "-l", "5000", "--congestion", f"{file}:Broken"], stdin=-1, stdout=-1, stderr=-2
    )
    assert listener.stdin is not None and listener.stdout is not None
    assert b"Listening" in listener.stdout.readline()
    done = namespace.popen("nc -d 10.78.0.2 5000", stdout=-1)
    listener.stdin.write(b"x" * 100_000)
    listener.stdin.close()
    assert done.communicate(timeout=20)[0] == b"x" * 100_000
    output = listener.stdout.read()
    assert listener.wait(20) == 0
    assert b"congestion control broken failed, and reno took its place" in output
