"""BBR between Linux and `tunstack serve`, over a link that loses and holds back what comes too fast."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interop.daemons import ADDRESS, Daemon, random_file, sha256

SIZE = 16 << 20
RATE = 50_000_000
LINK = f"rate={RATE // 1_000_000}mbit,delay=10ms,loss=1%,seed=1"
BBR = "net.ipv4.tcp_congestion_control=bbr"
TCP_CONGESTION = 13
RATIO = 0.7  # of the link's rate, at 1 % loss, on a machine that may be busy


def start_exact(start_daemon: Callable[..., Daemon]) -> Daemon:
    """Start a daemon on the link, before ordinary processes: the link is of its process, and slower where that has to wait."""
    daemon = start_daemon("--link", LINK, "--sysctl", BBR)
    os.sched_setscheduler(daemon.process.pid, os.SCHED_RR, os.sched_param(1))
    return daemon


def rate_of(octets: int, since: float) -> float:
    """Return bits a second."""
    return octets * 8 / (time.monotonic() - since)


def test_bbr_sends_to_linux(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """M-30, M-38: octet for octet, and losses do not bring it down."""
    daemon = start_exact(start_daemon)
    digest = random_file(daemon.root / "file", SIZE)
    start = time.monotonic()
    daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file", timeout=120)
    assert rate_of(SIZE, start) > RATIO * RATE
    assert sha256(tmp_path / "got") == digest


def test_linux_sends_to_us_by_its_bbr(start_daemon: Callable[..., Daemon]) -> None:
    """M-13, M-30, M-38: our ACKs and SACKs are what its estimator can live by."""
    daemon = start_exact(start_daemon)
    with daemon.namespace.entered(), socket.socket() as client:
        try:
            client.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, b"bbr")
        except OSError:
            pytest.skip("this kernel has no bbr")
        client.settimeout(60)
        client.connect((ADDRESS, 9))
        piece = bytes(1 << 20)
        start = time.monotonic()
        for _ in range(SIZE // len(piece)):
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert rate_of(SIZE, start) > RATIO * RATE


def test_pacing_does_not_slow_a_short_path(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """M-38, M-39: the round trip is some tens of microseconds, the grain of the driver's timer a millisecond."""
    daemon = start_daemon("--sysctl", BBR)
    digest = random_file(daemon.root / "file", 4 * SIZE)
    start = time.monotonic()
    daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file", timeout=120)
    assert rate_of(4 * SIZE, start) > 400_000_000
    assert sha256(tmp_path / "got") == digest
