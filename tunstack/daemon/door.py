"""A worker's door: what it says to its supervisor, and the connections that its supervisor opens to it.

One SOCK_SEQPACKET socket between the two (unix(7)). The worker sends reports, a JSON object each: `{"ready": LINE}` once it serves, or
`{"failed": [LINE, ...], "is_final": BOOL}` before it ends. The supervisor sends `{"pid": PID, "uid": UID}`, who asks, with the
descriptor of a connection on which he is answered as on the control socket (control.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Mapping, Sequence

from tunstack.aio import Endpoint
from tunstack.daemon.control import Client
from tunstack.daemon.methods import Context, Method, Params, Peer
from tunstack.daemon.status import Status

log = logging.getLogger(__name__)

MESSAGE_MAX = 65_536  # octets


class Door:
    """The worker's end. `start` in its loop, `close` at the end."""

    def __init__(self, end: socket.socket) -> None:
        """Take over the socket."""
        self._socket = end
        self._endpoint: Endpoint | None = None
        self._status: Status = dict
        self._tasks: set[asyncio.Task[object]] = set()
        self.clients: set[Client] = set()

    async def start(self, endpoint: Endpoint, status: Status) -> None:
        """Begin to answer, for an endpoint."""
        self._endpoint = endpoint
        self._status = status
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def close(self) -> None:
        """Answer no more; reports can still be made. Idempotent."""
        if self._endpoint is not None:
            self._endpoint = None
            asyncio.get_running_loop().remove_reader(self._socket)
        for client in tuple(self.clients):
            client.abort()

    def report(self, message: Mapping[str, object]) -> None:
        """Tell the supervisor something."""
        try:
            self._socket.send(json.dumps(message).encode())
        except OSError:
            return  # it has gone, and we are about to

    def fail(self, lines: Sequence[str], is_final: bool) -> None:
        """Say why we end. `is_final`: another in our place would find the same."""
        self.report({"failed": list(lines), "is_final": is_final})

    def call(self, name: str, method: Method, params: Params, peer: Peer) -> object:
        """Carry a method out."""
        assert self._endpoint is not None
        return method.handler(Context(self._endpoint, self._status, peer), params)

    def _on_readable(self) -> None:
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self._socket, MESSAGE_MAX, 1)
        except BlockingIOError:
            return
        if not descriptors:
            asyncio.get_running_loop().remove_reader(self._socket)  # the supervisor has gone, and the kernel ends us
            return
        peer = Peer(**json.loads(message))
        loop = asyncio.get_running_loop()
        connection = socket.socket(fileno=descriptors[0])
        connection.setblocking(False)
        task: asyncio.Task[object] = loop.create_task(loop.connect_accepted_socket(lambda: Client(self, peer), connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
