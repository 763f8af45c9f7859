"""nmap looks at us as it looks at Linux: ports, sequence prediction, and every answer by which it tells systems apart."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from interop.daemons import ADDRESS, Daemon, need
from interop.namespaces import Namespace

pytestmark = pytest.mark.root

OPEN, CLOSED, FILTERED = 80, 79, 82
RMEM = "4096 131072 6291456"  # tcp_rmem, from which the window scale is derived; kernels differ in its default
# What the kernel decides by chance, or otherwise in one version than in another: the spread of the ISNs (which has a test of its own)
# and of the timestamps, of which the offset belongs to the host in some versions and to the connection in others.
BY_CHANCE = {"SP", "GCD", "ISR", "TS"}

SERVER = f"""
import socket
listener = socket.create_server(("", {OPEN}))
while True:
    listener.accept()[0].close()
"""


def scan(namespace: Namespace) -> ET.Element:
    """Return nmap's report on ADDRESS: three ports, packets of one of which the machine of nmap drops, and the system."""
    # -d: it shows the fingerprint, too, of a scan that was too slow to be sent in.
    command = f"nmap -d -n -Pn -sS -O --osscan-guess --max-os-tries 1 --send-ip -p {CLOSED},{OPEN},{FILTERED} -oX - {ADDRESS}"
    report = ET.fromstring(namespace.run(command, timeout=120, stderr=subprocess.DEVNULL).stdout)
    host = report.find("host")
    assert host is not None
    return host


def fingerprint(host: ET.Element) -> dict[str, dict[str, str]]:
    """Return each probe's answers by their names: {"T1": {"R": "Y", "DF": "Y", ...}, ...}."""
    found = host.find("os/osfingerprint")
    assert found is not None
    text = found.attrib["fingerprint"].replace("\nOS:", "").replace("\n", "").removeprefix("OS:")
    probes = {}
    for probe in text.rstrip(")").split(")"):
        name, _, answers = probe.partition("(")
        probes[name] = dict(answer.split("=", 1) for answer in answers.split("%"))
    return probes


def steady(probes: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Leave out what is by chance, and what is about the scan itself."""
    return {
        name: {key: value for key, value in answers.items() if key not in BY_CHANCE} for name, answers in probes.items() if name != "SCAN"
    }


def drop_filtered(namespace: Namespace) -> None:
    """Have the machine of nmap drop its packets to one port."""
    namespace.run(["nft", f"table ip t {{ chain o {{ type filter hook output priority 0; tcp dport {FILTERED} drop; }}; }}"])


def linux(make_namespace: Callable[[], Namespace]) -> Namespace:
    """Return a namespace from which Linux is seen at ADDRESS."""
    here, there = make_namespace(), make_namespace()
    drop_filtered(here)
    here.run(f"ip link add v0 type veth peer name v1 netns {there.name}")
    for namespace, name, address in ((here, "v0", "10.77.0.1"), (there, "v1", ADDRESS)):
        namespace.run(f"ip addr add {address}/24 dev {name}")
        namespace.run(f"ip link set {name} up")
    there.run(["sysctl", "-qw", f"net.ipv4.tcp_rmem={RMEM}"])
    there.popen([sys.executable, "-c", SERVER])
    return here


def test_nmap_sees_what_it_sees_of_linux(make_namespace: Callable[[], Namespace], start_daemon: Callable[..., Daemon]) -> None:
    """M-05, M-08, M-10: ports told rightly, ISNs not to be predicted, and each of its probes answered as the kernel answers it."""
    need("nmap", "nft")
    daemon = start_daemon("--sysctl", f"net.ipv4.tcp_rmem={RMEM}")
    drop_filtered(daemon.namespace)
    host = scan(daemon.namespace)
    states = {int(port.attrib["portid"]): port.find("state").attrib["state"] for port in host.iterfind("ports/port")}  # type: ignore[union-attr]
    assert states == {OPEN: "open", CLOSED: "closed", FILTERED: "filtered"}
    prediction = host.find("tcpsequence")
    assert prediction is not None and prediction.attrib["difficulty"] == "Good luck!", prediction
    guesses = [match.attrib["name"] for match in host.iterfind("os/osmatch")]
    assert guesses and guesses[0].startswith("Linux"), guesses
    ours = steady(fingerprint(host))
    beside = linux(make_namespace)
    for _ in range(3):  # again, if the machine was too busy for a probe's answer to come in time
        theirs = steady(fingerprint(scan(beside)))
        if ours == theirs:
            break
        ours = steady(fingerprint(scan(daemon.namespace)))
    assert ours == theirs
    assert daemon.stop().splitlines() == ["tunstack: INFO: ending; connections that are open: 0"]
