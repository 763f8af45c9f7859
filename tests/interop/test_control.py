"""The control socket of a running daemon, and `tunstack sysctl` on it (M-62)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon
from interop.namespaces import Namespace

from tunstack import memory_pair
from tunstack.daemon.control import CLIENTS_MAX, LINE_MAX, Control
from tunstack.daemon.controlclient import ControlClient

pytestmark = pytest.mark.root
NOBODY = 65534


def sysctl(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """Run `tunstack sysctl` on a daemon; return status, output and errors."""
    environment = {**os.environ, "TUNSTACK_CONTROL": str(daemon.control)}
    done = subprocess.run([*TUNSTACK, "sysctl", *arguments], env=environment, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def connect(daemon: Daemon) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.fspath(daemon.control))  # may have to wait for its turn
    connection.settimeout(20)
    return connection


def read_all(connection: socket.socket) -> list[dict[str, Any]]:
    """Read answers until the daemon hangs up."""
    data = b""
    while True:
        try:
            chunk = connection.recv(65536)
        except ConnectionResetError:  # it did not read all that was sent
            chunk = b""
        if not chunk:
            return [json.loads(line) for line in data.splitlines()]
        data += chunk


def test_knobs_are_shown_and_set_and_count_from_then_on(start_daemon: Callable[..., Daemon]) -> None:
    """M-62: sysctl's words, and what it says goes: the next echo reply has the new TTL. The log says who it was."""
    daemon = start_daemon()
    assert sysctl(daemon, "net.ipv4.ip_default_ttl") == (0, "net.ipv4.ip_default_ttl = 64\n", "")
    assert " ttl=64 " in daemon.namespace.run(f"ping -c 1 {ADDRESS}").stdout
    assert sysctl(daemon, "-w", "net/ipv4/ip_default_ttl=33") == (0, "net.ipv4.ip_default_ttl = 33\n", "")
    assert " ttl=33 " in daemon.namespace.run(f"ping -c 1 {ADDRESS}").stdout
    assert sysctl(daemon, "-n", "net.ipv4.ip_default_ttl") == (0, "33\n", "")
    assert sysctl(daemon, "-q", "net.core.somaxconn=7") == (0, "", "")
    status, everything, _ = sysctl(daemon, "-a")
    assert status == 0 and "net.core.somaxconn = 7\n" in everything and "net.ipv4.tcp_rmem = 4096\t131072\t6291456\n" in everything
    assert sysctl(daemon, "-a", "-N", "-r", "route") == (0, "net.ipv4.route.min_pmtu\nnet.ipv4.route.mtu_expires\n", "")
    assert sysctl(daemon, "net.ipv4.route.")[1] == "net.ipv4.route.min_pmtu = 552\nnet.ipv4.route.mtu_expires = 600\n"
    assert sysctl(daemon, "-b", "net.ipv4.tcp_sack") == (0, "1", "")
    status, text, _ = sysctl(daemon, "--explain", "net.ipv4.tcp_ecn")
    assert status == 0 and "takes 0 to 2; default 2; a change counts for new connections" in text
    log = daemon.stop()
    assert "net.ipv4.ip_default_ttl = 33 (was 64), set by pid " in log and "uid 0" in log


def test_backlog_of_frames_is_the_interfaces_queue(start_daemon: Callable[..., Daemon]) -> None:
    """M-62: net.core.netdev_max_backlog bounds the frames that are not yet handled."""
    daemon = start_daemon("--sysctl", "net.core.netdev_max_backlog=321")
    assert " qlen 321" in daemon.namespace.run("ip link show tunstack0").stdout
    assert sysctl(daemon, "-n", "net.core.netdev_max_backlog") == (0, "321\n", "")
    status, output, errors = sysctl(daemon, "net.core.netdev_max_backlog=500")
    assert (status, output) == (1, "") and "counts when the interface is opened" in errors


