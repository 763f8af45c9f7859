"""Flows from A to B over one emulated link, where either end is the kernel's TCP or tunstack.

    Linux -> Linux        A: kernel ---------------- link0 ==== `tunstack link` ==== link0 ---------------- B: kernel
    tunstack -> Linux     A: tunstack - TUN - kernel link0 ==== `tunstack link` ==== link0 ---------------- B: kernel
    Linux -> tunstack     A: kernel ---------------- link0 ==== `tunstack link` ==== link0 kernel - TUN - B: tunstack

The link is the same process with the same settings and seed each time; a tunstack sits behind it on a TUN of its own in the namespace
of that end, whose kernel merely routes (some tens of microseconds). Data goes from A to B always, so that it meets the same draws. The
kernels cut segments to wire size before the link, whichever TCP made them, so that losses hit packets. Namespaces, link and ends are
new for every measurement: nothing is remembered of the last (routes, metrics, windows).
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namespaces import Namespace
from processes import Process, ProcessError, machine_busy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
A_ADDRESS, B_ADDRESS = "10.79.0.1", "10.79.0.2"  # the kernels' on the link
TUN_HOST, TUN_ADDRESS, TUN_NETWORK = "10.77.0.1/24", "10.77.0.2", "10.77.0.0/24"
START_TIMEOUT = 15.0  # s until a process is ready
STALL_TIMEOUT = 15.0  # s beyond its own time that an end may say nothing
MSS = 1448  # octets of data in a packet of 1500 with timestamps
FRAME = 1500
LINUX, TUNSTACK = "linux", "tunstack"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who sends and who receives."""

    sender: str
    receiver: str

    def __str__(self) -> str:
        return f"{self.sender}-{self.receiver}"


BASE = Arrangement(LINUX, LINUX)
ARRANGEMENTS = (BASE, Arrangement(TUNSTACK, LINUX), Arrangement(LINUX, TUNSTACK))


@dataclass(frozen=True, slots=True)
class Conditions:
    """A link's properties, both directions alike. Rate in Mbit/s, round trip in ms, loss in percent."""

    loss: float
    rtt: float
    rate: float

    @property
    def queue(self) -> int:
        """Frames that wait at the bottleneck at most: a bandwidth-delay product, and 100 at least."""
        return max(100, round(self.rate * 1000 * self.rtt / 8 / FRAME))

    def spec(self, seed: int) -> str:
        """Write it as `tunstack link` reads it."""
        loss = f"loss={self.loss:g}%," if self.loss else ""
        return f"delay={self.rtt / 2:g}ms,{loss}rate={self.rate:g}mbit,queue={self.queue},seed={seed}"


def measure(
    arrangement: Arrangement,
    conditions: Conditions,
    congestion: str,
    flows: int,
    seconds: float,
    seed: int,
    knobs: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run so many connections at once for so many seconds; return what came of it. ProcessError says what went wrong.

    `knobs`: the kernels' settings below net/, by name.
    """
    with ExitStack() as stack:
        a, b = (stack.enter_context(_namespace(knobs or {})) for _ in "ab")
        ends = [f"/proc/{os.getpid()}/fd/{end.fd}:link0" for end in (a, b)]
        addresses = ["--a-address", f"{A_ADDRESS}/24", "--b-address", f"{B_ADDRESS}/24"]
        command = [sys.executable, "-m", "tunstack", "link", "--a", ends[0], "--b", ends[1], *addresses, "--link", conditions.spec(seed)]
        link = stack.enter_context(Process(command, a))
        target = B_ADDRESS if arrangement.receiver == LINUX else TUN_ADDRESS
        receiver = stack.enter_context(_end("receive", target, arrangement.receiver, b, flows, seconds, congestion))
        sender = stack.enter_context(_end("send", target, arrangement.sender, a, flows, seconds, congestion))
        link.line(START_TIMEOUT)
        if arrangement.sender == TUNSTACK:
            sender.record(START_TIMEOUT)
            b.add_route(TUN_NETWORK, "link0")
        elif arrangement.receiver == TUNSTACK:
            a.add_route(TUN_NETWORK, "link0")
        if arrangement.sender == LINUX:
            sender.record(START_TIMEOUT)
        receiver.record(START_TIMEOUT)
        sender.say("go")
        begun, busy = time.monotonic(), machine_busy()
        used = [process.cpu_time() for process in (link, sender, receiver)]
        octets: list[int] = receiver.record(seconds + STALL_TIMEOUT)["octets"]
        took, busy = time.monotonic() - begun, machine_busy() - busy
        shares = []
        for process, before in zip((link, sender, receiver), used, strict=True):
            time_used = process.cpu_time() - before
            shares.append(round((time_used.user + time_used.system) / took, 3))
        (said,) = sender.last_words(STALL_TIMEOUT, 1)
        up, down = (_counts(line) for line in link.last_words(STALL_TIMEOUT, 2))
        if late := up["not read in time"] + down["not read in time"]:
            raise ProcessError(f"the link was too slow for the machine's load: {late} frames not read in time")
        return {
            "mbit": round(sum(octets) * 8e-6 / seconds / max(len(octets), 1), 4),
            "octets": octets,
            "sender": json.loads(said),
            "others": round(busy / took - sum(shares), 3),  # CPUs that everybody else took, the kernel's threads among them
            "cpu": dict(zip(("link", "sender", "receiver"), shares, strict=True)),
            "link": {"up": up, "down": down},
        }


def _namespace(knobs: Mapping[str, str]) -> Namespace:
    namespace = Namespace()
    ours = {
        "ipv4/ip_forward": "1",
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/default/rp_filter": "0",
        "ipv4/tcp_no_metrics_save": "1",
    }
    for name, value in (ours | dict(knobs)).items():
        namespace.set_sysctl(name, value)
    return namespace


def _end(role: str, target: str, kind: str, namespace: Namespace, flows: int, seconds: float, congestion: str) -> Process:
    arguments = [sys.executable, os.fspath(HERE / "flow_end.py"), role, target, "--flows", str(flows), "--seconds", f"{seconds:g}"]
    if role == "send":
        arguments += ["--congestion", congestion]
    if kind == TUNSTACK:
        arguments += ["--tun", TUN_HOST, TUN_ADDRESS]
    return Process(arguments, namespace)


def _counts(line: str) -> dict[str, int]:
    return {what: int(count) for count, what in re.findall(r"(\d+) ([a-z ]+)", line.rpartition(": ")[2])}
