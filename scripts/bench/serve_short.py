"""Server on tunstack for many short connections: it answers a request and closes first, so TIME-WAIT is its own. See --help."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import signal
import sys
from typing import cast

import uvloop

import tunstack.aio
from tunstack.engine.sysctl import Sysctl

BACKLOG = 4096
REQUEST = 100  # octets, client.c's


class Answer(asyncio.Protocol):
    """Sends the request back and closes; the FIN rides on the answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._missing = REQUEST

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)
        self._missing -= len(data)
        if self._missing <= 0:
            self._transport.close()


def resident() -> int:
    """Return the resident memory of this process, octets."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def serve(host_address: str, address: str, ports: list[int], buckets: int) -> None:
    """Serve until SIGTERM; for each line on standard input print a line of facts."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    sysctl = Sysctl(tcp_max_tw_buckets=buckets)
    endpoint = tunstack.aio.open_tun("bench0", host_address=host_address, address=address, sysctl=sysctl)
    async with endpoint:
        for port in ports:
            await endpoint.create_server(Answer, address, port, backlog=BACKLOG)

        def report() -> None:
            sys.stdin.readline()
            gc.collect()
            stack = endpoint.stack
            counters = stack.counters.as_dict()
            names = ("TcpPassiveOpens", "TW", "TWRecycled", "TCPTimeWaitOverflow", "ListenOverflows", "ListenDrops", "TcpEstabResets")
            facts = {
                "resident": resident(),
                "time_wait": len(stack.time_wait),
                "connections": sum(1 for _ in stack.connections),
                **{name: counters[name] for name in names},
            }
            print(json.dumps(facts), flush=True)

        loop.add_reader(0, report)
        print("ready", flush=True)
        await stopped.wait()
        loop.remove_reader(0)
        endpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host_address", help="the kernel's address on the interface, with its prefix")
    parser.add_argument("address", help="ours")
    parser.add_argument("buckets", type=int, help="tcp_max_tw_buckets")
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    uvloop.run(serve(options.host_address, options.address, options.ports, options.buckets))


if __name__ == "__main__":
    main()
