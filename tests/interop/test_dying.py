"""Either side dies in the middle: the other gets the right error, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon, random_file
from interop.namespaces import Namespace


def test_a_killed_daemon_leaves_no_interface(daemon: Daemon, tmp_path: Path) -> None:
    """kill -9 in the middle of a download: the interface is gone, curl ends with an error (its peer is unreachable now)."""
    random_file(daemon.root / "file", 64 << 20)
    curl = daemon.namespace.popen(
        ["curl", "-sS", "--limit-rate", "4M", "-o", str(tmp_path / "got"), f"http://{ADDRESS}/file"], stderr=subprocess.PIPE
    )
    time.sleep(1)
    daemon.process.kill()
    daemon.process.wait(timeout=10)
    assert daemon.namespace.links() == []
    # Nobody can tell Linux that the peer is gone; its own keepalive or user timeout does. A new attempt fails at once.
    assert daemon.namespace.run(f"curl -sS --max-time 5 http://{ADDRESS}/", check=False).returncode in (7, 28)
    curl.kill()


def test_an_established_socket_is_told_when_the_daemon_is_killed(daemon: Daemon) -> None:
    """A sender whose interface vanished gets an error as soon as the kernel can know: on the user timeout it set itself."""
    with daemon.namespace.entered():
        client = socket.create_connection((ADDRESS, 9), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
    client.sendall(b"x")
    daemon.process.kill()
    daemon.process.wait(timeout=10)
    with client, pytest.raises(OSError) as caught:
        for _ in range(100):
            client.send(b"x")
            time.sleep(0.1)
    assert caught.value.errno in (errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def test_a_killed_client_leaves_no_connection(daemon: Daemon, tmp_path: Path) -> None:
    """M-59: kill -9 of curl in the middle: the kernel resets, the daemon forgets, other connections go on."""
    random_file(daemon.root / "file", 256 << 20)
    command = ["curl", "-sS", "--limit-rate", "4M", "-o", "/dev/null", f"http://{ADDRESS}/file"]
    clients = [daemon.namespace.popen(command) for _ in range(20)]
    time.sleep(1)
    assert connections(daemon) >= 20
    for client in clients:
        os.kill(client.pid, signal.SIGKILL)
        client.wait(timeout=10)
    assert settled(daemon) == 0, daemon.status()["connections"]
    daemon.stop()


def connections(daemon: Daemon) -> int:
    """Return how many connections the daemon has beside the one that asks, TIME-WAIT not counted."""
    counts = daemon.status()["connections"]
    return int(counts["total"]) - int(counts.get("TIME_WAIT", 0)) - 1


def settled(daemon: Daemon) -> int:
    """Return `connections` after at most 10 s in which it may fall to nothing."""
    deadline = time.monotonic() + 10
    while connections(daemon) and time.monotonic() < deadline:
        time.sleep(0.1)
    return connections(daemon)


def test_ten_thousand_connections_leave_nothing_behind(daemon: Daemon) -> None:
    """Memory is flat over 10,000 connections, and no connection stays."""

    def connect(count: int) -> None:
        with daemon.namespace.entered():
            for _ in range(count):
                with socket.create_connection((ADDRESS, 7), timeout=10) as client:
                    client.sendall(b"hello")
                    assert client.recv(5) == b"hello"

    connect(2000)
    before = daemon.memory()
    connect(10000)
    after = daemon.memory()
    assert settled(daemon) == 0, daemon.status()["connections"]
    assert after - before < 4 << 20, (before, after)
    daemon.stop()


def test_tunstack_nc_is_told_of_a_reset(namespace: Namespace, offload_flags: list[str]) -> None:
    """M-59: Linux's program is killed with data unread; `tunstack nc` ends with status 1 and one line, and its interface is gone."""
    with namespace.entered():
        listener = socket.create_server(("0.0.0.0", 5000))
    listener.settimeout(20)
    client = namespace.popen([*TUNSTACK, "nc", *offload_flags, "10.78.0.1", "5000"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with listener:
        accepted, _ = listener.accept()
    assert client.stdin is not None and client.stderr is not None
    client.stdin.write(b"unread")
    client.stdin.flush()
    time.sleep(0.5)
    accepted.close()  # unread data: the kernel sends RST
    assert client.wait(timeout=10) == 1
    message = client.stderr.read().decode()
    assert "reset" in message.lower() and "Traceback" not in message, message
    assert namespace.links() == []
