"""The two ends of a measurement of `tunstack bench`: processes in network namespaces of their own, which vanish with them.

The server is the same asyncio program under uvloop, on tunstack and a TUN interface or on kernel sockets behind a veth pair; the client has
blocking kernel sockets. Each answers over a pipe: the server ("ready", "") or ("error", why), the client ("sample", Sample) or the like.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tunstack.aio import open_tun
from tunstack.daemon import benchservices
from tunstack.daemon.host import loop_factory
from tunstack.device.netns import enter_new_namespace, entered

INTERFACE = "bench0"
CLIENT_ADDRESS, SERVER_ADDRESS, PREFIX = "10.77.0.1", "10.77.0.2", 24
REQUEST = bytes(100)
WARMUP = 0.3  # s
STALL = struct.pack("@ll", 5, 0)  # struct timeval: how long nothing may move
TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of a measurement: `count` octets, round trips or connections in `seconds`."""

    count: int
    seconds: float
    server_cpu: float  # s
    client_cpu: float
    latencies: tuple[int, ...] = ()  # ns, in ascending order


def run_end(work: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    """Be one of the two processes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is our parent's to answer
    try:
        work(pipe, *arguments)
    except Exception as error:
        pipe.send(("error", str(error) or type(error).__name__))


def congestion() -> str:
    """Return the congestion control of all ends: cubic, or else reno, which every kernel has. The system's own may be one that paces."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        except OSError:
            return "reno"
    return "cubic"


def _socket(algorithm: str) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    return made


# The server.


def serve(pipe: Connection, kind: str) -> None:
    """Serve on the TCP of a kind, `kernel` or `tunstack`, until the process is ended."""
    enter_new_namespace()
    with asyncio.Runner(loop_factory=loop_factory("uvloop")) as runner:
        runner.run((_serve_tunstack if kind == "tunstack" else _serve_kernel)(pipe))


async def _serve_kernel(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    algorithm = congestion()
    for port, protocol in benchservices.SERVICES:
        listener = _socket(algorithm)
        listener.bind(("0.0.0.0", port))
        await loop.create_server(protocol, sock=listener, backlog=benchservices.BACKLOG)
    pipe.send(("ready", ""))
    await asyncio.Event().wait()


async def _serve_tunstack(pipe: Connection) -> None:
    host = f"{CLIENT_ADDRESS}/{PREFIX}"
    async with open_tun(INTERFACE, host_address=host, address=SERVER_ADDRESS, congestion=congestion()) as endpoint:
        for port, protocol in benchservices.SERVICES:
            await endpoint.create_server(protocol, SERVER_ADDRESS, port, backlog=benchservices.BACKLOG)
        pipe.send(("ready", ""))
        await asyncio.Event().wait()


# The client.


def measure(pipe: Connection, kind: str, server: int, workload: str, seconds: float) -> None:
    """Measure a server, of which the process is given."""
    namespace = f"/proc/{server}/ns/net"
    if kind == "tunstack":
        with entered(namespace):
            sample = WORKLOADS[workload](_Window(server, seconds))
    else:
        enter_new_namespace()
        _join(server, namespace)
        sample = WORKLOADS[workload](_Window(server, seconds))
    pipe.send(("sample", sample))


def _join(server: int, namespace: str) -> None:
    """Lay a veth pair between our namespace and the server's."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    def set_up(route: Any, address: str) -> None:
        (index,) = route.link_lookup(ifname=INTERFACE)
        route.addr("add", index=index, address=address, prefixlen=PREFIX)
        route.link("set", index=index, state="up")

    with IPRoute() as route:
        route.link("add", ifname=INTERFACE, kind="veth", peer={"ifname": INTERFACE, "net_ns_pid": server})
        set_up(route, CLIENT_ADDRESS)
    with entered(namespace), IPRoute() as route:
        set_up(route, SERVER_ADDRESS)


class _Window:
    """The time in which is counted: from the end of the warm-up on, for so many seconds."""

    def __init__(self, server: int, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._started = time.monotonic()
        self._opened = 0.0  # 0: not yet
        self._server_cpu = self._client_cpu = 0.0
        self.congestion = congestion()
        self.count = 0
        self.latencies: list[int] = []

    @property
    def is_open(self) -> bool:
        return self._opened > 0

    def advance(self, count: int) -> bool:
        """Count what was done; return whether to go on."""
        now = time.monotonic()
        if not self._opened:
            if now - self._started >= WARMUP:
                self._opened, self._server_cpu, self._client_cpu = now, self._cpu_of_server(), time.process_time()
            return True
        self.count += count
        return now - self._opened < self._seconds

    def spread(self) -> None:
        """Give each end a processor of its own, where there are two: where the scheduler puts them makes all the difference."""
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._server, cpus[:1])
        os.sched_setaffinity(0, cpus[-1:])

    def sample(self) -> Sample:
        server, client = self._cpu_of_server() - self._server_cpu, time.process_time() - self._client_cpu
        return Sample(self.count, time.monotonic() - self._opened, server, client, tuple(sorted(self.latencies)))

    def _cpu_of_server(self) -> float:
        with open(f"/proc/{self._server}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS  # utime and stime, proc(5)


def _connect(window: _Window, port: int) -> socket.socket:
    connection = _socket(window.congestion)
    # Blocking, with the kernel keeping the time: one system call for each operation.
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, STALL)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.connect((SERVER_ADDRESS, port))
    return connection


def _up(window: _Window) -> Sample:
    chunk = bytes(benchservices.CHUNK)
    with _connect(window, benchservices.SINK_PORT) as connection:
        while window.advance(connection.send(chunk)):
            pass
        return window.sample()


def _down(window: _Window) -> Sample:
    buffer = bytearray(benchservices.CHUNK)
    with _connect(window, benchservices.SOURCE_PORT) as connection:
        while window.advance(_received(connection.recv_into(buffer))):
            pass
        return window.sample()


def _ping(window: _Window) -> Sample:
    window.spread()
    with _connect(window, benchservices.ECHO_PORT) as connection:
        while True:
            sent = time.perf_counter_ns()
            connection.send(b"x")
            _received(len(connection.recv(1)))
            took = time.perf_counter_ns() - sent
            if window.is_open:
                window.latencies.append(took)
            if not window.advance(1):
                return window.sample()


def _connections(window: _Window) -> Sample:
    while True:
        with _connect(window, benchservices.ECHO_PORT) as connection:
            connection.send(REQUEST)
            left = len(REQUEST)
            while left:
                left -= _received(len(connection.recv(left)))
        if not window.advance(1):
            return window.sample()


def _received(count: int) -> int:
    if not count:
        raise ConnectionError("the server closed the connection")
    return count


WORKLOADS: dict[str, Callable[[_Window], Sample]] = {"up": _up, "down": _down, "ping": _ping, "connect": _connections}
