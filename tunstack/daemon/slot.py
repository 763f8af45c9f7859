"""A worker's place, as its supervisor keeps it: the queue that stays, and the process that comes and goes. Times are seconds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence

from tunstack.daemon.asking import Asked
from tunstack.daemon.door import MESSAGE_MAX
from tunstack.device.tun import TunDevice

STEADY = 10.0  # a worker that served for so long is replaced at once
DELAY_MIN, DELAY_MAX = 0.1, 10.0  # else after such a pause, doubled each time


class Slot:
    """One of them. `begin` when its process is forked, `listen` within the loop, `reap` when a child has ended."""

    def __init__(self, index: int, queue: TunDevice) -> None:
        self.index = index
        self.queue = queue
        self.pid = 0  # 0: there is no process
        self.asked: Asked | None = None  # it serves
        self.ready_line = ""
        self.has_served = False  # some process of this place
        self.is_final = False  # what the last one failed of would fail the next one too
        self._door: socket.socket | None = None
        self._is_heard = False  # the loop reads it
        self._lines: Sequence[str] = ()  # what it said of its failure
        self._status = 0  # waitpid's
        self._began_at = 0.0
        self._due_at = 0.0
        self._delay = 0.0

    def begin(self, pid: int, door: socket.socket) -> None:
        """A process was forked; take over our end of its door."""
        self.pid = pid
        self._door = door
        self._is_heard = False
        self._lines = ()
        self._began_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether a process is to be started now."""
        return not self.pid and self.wait() <= 0

    def wait(self) -> float:
        """Return how long it is until a process is to be started."""
        return self._due_at - time.monotonic()

    def listen(self, loop: asyncio.AbstractEventLoop, on_report: Callable[[], None]) -> None:
        """See to it that its reports are read. Idempotent."""
        if self._door is not None and not self._is_heard:
            self._is_heard = True
            loop.add_reader(self._door, on_report)

    def read_reports(self) -> None:
        """Take what it says."""
        assert self._door is not None
        while True:
            try:
                message = self._door.recv(MESSAGE_MAX)
            except OSError:  # nothing more, or it has gone
                return
            if not message:
                asyncio.get_running_loop().remove_reader(self._door)  # SIGCHLD tells the rest
                return
            report = json.loads(message)
            if "ready" in report:
                self.ready_line = report["ready"]
                self.has_served = True
                self.asked = Asked(self.index, self.pid, self._door)
            else:
                self._lines, self.is_final = report["failed"], report["is_final"]

    def reap(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether the process has ended; if so, it is no more."""
        pid, self._status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return False
        if self._door is not None:
            self.read_reports()
            loop.remove_reader(self._door)
            self._door.close()
            self._door = None
        if self.asked is not None and time.monotonic() - self._began_at >= STEADY:
            self._delay = self._due_at = 0.0
        else:
            self.postpone()
        self.pid = 0
        self.asked = None
        return True

    def postpone(self) -> None:
        """Wait before the next process is started, twice as long as last time."""
        self._delay = min(max(2 * self._delay, DELAY_MIN), DELAY_MAX)
        self._due_at = time.monotonic() + self._delay

    def why(self) -> Sequence[str]:
        """Say why the last process ended, in lines."""
        if self._lines:
            return self._lines
        code = os.waitstatus_to_exitcode(self._status)
        return [f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"]
