"""TCP MD5 with Linux at the other end (TCP_MD5SIG), on a TUN interface: M-16, RFC 2385."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from interop.daemons import Daemon
from interop.namespaces import Namespace

pytestmark = pytest.mark.root

SIZE = 16 << 20  # octets in each direction at once
PEER = """
import hashlib, random, socket, struct, sys, threading
mode, secret, size = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
sock = socket.socket()
address = struct.pack("=H2s4s120x", socket.AF_INET, bytes(2), socket.inet_aton("10.77.0.2"))
if secret:
    sock.setsockopt(socket.IPPROTO_TCP, 14, address + struct.pack("=BBHi80s", 0, 0, len(secret), 0, secret))  # TCP_MD5SIG
if mode == "listen":
    sock.bind(("10.77.0.1", 179))
    sock.listen()
    print("ready", flush=True)
    sock = sock.accept()[0]
else:
    sock.settimeout(float(sys.argv[4]))
    try:
        sock.connect(("10.77.0.2", 179))
    except OSError as error:
        sys.exit(f"{type(error).__name__}")
    sock.settimeout(None)
data = random.Random(size).randbytes(size)
def send():
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
digest = hashlib.sha256()
while octets := sock.recv(1 << 18):
    digest.update(octets)
print(digest.hexdigest() == hashlib.sha256(data).hexdigest(), flush=True)
"""
# Ours: echoes on port 179, or connects and echoes; ends when that is done.
OURS = """
import asyncio, sys
from tunstack import Key, open_tun
async def main():
    mode, secret, offload = sys.argv[1], sys.argv[2].encode(), sys.argv[3] == "offload"
    done = asyncio.Event()
    async def echo(reader, writer):
        while octets := await reader.read(1 << 18):
            writer.write(octets)
            await writer.drain()
        writer.write_eof()
        writer.close()
        await writer.wait_closed()
        done.set()
    async with open_tun(offload=offload, keys=[Key(secret, "md5", peer="10.77.0.0/24")] if secret else ()) as endpoint:
        if mode == "serve":
            await endpoint.start_server(echo, "10.77.0.2", 179)
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        else:
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            try:
                async with asyncio.timeout(60 if secret == b"the same" else 1.5):
                    await echo(*await endpoint.open_connection("10.77.0.1", 179))
            except TimeoutError:
                print("TimeoutError", flush=True)
        counters = endpoint.stack.counters.as_dict()
        print({name: count for name, count in counters.items() if name.startswith("TCPMD5") and count}, flush=True)
asyncio.run(main())
"""


class Ours:
    """The script above, in a namespace."""

    def __init__(self, namespace: Namespace, mode: str, secret: str, offload: str) -> None:
        command = [sys.executable, "-c", OURS, mode, secret, offload]
        self.process = namespace.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def go_on(self, timeout: float = 60) -> str:
        """Let it connect, or end; return what it says."""
        out, _ = self.process.communicate("\n", timeout=timeout)
        return str(out).strip()


def linux_counters(namespace: Namespace) -> dict[str, int]:
    """Return the kernel's counters of MD5, in the namespace."""
    lines = namespace.run("cat /proc/net/netstat").stdout.splitlines()
    names, values = lines[0].split(), lines[1].split()
    return {name: int(value) for name, value in zip(names, values, strict=True) if name.startswith("TCPMD5") and value != "0"}


@pytest.mark.parametrize("offload", ["offload", "no-offload"])
def test_16_mib_in_both_directions_under_a_key_with_linux_as_client(namespace: Namespace, offload: str) -> None:
    """M-16."""
    ours = Ours(namespace, "serve", "the same", offload)
    assert namespace.run([sys.executable, "-c", PEER, "connect", "the same", str(SIZE), "30"], timeout=120).stdout == "True\n"
    assert ours.go_on() == "{}" and linux_counters(namespace) == {}


@pytest.mark.parametrize("offload", ["offload", "no-offload"])
def test_16_mib_in_both_directions_under_a_key_with_linux_as_server(namespace: Namespace, offload: str) -> None:
    """M-16."""
    ours = Ours(namespace, "connect", "the same", offload)
    linux = namespace.popen([sys.executable, "-c", PEER, "listen", "the same", str(SIZE)], stdout=subprocess.PIPE, text=True)
    assert linux.stdout is not None and linux.stdout.readline() == "ready\n"
    assert ours.go_on(120) == "{}"
    assert linux.communicate(timeout=60)[0] == "True\n" and linux_counters(namespace) == {}


