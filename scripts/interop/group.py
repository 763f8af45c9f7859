"""One setting of the matrix in a process and a network namespace of its own: tunstack on a TUN, Linux behind it, all loads at once.

Both ends live in this process, which is inside the namespace: Linux's are kernel sockets, ours are on an endpoint of the library. What
was negotiated is read off the kernel's end of every connection, by TCP_INFO (what `ss -ti` prints), and off ours. The namespace has no
name and goes with the process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import uvloop
from cells import Cell, Negotiated, Setting
from loads import LOADS, Load, Sizes, WrongData, sizes
from shared import Namespace

from tunstack.aio import Endpoint
from tunstack.device.base import Device
from tunstack.device.linkdevice import LinkDevice
from tunstack.device.linkspec import parse
from tunstack.device.realclock import RealClock
from tunstack.device.tun import TunDevice
from tunstack.engine import pack_address
from tunstack.engine.connection import Connection
from tunstack.engine.sysctl import Sysctl

LINUX, OURS = "10.77.0.1", "10.77.0.2"
FIRST_PORT = 5000
# Everything that can go wrong with a frame, both ways, and a bottleneck that marks CE; about one frame in thirty is hit.
LOSSY = "delay=2ms,jitter=500us,loss=1%,dup=1%,reorder=1%/3,corrupt=0.5%,rate=100mbit,queue=300,ecn=5"
REST_POLL = 0.05  # s
TIME_WAIT, LISTEN = "06", "0A"  # states in /proc/net/tcp
TCPI_OPTIONS, TCPI_WSCALES, TCP_INFO_LENGTH = 5, 6, 8  # offsets in struct tcp_info, <linux/tcp.h>
TCPI_OPT_TIMESTAMPS, TCPI_OPT_SACK, TCPI_OPT_WSCALE, TCPI_OPT_ECN = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended. `error` is None when all is well; `detail` is what both ends knew of the connections."""

    cell: Cell
    seconds: float
    error: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Total:
    """What the link of a setting did to frames, both directions."""

    counts: dict[str, int]


Report = Callable[[Outcome | Total], None]


class Mismatch(Exception):
    """Another thing was negotiated than what was asked for."""


def run(setting: Setting, cells: Iterable[Cell], limit: float, seed: int, fast_path: bool, report: Report) -> None:
    """Run the cells, all at once; never returns without a report of each."""
    with Namespace() as namespace:
        namespace.enter()
        namespace.set_sysctl("ipv4/tcp_congestion_control", "reno")
        knobs = setting.linux
        namespace.set_sysctl("ipv4/tcp_sack", str(int(knobs.sack)))
        namespace.set_sysctl("ipv4/tcp_timestamps", str(int(knobs.timestamps)))
        namespace.set_sysctl("ipv4/tcp_window_scaling", str(int(knobs.window_scaling)))
        namespace.set_sysctl("ipv4/tcp_ecn", str(knobs.ecn))
        namespace.set_sysctl("ipv4/tcp_ecn_fallback", "0")  # a SYN that is lost must not change what is negotiated
        device: Device = TunDevice.open(
            host_address=f"{LINUX}/24", addresses=(pack_address(OURS),), mtu=int(setting.mtu), offload=setting.offload
        )
        link = None
        if setting.is_lossy:
            device = link = LinkDevice(device, *parse(LOSSY).directions(seed), RealClock())
        uvloop.run(_run_cells(Endpoint(device, OURS, sysctl=our_sysctl(setting), fast_path=fast_path), list(cells), limit, report))
        if link is not None:
            counts = link.forward.counts()
            report(Total({name: count + link.backward.counts()[name] for name, count in counts.items()}))


def our_sysctl(setting: Setting) -> Sysctl:
    """Return our knobs for a setting."""
    ours = setting.ours
    return Sysctl(
        tcp_sack=ours.sack, tcp_timestamps=ours.timestamps, tcp_window_scaling=ours.window_scaling, tcp_ecn=ours.ecn, tcp_ecn_fallback=False
    )


async def _run_cells(endpoint: Endpoint, cells: list[Cell], limit: float, report: Report) -> None:
    complaints: list[str] = []  # exceptions that reached nobody
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(_complaint(context)))
    async with endpoint:
        trials = [_Trial(endpoint, cell, FIRST_PORT + number, limit) for number, cell in enumerate(cells)]
        for next_done in asyncio.as_completed([trial.run() for trial in trials]):
            outcome = await next_done
            if complaints and outcome.error is None:
                outcome = Outcome(outcome.cell, outcome.seconds, f"unhandled in the same process: {complaints[0]}")
            report(outcome)


def _complaint(context: dict[str, Any]) -> str:
    return f"{context['message']}: {context.get('exception')!r}"


