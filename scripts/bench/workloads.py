"""What is done with the endpoints, and which figures come of it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import metrics
import same_link
from endpoints import (
    ENDPOINTS,
    GVISOR,
    KERNEL,
    KERNEL_PLAIN,
    KERNEL_STREAMS,
    KERNEL_STREAMS_PLAIN,
    LIMIT_EVERY_SECOND,
    LIMIT_PLAIN,
    LWIP,
    MITMPROXY,
    PYTCP,
    SERVER_ADDRESS,
    TUNSTACK,
    TUNSTACK_STREAMS,
    TUNSTACK_STREAMS_PLAIN,
    Endpoint,
    Running,
    Setting,
)
from latency import Latencies
from processes import CpuTime, Process, ProcessError, machine_busy
from results import Metric, Sample
from same_link import LINUX, Arrangement, Conditions

from tunstack.daemon import benchservices

# Connections of one measurement: connect(2) prefers the ports of one parity, and has to search once all of those are in TIME-WAIT.
CONNECTIONS_MAX = 28_000
STALL_TIMEOUT = 15.0  # s without a line from the client beyond its own window
IDLE_CONNECTIONS = 10_000  # enough for memory to be taken in pieces of 1 MiB
IDLE_SECONDS = 10.0  # in which they are opened, or as many as go


class Named(Protocol):
    """What takes turns under a workload."""

    @property
    def name(self) -> str: ...

    @property
    def base(self) -> str: ...  # the name of that which it is compared with; nothing: the kernel's


@dataclass(frozen=True, slots=True)
class Manner:
    """How everything is to be measured."""

    client: Path
    congestion: str
    seconds: float
    warmup: float
    profile: Path | None = None  # where a tunstack leaves cProfile's statistics


@dataclass(frozen=True)
class Workload(ABC):
    """What is done; `headlines` are the names of the metrics that stand in the table of all workloads."""

    name: str
    about: str
    metrics: tuple[Metric, ...]
    endpoints: Sequence[Named]
    headlines: tuple[str, ...]
    other_runs: int = field(default=2, kw_only=True)  # in which endpoints are measured that no target names

    def obstacle(self) -> str:
        """Return what keeps it from being run here; nothing, if nothing does."""
        return ""

    @abstractmethod
    def measure(self, endpoint: Named, run: int, manner: Manner) -> tuple[dict[str, Any], Sample]:
        """Measure once; return (what the server said about itself, the sample). ProcessError says what went wrong."""


@dataclass(frozen=True)
class ClientWorkload(Workload):
    """A server and the C client, whose arguments say what it does."""

    port: int
    arguments: tuple[str, ...]
    cpus: int = 0  # that the two ends share; 0: as the scheduler likes
    seconds: float = 0.0  # of the window; 0: as everywhere

    def obstacle(self) -> str:
        return f"needs {self.cpus} CPUs" if self.cpus > len(os.sched_getaffinity(0)) else ""

    def _places(self) -> tuple[frozenset[int] | None, frozenset[int] | None]:
        """Return the CPUs of server and client; None: any."""
        if not self.cpus:
            return None, None
        cpus = sorted(os.sched_getaffinity(0))
        return frozenset(cpus[:1]), frozenset(cpus[self.cpus - 1 : self.cpus])

    def measure(self, endpoint: Named, run: int, manner: Manner) -> tuple[dict[str, Any], Sample]:
        assert isinstance(endpoint, Endpoint)
        seconds = self.seconds or manner.seconds
        server_cpus, client_cpus = self._places()
        with endpoint.start(Setting(manner.congestion, server_cpus, manner.profile)) as running:
            arguments = [os.fspath(manner.client), "-t", f"{seconds:g}", "-w", f"{manner.warmup:g}", "-c", manner.congestion]
            arguments += ["-l", str(CONNECTIONS_MAX), *self.arguments, SERVER_ADDRESS, str(self.port)]
            try:
                return running.facts, _watch(arguments, running, client_cpus, seconds, manner.warmup)
            except ProcessError as error:
                complaint = running.server.complaint()
                raise ProcessError(f"{error}{complaint and '; server' + complaint}") from None


def _watch(arguments: list[str], running: Running, cpus: frozenset[int] | None, seconds: float, warmup: float) -> Sample:
    """Run the client; return its record, with what the server took between its begin and end."""
    with Process(arguments, running.client, cpus) as client:
        client.expect("begin", warmup + STALL_TIMEOUT)
        server, busy, resident = running.server.cpu_time(), machine_busy(), running.server.resident()
        client.expect("end", seconds + STALL_TIMEOUT)
        server, busy = running.server.cpu_time() - server, machine_busy() - busy
        resident_after = running.server.resident()
        sample = client.record(STALL_TIMEOUT)
    both = CpuTime(server.user + sample["client_user_s"], server.system + sample["client_system_s"])
    sample |= {
        "server_user_s": round(server.user, 6),
        "server_system_s": round(server.system, 6),
        # What neither of the two ends took: other people's processes, and the kernel's threads.
        "others_s": round(max(busy - both.user - both.system, 0.0), 6),
        "resident_before": resident,
        "resident_after": resident_after,
    }
    if pairs := sample.pop("latencies_ns", None):
        latencies = Latencies()
        latencies.record(pairs)
        sample |= {f"{metrics.percentile_name(p)}_us": latencies.percentile(p) for p in metrics.PERCENTILES}
        sample |= {"longest_us": latencies.longest(), "histogram": latencies.encode()}
    return sample


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ends of the emulated link."""

    arrangement: Arrangement
    base: str = ""

    @property
    def name(self) -> str:
        return str(self.arrangement).replace("-", " to ").replace("linux", "Linux")


