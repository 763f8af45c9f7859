"""Fast Open between Linux and tunstack on a TUN interface: curl to our daemon, our library to a Linux server. M-17."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from interop.daemons import ADDRESS, Daemon, need
from interop.namespaces import Namespace

from tunstack.aio import Endpoint
from tunstack.engine import SocketOptions, Sysctl

pytestmark = pytest.mark.root

LINUX = "10.77.0.1"
PORT = 7000
QUESTION = b"q" * 300

# Echoes what a connection brings until its end, one connection after another.
SERVER = f"""
import socket
with socket.create_server(("{LINUX}", {PORT})) as server:
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    print("ready", flush=True)
    while True:
        with server.accept()[0] as connection:
            while data := connection.recv(65536):
                connection.sendall(data)
"""


def knob(namespace: Namespace, value: int) -> None:
    namespace.run(f"sysctl -qw net.ipv4.tcp_fastopen={value}")


def linux_count(namespace: Namespace, name: str) -> int:
    """Return a TcpExt counter of the namespace's kernel."""
    lines = [line.split() for line in namespace.run("cat /proc/net/netstat").stdout.splitlines() if line.startswith("TcpExt:")]
    return int(dict(zip(*lines, strict=True))[name])


@contextmanager
def capture(namespace: Namespace, interface: str):
    """Capture TCP; what is given is a function that returns the lines, and ends it."""
    need("tcpdump")
    process = namespace.popen(
        ["tcpdump", "-nn", "-l", "-i", interface, "tcp"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    while "listening on" not in process.stderr.readline():
        assert process.poll() is None

    def lines() -> list[str]:
        time.sleep(0.5)  # what it has captured, it has to print
        process.terminate()
        return process.communicate(timeout=10)[0].splitlines()

    yield lines


@pytest.fixture
def linux_server(namespace: Namespace) -> Callable[[], None]:
    """A function that starts a Linux server with TCP_FASTOPEN, once the interface is there."""

    def start() -> None:
        knob(namespace, 3)
        process = namespace.popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"

    return start


def test_curl_has_its_request_in_the_syn_accepted_and_answered(start_daemon, namespace: Namespace, offload_flags: list[str]) -> None:
    """M-17: the first asks for the cookie; of the second the SYN has the request, the SYN-ACK acknowledges it, the answer follows."""
    need("curl")
    knob(namespace, 1)
    daemon: Daemon = start_daemon("--sysctl", "net.ipv4.tcp_fastopen=2", *offload_flags)
    (daemon.root / "file").write_text("fast and open\n")
    interface = namespace.links()[0]
    assert daemon.curl(f"--tcp-fastopen http://{ADDRESS}/file").stdout == "fast and open\n"
    with capture(namespace, interface) as lines:
        assert daemon.curl(f"--tcp-fastopen http://{ADDRESS}/file").stdout == "fast and open\n"
        text = lines()
    syn = next(line for line in text if "Flags [S]" in line)
    request = int(re.search(r"length (\d+)", syn)[1])
    first, last = map(int, re.search(r"seq (\d+):(\d+)", syn).groups())
    assert request > 50 and last - first == request, syn
    syn_ack = next(line for line in text if "Flags [S.]" in line)
    assert f"ack {last + 1}," in syn_ack, syn_ack
    assert any("HTTP/1.1 200" in line and ".80 > " in line for line in text), text
    assert not any("GET /file" in line and "Flags [P.]" in line for line in text), "the request was sent again"
    counters = daemon.status()["counters"]
    assert (counters["TCPFastOpenCookieReqd"], counters["TCPFastOpenPassive"], counters["TCPFastOpenPassiveFail"]) == (1, 1, 0)
    assert linux_count(namespace, "TCPFastOpenActive") == 1


def test_a_cookie_from_before_a_restart_is_replaced_and_nothing_is_lost(start_daemon, namespace: Namespace) -> None:
    """M-17: the daemon makes a new key each time, unless net.ipv4.tcp_fastopen_key is set."""
    need("curl")
    knob(namespace, 1)

    def fetch(daemon: Daemon, count: int) -> dict[str, int]:
        (daemon.root / "file").write_text("still open\n")
        for _ in range(count):
            assert daemon.curl(f"--tcp-fastopen http://{ADDRESS}/file").stdout == "still open\n"
        return {name: value for name, value in daemon.status()["counters"].items() if "FastOpen" in name}

    old_key, new_key = "--sysctl=net.ipv4.tcp_fastopen_key=1-2-3-4", "--sysctl=net.ipv4.tcp_fastopen_key=5-6-7-8"
    bit = "--sysctl=net.ipv4.tcp_fastopen=2"
    daemon = start_daemon(bit, old_key)
    assert fetch(daemon, 2)["TCPFastOpenPassive"] == 1
    daemon.stop()
    daemon = start_daemon(bit, old_key)
    assert fetch(daemon, 1)["TCPFastOpenPassive"] == 1  # the same key, the same cookie
    daemon.stop()
    daemon = start_daemon(bit, new_key)
    counters = fetch(daemon, 2)
    assert counters["TCPFastOpenPassiveFail"] == 1 and counters["TCPFastOpenPassive"] == 1
    daemon.stop()
    daemon = start_daemon(bit, "--sysctl=net.ipv4.tcp_fastopen_key=1-2-3-4,5-6-7-8")
    counters = fetch(daemon, 2)
    assert counters["TCPFastOpenPassiveAltKey"] == 1 and counters["TCPFastOpenPassive"] == 2


def test_our_client_sends_data_in_the_syn_to_linux(namespace: Namespace, linux_server: Callable[[], None]) -> None:
    """M-17: a stale cookie, and a path that eats SYNs with data, cost time and nothing else."""
    need("nft")

    async def ask(endpoint: Endpoint, options: SocketOptions | None = None) -> tuple[bool, int]:
        """Echo QUESTION; return whether its data in the SYN was taken, and tcpi_fastopen_client_fail."""
        fastopen = QUESTION if options is None else None
        async with asyncio.timeout(20):
            reader, writer = await endpoint.open_connection(LINUX, PORT, fastopen=fastopen, options=options)
            if fastopen is None:
                writer.write(QUESTION)
            assert await reader.readexactly(len(QUESTION)) == QUESTION
            info = writer.get_extra_info("tcp_info")
            writer.close()
            await writer.wait_closed()
        return info.syn_data, info.fastopen_client_fail

    async def converse() -> None:
        device = namespace.open_tun(host_address=f"{LINUX}/24", addresses=(bytes((10, 77, 0, 2)),))
        async with Endpoint(device, ADDRESS, sysctl=Sysctl(tcp_fastopen_blackhole_timeout_sec=0)) as endpoint:
            linux_server()
            assert await ask(endpoint) == (False, 1)
            assert await ask(endpoint) == (True, 0)
            assert await ask(endpoint, SocketOptions(fastopen_connect=True)) == (True, 0)
            assert linux_count(namespace, "TCPFastOpenPassive") == 2
            namespace.run("sysctl -qw net.ipv4.tcp_fastopen_key=1-2-3-4")
            assert await ask(endpoint) == (False, 2)
            assert linux_count(namespace, "TCPFastOpenPassiveFail") == 1
            assert await ask(endpoint) == (True, 0)
            rule = "add table ip path; add chain ip path in { type filter hook input priority 0; };"
            namespace.run(["nft", rule + " add rule ip path in tcp flags syn / syn,ack ip length > 100 drop"])
            assert await ask(endpoint) == (False, 3)
            namespace.run("nft flush chain ip path in")
            assert await ask(endpoint) == (True, 0)

    asyncio.run(converse())
