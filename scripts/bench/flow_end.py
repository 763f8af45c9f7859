"""One end of the flows that side_by_side.py measures, on the kernel's TCP or on tunstack and a TUN: see --help.

It says {"ready": ...}; the receiver then waits for connections, the sender for a line on its standard input. The receiver ends with
the octets that each connection brought in the first so many seconds of its life; the sender, on SIGTERM, with what it sent. Both are
the same asyncio protocols under uvloop, whichever TCP carries them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from tunstack.aio import Endpoint, open_tun
from tunstack.daemon.benchservices import CHUNK, SINK_PORT, Source
from tunstack.engine.options import SocketOptions

TUN = "bench0"
NAMES = {"TcpOutSegs": "segments", "TcpRetransSegs": "retransmitted", "TCPTimeouts": "timeouts"}
# Given under Linux's own names.
EVIDENCE = ("TCPOrigDataSent", "TCPLossProbes", "TCPSackRecovery", "TCPSACKReorder", "TCPTSReorder")
UNDONE = ("TCPFullUndo", "TCPPartialUndo", "TCPDSACKUndo", "TCPLossUndo")
CONNECT_GRACE = 5.0  # s: connections that come later, because their SYNs were lost thrice, are not waited for


class Count(asyncio.BufferedProtocol):
    """Counts what arrives within `seconds` of the connection's first moment."""

    buffer = bytearray(CHUNK)  # nobody looks at it: all connections share it

    def __init__(self, seconds: float) -> None:
        self.octets = 0
        self._seconds = seconds
        self._until = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._until = time.monotonic() + self._seconds

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if time.monotonic() <= self._until:
            self.octets += nbytes

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until


async def receive(endpoint: Endpoint | None, options: argparse.Namespace) -> None:
    """Take the connections, and tell what each brought."""
    counts: list[Count] = []
    came = asyncio.Event()

    def factory() -> Count:
        counts.append(Count(options.seconds))
        came.set()
        return counts[-1]

    if endpoint is None:
        await asyncio.get_running_loop().create_server(factory, options.address, SINK_PORT, backlog=options.flows)
    else:
        await endpoint.start()
        await endpoint.create_server(factory, options.address, SINK_PORT, backlog=options.flows)
    say({"ready": True})
    await came.wait()
    latest = time.monotonic() + CONNECT_GRACE
    await asyncio.sleep(options.seconds)
    while not all(count.is_over for count in counts) or (len(counts) < options.flows and time.monotonic() < latest):
        await asyncio.sleep(0.01)
    say({"octets": [count.octets for count in counts]})
    await asyncio.Event().wait()  # until we are ended: who closes first would add to what is on the link


async def send(endpoint: Endpoint | None, options: argparse.Namespace) -> None:
    """Open the connections and send on each as fast as it goes, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    connect: Callable[[], Awaitable[object]]
    if endpoint is None:
        connect = partial(_connect_kernel, options)
    else:
        await endpoint.start()
        how = SocketOptions(congestion=options.congestion)
        connect = partial(endpoint.create_connection, Source, options.address, SINK_PORT, options=how)
    flows = [asyncio.ensure_future(connect()) for _ in range(options.flows)]
    await stopped.wait()
    failed = [str(flow.exception()) for flow in flows if flow.done() and flow.exception()]
    say(sent(endpoint) | {"failed": failed})
    if endpoint is not None:
        endpoint.close()


async def _connect_kernel(options: argparse.Namespace) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (options.address, SINK_PORT))
    await loop.create_connection(Source, sock=sock)


def sent(endpoint: Endpoint | None) -> dict[str, int]:
    """Return what this end's TCP sent since it came into being: its namespace, or its stack, is as old as the measurement."""
    counts = kernel_counters() if endpoint is None else endpoint.stack.counters.as_dict()
    return {said: counts[name] for name, said in NAMES.items()} | {name: counts[name] for name in EVIDENCE + UNDONE}


def kernel_counters() -> dict[str, int]:
    """Return the kernel's counters in the namespace that this thread is in, named as nstat(8) does, but TcpExt's without prefix."""
    found = {}
    for table in ("snmp", "netstat"):
        lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()
        for titles, values in zip(lines[::2], lines[1::2], strict=True):
            kind, *names = titles.split()
            prefix = "" if kind == "TcpExt:" else kind.rstrip(":")
            found |= {prefix + name: int(value) for name, value in zip(names, values.split()[1:], strict=True)}
    return found


def say(record: dict[str, object]) -> None:
    print(json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=["send", "receive"])
    parser.add_argument("address", help="the receiver's")
    parser.add_argument("--flows", type=int, required=True, help="connections")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each connection that count")
    parser.add_argument("--congestion", help="the sender's algorithm")
    parser.add_argument("--tun", nargs=2, metavar=("HOST/PREFIX", "ADDRESS"), help="be a tunstack with this address, and the kernel's")
    options = parser.parse_args()
    endpoint = open_tun(TUN, host_address=options.tun[0], address=options.tun[1]) if options.tun else None
    if options.role == "receive":
        uvloop.run(receive(endpoint, options))
        return
    say({"ready": True})
    sys.stdin.readline()
    uvloop.run(send(endpoint, options))


if __name__ == "__main__":
    main()
