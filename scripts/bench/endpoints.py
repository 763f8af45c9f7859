"""What is measured: servers on the kernel's TCP, on tunstack and on others, each in fresh namespaces of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import peers
from namespaces import Namespace, connect
from processes import Process

HERE = Path(__file__).resolve().parent
INTERFACE = "bench0"
CLIENT_ADDRESS = "10.77.0.1"
SERVER_ADDRESS = "10.77.0.2"
PREFIX = 24
START_TIMEOUT = 10.0  # s until a server says that it is ready


@dataclass(frozen=True, slots=True)
class Setting:
    """How a server is to run."""

    congestion: str
    cpus: frozenset[int] | None = None  # that it may run on; None: all
    profile: Path | None = None  # where to leave cProfile's statistics (tunstack only)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready at SERVER_ADDRESS, as seen from the client's namespace."""

    server: Process
    client: Namespace
    facts: dict[str, Any]


class Link(Enum):
    """How a server is reached."""

    VETH = "a veth pair"  # it has a namespace of its own
    TUN = "a TUN interface"  # which it opens in the client's namespace, where we configure it
    OWN = "a TUN interface of its own"  # the same, and it configures that itself


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and the link to it."""

    name: str
    command: Callable[[Setting], list[str]]  # peers.Missing where the program cannot be had
    link: Link
    offload: bool = True  # super-segments with partial checksums may pass on the link
    base: str = ""  # the name of the endpoint that it is compared with

    @property
    def is_tunstack(self) -> bool:
        return self.link is Link.OWN

    @contextmanager
    def start(self, setting: Setting) -> Iterator[Running]:
        """Start it; when the context is left, server, namespaces and link are gone."""
        command = self.command(setting)
        with ExitStack() as stack:
            client = host = stack.enter_context(_client_namespace())
            if self.link is Link.VETH:
                host = stack.enter_context(Namespace())
                connect(client, host, INTERFACE)
                for namespace, address in ((client, CLIENT_ADDRESS), (host, SERVER_ADDRESS)):
                    if not self.offload:
                        namespace.disable_offloads(INTERFACE)
                    namespace.set_up(INTERFACE, address, PREFIX)
            server = stack.enter_context(Process(command, host, setting.cpus))
            facts = server.record(START_TIMEOUT)
            if self.link is Link.TUN:
                client.set_up(INTERFACE, CLIENT_ADDRESS, PREFIX)
            yield Running(server, client, facts)


def _client_namespace() -> Namespace:
    """A fresh one for every measurement, since TIME-WAIT sockets of the last would slow the search for a free port; with ports enough."""
    namespace = Namespace()
    namespace.set_sysctl("ipv4/ip_local_port_range", "1024 65535")
    return namespace


def _script(name: str, *arguments: str) -> list[str]:
    return [sys.executable, os.fspath(HERE / name), *arguments]


def _kernel(program: str) -> Callable[[Setting], list[str]]:
    return lambda setting: _script("serve_kernel.py", SERVER_ADDRESS, setting.congestion, program)


def _tunstack(program: str, *options: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        arguments = [f"{CLIENT_ADDRESS}/{PREFIX}", SERVER_ADDRESS, setting.congestion, program, *options]
        if setting.profile is not None:
            arguments += ["--profile", os.fspath(setting.profile)]
        return _script("serve_tunstack.py", *arguments)

    return command


def _gvisor(*options: str) -> Callable[[Setting], list[str]]:
    return lambda setting: [os.fspath(peers.gvisor()), INTERFACE, SERVER_ADDRESS, setting.congestion, *options]


def _limit(*options: str) -> Callable[[Setting], list[str]]:
    return lambda setting: [os.fspath(peers.limit()), INTERFACE, *options]


def _lwip(setting: Setting) -> list[str]:
    return [os.fspath(peers.lwip()), INTERFACE, SERVER_ADDRESS]


def _mitmproxy(setting: Setting) -> list[str]:
    return [os.fspath(peers.environment("mitmproxy_rs")), os.fspath(peers.PEERS / "serve_mitmproxy.py"), INTERFACE]


def _pytcp(setting: Setting) -> list[str]:
    program = os.fspath(peers.PEERS / "serve_pytcp.py")
    return [os.fspath(peers.environment("pmd-pytcp")), program, INTERFACE, f"{SERVER_ADDRESS}/{PREFIX}", setting.congestion]


KERNEL = Endpoint("kernel", _kernel("protocols"), Link.VETH)
TUNSTACK = Endpoint("tunstack", _tunstack("protocols"), Link.OWN, base="kernel")
KERNEL_STREAMS = Endpoint("kernel, streams", _kernel("streams"), Link.VETH)
TUNSTACK_STREAMS = Endpoint("tunstack, streams", _tunstack("streams"), Link.OWN, base="kernel, streams")
GVISOR = Endpoint("gVisor", _gvisor("gso"), Link.TUN)
LIMIT = Endpoint("limit", _limit("tso"), Link.TUN)

KERNEL_PLAIN = Endpoint("kernel, no offload", _kernel("protocols"), Link.VETH, False)
TUNSTACK_PLAIN = Endpoint("tunstack, no offload", _tunstack("protocols", "--no-offload"), Link.OWN, False, "kernel, no offload")
KERNEL_STREAMS_PLAIN = Endpoint("kernel, streams, no offload", _kernel("streams"), Link.VETH, False)
TUNSTACK_STREAMS_PLAIN = Endpoint(
    "tunstack, streams, no offload", _tunstack("streams", "--no-offload"), Link.OWN, False, "kernel, streams, no offload"
)
GVISOR_PLAIN = Endpoint("gVisor, no offload", _gvisor(), Link.TUN, False)
LIMIT_PLAIN = Endpoint("limit, no offload", _limit(), Link.TUN, False)
LIMIT_EVERY_SECOND = Endpoint("limit, no offload, ACK every 2nd", _limit("every=2"), Link.TUN, False)

LWIP = Endpoint("lwIP", _lwip, Link.TUN, False)  # these three know of no offload
MITMPROXY = Endpoint("mitmproxy_rs", _mitmproxy, Link.TUN, False)
PYTCP = Endpoint("pmd-pytcp", _pytcp, Link.TUN, False)

ENDPOINTS = (
    KERNEL, TUNSTACK, GVISOR, LIMIT, KERNEL_STREAMS, TUNSTACK_STREAMS,
    KERNEL_PLAIN, TUNSTACK_PLAIN, LIMIT_PLAIN, GVISOR_PLAIN, LWIP, MITMPROXY,
    KERNEL_STREAMS_PLAIN, TUNSTACK_STREAMS_PLAIN, LIMIT_EVERY_SECOND, PYTCP,
)  # fmt: skip
