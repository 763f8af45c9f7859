"""A worker, as its supervisor asks it: through its door (door.py), in the words of the control socket (control.py).

Every question has a connection of its own, so that one who reads his answer slowly keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Mapping

from tunstack.daemon.control import Piece
from tunstack.daemon.methods import PROTOCOL, Failure, Peer

TIMEOUT = 10.0  # s that an answer, or the next piece of one, is waited for
LINE_MAX = 64 << 20  # octets of a line that is taken


class SilentError(Exception):
    """The worker does not answer: it is gone, or hangs."""


class Asked:
    """One running worker. It does not own the socket, the supervisor's end of the door."""

    def __init__(self, index: int, pid: int, door: socket.socket) -> None:
        self.index = index
        self.pid = pid
        self._door = door

    async def ask(self, name: str, params: Mapping[str, object], peer: Peer) -> AsyncGenerator[Piece, None]:
        """Give the answer as it comes; Failure if it is an error, SilentError if there is none. To be closed (aclose)."""
        reader, writer = await self._connect(peer)
        try:
            writer.write(json.dumps({"version": PROTOCOL, "id": 0, "method": name, "params": params}).encode() + b"\n")
            while True:
                try:
                    async with asyncio.timeout(TIMEOUT):
                        line = await reader.readline()
                    answer = json.loads(line)
                except (TimeoutError, OSError, ValueError) as error:
                    raise SilentError from error
                if "error" in answer:
                    raise Failure(answer["error"]["code"], answer["error"]["message"])
                if "result" in answer:
                    yield answer["result"]
                    return
                yield answer["part"]
        finally:
            writer.close()

    async def _connect(self, peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                ours.setblocking(False)
                socket.send_fds(self._door, [json.dumps({"pid": peer.pid, "uid": peer.uid}).encode()], [theirs.fileno()])
            return await asyncio.open_unix_connection(sock=ours, limit=LINE_MAX)
        except OSError as error:
            ours.close()
            raise SilentError from error
