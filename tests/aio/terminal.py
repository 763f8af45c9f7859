"""A netcat to talk with: `tunstack nc` with pipes for a terminal, and the peer that it converses with, over endpoints joined in memory."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import pytest

from tunstack import Endpoint
from tunstack.cli.nc import NetcatConfig, parse
from tunstack.cli.netcat import Netcat

OURS, PEER = "10.77.0.1", "10.77.0.2"
T = TypeVar("T")
DATA = random.Random(11).randbytes(2_000_000)


def run(main: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


async def in_thread(call: Callable[[], T]) -> T:
    """Await a blocking call; unlike asyncio's own threads, one that hangs does not keep a failed test from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        result = call()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done.set_result, result)

    threading.Thread(target=work, daemon=True).start()
    return await done


class Terminal:
    """A netcat with pipes for its standard input and output."""

    def __init__(self, endpoint: Endpoint, config: NetcatConfig, monkeypatch: pytest.MonkeyPatch, input_: int | None = None) -> None:
        self._output, theirs_out = os.pipe()
        theirs_in, self.input = os.pipe() if input_ is None else (input_, -1)
        self._theirs = [theirs_in, theirs_out]
        monkeypatch.setattr("sys.stdin", os.fdopen(theirs_in, "rb", closefd=False))
        monkeypatch.setattr("sys.stdout", os.fdopen(theirs_out, "wb", closefd=False))
        self._netcat = Netcat(config, [OURS])
        # An endpoint in memory runs already, and goes on after netcat.
        monkeypatch.setattr(endpoint, "start", nothing)
        monkeypatch.setattr(endpoint, "shutdown", nothing)
        self.task = asyncio.ensure_future(self._netcat.run(endpoint))
        self._written: asyncio.Task[None] | None = None

    def say(self, data: bytes, end: bool = True) -> None:
        """Write to its standard input, in the background."""

        def write() -> None:
            left = memoryview(data)
            with suppress(BrokenPipeError):
                while left:
                    left = left[os.write(self.input, left) :]
            if end:
                self.hang_up()

        self._written = asyncio.ensure_future(in_thread(write))

    def hang_up(self) -> None:
        """End its standard input."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def stop_listening(self) -> None:
        """Close the reading end of its standard output."""
        os.close(self._output)
        self._output = -1

    async def heard(self) -> tuple[int, bytes]:
        """Return its exit status, and all that it wrote."""

        def read() -> bytes:
            with os.fdopen(self._output, "rb") as file:
                return file.read()

        reading = asyncio.ensure_future(in_thread(read))
        status = await self.task
        for descriptor in self._theirs:
            os.close(descriptor)
        if self._written is not None:
            await self._written
        self.hang_up()
        return status, await reading


async def nothing(*_arguments: object) -> None:
    """Stand in for a call that is of no concern."""


def config(*arguments: str) -> NetcatConfig:
    where = ["5000"] if "-l" in arguments else [PEER, "5000"]
    return replace(parse([*arguments, *where]), source=None)


async def accept(endpoint: Endpoint) -> asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    queue: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue.put_nowait((reader, writer))

    await endpoint.start_server(take, PEER, 5000)
    return queue


async def listening(peer: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a netcat that is about to listen."""
    while True:
        try:
            return await peer.open_connection(OURS, 5000)
        except ConnectionRefusedError:
            await asyncio.sleep(0)