@pytest.mark.parametrize(
    ("theirs", "ours", "counter"),
    [("one", "another", "TCPMD5Failure"), ("", "a key", "TCPMD5NotFound"), ("a key", "", "TCPMD5Unexpected")],
)
def test_with_a_wrong_key_or_one_at_one_end_nothing_gets_through_and_both_count_it_alike(
    namespace: Namespace, theirs: str, ours: str, counter: str
) -> None:
    """M-16: Linux as client, then as server; the counter is the same at either end."""
    server = Ours(namespace, "serve", ours, "offload")
    result = namespace.run([sys.executable, "-c", PEER, "connect", theirs, "1000", "1.5"], check=False)
    assert result.stdout == "TimeoutError\n"
    assert server.go_on().startswith(f"{{'{counter}': ")
    client = Ours(namespace, "connect", theirs, "offload")  # the other way round: now Linux has what we had
    linux = namespace.popen([sys.executable, "-c", PEER, "listen", ours, "1000"], stdout=subprocess.PIPE, text=True)
    assert linux.stdout is not None and linux.stdout.readline() == "ready\n"
    assert client.go_on() == "TimeoutError\n{}"
    assert linux_counters(namespace).keys() == {counter}


@contextmanager
def file_of_nobody() -> Iterator[Path]:
    """An empty configuration of whom the daemon becomes. Not in /tmp itself, where fs.protected_regular keeps root from writing it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "keys.toml"
        path.touch(0o600)
        shutil.chown(path, "nobody")
        yield path


def test_the_daemon_takes_keys_from_its_file_rolls_them_over_at_sighup_and_shows_none(
    start_daemon: Callable[..., Daemon], namespace: Namespace
) -> None:
    """M-16: echo under a key, then under another; what does not have it is not served; /status and the log have no secret."""
    with file_of_nobody() as path:
        _roll_over(start_daemon, namespace, path)


def test_a_daemon_without_keys_takes_its_first_at_sighup(start_daemon: Callable[..., Daemon], namespace: Namespace) -> None:
    """M-16: it would not do for it to end at the signal that is to give it keys."""
    with file_of_nobody() as path:
        daemon = start_daemon("--config", str(path), "--echo-port", "179")
        path.write_text("[[keys]]\npeer = '10.77.0.1'\nalgorithm = 'md5'\nkey = 'secret-one'\nport = 179\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.process.stdout is not None
        assert daemon.process.stdout.readline() == b"tunstack: INFO: SIGHUP: now 1 keys, 1 of them new or gone\n"
        assert namespace.run([sys.executable, "-c", PEER, "connect", "secret-one", "1000", "10"]).stdout == "True\n"
        assert namespace.run([sys.executable, "-c", PEER, "connect", "secret-two", "1000", "1.5"], check=False).stdout == "TimeoutError\n"
        daemon.stop()


def _roll_over(start_daemon: Callable[..., Daemon], namespace: Namespace, path: Path) -> None:
    path.write_text("[[keys]]\npeer = '10.77.0.1'\nport = 179\nalgorithm = 'md5'\nkey = 'secret-one'\n")
    daemon = start_daemon("--config", str(path), "--echo-port", "179")
    assert namespace.run([sys.executable, "-c", PEER, "connect", "secret-one", "100000", "10"]).stdout == "True\n"
    path.write_text(path.read_text().replace("secret-one", "secret-two"))
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.process.stdout is not None
    assert daemon.process.stdout.readline() == b"tunstack: INFO: SIGHUP: now 1 keys, 2 of them new or gone\n"
    assert namespace.run([sys.executable, "-c", PEER, "connect", "secret-one", "1000", "1.5"], check=False).stdout == "TimeoutError\n"
    assert namespace.run([sys.executable, "-c", PEER, "connect", "secret-two", "100000", "10"]).stdout == "True\n"
    status = str(daemon.status())
    assert "'TCPMD5Failure': 0" not in status and "TCPMD5Failure" in status
    log = daemon.stop()
    assert "secret" not in status + str(log) + daemon.ready_line
