"""Server on the kernel's TCP, under uvloop: serve_kernel.py ADDRESS CONGESTION protocols|streams"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from importlib.metadata import version

import streams
import uvloop

from tunstack.daemon import benchservices


def listening_socket(address: str, port: int, congestion: str) -> socket.socket:
    """Return a socket bound to a port; connections that it accepts inherit the congestion control."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    listener.bind((address, port))
    listener.setblocking(False)
    return listener


async def serve(address: str, congestion: str, program: str) -> None:
    loop = asyncio.get_running_loop()
    if program == "streams":
        for port, handler in streams.SERVICES:
            sock = listening_socket(address, port, congestion)
            await asyncio.start_server(handler, sock=sock, backlog=benchservices.BACKLOG, limit=benchservices.CHUNK)
    else:
        for port, protocol in benchservices.SERVICES:
            await loop.create_server(protocol, sock=listening_socket(address, port, congestion), backlog=benchservices.BACKLOG)
    print(json.dumps({"loop": f"uvloop {version('uvloop')}", "congestion": congestion}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
