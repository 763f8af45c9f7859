"""`tunstack serve` as an administrator sees it: how it starts, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon, random_file, sha256
from interop.namespaces import Namespace

Start = Callable[..., Daemon]


def connect(namespace: Namespace, port: int) -> socket.socket:
    """Return a kernel socket of the namespace that is connected to the daemon."""
    with namespace.entered():
        connection = socket.create_connection((ADDRESS, port), timeout=10)
    return connection


def refuse(namespace: Namespace, *flags: str) -> str:
    """Return the one line with which `serve` refuses to start; it leaves nothing behind."""
    before = namespace.links()
    done = namespace.run([*TUNSTACK, "serve", "--control", "none", *flags], check=False)
    assert done.returncode == 2 and done.stdout.count("\n") == 1, done.stdout
    assert namespace.links() == before
    return done.stdout.removeprefix("tunstack: ").rstrip()


def test_ready_line_says_what_is_served(start_daemon: Start) -> None:
    daemon = start_daemon(
        "--no-offload", "--mtu", "1400", "--no-chargen", "--echo-port", "7007", "--address", ADDRESS, "--address", "10.77.0.9"
    )
    line = daemon.ready_line
    assert line.startswith(f"tunstack: serving on {ADDRESS} 10.77.0.9 via tunstack0 (mtu 1400, offload off, "), line
    assert line.endswith("): http 80, echo 7007, discard 9, daytime 13\n"), line
    assert "tunstack" in daemon.curl("http://10.77.0.9/status").stdout


def test_ready_line_says_that_nothing_is_served(start_daemon: Start) -> None:
    services = ("http", "echo", "discard", "daytime", "chargen")
    line = start_daemon(*(f"--no-{name}" for name in services), "--link", "none").ready_line
    assert line.endswith(", link none): no services\n"), line


def test_root_is_given_up_for_good(daemon: Daemon) -> None:
    """No process of it has a capability or a user id of root's, and no way to get one."""
    facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines() if ":\t" in line)
    assert "0" not in facts["Uid"].split() + facts["Gid"].split()
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"


def test_systemd_is_told_of_the_start_and_the_end(namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (str(tmp_path / "notify"), f"@tunstack-test-{os.getpid()}"):
        with namespace.entered(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:  # abstract names are the namespace's
            manager.bind("\0" + address[1:] if address[0] == "@" else address)
            if address[0] == "/":
                os.chmod(address, 0o666)
                for directory in (tmp_path, *tmp_path.parents[:2]):
                    os.chmod(directory, 0o755)
            manager.settimeout(20)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            daemon = Daemon(namespace)
            assert manager.recv(100) == b"READY=1"
            daemon.stop()
            assert manager.recv(100) == b"STOPPING=1"
            daemon.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_download_is_finished_before_the_end(daemon: Daemon, tmp_path: Path, number: int) -> None:
    """Whoever is being served is served to the end, and nobody new."""
    digest = random_file(daemon.root / "file", 64 << 20)
    curl = daemon.namespace.popen(f"curl -sS --limit-rate 40M -o {tmp_path}/file http://{ADDRESS}/file")
    while not (tmp_path / "file").exists():
        time.sleep(0.05)
    daemon.process.send_signal(number)
    time.sleep(0.3)
    assert daemon.curl(f"http://{ADDRESS}/status", check=False).returncode == 7  # refused
    assert curl.wait(20) == 0 and sha256(tmp_path / "file") == digest
    assert daemon.process.wait(10) == 0
    assert daemon.namespace.links() == []


def test_end_is_bounded_by_the_drain_timeout(start_daemon: Start) -> None:
    daemon = start_daemon("--drain-timeout", "1")
    with connect(daemon.namespace, 7) as lasting:
        begun = time.monotonic()
        daemon.stop()
        assert 1 <= time.monotonic() - begun < 5
        with pytest.raises(ConnectionResetError):
            lasting.recv(1)


def test_second_signal_ends_it_at_once(start_daemon: Start) -> None:
    daemon = start_daemon("--drain-timeout", "60")
    with connect(daemon.namespace, 7) as lasting:
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(1)
        lasting.sendall(b"still here")
        assert lasting.recv(100) == b"still here"
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 5
        with pytest.raises(ConnectionResetError):
            lasting.recv(1)


def test_idle_connections_do_not_hold_up_the_end(start_daemon: Start) -> None:
    """Kept-alive HTTP, HTTP without a request yet, and a client of chargen."""
    daemon = start_daemon("--drain-timeout", "60")
    with connect(daemon.namespace, 80) as kept, connect(daemon.namespace, 80), connect(daemon.namespace, 19) as endless:
        kept.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(100000).startswith(b"HTTP/1.1 200")
        daemon.process.send_signal(signal.SIGTERM)
        while endless.recv(1 << 20):
            pass
        endless.close()
        assert daemon.process.wait(10) == 0


def test_interface_that_is_removed_ends_it_with_a_line(daemon: Daemon) -> None:
    daemon.namespace.run("ip link del tunstack0")
    output, _ = daemon.process.communicate(timeout=20)
    assert daemon.process.returncode == 1
    assert output.decode().startswith("tunstack: interface tunstack0 is gone") and output.count(b"\n") == 1


def test_directory_that_the_user_may_not_read_is_refused(namespace: Namespace, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert refuse(namespace, "--http-root", str(tmp_path)) == (
        f"the HTTP root {tmp_path} cannot be read by user nobody (Permission denied): change its mode or owner, or choose another --user"
    )
    tmp_path.chmod(0o755)
    assert "cannot be read and written by user nobody" in refuse(namespace, "--http-root", str(tmp_path), "--http-upload")
    assert (
        refuse(namespace, "--http-root", f"{tmp_path}/none") == f"the HTTP root {tmp_path}/none cannot be opened: No such file or directory"
    )


def test_user_that_does_not_exist_is_refused(namespace: Namespace) -> None:
    assert refuse(namespace, "--user", "nosuchuser").startswith("unknown user 'nosuchuser'")


def test_interface_and_network_that_are_taken_are_refused(daemon: Daemon) -> None:
    assert "in use by another process" in refuse(daemon.namespace)
    assert "10.77.0.1 is already in use on interface tunstack0" in refuse(daemon.namespace, "--tun", "other")
    overlapping = ("--tun", "other", "--host-address", "10.77.0.129/25", "--address", "10.77.0.130")
    assert "overlaps" in refuse(daemon.namespace, *overlapping)


def test_two_netcats_take_interfaces_of_their_own(namespace: Namespace) -> None:
    processes = [namespace.popen([*TUNSTACK, "nc", "-l", "-v", "5000"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    lines = []
    for process in processes:
        assert process.stderr is not None
        lines.append(process.stderr.readline().decode())
    assert sorted(lines) == ["Listening on 10.78.0.2 5000\n", "Listening on 10.78.1.2 5000\n"]
    assert sorted(namespace.links()) == ["tunstack-nc0", "tunstack-nc1"]
    for process in processes:
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    assert namespace.links() == []


def test_settings_come_from_the_file(start_daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('tun = "fromfile"\nmtu = 1300\n[services.http]\nport = 8080\n[sysctl]\nnet.ipv4.tcp_sack = false\n')
    daemon = start_daemon("--config", str(path), "--mtu", "1350")
    assert "via fromfile (mtu 1350," in daemon.ready_line
    assert "10.77.0.2" in daemon.curl(f"http://{ADDRESS}:8080/status").stdout
    with connect(daemon.namespace, 7) as echo:
        info = daemon.namespace.run("ss -tin").stdout
        assert f"{ADDRESS}:7" in info and " sack" not in info, info
        echo.close()
