"""Network namespaces for tests against Linux.

A test asks for the fixture `namespace` and gets one that is its own; what runs in it is ended and the namespace removed afterwards,
whatever happened. A stack gets into it in either of two ways: in this process, on a device from `namespace.open_tun(...)` (a
descriptor stays in the namespace in which it was opened), or as a process of its own, by `namespace.popen(...)`.

    def test_ping_is_answered(namespace: Namespace) -> None:
        daemon = namespace.popen("tunstack serve")
        ...
        namespace.run("ping -c 1 10.77.0.2")
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns

from tunstack.device.tun import TunDevice

Command = str | Sequence[str]

_serial = itertools.count()


class Namespace:
    """A network namespace with `lo` up and IPv6 off (its autoconfiguration would talk on every new interface)."""

    def __init__(self) -> None:
        self.name = f"tunstack-{os.getpid()}-{next(_serial)}"
        self._processes: list[subprocess.Popen[Any]] = []
        self._cleanup = ExitStack()
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self._cleanup.callback(subprocess.run, ["ip", "netns", "del", self.name], check=True)
        try:
            with self.entered():
                for which in ("all", "default"):
                    with suppress(FileNotFoundError):  # a kernel without IPv6
                        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
            self.run("ip link set lo up")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the namespace; threads that it starts meanwhile stay there."""
        netns.pushns(self.name)
        try:
            yield
        finally:
            netns.popns()

    def open_tun(self, name: str = "tunstack0", **settings: Any) -> TunDevice:
        """Open a TUN device in the namespace; closed at the end of the test if not before."""
        with self.entered():
            device = TunDevice.open(name, **settings)
        self._cleanup.callback(device.close)
        return device

    def run(self, command: Command, *, check: bool = True, timeout: float = 30, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return its text output. A string is split as by a shell, but there is none."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.STDOUT)
        result = subprocess.run(self._inside(command), text=True, timeout=timeout, **options)
        if check and result.returncode:
            pytest.fail(f"{command!r} ended with status {result.returncode}:\n{result.stdout}")
        return result

    def popen(self, command: Command, **options: Any) -> subprocess.Popen[Any]:
        """Start a command; it is killed at the end of the test if it still runs."""
        process = subprocess.Popen(self._inside(command), **options)
        self._processes.append(process)
        return process

    def links(self) -> list[str]:
        """Return the names of the interfaces, `lo` left out."""
        lines = self.run("ip -brief link").stdout.splitlines()
        return [name for line in lines if (name := line.split()[0].partition("@")[0]) != "lo"]

    def close(self) -> None:
        """End what runs in the namespace and remove it."""
        for process in self._processes:
            with process:  # closes its pipes and waits for it
                process.kill()
        self._cleanup.close()

    def _inside(self, command: Command) -> list[str]:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        return ["ip", "netns", "exec", self.name, *words]
