"""`tunstack ss`, `netstat` and `nstat` on a running daemon, beside Linux's own tools on the other end (M-60, M-61)."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from interop.daemons import ADDRESS, TUNSTACK, Daemon, need, random_file
from interop.namespaces import Namespace

from tunstack.cli import main
from tunstack.daemon.controlclient import ControlClient
from tunstack.device.tun import CLONE_DEVICE

pytestmark = pytest.mark.root

ECHO, DAYTIME, CHARGEN = 7, 13, 19
PATIENCE = 20.0  # s


class Bench:
    """A daemon with a control socket, and clients of it in its namespace."""

    def __init__(self, namespace: Namespace, path: Path, *flags: str) -> None:
        self.namespace = namespace
        self.control = path / "control.sock"
        self.history = path / "history"
        self.daemon = Daemon(namespace, "--control", str(self.control), *flags)

    def run(self, command: str, status: int = 0) -> str:
        """Run a command of ours against the daemon, in this process; return what it prints."""
        environment = {"TUNSTACK_CONTROL": str(self.control), "TUNSTACK_NSTAT_HISTORY": str(self.history)}
        with redirect_stdout(io.StringIO()) as output, mock.patch.dict(os.environ, environment):
            assert main(command.split()) == status
        return output.getvalue()

    def ss(self, options: str = "", status: int = 0) -> list[str]:
        return self.run(f"ss {options}", status).splitlines()

    def sockets(self, **params: object) -> list[dict[str, Any]]:
        """Ask for sockets without a command, which takes a Python's start."""
        with ControlClient(self.control) as client:
            return [dict(record) for record in client.stream("sockets", **params)]

    def has(self, state: str, timer: str | None = None) -> bool:
        """Tell whether a socket is in a state, and waits for a timer."""
        records = [record for record in self.sockets() if record["state"] == state]
        return any(timer is None or record.get("timer", {}).get("kind") == timer for record in records)

    def connect(self, port: int, data: bytes = b"", receive: int = 0) -> socket.socket:
        """Connect from the kernel's TCP, send, and receive so many octets."""
        with self.namespace.entered():
            client = socket.create_connection((ADDRESS, port), timeout=PATIENCE)
        client.sendall(data)
        while receive > 0:
            receive -= len(client.recv(min(receive, 65536)))
        return client


def wait_for(what: Callable[[], Any]) -> Any:
    """Return what it gives as soon as that is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


@pytest.fixture
def bench(namespace: Namespace, tmp_path: Path) -> Iterator[Bench]:
    """A daemon that nobody has talked to; without offload, where Linux counts packets."""
    made = Bench(namespace, tmp_path, "--no-offload")
    yield made
    made.daemon.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A daemon for tests that look at connections of their own."""
    if os.geteuid() != 0 or not os.path.exists(CLONE_DEVICE):
        pytest.skip(f"needs root and {CLONE_DEVICE}: makes a network namespace")
    namespace = Namespace()
    try:
        made = Bench(namespace, tmp_path_factory.mktemp("shared"), "--metrics", "9191")
        yield made
        made.daemon.close()
    finally:
        namespace.close()


