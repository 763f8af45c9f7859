"""Server on tunstack and a TUN interface, under uvloop: see --help."""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import signal
from importlib.metadata import version

import streams
import uvloop

import tunstack.aio
from tunstack.congestion import available
from tunstack.daemon import benchservices
from tunstack.engine.sysctl import Sysctl
from tunstack.wire import codec


async def serve(host_address: str, address: str, congestion: str, offload: bool, program: str) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    sysctl = Sysctl(tcp_congestion_control=congestion if congestion in available() else "reno")
    endpoint = tunstack.aio.open_tun("bench0", host_address=host_address, address=address, offload=offload, sysctl=sysctl)
    async with endpoint:
        if program == "streams":
            for port, handler in streams.SERVICES:
                await endpoint.start_server(handler, address, port, backlog=benchservices.BACKLOG, limit=benchservices.CHUNK)
        else:
            for port, protocol in benchservices.SERVICES:
                await endpoint.create_server(protocol, address, port, backlog=benchservices.BACKLOG)
        facts = {"loop": f"uvloop {version('uvloop')}", "congestion": sysctl.tcp_congestion_control, "backend": codec.BACKEND}
        print(json.dumps(facts), flush=True)
        await stopped.wait()
        endpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host_address", help="the kernel's address on the interface, with its prefix")
    parser.add_argument("address", help="ours")
    parser.add_argument("congestion", help="congestion control; reno where there is none of that name")
    parser.add_argument("program", choices=("protocols", "streams"))
    parser.add_argument("--no-offload", action="store_true")
    parser.add_argument("--profile", metavar="FILE", help="run under cProfile and leave its statistics here")
    options = parser.parse_args()
    program = serve(options.host_address, options.address, options.congestion, not options.no_offload, options.program)
    if options.profile is None:
        uvloop.run(program)
        return
    profile = cProfile.Profile()
    profile.runcall(uvloop.run, program)
    profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
