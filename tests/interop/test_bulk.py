"""Bulk transfers between Linux programs and `tunstack serve`, octet for octet, both directions."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from interop.daemons import ADDRESS, TUNSTACK, Daemon, need, random_file, sha256
from interop.namespaces import Namespace

SIZE = 256 << 20


def test_curl_downloads_a_large_file(daemon: Daemon, tmp_path: Path) -> None:
    """M-30: from us to Linux."""
    digest = random_file(daemon.root / "file", SIZE)
    daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file", timeout=120)
    assert sha256(tmp_path / "got") == digest


def test_curl_uploads_a_large_file(daemon: Daemon, tmp_path: Path) -> None:
    """M-30: from Linux to us."""
    digest = random_file(tmp_path / "file", SIZE)
    daemon.curl(f"-T {tmp_path}/file http://{ADDRESS}/uploaded", timeout=120)
    assert sha256(daemon.root / "uploaded") == digest


def test_both_directions_at_once(daemon: Daemon, tmp_path: Path) -> None:
    """M-30: an upload and a download side by side."""
    down = random_file(daemon.root / "down", SIZE, seed=2)
    up = random_file(tmp_path / "up", SIZE, seed=3)
    upload = daemon.namespace.popen(["curl", "-sS", "--fail", "-T", str(tmp_path / "up"), f"http://{ADDRESS}/up"])
    daemon.curl(f"-o {tmp_path}/down http://{ADDRESS}/down", timeout=120)
    assert upload.wait(timeout=120) == 0
    assert sha256(tmp_path / "down") == down
    assert sha256(daemon.root / "up") == up


def test_nc_sends_a_large_file_through_echo(daemon: Daemon, tmp_path: Path) -> None:
    """M-30, M-51: echo sends everything back after the half-close, both directions at once on one connection."""
    need("nc")
    digest = random_file(tmp_path / "file", SIZE)
    with (tmp_path / "file").open("rb") as source, (tmp_path / "got").open("wb") as target:
        daemon.namespace.run(["nc", "-N", ADDRESS, "7"], stdin=source, stdout=target, stderr=None, timeout=120)
    assert sha256(tmp_path / "got") == digest


def test_nc_sends_a_large_file_to_tunstack_nc(namespace: Namespace, offload_flags: list[str], tmp_path: Path) -> None:
    """M-30, M-50: `tunstack nc -l` as the other end of Linux's nc; it ends with the peer's EOF."""
    need("nc")
    digest = random_file(tmp_path / "file", SIZE, seed=4)
    with (tmp_path / "got").open("wb") as target:
        command = [*TUNSTACK, "nc", "-v", "-l", *offload_flags, "5000"]
        listener = namespace.popen(command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.PIPE)
    assert listener.stderr is not None
    assert listener.stderr.readline().startswith(b"Listening on 10.78.0.2 5000")
    with (tmp_path / "file").open("rb") as source:
        namespace.run(["nc", "-N", "10.78.0.2", "5000"], stdin=source, timeout=120)
    assert listener.wait(timeout=30) == 0
    assert sha256(tmp_path / "got") == digest
    assert namespace.links() == []


def test_tunstack_nc_sends_a_large_file_to_nc(namespace: Namespace, offload_flags: list[str], tmp_path: Path) -> None:
    """M-20, M-30: `tunstack nc` as the client of Linux's nc."""
    need("nc")
    digest = random_file(tmp_path / "file", SIZE)
    with (tmp_path / "got").open("wb") as target:
        listener = namespace.popen(["nc", "-l", "-N", "5000"], stdin=subprocess.DEVNULL, stdout=target)
    time.sleep(0.3)
    with (tmp_path / "file").open("rb") as source:
        namespace.run([*TUNSTACK, "nc", "-N", *offload_flags, "10.78.0.1", "5000"], stdin=source, stdout=sys.stderr, timeout=120)
    assert listener.wait(timeout=30) == 0
    assert sha256(tmp_path / "got") == digest