def test_every_state_is_shown_while_it_lasts(bench: Bench) -> None:
    """M-60: listeners, and connections in the states that a client can hold them in; netstat has its own names for them."""
    established = bench.connect(ECHO, b"x", 1)
    full = bench.connect(CHARGEN)  # nobody reads: its window closes
    waiting = bench.connect(DAYTIME, receive=26)
    waiting.close()  # the daemon closed first
    lingering = bench.connect(DAYTIME, receive=26)  # the daemon closed, we do not
    ports = {client.getsockname()[1]: name for client, name in ((established, "E"), (full, "F"), (lingering, "L"))}
    wait_for(lambda: bench.has("FIN_WAIT_2") and bench.has("TIME_WAIT") and bench.has("ESTABLISHED", "persist"))
    lines = bench.ss("-tan")
    assert lines[0].split() == ["State", "Recv-Q", "Send-Q", "Local", "Address:Port", "Peer", "Address:Port", "Process"]
    shown = {ports.get(int(line.split()[4].rpartition(":")[2])): line.split() for line in lines[1:] if "LISTEN" not in line}
    assert shown["E"][:3] == ["ESTAB", "0", "0"]
    assert shown["F"][0] == "ESTAB" and int(shown["F"][2]) > 0
    assert shown["L"][0] == "FIN-WAIT-2"
    assert sum(line.startswith("LISTEN     0      1024") for line in lines) == 5
    states = Counter(line.split()[0] for line in lines[1:])
    assert states == {"LISTEN": 5, "ESTAB": 2, "FIN-WAIT-2": 1, "TIME-WAIT": 1}
    awk = "awk '/^tcp/ {++S[$NF]} END {for(a in S) print a, S[a]}'"
    table = bench.run("netstat -n")
    counted = bench.namespace.run(["sh", "-c", awk], input=table).stdout.splitlines()
    assert sorted(counted) == ["ESTABLISHED 2", "FIN_WAIT2 1", "TIME_WAIT 1"]
    # Timers, as both tools have them.
    timers = {line.split("timer:(")[1].split(",")[0] for line in bench.ss("-tano") if "timer:" in line}
    assert timers == {"persist", "timewait"}
    assert re.search(r"ESTABLISHED probe \(\d+\.\d\d/\d+/\d+\)", bench.run("netstat -nato"))
    # Without -a listeners and TIME-WAIT are left out; one state has no column of its own.
    assert {line.split()[0] for line in bench.ss("-tnH")} == {"ESTAB", "FIN-WAIT-2"}
    assert bench.ss("-tn state time-wait")[0].startswith("Recv-Q")
    assert bench.ss("-s")[1].startswith("TCP:   9 (estab 2, closed 1, ")
    for client in (established, full, lingering):
        client.close()


def test_owners_are_the_services(shared: Bench) -> None:
    """M-60: -p of both tools names service and process."""
    client = shared.connect(ECHO, b"x", 1)
    pid = shared.daemon.process.pid
    owners = [line.split()[-1] for line in shared.ss("-tlnp")[1:]]
    assert len(owners) == 5
    assert all(re.fullmatch(rf'users:\(\("(http|echo|discard|daytime|chargen)",pid={pid},fd=\d+\)\)', owner) for owner in owners)
    assert f"{pid}/echo" in shared.run("netstat -npt")
    assert shared.run("netstat -napt").splitlines()[1].split() == [
        *("Proto", "Recv-Q", "Send-Q", "Local", "Address", "Foreign", "Address", "State", "PID/Program", "name")
    ]
    client.close()


@pytest.mark.parametrize("options", ["-lntp", "-lntup", "-lnt4", "-lnt6", "-lnt46", "-lnA tcp,raw", "-lnx", "-ln -A tcp"])
def test_kinds_of_sockets_are_chosen_as_by_ss(shared: Bench, options: str) -> None:
    """M-60: which titles there are, and whether TCP is shown, is the kernel's: awk counts on the column."""
    need("ss")
    with shared.namespace.entered(), socket.create_server(("127.0.0.1", 0)):
        kernel = shared.namespace.run(f"ss {options}", stderr=subprocess.DEVNULL).stdout.splitlines()
    ours = shared.ss(options)
    assert ours[0].split() == kernel[0].split()
    assert any("LISTEN" in line and "0.0.0.0:*" in line for line in ours) == any("0.0.0.0:*" in line for line in kernel)


def details(text: str) -> dict[str, str]:
    """Parse what ss -i tells of a socket."""
    found = dict(re.findall(r"(\w+):(\S+)", text.replace(" send ", " send:").replace("_rate ", "_rate:")))
    found["words"] = " ".join(word for word in text.split() if ":" not in word)
    return found


