"""The states of sockets as ss names them: `tunstack ss` for a stack that a test drives itself, and the kernel's for Linux's end.

A row is (state, local end, peer's end), an end is ADDRESS:PORT.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from interop.daemons import TUNSTACK

from tunstack.aio import Endpoint
from tunstack.daemon.control import Control
from tunstack.device.tun import TunDevice
from tunstack.engine import Stack

Row = tuple[str, str, str]


@dataclass
class Program:
    """What the control socket needs of an endpoint, for a stack without an event loop."""

    stack: Stack
    device: TunDevice
    now: Callable[[], int]
    labels: dict[int, str] = field(default_factory=dict)


def ours(program: Program, directory: Path) -> list[Row]:
    """Run `tunstack ss -tanH` on the stack, which stands still meanwhile."""

    async def show() -> str:
        async with Control(directory / "control.sock", cast(Endpoint, program)) as control:
            return await asyncio.to_thread(_run, [*TUNSTACK, "ss", "-tanH", "--control", str(control.path)])

    return _rows(asyncio.run(show()))


def kernels() -> list[Row]:
    """Run the kernel's `ss -tanH`, in the namespace of the calling thread."""
    return _rows(_run(["ss", "-tanH"]))


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def _rows(text: str) -> list[Row]:
    lines = [line.split() for line in text.splitlines()]
    return [(words[0], words[3], words[4]) for words in lines]
