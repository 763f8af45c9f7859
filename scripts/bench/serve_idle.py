"""The server of idle.py, on tunstack and a TUN interface under uvloop: bare asyncio protocols, and figures when it is asked.

Orders come on standard input, a line each, and are answered with a line of JSON: `figures` (of now, behind a full garbage collection),
`turns` (without one), `sweep` (every connection's keepalive timer is due at once; answered when each has probed and been answered).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

import uvloop

import tunstack.aio
from tunstack.daemon.collector import Collector
from tunstack.daemon.control import Control
from tunstack.daemon.metrics import Metrics
from tunstack.engine.options import SocketOptions
from tunstack.engine.sysctl import Sysctl

PORT = 5001
METRICS_PORT = 9191
BACKLOG = 4096
TICK = 0.001  # s between two looks at how long the loop takes to come round
SWEEP_TIMEOUT = 120.0  # s
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the octets of memory of this process that are in RAM."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Lateness:
    """The most CPU time for which the loop did not come round, since the last `reset`: what others on the machine take does not count."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.longest = 0.0
        self._last = time.process_time()
        self._tick()

    def reset(self) -> None:
        self.longest = 0.0
        self._last = time.process_time()

    def _tick(self) -> None:
        now = time.process_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._loop.call_later(TICK, self._tick)


class Orders:
    """Carries out what standard input says."""

    def __init__(self, endpoint: tunstack.aio.Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self._stack = endpoint.stack
        self._lateness = Lateness(loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = loop
        loop.add_reader(0, self._on_line)

    def _on_line(self) -> None:
        order = sys.stdin.readline().strip()
        if order == "figures":
            longest = self._lateness.longest
            cpu = time.process_time()
            gc.collect()
            self._say(collection_s=time.process_time() - cpu, longest_stop_s=longest, resident=resident(), cpu_s=cpu)
            self._lateness.reset()
        elif order == "turns":  # since the last such order; nothing is collected
            self._say(cpu_s=time.process_time(), longest_stop_s=self._lateness.longest, resident=resident())
            self._lateness.reset()
        elif order == "sweep":
            task = self._loop.create_task(self._sweep())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        stack = self._stack
        connections = list(stack.connections)
        stack.sysctl.tcp_keepalive_time = 1
        for conn in connections:
            conn.start_keepalive(conn.last_received_at)  # as TCP_KEEPIDLE does
        connections[0].mark_dirty()  # have the driver look at the new deadlines
        probes = stack.counters.TCPKeepAlive
        segments = stack.counters.TcpInSegs
        self._lateness.reset()
        cpu = time.process_time()
        started = time.monotonic()
        while stack.counters.TcpInSegs - segments < len(connections) and time.monotonic() - started < SWEEP_TIMEOUT:
            await asyncio.sleep(0.01)
        self._say(
            cpu_s=time.process_time() - cpu,
            seconds=time.monotonic() - started,
            longest_stop_s=self._lateness.longest,
            probes=stack.counters.TCPKeepAlive - probes,
            unanswered=sum(conn.keepalive_probes > 0 for conn in connections),
        )
        stack.sysctl.tcp_keepalive_time = 7200

    def _say(self, **figures: float) -> None:
        counters = self._stack.counters
        figures |= {"connections": sum(1 for _ in self._stack.connections), "accepted": counters.TcpPassiveOpens}
        print(json.dumps(figures), flush=True)


async def serve(host_address: str, address: str, keepalive: bool, plain_gc: bool, control: str | None) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    sysctl = Sysctl(tcp_congestion_control="cubic")
    endpoint = tunstack.aio.open_tun("bench0", host_address=host_address, address=address, sysctl=sysctl)
    async with endpoint, AsyncExitStack() as tools:
        if control is not None:
            await tools.enter_async_context(Control(control, endpoint))
            metrics = Metrics("127.0.0.1", METRICS_PORT)
            tools.push_async_callback(metrics.close)
            await metrics.start(endpoint)
        options = SocketOptions(nodelay=True, keepalive=keepalive)
        await endpoint.create_server(asyncio.Protocol, address, PORT, backlog=BACKLOG, options=options)
        if not plain_gc:
            Collector(lambda: len(endpoint.stack.flows)).start()
        Orders(endpoint, loop)
        print("{}", flush=True)
        await stopped.wait()
        endpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host_address", help="the kernel's address on the interface, with its prefix")
    parser.add_argument("address", help="ours")
    parser.add_argument("--no-keepalive", action="store_true", help="connections without SO_KEEPALIVE")
    parser.add_argument("--control", metavar="PATH", help="a control socket, and metrics on 127.0.0.1")
    parser.add_argument("--plain-gc", action="store_true", help="leave the garbage collector as Python has it")
    options = parser.parse_args()
    uvloop.run(serve(options.host_address, options.address, not options.no_keepalive, options.plain_gc, options.control))


if __name__ == "__main__":
    main()