def test_info_lines_up_with_the_kernels(shared: Bench) -> None:
    """M-60: tunstack ss -tin and the kernel's ss -tin on the two ends of one connection."""
    need("ss")
    size = 200_000
    client = shared.connect(ECHO, b"x" * size, size)
    time.sleep(0.3)  # the last delayed ACKs
    port = client.getsockname()[1]
    ours = details("\n".join(shared.ss(f"-tinoO dport = :{port}")[1:]))
    theirs = details(shared.namespace.run(f"ss -tinoOH sport = :{port}").stdout)
    assert ours["mss"] == theirs["mss"] == ours["rcvmss"] == "1448"
    assert ours["advmss"] == theirs["advmss"]
    assert ours["pmtu"] == theirs["pmtu"] == "1500"
    assert ours["wscale"].split(",") == theirs["wscale"].split(",")[::-1]
    for word in ("ts", "sack"):
        assert word in ours["words"].split() and word in theirs["words"].split()
    assert int(ours["bytes_received"]) == size == int(theirs["bytes_acked"]) - 1  # who connects counts its SYN
    assert int(theirs["bytes_received"]) == size == int(ours["bytes_acked"])
    assert int(ours["bytes_sent"]) - int(ours.get("bytes_retrans", 0)) == size
    resent = [int(end.get("retrans", "0/0").partition("/")[2]) for end in (ours, theirs)]
    assert (resent[0] > 0, resent[1] > 0) == ("bytes_retrans" in ours, "bytes_retrans" in theirs)
    assert int(ours["cwnd"]) >= 10
    assert int(theirs["cwnd"]) >= 10
    for end in (ours, theirs):
        srtt, _, deviation = end["rtt"].partition("/")
        assert 0 < float(srtt) < 1000
        assert 0 <= float(deviation) < 1000
        assert float(end["rto"]) >= 200
        assert 0 < float(end["minrtt"]) <= float(srtt) * 8
    # The windows that each end offers are those that the other knows.
    assert abs(int(ours["rcv_wnd"]) - int(theirs["snd_wnd"])) <= 1 << int(ours["wscale"].split(",")[1])
    client.close()


def test_a_socket_is_killed(shared: Bench) -> None:
    """M-60: ss -K shows what it closed; the peer hears RST, the listener is left."""
    client = shared.connect(ECHO, b"x", 1)
    other = shared.connect(ECHO, b"x", 1)
    port = client.getsockname()[1]
    killed = shared.ss(f"-tnK dport = :{port}")
    assert len(killed) == 2
    assert killed[1].split()[4] == f"10.77.0.1:{port}"
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert len(shared.ss("-tnH sport = :7")) == 1
    other.sendall(b"y")
    assert other.recv(1) == b"y"
    shared.connect(ECHO, b"z", 1).close()
    other.close()


def test_json_has_everything(shared: Bench) -> None:
    """M-60: -j is an array of objects; filters and states hold as in the table."""
    client = shared.connect(ECHO, b"x" * 100, 100)
    (record,) = json.loads(shared.run("ss -tjim sport = :7"))
    assert record["state"] == "ESTABLISHED"
    assert (record["local"], record["local_port"]) == (ADDRESS, ECHO)
    assert record["remote_port"] == client.getsockname()[1]
    assert record["info"]["bytes_acked"] == 100
    assert record["memory"]["rcvbuf"] > 0
    assert record["owner"]["name"] == "echo"
    assert json.loads(shared.run("ss -tj state time-wait")) == []
    client.close()


def exchange(bench: Bench) -> None:
    """A fixed exchange: echoes, a download, refused connections, resets, a closed window, pings, a datagram for nobody."""
    for _ in range(5):
        bench.connect(ECHO, b"x" * 100, 100).close()
    random_file(bench.daemon.root / "big", 1 << 20)
    download = bench.connect(80, b"GET /big HTTP/1.0\r\n\r\n", 1 << 20)
    while download.recv(65536):
        pass
    download.close()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            bench.connect(81)
    for _ in range(2):
        reset(bench.connect(ECHO, b"z", 1))
    stuffed = bench.connect(CHARGEN)
    wait_for(lambda: ask(bench, "counters")["TCPWinProbe"])
    reset(stuffed)
    bench.namespace.run(f"ping -q -c 3 -i 0.2 {ADDRESS}")
    with bench.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((ADDRESS, 5555))
        datagrams.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            datagrams.recv(1)
    wait_for(lambda: {record["state"] for record in bench.sockets()} <= {"LISTEN", "TIME_WAIT"})


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def kernel_counters(namespace: Namespace) -> dict[str, int]:
    return counters(namespace.run("nstat -asz").stdout)


