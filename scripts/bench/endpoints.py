"""What is measured: servers on the kernel's TCP and on tunstack, each in fresh namespaces of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namespaces import Namespace, connect
from processes import Process

HERE = Path(__file__).parent
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and the link to it."""

    name: str
    is_tunstack: bool
    offload: bool  # super-segments with partial checksums may pass on the link

    def start(self, setting: Setting) -> AbstractContextManager[Running]:
        """Start it; when the context is left, server, namespaces and link are gone."""
        return (_tunstack if self.is_tunstack else _kernel)(setting, self.offload)


def _client_namespace() -> Namespace:
    """A fresh one for every measurement, since TIME-WAIT sockets of the last would slow the search for a free port; with ports enough."""
    namespace = Namespace()
    namespace.set_sysctl("ipv4/ip_local_port_range", "1024 65535")
    return namespace


def _server(arguments: list[str], namespace: Namespace, setting: Setting) -> Process:
    return Process([sys.executable, *arguments], namespace, setting.cpus)


@contextmanager
def _kernel(setting: Setting, offload: bool) -> Iterator[Running]:
    with ExitStack() as stack:
        client = stack.enter_context(_client_namespace())
        host = stack.enter_context(Namespace())
        connect(client, host, INTERFACE)
        for namespace, address in ((client, CLIENT_ADDRESS), (host, SERVER_ADDRESS)):
            if not offload:
                namespace.disable_offloads(INTERFACE)
            namespace.set_up(INTERFACE, address, PREFIX)
        arguments = [os.fspath(HERE / "serve_kernel.py"), SERVER_ADDRESS, setting.congestion]
        server = stack.enter_context(_server(arguments, host, setting))
        yield Running(server, client, server.record(START_TIMEOUT))


@contextmanager
def _tunstack(setting: Setting, offload: bool) -> Iterator[Running]:
    with ExitStack() as stack:
        client = stack.enter_context(_client_namespace())
        arguments = [os.fspath(HERE / "serve_tunstack.py"), f"{CLIENT_ADDRESS}/{PREFIX}", SERVER_ADDRESS, setting.congestion]
        if not offload:
            arguments.append("--no-offload")
        if setting.profile is not None:
            arguments += ["--profile", os.fspath(setting.profile)]
        server = stack.enter_context(_server(arguments, client, setting))
        yield Running(server, client, server.record(START_TIMEOUT))


KERNEL = Endpoint("kernel", is_tunstack=False, offload=True)
TUNSTACK = Endpoint("tunstack", is_tunstack=True, offload=True)
KERNEL_PLAIN = Endpoint("kernel, no offload", is_tunstack=False, offload=False)
TUNSTACK_PLAIN = Endpoint("tunstack, no offload", is_tunstack=True, offload=False)
ENDPOINTS = (KERNEL, TUNSTACK, KERNEL_PLAIN, TUNSTACK_PLAIN)
