"""ECN between Linux and tunstack on a TUN interface: who agrees with whom, and what marks do. M-18."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon, need, random_file, sha256
from interop.namespaces import Namespace

pytestmark = pytest.mark.root

SIZE = 16 << 20


def linux_ecn(namespace: Namespace, mode: int) -> None:
    namespace.run(f"sysctl -qw net.ipv4.tcp_ecn={mode}")


def mark(namespace: Namespace, where: str, every: int) -> None:
    """Have the kernel mark each `every`-th ECN-capable packet that comes from (`input`) or goes to (`output`) the interface."""
    need("nft")
    rules = f"""
    table ip marks {{
        chain {where} {{
            type filter hook {where} priority 0;
            meta l4proto tcp ip ecn {{ 1, 2 }} numgen inc mod {every} 0 ip ecn set ce
        }}
    }}"""
    namespace.run(["nft", "-f", "-"], input=rules)


def watch(namespace: Namespace) -> None:
    """Count the data that we send with CWR, and what Linux sends with ECE, its SYN included."""
    rules = """
    table ip watch {
        counter reduced { }
        counter echoed { }
        chain from_us {
            type filter hook input priority 10;
            tcp flags & cwr == cwr counter name reduced
        }
        chain to_us {
            type filter hook output priority 10;
            tcp flags & ecn == ecn counter name echoed
        }
    }"""
    namespace.run(["nft", "-f", "-"], input=rules)


def watched(namespace: Namespace, name: str) -> int:
    found = re.search(r"packets (\d+)", namespace.run(f"nft list counter ip watch {name}").stdout)
    assert found is not None
    return int(found[1])


def nstat(namespace: Namespace, name: str) -> int:
    """Return one of the kernel's counters."""
    for line in namespace.run("nstat -asz").stdout.splitlines():
        if line.split()[0] == name:
            return int(line.split()[1])
    raise AssertionError(f"no counter {name}")


def ss(namespace: Namespace) -> str:
    """Return what ss tells of the connections with us."""
    return namespace.run(f"ss -tino state established dst {ADDRESS}").stdout


def has(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){word}(?!\w)", text) is not None


@pytest.fixture(params=["--offload", "--no-offload"])
def daemon_of(request: pytest.FixtureRequest, start_daemon: Callable[..., Daemon]) -> Callable[[int], Daemon]:
    """A function that starts the daemon with a tcp_ecn, with offload and without."""
    flags = [request.param] if request.param == "--no-offload" else []
    return lambda ecn: start_daemon(*flags, "--sysctl", f"net.ipv4.tcp_ecn={ecn}")


