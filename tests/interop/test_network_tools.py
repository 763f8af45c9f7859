"""ping, tracepath, refused and unreachable, ss, tcpdump and tshark: what a network person looks at."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interop.daemons import ADDRESS, Daemon, need, random_file
from interop.namespaces import Namespace

HEADERS = 128  # octets of a frame that hold all its headers


def test_a_closed_port_refuses_at_once(daemon: Daemon) -> None:
    """M-59, M-25."""
    result = daemon.namespace.run(f"curl -sS http://{ADDRESS}:81/", check=False)
    assert result.returncode == 7 and re.search("refused|connect to server", result.stdout), result.stdout
    assert "TcpRetransSegs                  0 " in daemon.namespace.run("nstat -az TcpRetransSegs").stdout  # the first SYN was answered


def test_an_address_that_nobody_has_is_not_answered(daemon: Daemon) -> None:
    """M-25: neighbour of ours in the subnet; a TUN has no ARP, so Linux's connect runs into its timeout."""
    result = daemon.namespace.run("curl -sS --connect-timeout 3 http://10.77.0.99/", check=False)
    assert result.returncode == 28, result.stdout


def test_flood_ping(daemon: Daemon) -> None:
    """M-08."""
    need("ping")
    output = daemon.namespace.run(f"ping -f -q -c 5000 {ADDRESS}").stdout
    assert "5000 received, 0% packet loss" in output, output


def test_ping_in_fragments(daemon: Daemon) -> None:
    """M-08: the request arrives in fragments, the answer leaves in fragments."""
    need("ping")
    output = daemon.namespace.run(f"ping -q -c 5 -i 0.1 -s 4000 {ADDRESS}").stdout
    assert "5 received, 0% packet loss" in output, output


def test_tracepath(daemon: Daemon) -> None:
    """M-08: port unreachable ends the trace at the first hop."""
    need("tracepath")
    output = daemon.namespace.run(f"tracepath -n {ADDRESS}").stdout
    assert re.search(rf"1:\s+{ADDRESS}\s.*reached", output) and "Resume: pmtu 1500 hops 1" in output, output


@pytest.mark.parametrize("mtu", [576, 1500, 9000])
def test_ss_shows_the_options_in_use(start_daemon: Callable[..., Daemon], offload_flags: list[str], mtu: int) -> None:
    """M-06, M-10, M-11: timestamps, SACK, window scaling and the MSS that the MTU gives, as Linux sees them."""
    need("ss")
    daemon = start_daemon("--mtu", str(mtu), *offload_flags)
    with daemon.namespace.entered():
        client = socket.create_connection((ADDRESS, 7), timeout=10)
    with client:
        client.sendall(b"x" * 100000)
        received = 0
        while received < 100000:
            received += len(client.recv(65536))
        output = daemon.namespace.run(f"ss -tionH dst {ADDRESS}").stdout
    assert re.search(r"\bts\b", output) and re.search(r"\bsack\b", output) and re.search(r"wscale:7,\d+", output), output
    assert f" mss:{mtu - 40 - 12} " in output and f" advmss:{mtu - 40 - 12} " in output and f" pmtu:{mtu} " in output, output


def capture(daemon: Daemon, path: Path, work: Callable[[], object], snap: int = 0) -> None:
    """Capture the interface to a file while `work` runs, `snap` octets of each frame (0: all)."""
    command = ["tcpdump", "-i", "tunstack0", "-B", "65536", "-s", str(snap), "-w", str(path)]
    with daemon.namespace.popen(command, stderr=subprocess.PIPE) as tcpdump:
        assert tcpdump.stderr is not None
        while b"listening on" not in tcpdump.stderr.readline():
            pass
        threading.Thread(target=tcpdump.stderr.read, daemon=True).start()
        work()
        time.sleep(1)
        tcpdump.terminate()


