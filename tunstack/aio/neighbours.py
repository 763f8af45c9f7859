"""One of several endpoints on the queues of one interface: what comes to the wrong one is handed over (engine/neighbours.py).

Each is in a process of its own, with a queue of the interface for its device; all have the same secret, and one end each of the same
`Handovers`.
"""

from __future__ import annotations

import asyncio

from tunstack.aio.endpoint import Endpoint
from tunstack.device.handover import Handover
from tunstack.engine.neighbours import Neighbours

BATCHES_A_TURN = 4  # then the loop's other callbacks have their turn


class Inbox:
    """What others hand to an endpoint. Make it before the endpoint is started; then `start`, and `close` before the endpoint is closed."""

    def __init__(self, endpoint: Endpoint, handover: Handover) -> None:
        self._endpoint = endpoint
        self._handover = handover
        self._loop: asyncio.AbstractEventLoop | None = None
        stack = endpoint.stack
        stack.neighbours = Neighbours(handover.steering, handover.index, handover.send, stack.counters)

    def start(self) -> None:
        """Begin to read it, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handover.fileno(), self._on_readable)

    def close(self) -> None:
        """Read no more. Idempotent."""
        if self._loop is not None:
            self._loop.remove_reader(self._handover.fileno())
            self._loop = None

    def _on_readable(self) -> None:
        for _ in range(BATCHES_A_TURN):
            if not self._endpoint.take_over(self._handover):
                return
