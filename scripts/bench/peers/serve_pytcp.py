"""Server on pmd-pytcp, a TCP/IP stack in Python, on a TUN interface: serve_pytcp.py INTERFACE ADDRESS/PREFIX CONGESTION

Runs in the peers' virtual environment. Its send() takes whatever it is given, so that the source has to look at what is unsent itself.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from importlib.metadata import version

import uvloop
from pmd_net_addr import Ip4IfAddr
from pmd_pytcp import stack
from pmd_pytcp.protocols.tcp.tcp__enums import CcMode
from pmd_pytcp.socket import IPPROTO_TCP, TCP_CONGESTION, TCP_INFO, AddressFamily, SocketType, socket
from pmd_pytcp.socket.tcp__socket import TcpSocket

CHUNK = 256 * 1024
SMALL = 4 * 1024
UNSENT_AT = 144  # of tcpi_notsent_bytes in struct tcp_info
POLL = 0.001  # s
SINK_PORT, SOURCE_PORT, ECHO_PORT, IDLE_PORT = 5001, 5002, 5003, 5004


def unsent(connection: TcpSocket) -> int:
    """Return the octets that wait to be sent."""
    (count,) = struct.unpack_from("=I", connection.getsockopt(IPPROTO_TCP, TCP_INFO), UNSENT_AT)
    return int(count)


async def serve(connection: TcpSocket, port: int) -> None:
    """Serve a connection."""
    try:
        if port == SOURCE_PORT:
            chunk = bytes(CHUNK)
            while True:
                if unsent(connection) < CHUNK:
                    await connection.send(chunk)
                await asyncio.sleep(POLL)
        while data := await connection.recv(CHUNK if port == SINK_PORT else SMALL):
            if port == ECHO_PORT:
                await connection.send(data)
    except OSError:  # the peer broke it off
        pass
    finally:
        connection.close()


async def accept(address: str, port: int, congestion: str) -> None:
    listener = socket(AddressFamily.INET4, SocketType.STREAM)
    listener.setsockopt(IPPROTO_TCP, TCP_CONGESTION, CcMode[congestion.upper()].value)
    listener.bind((address, port))
    listener.listen(backlog=4096)
    tasks = set()
    while True:
        connection, _ = await listener.accept()
        task = asyncio.create_task(serve(connection, port))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def main(interface: str, address: str, congestion: str) -> None:
    host = Ip4IfAddr(address)
    stack.init()
    stack.add_interface(**stack.initialize_interface__tun(interface), ip4_host=host, ip4_dhcp=False, ip6_support=False)
    await stack.start()
    own = address.partition("/")[0]
    servers = [asyncio.create_task(accept(own, port, congestion)) for port in (SINK_PORT, SOURCE_PORT, ECHO_PORT, IDLE_PORT)]
    await asyncio.sleep(0)  # they listen
    print(json.dumps({"loop": f"uvloop {version('uvloop')}", "pmd-pytcp": version("pmd-pytcp")}), flush=True)
    await asyncio.gather(*servers)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
