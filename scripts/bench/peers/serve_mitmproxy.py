"""Server on mitmproxy_rs, mitmproxy's own TCP (smoltcp, in Rust) behind asyncio streams, on a TUN interface: serve_mitmproxy.py INTERFACE

Runs in the peers' virtual environment. mitmproxy_rs takes connections to every address and port; which service is meant, the port says.
It has no congestion control to choose. Under uvloop, though mitmproxy itself runs on asyncio's loop: it is the faster of the two.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from importlib.metadata import version

import mitmproxy_rs
import uvloop

CHUNK = 256 * 1024
WRITE = 64 * 1024  # octets; more at a time make it slower
SINK_PORT, SOURCE_PORT, ECHO_PORT = 5001, 5002, 5003


async def serve(stream: mitmproxy_rs.Stream) -> None:
    """Serve a connection."""
    port = stream.get_extra_info("sockname")[1]
    try:
        if port == SOURCE_PORT:
            chunk = bytes(WRITE)
            while True:
                stream.write(chunk)
                await stream.drain()
        while data := await stream.read(CHUNK):
            if port == ECHO_PORT:
                stream.write(data)
                await stream.drain()
    except OSError:  # the peer broke it off
        pass
    finally:
        with suppress(OSError):
            stream.close()


async def ignore(stream: mitmproxy_rs.Stream) -> None:
    """Want nothing of a UDP stream."""
    stream.close()


async def main(interface: str) -> None:
    tun = await mitmproxy_rs.tun.create_tun_interface(serve, ignore, tun_name=interface)
    facts = {"loop": f"uvloop {version('uvloop')}", "mitmproxy_rs": version("mitmproxy_rs")}
    print(json.dumps(facts), flush=True)
    await asyncio.Event().wait()
    tun.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