@dataclass(frozen=True)
class LinkWorkload(Workload):
    """Connections over our own emulated link, Linux or tunstack at either end."""

    conditions: Conditions
    congestion: str
    flows: int
    seconds: float

    def obstacle(self) -> str:
        known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
        return "" if self.congestion in known else f"this kernel has no {self.congestion}: modprobe tcp_{self.congestion}"

    def measure(self, endpoint: Named, run: int, manner: Manner) -> tuple[dict[str, Any], Sample]:
        assert isinstance(endpoint, Pair)
        # The seed is the run's: the same packets are lost, whoever sends them.
        return {}, same_link.measure(endpoint.arrangement, self.conditions, self.congestion, self.flows, self.seconds, run)


# What counts is not the link's offload where segments are small anyway: the kernel needs to be measured once only.
BULKY_ONLY = (KERNEL_PLAIN, KERNEL_STREAMS_PLAIN, TUNSTACK_STREAMS_PLAIN, LIMIT_PLAIN, LIMIT_EVERY_SECOND)
SMALL = tuple(endpoint for endpoint in ENDPOINTS if endpoint not in BULKY_ONLY)
SENDING = tuple(endpoint for endpoint in ENDPOINTS if endpoint is not LIMIT_EVERY_SECOND)
# The limit knows but one connection.
MANY = (KERNEL, TUNSTACK, GVISOR, KERNEL_STREAMS, TUNSTACK_STREAMS, LWIP, MITMPROXY)
IDLE = (KERNEL, TUNSTACK, GVISOR, KERNEL_STREAMS, TUNSTACK_STREAMS, LWIP, MITMPROXY, PYTCP)
LINUX_TO_LINUX = Pair(same_link.BASE)
PAIRS = (LINUX_TO_LINUX, *(Pair(one, LINUX_TO_LINUX.name) for one in same_link.ARRANGEMENTS if {one.sender, one.receiver} != {LINUX}))

LOSSY = Conditions(loss=0.1, rtt=10.0, rate=1000.0)

WORKLOADS: tuple[Workload, ...] = (
    ClientWorkload(
        "up", "bulk transfer to the server, one connection",
        metrics.BULK, ENDPOINTS, ("throughput",), benchservices.SINK_PORT, ("up",),
    ),
    ClientWorkload(
        "down", "bulk transfer from the server, one connection",
        metrics.BULK, SENDING, ("throughput",), benchservices.SOURCE_PORT, ("down",),
    ),
    ClientWorkload(
        "ping", "one octet to and fro, a CPU for each end",
        metrics.PING, SMALL, ("p50", "p99"), benchservices.ECHO_PORT, ("ping",), cpus=2,
    ),
    ClientWorkload(
        "ping on one CPU", "the same, both ends on one CPU",
        metrics.PING, SMALL, ("p50",), benchservices.ECHO_PORT, ("ping",), cpus=1,
    ),
    ClientWorkload(
        "connect", "connect, 100 octets to and fro, close; one at a time",
        metrics.CONNECT, SMALL, ("connections",), benchservices.ECHO_PORT, ("connect",),
    ),
    ClientWorkload(
        "connect x 32", "the same, 32 at a time",
        metrics.CONNECT, SMALL, ("connections",), benchservices.ECHO_PORT, ("-n", "32", "connect"),
    ),
    ClientWorkload(
        "1000 up", "bulk transfer to the server, 1,000 connections at once",
        metrics.MANY, MANY, ("throughput", "Jain's index"), benchservices.SINK_PORT, ("-n", "1000", "many-up"), seconds=2.0,
        other_runs=1,
    ),
    ClientWorkload(
        "1000 down", "bulk transfer from the server, 1,000 connections at once",
        metrics.MANY, MANY, ("throughput", "Jain's index"), benchservices.SOURCE_PORT, ("-n", "1000", "many-down"), seconds=2.0,
        other_runs=1,
    ),
    ClientWorkload(
        "idle", f"what each of {IDLE_CONNECTIONS:,} idle connections takes of the server's process (the kernel's own memory not counted)",
        metrics.IDLE, IDLE, ("resident",), benchservices.IDLE_PORT, ("-n", str(IDLE_CONNECTIONS), "idle"), seconds=IDLE_SECONDS,
        other_runs=1,
    ),
    LinkWorkload(
        "link x 16", "16 connections with cubic over `tunstack link` at 1 Gbit/s, 10 ms round trip, 0.1 % of the packets lost",
        metrics.LINK, PAIRS, (), LOSSY, "cubic", 16, 2.5,
    ),
    LinkWorkload("link, BBR", "the same with one connection and BBR", metrics.LINK, PAIRS, (), LOSSY, "bbr", 1, 2.5),
)  # fmt: skip