def counters(table: str) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in table.splitlines()[1:]}


# What comes together is merged before these count, with us as behind Linux's GRO.
MERGED = (("IpInReceives", "IpOutTransmits"), ("IpInDelivers", "IpOutRequests"))
# What one end counts, and what the other counts of the same. Both ways, on a path that loses nothing, packet by packet.
SAME = (
    ("TcpInSegs", "TcpOutSegs + TcpRetransSegs"),
    ("IpExtInNoECTPkts", "IpOutTransmits"),
    ("IpExtInOctets", "IpExtOutOctets"),
    ("TcpPassiveOpens", "TcpActiveOpens - TcpAttemptFails"),
    ("IcmpInMsgs", "IcmpOutMsgs"),
    ("IcmpInEchos", "IcmpOutEchos"),
    ("IcmpInEchoReps", "IcmpOutEchoReps"),
    ("IcmpInDestUnreachs", "IcmpOutDestUnreachs"),
    ("UdpNoPorts", "UdpOutDatagrams"),
)


def total(names: str, values: dict[str, int]) -> int:
    """Return what an expression of sums and differences comes to."""
    signed = re.findall(r"([+-]?)\s*(\w+)", names)
    return sum(-values.get(name, 0) if sign == "-" else values.get(name, 0) for sign, name in signed)


def test_both_ends_count_the_same(bench: Bench) -> None:
    """M-61: after a fixed exchange, what one end sent the other received."""
    need("nstat")
    exchange(bench)
    time.sleep(0.3)
    kernel, ours = kernel_counters(bench.namespace), counters(bench.run("nstat -asz"))
    apart = {
        f"{who}: {left} = {right}": (total(left, here), total(right, there))
        for left, right in SAME
        for who, here, there in (("ours", ours, kernel), ("kernel's", kernel, ours))
        # Segments that we hand over whole are cut behind where Linux counts datagrams.
        if not (who == "kernel's" and left == "IpExtInNoECTPkts") and total(left, here) != total(right, there)
    }
    assert apart == {}
    for left, right in MERGED:
        assert 0 < ours[left] <= kernel[right]
    # What the exchange consists of.
    assert ours["TcpPassiveOpens"] == 9
    assert ours["TcpOutRsts"] == 3  # the refused
    assert ours["TcpEstabResets"] == kernel["TcpEstabResets"] == 3
    assert kernel["TcpAttemptFails"] == 3
    assert ours["TcpExtTCPWinProbe"] > 0
    assert kernel["TcpExtTCPToZeroWindowAdv"] > 0
    assert ours["IcmpOutEchoReps"] == 3
    assert ours["UdpNoPorts"] == 1
    assert ours["TcpExtTCPOrigDataSent"] >= (1 << 20) // 1448


def test_nstat_remembers(shared: Bench) -> None:
    """M-61: the second call tells only what grew since the first; -s does not remember, -a shows all, a pattern chooses."""
    shared.connect(ECHO, b"x", 1).close()
    assert counters(shared.run("nstat"))["TcpPassiveOpens"] >= 1
    shared.connect(ECHO, b"x", 1).close()
    shared.connect(ECHO, b"x", 1).close()
    assert counters(shared.run("nstat -s"))["TcpPassiveOpens"] == 2
    assert counters(shared.run("nstat TcpPassive*")) == {"TcpPassiveOpens": 2}
    assert counters(shared.run("nstat -z TcpPassive*")) == {"TcpPassiveOpens": 0}
    (every,) = counters(shared.run("nstat -as TcpPassive*")).values()
    assert every >= 3
    assert json.loads(shared.run("nstat -rj TcpPassive*")) == {"kernel": {"TcpPassiveOpens": every}}
    assert "TcpPassiveOpens" not in counters(shared.run("nstat"))