def test_mistakes_are_a_line_each_and_status_1(start_daemon: Callable[..., Daemon]) -> None:
    """M-62, M-55."""
    daemon = start_daemon()
    for arguments, message in (
        (["net.ipv4.tcp_sak"], "cannot stat net.ipv4.tcp_sak: there is no such knob (did you mean tcp_sack?)"),
        (["net.ipv4.tcp_sak=1"], "cannot stat net.ipv4.tcp_sak: there is no such knob (did you mean tcp_sack?)"),
        (["net.ipv4.tcp_ecn=9"], 'setting key "net.ipv4.tcp_ecn": 9 is not between 0 and 2'),
        (["net.ipv4.tcp_congestion_control=x"], "setting key \"net.ipv4.tcp_congestion_control\": there is no 'x'; there is "),
        (["net.ipv4.tcp_available_congestion_control=x"], "can only be read"),
        (["net.ipv4.tcp_tw_recycle=1"], "it broke connections of clients that share an address behind NAT"),
        (["-w", "net.ipv4.tcp_sack"], "'net.ipv4.tcp_sack' is not of the form NAME=VALUE"),
        (["=1"], "'=1' is not of the form NAME=VALUE"),
    ):
        status, output, errors = sysctl(daemon, *arguments)
        assert (status, output, errors.count("\n")) == (1, "", 1) and message in errors, arguments
        assert errors.startswith("tunstack: sysctl: ")
    assert sysctl(daemon, "-e", "net.ipv4.tcp_sak") == (0, "", "")
    for arguments in ([], ["-r", "[", "-a"], ["--nonsense"], ["-p", "/nonexistent"]):
        status, output, errors = sysctl(daemon, *arguments)
        assert (status, output, errors.count("\n")) == (2, "", 1), arguments