@pytest.mark.parametrize("ours", [0, 1, 2])
@pytest.mark.parametrize("theirs", [0, 1, 2])
def test_linux_asks(namespace: Namespace, daemon_of: Callable[[int], Daemon], ours: int, theirs: int, tmp_path: Path) -> None:
    """M-18: ECN where Linux asks and we are willing, and the octets are right in any case."""
    linux_ecn(namespace, theirs)
    daemon = daemon_of(ours)
    digest = random_file(tmp_path / "file", 1 << 20)
    with namespace.popen(["nc", "-N", ADDRESS, "7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"hello\n"
        told = ss(namespace)
        client.stdin.close()
        client.stdin = None
        assert client.wait(timeout=10) == 0
    is_on = theirs == 1 and ours != 0
    assert has(told, "ecn") == has(told, "ecnseen") == is_on, told
    daemon.curl(f"-T {tmp_path}/file http://{ADDRESS}/up")
    assert sha256(daemon.root / "up") == digest


@pytest.mark.parametrize("ours", [0, 1, 2])
@pytest.mark.parametrize("theirs", [0, 1, 2])
def test_we_ask(namespace: Namespace, offload_flags: list[str], ours: int, theirs: int, tmp_path: Path) -> None:
    """M-18: the other way round."""
    need("nc")
    linux_ecn(namespace, theirs)
    listener = namespace.popen(["nc", "-l", "-N", "5000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert listener.stdin is not None and listener.stdout is not None
    time.sleep(0.3)
    command = [*TUNSTACK, "nc", "-N", *offload_flags, "--sysctl", f"net.ipv4.tcp_ecn={ours}", "10.78.0.1", "5000"]
    client = namespace.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(b"hello\n")
    client.stdin.flush()
    assert listener.stdout.readline() == b"hello\n"
    listener.stdin.write(b"well\n")
    listener.stdin.flush()
    assert client.stdout.readline() == b"well\n"
    told = namespace.run("ss -tino state established sport 5000").stdout
    client.stdin.close()
    assert client.wait(timeout=20) == 0
    is_on = ours == 1 and theirs != 0
    assert has(told, "ecn") == has(told, "ecnseen") == is_on, told


def test_linux_sends_and_is_marked(namespace: Namespace, daemon_of: Callable[[int], Daemon], tmp_path: Path) -> None:
    """M-18: we echo CE, Linux's window falls (TCPDeliveredCE), it says CWR, and nothing is sent again for it."""
    linux_ecn(namespace, 1)
    daemon = daemon_of(2)
    mark(namespace, "output", 400)
    digest = random_file(tmp_path / "file", SIZE)
    daemon.curl(f"-T {tmp_path}/file http://{ADDRESS}/up", timeout=60)
    assert sha256(daemon.root / "up") == digest
    assert nstat(namespace, "TcpExtTCPDeliveredCE") > 0
    assert nstat(namespace, "TcpRetransSegs") <= nstat(namespace, "TcpExtTCPLossProbes")  # a probe may be early on a busy machine


def test_we_send_and_are_marked(namespace: Namespace, daemon_of: Callable[[int], Daemon], tmp_path: Path) -> None:
    """M-18: Linux echoes what it got marked, and we answer with CWR, not as often as it echoes."""
    linux_ecn(namespace, 1)
    daemon = daemon_of(2)
    mark(namespace, "prerouting", 400)
    watch(namespace)
    digest = random_file(daemon.root / "file", SIZE)
    daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file", timeout=60)
    assert sha256(tmp_path / "got") == digest
    assert nstat(namespace, "IpExtInECT0Pkts") > 0
    assert 0 < watched(namespace, "reduced") < watched(namespace, "echoed")


def test_a_link_that_marks(namespace: Namespace, start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """M-18: `--link ce=...` marks in both directions; what Linux then receives it counts as CE, and what it hears echoed as delivered."""
    linux_ecn(namespace, 1)
    daemon = start_daemon("--link", "delay=2ms,ce=1%")
    digest = random_file(tmp_path / "file", SIZE)
    daemon.curl(f"-T {tmp_path}/file http://{ADDRESS}/up", timeout=60)
    assert nstat(namespace, "TcpExtTCPDeliveredCE") > 0
    daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/up", timeout=60)
    assert sha256(tmp_path / "got") == digest
    assert nstat(namespace, "IpExtInCEPkts") > 10
    assert nstat(namespace, "TcpRetransSegs") <= nstat(namespace, "TcpExtTCPLossProbes")  # a probe may be early on a busy machine


def test_tcpdump_sees_the_flags_in_their_places(namespace: Namespace, start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """M-18, M-63: ECE alone in our SYN-ACK; CWR on one packet of those that we send after an echo, not on all of a run."""
    need("tcpdump")
    linux_ecn(namespace, 1)
    daemon = start_daemon("--no-offload", "--link", "delay=5ms;up:ce=2%")
    random_file(daemon.root / "file", 1 << 20)
    command = ["tcpdump", "-n", "-v", "-l", "--immediate-mode", "-B", "8192", "-s", "128", "-i", "tunstack0", "tcp"]
    with namespace.popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True) as dump:
        time.sleep(1)
        daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file", timeout=60)
        hurry = threading.Timer(20, dump.terminate)
        hurry.start()
        lines = ""
        while lines.count("Flags [F") < 2 and (line := dump.stdout.readline()):  # it may come behind on a busy machine
            lines += line
        hurry.cancel()
        dump.terminate()
    packets = re.findall(r"IP \(tos (0x[0-9a-f]+).*?\n\s+(\S+) > \S+: Flags \[(\S+)\].*?length (\d+)", lines)
    from_us = [(int(tos, 16) & 3, flags, int(length)) for tos, source, flags, length in packets if source.startswith(ADDRESS)]
    assert from_us[0][:2] == (0, "S.E")
    new_data = [flags for tos, flags, length in from_us if length]
    echoes = sum("E" in flags for _, source, flags, _ in packets if not source.startswith(ADDRESS)) - 1
    reductions = sum("W" in flags for flags in new_data)
    assert 0 < reductions < echoes
    assert all(tos in (2, 3) for tos, flags, length in from_us if length)
    assert not any(tos for tos, flags, length in from_us if not length)