def fake_proc(values: dict[str, int], path: Path) -> None:
    """Make a directory look like /proc to netstat, with these counters."""
    (path / "net").mkdir(parents=True, exist_ok=True)
    for file, tables in (("snmp", ("Ip", "Icmp", "Tcp", "Udp")), ("netstat", ("TcpExt", "IpExt"))):
        lines = []
        for table in tables:
            names = [name for name in values if re.match(f"{table}(?!Ext)", name)]
            lines.append(" ".join([f"{table}:", *(name.removeprefix(table) for name in names)]))
            lines.append(" ".join([f"{table}:", *(str(values[name]) for name in names)]))
        (path / "net" / file).write_text("\n".join(lines) + "\n")


def test_netstat_s_is_what_net_tools_makes_of_the_same_counters(bench: Bench, tmp_path: Path) -> None:
    """M-61: net-tools' netstat reads our counters in place of the kernel's, and prints the same, letter by letter."""
    need("netstat", "unshare")
    exchange(bench)
    proc = tmp_path / "proc"
    while True:
        values = ask(bench, "snmp")["values"]
        ours = bench.run("netstat -s")
        if ask(bench, "snmp")["values"] == values:
            break
    fake_proc(values, proc)
    theirs = bench.namespace.run(["unshare", "-m", "sh", "-c", f"mount --bind {proc} /proc && exec netstat -s"]).stdout
    assert ours == theirs
    assert "passive connection openings" in theirs


def ask(bench: Bench, method: str, **params: object) -> dict[str, Any]:
    """Ask the control socket by hand: it is documented, and any language has JSON."""
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(bench.control))
        control.sendall(json.dumps({"version": 1, "id": 1, "method": method, "params": params}).encode() + b"\n")
        answer = json.loads(control.makefile("rb").readline())
    return answer.get("result") or answer


def test_the_control_socket_refuses_a_filter_that_is_none(shared: Bench) -> None:
    """M-60: the daemon does not trust its clients' parser."""
    error = ask(shared, "sockets", filter={"expression": "sport = :http or ("})["error"]
    assert error["code"] == "EINVAL"
    assert "filter" in error["message"]
    assert ask(shared, "kill", filter={"states": ["NOWHERE"]})["error"]["code"] == "EINVAL"
    assert ask(shared, "kill")["error"]["code"] == "params"  # without a filter it kills nothing


def test_prometheus_scrapes_the_daemon(shared: Bench) -> None:
    """M-61: on the machine's own address, not on the stack's."""
    shared.connect(ECHO, b"x", 1).close()
    with shared.namespace.entered():
        with urllib.request.urlopen("http://127.0.0.1:9191/metrics", timeout=PATIENCE) as answer:
            assert answer.headers.get_content_type() == "text/plain"
            text = answer.read().decode()
        request = urllib.request.Request("http://127.0.0.1:9191/metrics", headers={"Accept": "application/openmetrics-text"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.headers.get_content_type() == "application/openmetrics-text"
            assert answer.read().decode().endswith("# EOF\n")
    assert re.search(r"\ntunstack_tcp_passive_opens_total [1-9]", text)
    assert '\ntunstack_tcp_sockets{state="listen"} 5.0\n' in text
    assert '\ntunstack_tcp_accept_queue_limit{address="10.77.0.2",port="80",service="http"} 1024.0\n' in text


def test_metrics_on_a_port_that_is_taken_is_one_line(namespace: Namespace, tmp_path: Path) -> None:
    """M-61: told at the start, with status 2, and no interface is left."""
    with namespace.entered():
        taken = socket.create_server(("127.0.0.1", 9191))
    with taken:
        result = namespace.run([*TUNSTACK, "serve", "--metrics", "9191", "--control", str(tmp_path / "c")], check=False)
    assert result.returncode == 2
    assert result.stdout == "tunstack: metrics on 127.0.0.1:9191: Address already in use\n"
    assert namespace.links() == []
