"""The descriptors of `tunstack nc`: what can be polled, and what is left as it was."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from aio.terminal import DATA, run

from tunstack.cli.pump import Input, Output, can_poll


def test_descriptors_are_left_blocking(tmp_path: Path) -> None:
    """O_NONBLOCK belongs to the open file, which other processes have too."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            got: list[bytes] = []
            ended = asyncio.get_running_loop().create_future()
            input_ = Input(right.fileno(), asyncio.get_running_loop())

            def take(data: bytes) -> None:
                got.append(data)
                if not data:
                    ended.set_result(None)

            input_.on_data = take
            output = Output(left.fileno(), asyncio.get_running_loop())
            for start in range(0, len(DATA), 50_000):
                output.write(DATA[start : start + 50_000])
            assert os.get_blocking(left.fileno())
            input_.resume()
            await output.drain()
            left.shutdown(socket.SHUT_WR)
            await ended
            assert b"".join(got) == DATA
            assert os.get_blocking(left.fileno()) and os.get_blocking(right.fileno())

    run(main())


def test_what_can_be_polled(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(tmp_path / "file", "wb") as file, open("/dev/null", "rb") as null:
        assert can_poll(read) and can_poll(write)
        assert not can_poll(file.fileno()) and not can_poll(null.fileno())
    os.close(read)
    os.close(write)
