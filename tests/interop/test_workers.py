"""`tunstack serve --workers N` against the kernel: who gets what, one view of all, and workers that die under load."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon, need, random_file, sha256
from interop.namespaces import Namespace

from tunstack.daemon.controlclient import ControlClient, ControlError
from tunstack.device.handover import Handovers
from tunstack.device.tun import TunDevice

pytestmark = pytest.mark.root

ECHO, DISCARD = 7, 9
TIMEOUT = 20.0  # s, on a slow machine
# As root without what loading a program into the kernel takes: it then learns by itself where a flow belongs.
NO_PROGRAM = "setpriv --bounding-set=-bpf,-sys_admin"


def tunstack(daemon: Daemon, *arguments: str) -> str:
    """Run a command on the daemon's control socket; return its output."""
    environment = {**os.environ, "TUNSTACK_CONTROL": str(daemon.control)}
    done = subprocess.run([*TUNSTACK, *arguments], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def nstat(daemon: Daemon, *names: str) -> dict[str, int]:
    """Return counters of the whole program."""
    with ControlClient(daemon.control) as client:
        values = client.call("snmp")["values"]
    return {name: values[name] for name in names}


def sockets(daemon: Daemon, *states: str) -> list[Mapping[str, Any]]:
    """Return the sockets in these states; none where no worker answers just now."""
    with ControlClient(daemon.control) as client:
        try:
            return list(client.stream("sockets", filter={"states": states}))
        except ControlError as error:
            assert error.code == "busy"
            return []


def workers_of(daemon: Daemon) -> dict[int, int]:
    """Return the worker of each connection, its process, by the client's port."""
    return {record["remote_port"]: record["owner"]["pid"] for record in sockets(daemon, "ESTABLISHED")}


def listening(daemon: Daemon) -> set[int]:
    """Return the processes that listen."""
    return {record["owner"]["pid"] for record in sockets(daemon, "LISTEN")}


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


@dataclass
class Flow:
    """A connection to echo that is busy from its own thread, and how it went."""

    connection: socket.socket
    rounds: int = 0
    error: OSError | None = None

    @property
    def port(self) -> int:
        return int(self.connection.getsockname()[1])

    def echo(self, data: bytes = b"ping") -> None:
        self.connection.sendall(data)
        got = b""
        while len(got) < len(data):
            chunk = self.connection.recv(65536)
            if not chunk:
                raise ConnectionAbortedError("end of file")
            got += chunk
        assert got == data

    def be_busy(self, stop: threading.Event) -> None:
        try:
            while not stop.wait(0.01):
                self.echo()
                self.rounds += 1
        except OSError as error:
            self.error = error


@pytest.fixture
def connect(namespace: Namespace) -> Iterator[Callable[..., list[Flow]]]:
    """A function that makes so many connections to echo."""
    with ExitStack() as cleanup:

        def make(number: int) -> list[Flow]:
            with namespace.entered():
                flows = [Flow(cleanup.enter_context(socket.create_connection((ADDRESS, ECHO), TIMEOUT))) for _ in range(number)]
            ports.update(flow.port for flow in flows)
            return flows

        ports: set[int] = set()
        yield make


@pytest.fixture(params=["steered", "learnt"])
def pair(request: pytest.FixtureRequest, start_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """Two workers, with the kernel steering by our program, and with the kernel's own learning."""
    if request.param == "learnt":
        monkeypatch.setattr("interop.daemons.TUNSTACK", [*NO_PROGRAM.split(), *TUNSTACK])
    return start_daemon("--workers", "2", "--drain-timeout", "0.2")


def test_both_serve_and_no_segment_is_answered_by_the_wrong_one(pair: Daemon, connect: Callable[..., list[Flow]]) -> None:
    """Each has its part; nothing is reset, nothing is lost, also after the kernel's own three seconds of memory."""
    flows = connect(60)
    for flow in flows:
        flow.echo()
    shares = Counter(workers_of(pair).values())
    assert len(shares) == 2 and min(shares.values()) >= 10
    handed_over = nstat(pair, "TcpExtTCPHandedOver")["TcpExtTCPHandedOver"]
    is_learnt = "takes no steering program" in pair.ready_line
    assert bool(handed_over) == is_learnt
    if is_learnt:
        time.sleep(3.5)
    for flow in flows:
        flow.echo(bytes(20_000))
    assert nstat(pair, "TcpOutRsts", "TcpPassiveOpens") == {"TcpOutRsts": 0, "TcpPassiveOpens": 60}
    pair.stop()


def test_curl_again_and_again_and_files_are_whole(pair: Daemon, tmp_path: Path) -> None:
    digest = random_file(pair.root / "file", 3_000_000)
    for _ in range(12):
        pair.curl(f"-o {tmp_path}/got http://{ADDRESS}/file")
        assert sha256(tmp_path / "got") == digest
    with ExitStack() as transfers:
        for number in range(8):
            process = pair.namespace.popen(["curl", "-sS", "--fail", "-o", f"{tmp_path}/{number}", f"http://{ADDRESS}/file"])
            transfers.callback(process.wait, timeout=30)
    assert all(sha256(tmp_path / str(number)) == digest for number in range(8))


def test_one_view_of_all(start_daemon: Callable[..., Daemon], connect: Callable[..., list[Flow]]) -> None:
    """M-60, M-61, M-62: ss, netstat, nstat, sysctl, metrics and status, each over both workers; a ping has one answer."""
    daemon = start_daemon("--workers", "2", "--metrics", "9464")
    flows = connect(40)
    assert len(listening(daemon)) == 2
    assert workers_of(daemon).keys() == {flow.port for flow in flows}
    assert len(re.findall(r"^tcp .* ESTABLISHED", tunstack(daemon, "netstat", "-tn"), re.MULTILINE)) == 40
    assert nstat(daemon, "TcpPassiveOpens") == {"TcpPassiveOpens": 40}
    scraped = daemon.namespace.run("curl -sS http://127.0.0.1:9464/metrics").stdout
    assert 'tunstack_tcp_sockets{state="established"} 40.0' in scraped and "tunstack_tcp_passive_opens_total 40.0" in scraped
    assert tunstack(daemon, "sysctl", "-w", "net.ipv4.ip_default_ttl=33") == "net.ipv4.ip_default_ttl = 33\n"
    ping = daemon.namespace.run(f"ping -c 2 -i 0.2 {ADDRESS}").stdout
    assert ping.count(" ttl=33 ") == 2 and "DUP" not in ping
    victim = flows[0].port
    assert f":{victim}" in tunstack(daemon, "ss", "-K", "dport", "=", f":{victim}")
    with pytest.raises(ConnectionError):
        flows[0].echo()
    assert len(workers_of(daemon)) == 39


def test_fragments_of_a_segment_reach_their_owner(start_daemon: Callable[..., Daemon], connect: Callable[..., list[Flow]]) -> None:
    """M-21: the kernel has no ports to steer them by. A route with a smaller MTU, and DF left out, has it cut what it sends."""
    daemon = start_daemon("--workers", "2", "--no-offload")
    flows = connect(12)
    assert len(set(workers_of(daemon).values())) == 2
    for flow in flows:
        flow.connection.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
    daemon.namespace.run(f"ip route replace {ADDRESS}/32 dev tunstack0 mtu lock 600")
    for flow in flows:
        flow.echo(bytes(5000))
    assert nstat(daemon, "IpReasmFails", "TcpOutRsts") == {"IpReasmFails": 0, "TcpOutRsts": 0}


def test_a_worker_that_is_killed_takes_its_own_connections_along_and_no_others(pair: Daemon, connect: Callable[..., list[Flow]]) -> None:
    """Under load: the others never notice, its own are reset when their peers send on, and another serves in its place."""
    flows = connect(40)
    owners = workers_of(pair)
    victim = min(owners.values())
    stop = threading.Event()
    threads = [threading.Thread(target=flow.be_busy, args=(stop,)) for flow in flows]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(listening(pair) - {victim}) == 2)
    for flow in connect(20):
        flow.echo()
    until(lambda: all(flow.error is not None for flow in flows if owners[flow.port] == victim))
    stop.set()
    for thread in threads:
        thread.join(TIMEOUT)
    for flow in flows:
        if owners[flow.port] == victim:
            assert isinstance(flow.error, ConnectionResetError)
        else:
            assert flow.error is None and flow.rounds > 10
    assert len(set(workers_of(pair).values())) == 2
    output = pair.stop()
    assert output.count("was killed by SIGKILL; another takes its place") == 1


def test_what_was_set_while_it_runs_holds_for_the_next_worker(start_daemon: Callable[..., Daemon]) -> None:
    """M-62. A limit of the whole program is read as it was set."""
    daemon = start_daemon("--workers", "2")
    tunstack(daemon, "sysctl", "-w", "net.ipv4.ip_default_ttl=33", "net.ipv4.tcp_max_orphans=77")
    before = listening(daemon)
    for process in before:
        os.kill(process, signal.SIGKILL)
    until(lambda: len(listening(daemon) - before) == 2)
    assert " ttl=33 " in daemon.namespace.run(f"ping -c 1 {ADDRESS}").stdout
    assert tunstack(daemon, "sysctl", "net.ipv4.tcp_max_orphans") == "net.ipv4.tcp_max_orphans = 77\n"


def test_a_thousand_connections_while_workers_die(start_daemon: Callable[..., Daemon], namespace: Namespace) -> None:
    """Each connects and is served, or is reset; nobody hangs, and the interface stays."""
    daemon = start_daemon("--workers", "3")
    processes = sorted(listening(daemon))
    outcome: Counter[str] = Counter()
    with namespace.entered():
        for number in range(1000):
            if number in (100, 300, 305, 700):
                os.kill(processes.pop(), signal.SIGKILL)
            if number in (290, 690):
                until(lambda: len(listening(daemon)) == 3)
                processes = sorted(listening(daemon))
            try:
                with socket.create_connection((ADDRESS, ECHO), TIMEOUT) as connection:
                    Flow(connection).echo()
                outcome["served"] += 1
            except ConnectionError:
                outcome["reset"] += 1
    assert outcome["served"] >= 990
    until(lambda: len(listening(daemon)) == 3)
    daemon.stop()


def test_cookies_of_a_worker_that_died_are_honoured_by_the_next(start_daemon: Callable[..., Daemon]) -> None:
    """M-26: the handshake of a flow stays with one worker; its successor has the same secret. Scapy plays the client."""
    need("nft")
    daemon = start_daemon("--workers", "2", "--sysctl", "net.ipv4.tcp_syncookies=2")
    before = listening(daemon)
    script = f"""
import os, sys
from scapy.all import IP, TCP, conf, sr1, send
conf.verb = 0
syn = IP(dst={ADDRESS!r}) / TCP(sport=45678, dport={ECHO}, seq=1000, options=[("MSS", 1460)])
answer = sr1(syn, timeout=5)
print("cookie", flush=True)
sys.stdin.readline()
data = IP(dst={ADDRESS!r}) / TCP(sport=45678, dport={ECHO}, seq=1001, ack=answer.seq + 1, flags="PA") / b"hello"
got = sr1(data, timeout=5)
print(got[TCP].flags, flush=True)
"""
    rules = "table ip t { chain out { type filter hook output priority 0; tcp sport 45678 tcp flags & rst == rst drop; }; }"
    daemon.namespace.run(["nft", "-f", "-"], input=rules)  # the kernel knows nothing of a connection
    client = daemon.namespace.popen([*TUNSTACK[:1], "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None and client.stdin is not None
    assert client.stdout.readline() == "cookie\n"
    for process in before:
        os.kill(process, signal.SIGKILL)
    until(lambda: len(listening(daemon) - before) == 2)
    client.stdin.write("\n")
    client.stdin.flush()
    assert "R" not in client.stdout.readline()
    assert nstat(daemon, "TcpExtSyncookiesRecv", "TcpPassiveOpens") == {"TcpExtSyncookiesRecv": 1, "TcpPassiveOpens": 1}


def test_workers_end_with_their_supervisor(start_daemon: Callable[..., Daemon]) -> None:
    """Also when it is killed: nothing is left, the interface neither."""
    daemon = start_daemon("--workers", "2")
    workers = listening(daemon)
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not any(Path(f"/proc/{process}").exists() for process in workers))
    until(lambda: daemon.namespace.links() == [])


def test_one_signal_ends_all_and_a_second_one_hurries(start_daemon: Callable[..., Daemon], connect: Callable[..., list[Flow]]) -> None:
    daemon = start_daemon("--workers", "2", "--drain-timeout", "60")
    flows = connect(20)
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    for flow in flows:
        flow.echo()  # it drains
    output = daemon.stop()
    assert output.count("ending; connections that are open") == 2
    for flow in flows:
        with pytest.raises(ConnectionError):
            flow.echo()


def test_a_worker_that_cannot_start_is_one_line_and_the_end(namespace: Namespace, tmp_path: Path) -> None:
    """What is wrong is found by the workers here: the file is run once root is given up."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("raise ValueError('not today')\n")
    command = [*TUNSTACK, "serve", "--workers", "2", "--control", "none", "--congestion", f"{wrong}:Mine"]
    done = namespace.run(command, check=False)
    assert done.returncode == 2
    assert done.stdout == f"tunstack: --congestion: {wrong}:1: ValueError: not today\n"
    assert namespace.links() == []


def test_an_interface_that_goes_away_ends_it(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon("--workers", "2")
    daemon.namespace.run("ip link del tunstack0")
    output, _ = daemon.process.communicate(timeout=TIMEOUT)
    assert daemon.process.returncode == 1
    assert b"interface tunstack0 is gone" in output and b"Traceback" not in output


class TestPersistentInterface:
    """One that an administrator made."""

    def make(self, namespace: Namespace, flags: str) -> None:
        namespace.run(f"ip tuntap add dev tunstack0 mode tun {flags}")
        namespace.run("ip address add 10.77.0.1/24 dev tunstack0")
        namespace.run("ip link set tunstack0 up")

    def test_with_several_queues_it_is_used_and_given_back(self, namespace: Namespace, start_daemon: Callable[..., Daemon]) -> None:
        self.make(namespace, "multi_queue")
        for number in (2, 1):
            daemon = start_daemon("--workers", str(number))
            assert daemon.status()["services"]["echo"] == ECHO
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.communicate(timeout=TIMEOUT)
            assert daemon.process.returncode == 0
        features = namespace.run("ethtool -k tunstack0", check=False).stdout
        assert "tx-tcp-segmentation: on" not in features

    def test_with_one_queue_it_is_refused(self, namespace: Namespace) -> None:
        self.make(namespace, "")
        done = namespace.run([*TUNSTACK, "serve", "--workers", "2", "--control", "none"], check=False)
        assert done.returncode == 2
        assert done.stdout.startswith("tunstack: interface tunstack0 was made with one queue: make it anew with `ip tuntap add")
        assert done.stdout.count("\n") == 1


def test_the_kernel_follows_our_rule(namespace: Namespace) -> None:
    """The program and the Python of the rule say the same: SYNs of many flows come to their owners; what has no ports goes by addresses."""
    with namespace.entered():
        queues = TunDevice.open_queues(3, addresses=[socket.inet_aton(ADDRESS)])
    handovers = Handovers(3)
    try:
        assert queues[0].steer(handovers.steering)
        with ExitStack() as cleanup, namespace.entered():
            for _ in range(150):
                client = cleanup.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((ADDRESS, 80))
        seen: Counter[int] = Counter()
        for index, queue in enumerate(queues):
            while segments := queue.read_batch().segments:
                assert {handovers.steering.owner(seg.flow) for seg in segments} == {index}
                seen[index] += len(segments)
        assert set(seen) == {0, 1, 2} and seen.total() >= 150
        namespace.run(f"ping -c 1 -W 1 -s 4000 {ADDRESS}", check=False)
        assert sorted(len(queue.read_batch().packets) for queue in queues) == [0, 0, 3]
    finally:
        handovers.close()
        for queue in reversed(queues):
            queue.close()
