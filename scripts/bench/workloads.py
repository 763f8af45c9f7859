"""What is done with a server, and which figures come of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protocols
from endpoints import ENDPOINTS, LIMIT_EVERY_SECOND, OFFLOADING, SERVER_ADDRESS, TUNSTACK_PLAIN, Endpoint, Running, Setting
from processes import CpuTime, Process, ProcessError, machine_busy
from results import Metric, Sample

# Connections of one measurement: connect(2) prefers the ports of one parity, and has to search once all of those are in TIME-WAIT.
CONNECTIONS_MAX = 28_000
STALL_TIMEOUT = 15.0  # s without a line from the client beyond its own window


@dataclass(frozen=True, slots=True)
class Workload:
    """What the client does; `cpus` is how many CPUs the two ends share, 0: as the scheduler likes."""

    name: str
    about: str
    port: int
    arguments: tuple[str, ...]
    metrics: tuple[Metric, ...]
    endpoints: tuple[Endpoint, ...]
    headlines: tuple[str, ...]  # names of the metrics that it is about
    cpus: int = 0


def _cpu(sample: Sample, end: str) -> float:
    return float(sample[f"{end}_user_s"] + sample[f"{end}_system_s"])


def _costs(count: str, unit: str, scale: float, digits: int) -> tuple[Metric, ...]:
    """CPU time for each of what was counted. Only the sum compares: on which end the kernel does the link's work is chance."""
    return (
        Metric("CPU of the server", unit, lambda sample: _cpu(sample, "server") * scale / sample[count], digits),
        Metric("CPU of the client", unit, lambda sample: _cpu(sample, "client") * scale / sample[count], digits),
        Metric("CPU of both", unit, lambda sample: (_cpu(sample, "server") + _cpu(sample, "client")) * scale / sample[count], digits),
    )


def _rate(count: str, scale: float) -> Callable[[Sample], float]:
    return lambda sample: float(sample[count] * scale / sample["seconds"])


BULK = (Metric("throughput", "Gbit/s", _rate("octets", 8e-9), 2), *_costs("octets", "s/GB", 1e9, 3))
PING = (
    Metric("p50", "us", lambda sample: float(sample["p50_us"]), 1),
    Metric("p99", "us", lambda sample: float(sample["p99_us"]), 1),
    *_costs("round_trips", "us/round trip", 1e6, 1),
)
CONNECT = (Metric("connections", "1/s", _rate("connections", 1), 0), *_costs("connections", "us/connection", 1e6, 1))
# Segments that are small anyway: whether the link offloads makes no difference, but to tunstack, of which there are two readers.
SMALL = (*OFFLOADING, TUNSTACK_PLAIN)
# Receives only as often as acknowledgements matter.
SENDING = tuple(endpoint for endpoint in ENDPOINTS if endpoint is not LIMIT_EVERY_SECOND)

WORKLOADS = (
    Workload("up", "bulk transfer to the server, one connection", protocols.SINK_PORT, ("up",), BULK, ENDPOINTS, ("throughput",)),
    Workload("down", "bulk transfer from the server, one connection", protocols.SOURCE_PORT, ("down",), BULK, SENDING, ("throughput",)),
    Workload("ping", "one octet to and fro, a CPU for each end", protocols.ECHO_PORT, ("ping",), PING, SMALL, ("p50", "p99"), 2),
    Workload("ping on one CPU", "the same, both ends on one CPU", protocols.ECHO_PORT, ("ping",), PING, SMALL, ("p50", "p99"), 1),
    Workload(
        "connect",
        "connect, 100 octets to and fro, close: one at a time",
        protocols.ECHO_PORT,
        ("connect",),
        CONNECT,
        SMALL,
        ("connections",),
    ),
    Workload("connect x 32", "the same, 32 at a time", protocols.ECHO_PORT, ("-n", "32", "connect"), CONNECT, SMALL, ("connections",)),
)


def placement(workload: Workload) -> tuple[frozenset[int] | None, frozenset[int] | None] | None:
    """Return the CPUs of server and client (None: any), or None if there are not enough of them."""
    cpus = sorted(os.sched_getaffinity(0))
    if workload.cpus > len(cpus):
        return None
    if not workload.cpus:
        return None, None
    return frozenset(cpus[:1]), frozenset(cpus[workload.cpus - 1 : workload.cpus])


def measure(
    client: Path, workload: Workload, endpoint: Endpoint, congestion: str, seconds: float, warmup: float, profile: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one measurement; return (what the server said about itself, the sample). ProcessError says what went wrong."""
    places = placement(workload)
    assert places is not None
    server_cpus, client_cpus = places
    with endpoint.start(Setting(congestion, server_cpus, profile)) as running:
        arguments = [os.fspath(client), "-t", f"{seconds:g}", "-w", f"{warmup:g}", "-c", congestion, "-l", str(CONNECTIONS_MAX)]
        arguments += [*workload.arguments, SERVER_ADDRESS, str(workload.port)]
        try:
            sample, server, busy = _watch(arguments, running, client_cpus, seconds, warmup)
        except ProcessError as error:
            complaint = running.server.complaint()
            raise ProcessError(f"{error}{complaint and '; server' + complaint}") from None
        both = CpuTime(server.user + sample["client_user_s"], server.system + sample["client_system_s"])
        sample["server_user_s"] = round(server.user, 6)
        sample["server_system_s"] = round(server.system, 6)
        # What neither of the two ends took: other people's processes, and the kernel's threads.
        sample["others_s"] = round(max(busy - both.user - both.system, 0.0), 6)
        return running.facts, sample


def _watch(
    arguments: list[str], running: Running, cpus: frozenset[int] | None, seconds: float, warmup: float
) -> tuple[dict[str, Any], CpuTime, float]:
    """Run the client; return its record, and the CPU time of the server and of the machine between its begin and end."""
    with Process(arguments, running.client, cpus) as client:
        client.expect("begin", warmup + STALL_TIMEOUT)
        server, busy = running.server.cpu_time(), machine_busy()
        client.expect("end", seconds + STALL_TIMEOUT)
        server, busy = running.server.cpu_time() - server, machine_busy() - busy
        return client.record(STALL_TIMEOUT), server, busy