def test_tcpdump_finds_nothing_incorrect(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """M-63, M-02: without offload every checksum on the interface is whole, in both directions, fragments and ICMP included."""
    need("tcpdump", "ping", "tracepath")
    daemon = start_daemon("--no-offload")
    random_file(daemon.root / "file", 4 << 20)
    random_file(tmp_path / "up", 4 << 20)

    def work() -> None:
        daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file")
        daemon.curl(f"-T {tmp_path}/up http://{ADDRESS}/up")
        daemon.namespace.run(f"curl -sS http://{ADDRESS}:81/", check=False)
        daemon.namespace.run(f"ping -q -c 3 -i 0.1 -s 4000 {ADDRESS}")
        daemon.namespace.run(f"tracepath -n {ADDRESS}")

    capture(daemon, tmp_path / "pcap", work)
    output = daemon.namespace.run(f"tcpdump -vv -nn -r {tmp_path}/pcap", timeout=120).stdout
    assert output.count("cksum") > 2000
    bad = [line for line in output.splitlines() if re.search(r"incorrect|bad cksum|bad hdr|truncated", line)]
    assert not bad, bad[:5]


def expert_items(namespace: Namespace, pcap: Path) -> set[str]:
    """Return the summaries of tshark's warnings and errors about TCP and IP (what it makes of the random payload does not count)."""
    output = namespace.run(f"tshark -r {pcap} -q -z expert,warn", timeout=300, stderr=subprocess.DEVNULL).stdout
    rows = [line.split(None, 3) for line in output.splitlines() if re.match(r"\s+\d+\s", line)]
    return {summary.strip() for _, _, protocol, summary in rows if protocol in ("TCP", "IPv4", "IP")}


def test_tshark_has_no_complaint_that_linux_does_not_draw(daemon: Daemon, make_namespace: Callable[[], Namespace], tmp_path: Path) -> None:
    """M-63: a transfer of 64 MiB between Linux and us, against one between two Linux namespaces over veth."""
    need("tshark", "tcpdump", "nc")
    random_file(daemon.root / "file", 64 << 20)
    random_file(tmp_path / "up", 64 << 20)

    def work() -> None:
        daemon.curl(f"-o {tmp_path}/got http://{ADDRESS}/file", timeout=120)
        daemon.curl(f"-T {tmp_path}/up http://{ADDRESS}/up", timeout=120)

    capture(daemon, tmp_path / "ours.pcap", work, HEADERS)
    reference = linux_to_linux(make_namespace(), make_namespace(), tmp_path)
    ours = expert_items(daemon.namespace, tmp_path / "ours.pcap")
    print(f"ours {ours}, Linux to Linux {reference}")
    assert ours <= reference, ours - reference


def linux_to_linux(server: Namespace, client: Namespace, tmp_path: Path) -> set[str]:
    """Send the same 64 MiB from Linux to Linux over veth; return what tshark has to say about it."""
    server.run(f"ip link add ts0 type veth peer name ts1 netns {client.name}")
    server.run("ip address add 10.79.0.1/24 dev ts0")
    server.run("ip link set ts0 up")
    client.run("ip address add 10.79.0.2/24 dev ts1")
    client.run("ip link set ts1 up")
    # A reader that falls behind, as curl and our daemon do when they write to a disk: the window closes and reopens.
    reader = f"nc -l -N 5000 | (head -c 1000000; sleep 0.5; cat) >{tmp_path}/linux"
    listener = server.popen(["sh", "-c", reader], stdin=subprocess.DEVNULL)
    command = ["tcpdump", "-i", "ts1", "-B", "65536", "-s", str(HEADERS), "-w", str(tmp_path / "linux.pcap")]
    with client.popen(command, stderr=subprocess.DEVNULL) as tcpdump:
        time.sleep(1)
        with (tmp_path / "up").open("rb") as source:
            client.run(["nc", "-N", "10.79.0.1", "5000"], stdin=source)
        listener.wait(timeout=30)
        time.sleep(1)
        tcpdump.terminate()
    return expert_items(client, tmp_path / "linux.pcap")