def test_file_is_taken_line_by_line(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """M-62: the form of sysctl.conf(5)."""
    daemon = start_daemon()
    file = tmp_path / "knobs.conf"
    file.write_text("# comment\n; another\n\nnet.ipv4.tcp_sack = 0\nbroken\nnet/ipv4/tcp_rmem=4096  100000 200000 \nnet.ipv4.tcp_ecn = 9\n")
    status, output, errors = sysctl(daemon, "-p", str(file))
    assert (status, output) == (1, "net.ipv4.tcp_sack = 0\nnet.ipv4.tcp_rmem = 4096  100000 200000\n")
    assert errors.splitlines() == [
        f"tunstack: sysctl: {file}(5): invalid syntax, continuing...",
        'tunstack: sysctl: setting key "net.ipv4.tcp_ecn": 9 is not between 0 and 2',
    ]
    assert sysctl(daemon, "-n", "net.ipv4.tcp_sack", "net.ipv4.tcp_rmem") == (0, "0\n4096\t100000\t200000\n", "")


def test_only_root_and_the_owner_are_served(start_daemon: Callable[..., Daemon]) -> None:
    """The mode keeps others out, and if somebody opens it to all, the peer's credentials do."""
    daemon = start_daemon()
    assert stat.S_IMODE(daemon.control.stat().st_mode) == 0o600
    script = (
        "import os, socket, sys; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(20)\n"
        "try:\n    s.connect(sys.argv[1])\nexcept PermissionError:\n    sys.exit('denied')\n"
        'try:\n    s.sendall(b\'{"version": 1, "id": 1, "method": "version"}\\n\')\nexcept OSError:\n    pass\n'
        "data = b''\n"
        "try:\n    while chunk := s.recv(65536): data += chunk\nexcept ConnectionResetError:\n    pass\n"
        "print(data.decode())\n"
    )

    def as_nobody() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-c", script, str(daemon.control)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    daemon.private.chmod(0o755)
    assert as_nobody().stderr.strip() == "denied"
    daemon.control.chmod(0o666)
    answer = json.loads(as_nobody().stdout)
    assert answer["error"]["code"] == "refused" and answer["id"] is None
    assert "control socket: refused to pid " in daemon.stop()


def test_garbage_long_lines_and_half_open_clients_leave_the_daemon_serving(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    with connect(daemon) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + os.urandom(1000).replace(b"\n", b"") + b"\n")
        client.shutdown(socket.SHUT_WR)
        answers = read_all(client)
        assert len(answers) == 3 and {answer["error"]["code"] for answer in answers} == {"parse"}
    with connect(daemon) as client:
        client.sendall(b"x" * LINE_MAX)
        assert [answer["error"]["code"] for answer in read_all(client)] == ["request"]
    half_open = [connect(daemon) for _ in range(CLIENTS_MAX)]
    half_open[0].sendall(b'{"version": 1, "id": 1, "method": "version"}\n')
    assert b"result" in half_open[0].recv(65536)  # so all were accepted: they are, one after another
    half_open[-1].sendall(b'{"version": 1, "id": 1, "method": "version"}\n')
    assert b"result" in half_open[-1].recv(65536)
    with connect(daemon) as client:
        assert [answer["error"]["code"] for answer in read_all(client)] == ["busy"]
    status, _, errors = sysctl(daemon, "net.ipv4.tcp_sack")
    assert status == 2 and "clients already" in errors and errors.count("\n") == 1
    assert daemon.status()["version"]  # HTTP does not mind
    for client in half_open:
        client.close()
    while sysctl(daemon, "-n", "net.ipv4.tcp_sack")[0]:
        pass  # until the daemon has seen that they are gone
    log = daemon.stop()
    assert "Traceback" not in log and "ERROR" not in log


def test_client_that_reads_nothing_does_not_hold_the_daemon_up(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    with connect(daemon) as client:
        client.settimeout(0.2)
        request = b'{"version": 1, "id": 1, "method": "sysctl.list"}\n' * 100
        with pytest.raises(TimeoutError):
            while True:
                client.send(request)  # until all buffers are full: the daemon reads no more
        assert daemon.status()["version"] and sysctl(daemon, "-n", "net.ipv4.tcp_sack")[1] == "1\n"
        assert daemon.memory() < 200 << 20


def test_stale_socket_is_replaced_and_a_live_one_respected(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    other = ["--tun", "other0", "--host-address", "10.1.1.1/24", "--address", "10.1.1.2", "--control", str(daemon.control)]
    again = daemon.namespace.run([*TUNSTACK, "serve", *other], check=False)
    assert again.returncode == 2 and again.stdout == (
        f"tunstack: the control socket {daemon.control} cannot be made: another program listens on it\n"
    )
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.control.exists()
    successor = start_daemon("--control", str(daemon.control))
    successor.control = daemon.control
    assert sysctl(successor, "-n", "net.ipv4.tcp_sack") == (0, "1\n", "")


USUAL_PLACE = """
set -e
mount -t tmpfs none /run
t="{python} -m tunstack"
unset TUNSTACK_CONTROL
$t sysctl net.ipv4.tcp_sack || echo status=$?
start() {{ $t serve --tun $1 --host-address $2.1/24 --address $2.2 --no-http >/run/$1.log 2>&1 & }}
wait_for() {{ n=0; until grep -qs serving /run/$1.log; do sleep 0.1; n=$((n + 1)); test $n -lt 300; done; }}
start tuna 10.1.1; a=$!; wait_for tuna
$t sysctl net.ipv4.tcp_sack
start tunb 10.1.2; b=$!; wait_for tunb
$t sysctl net.ipv4.tcp_sack || echo status=$?
$t sysctl --control /run/tunstack/tunb.sock net.ipv4.tcp_sack
ip netns add other
ip netns exec other $t serve --tun tuna --no-http >/run/second.log 2>&1 & c=$!; wait_for second
cat /run/second.log
kill $a $b $c
wait
stat -c '%n %U %a' /run/tunstack /run/tunstack/*
"""


def test_usual_place_and_the_only_daemon(namespace: Namespace) -> None:
    """Without --control a daemon is found where daemons usually are; a second one with the same name has the next. In a /run of our own."""
    script = USUAL_PLACE.format(python=sys.executable)
    done = namespace.run(["unshare", "-m", "sh", "-c", script], check=False, timeout=120, env={**os.environ, "XDG_RUNTIME_DIR": ""})
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert lines == [
        "tunstack: no program of ours runs (no socket in /run/tunstack); name one with --control",
        "status=2",
        "net.ipv4.tcp_sack = 1",
        "tunstack: several programs of ours run: /run/tunstack/tuna.sock, /run/tunstack/tunb.sock; say which, with --control",
        "status=2",
        "net.ipv4.tcp_sack = 1",
        "tunstack: INFO: control socket: /run/tunstack/tuna-2.sock (another program has the usual one)",
        next(line for line in lines if line.startswith("tunstack: serving on")),
        "/run/tunstack root 755",
        "/run/tunstack/tuna-2.sock root 600",
        "/run/tunstack/tuna.sock root 600",
        "/run/tunstack/tunb.sock root 600",
    ]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_program_of_ones_own_has_a_control_socket_too(tmp_path: Path, loop: str) -> None:
    """M-62: the same socket over any endpoint."""

    async def main() -> None:
        async with memory_pair() as (endpoint, _other), Control(tmp_path / "mine.sock", endpoint, lambda: {"mine": 1}) as control:

            def ask() -> None:
                with ControlClient(control.path) as client:
                    assert client.call("status") == {"mine": 1}
                    client.call("sysctl.set", name="net.ipv4.tcp_sack", value="0")
                    assert sum(1 for _ in client.stream("sysctl.list")) > 50

            await asyncio.to_thread(ask)
            assert endpoint.stack.sysctl.tcp_sack is False
        assert not control.path.exists()

    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