class _Trial:
    """One cell on a port of its own."""

    def __init__(self, endpoint: Endpoint, cell: Cell, port: int, limit: float) -> None:
        self._endpoint = endpoint
        self._cell = cell
        self._port = port
        self._limit = limit
        self._load: Load = LOADS[cell.load]
        self._sizes: Sizes = sizes(cell.setting.link, int(cell.setting.mtu))
        self._expected = cell.setting.negotiated(cell.role)
        self._shifts: set[tuple[int, int]] = set()  # window shifts, ours and Linux's, as either end has them
        self._stage = "to begin"  # what it waits for
        self._served: asyncio.Queue[BaseException | None] = asyncio.Queue()  # how each connection ended for the server

    async def run(self) -> Outcome:
        """Run it within the limit, and tell how it went."""
        begun = time.monotonic()
        work = asyncio.create_task(self._work())
        await asyncio.wait([work], timeout=self._limit)
        error = None
        if not work.done():
            error = f"stuck: waited {self._limit:g} s {self._stage}"
        elif failure := work.exception():
            error = "; ".join(dict.fromkeys(map(_text, _leaves(failure))))
        detail = self._detail() if error else ""  # before its connections are torn down
        work.cancel()
        await asyncio.wait([work])
        return Outcome(self._cell, time.monotonic() - begun, error, detail)

    async def _work(self) -> None:
        server = await self._listen()
        try:
            self._stage = "for the load"
            async with asyncio.TaskGroup() as tasks:
                for index in range(self._load.connections):
                    tasks.create_task(self._be_client(index))
                tasks.create_task(self._collect())
        finally:
            server.close()
        self._stage = "for both ends to be at rest"
        while not self._is_at_rest():
            await asyncio.sleep(REST_POLL)

    async def _listen(self) -> Any:
        if self._cell.role == "server":
            return await self._endpoint.start_server(self._be_server, OURS, self._port)
        return await asyncio.start_server(self._be_server, LINUX, self._port)

    async def _be_client(self, index: int) -> None:
        if self._cell.role == "client":
            reader, writer = await self._endpoint.open_connection(LINUX, self._port)
        else:
            reader, writer = await asyncio.open_connection(OURS, self._port)
        await self._be(reader, writer, self._cell.role == "client", self._load.client(reader, writer, index, self._sizes))

    async def _be_server(self, reader: Reader, writer: Writer) -> None:
        try:
            await self._be(reader, writer, self._cell.role == "server", self._load.server(reader, writer, self._sizes))
        except Exception as error:
            self._served.put_nowait(error)
        else:
            self._served.put_nowait(None)

    async def _be(self, reader: Reader, writer: Writer, is_ours: bool, work: Any) -> None:
        """Check what was negotiated, do the work of one end, and close."""
        try:
            if is_ours:
                self._check_ours(writer)
            else:
                self._check_linux(writer)
            await work
        except BaseException:
            work.close()
            writer.transport.abort()
            raise
        writer.close()
        await writer.wait_closed()

    async def _collect(self) -> None:
        for _ in range(self._load.connections):
            error = await self._served.get()
            if error is not None:
                raise error

    def _check_linux(self, writer: Writer) -> None:
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as kernel:
            info = kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_LENGTH)
        options = info[TCPI_OPTIONS]
        flags = (TCPI_OPT_SACK, TCPI_OPT_TIMESTAMPS, TCPI_OPT_WSCALE, TCPI_OPT_ECN)
        self._compare("Linux", Negotiated(*(bool(options & flag) for flag in flags)), info[TCPI_WSCALES] & 15, info[TCPI_WSCALES] >> 4)

    def _check_ours(self, writer: Writer) -> None:
        local, remote = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        ends = (pack_address(local[0]), local[1]), (pack_address(remote[0]), remote[1])
        conn = next(conn for conn in self._endpoint.stack.connections if (conn.local, conn.remote) == ends)
        info = conn.info()
        scaled = bool(info.snd_wscale or info.rcv_wscale)
        self._compare("ours", Negotiated(info.sack, info.timestamps, scaled, self._expected.ecn), info.rcv_wscale, info.snd_wscale)

    def _compare(self, end: str, found: Negotiated, our_wscale: int, linux_wscale: int) -> None:
        if found != self._expected:
            raise Mismatch(f"negotiated ({end}): {found}; asked for: {self._expected}")
        self._shifts.add((our_wscale, linux_wscale))
        if len(self._shifts) > 1 or (our_wscale > 0) != found.window_scaling or (linux_wscale > 0) != found.window_scaling:
            raise Mismatch(f"window shifts, ours and Linux's, as both ends have them: {sorted(self._shifts)}")

    def _is_at_rest(self) -> bool:
        """Whether neither end has more than TIME-WAIT on the port."""
        return not self._our_connections() and not any(state not in (TIME_WAIT, LISTEN) for state in self._linux_states())

    def _our_connections(self) -> list[Connection]:
        return [conn for conn in self._endpoint.stack.connections if self._port in (conn.local[1], conn.remote[1])]

    def _linux_states(self) -> Iterable[str]:
        port = f":{self._port:04X}"
        with open("/proc/thread-self/net/tcp") as table:
            for line in table:
                words = line.split()
                if words[1].endswith(port) or words[2].endswith(port):
                    yield words[3]

    def _detail(self) -> str:
        """Return what both ends know of the cell's connections."""
        lines = [f"ours {conn.local[1]} -> {conn.remote[1]}: {conn.info()}" for conn in self._our_connections()]
        with suppress(OSError, subprocess.SubprocessError):
            command = ["ss", "-Htnaieom", f"( sport = :{self._port} or dport = :{self._port} )"]
            lines += subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.splitlines()
        lines = [line.rstrip() for line in lines if line.strip()]
        return "\n".join(lines)


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, WrongData | Mismatch) else f"{type(error).__name__}: {error}"
