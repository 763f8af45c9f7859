"""Standard input and output for an event loop: whatever they are, and as they are.

Descriptors are polled, read and written while they stay blocking: O_NONBLOCK belongs to the open file, which the shell and
other processes share. What cannot be polled (regular files, /dev/null) is always ready. Lengths in octets.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections import deque
from collections.abc import Callable

_READ = 256 * 1024
_PIPE_BUF = 4096  # poll(2) says that a pipe is writable when a write of so much cannot block
_HIGH, _LOW = 256 * 1024, 64 * 1024  # octets that wait: stop asking for more, ask again


def can_poll(descriptor: int) -> bool:
    """Tell whether an event loop can wait for a descriptor."""
    with select.epoll() as probe:
        try:
            probe.register(descriptor, select.EPOLLIN)
        except OSError as error:
            if error.errno == errno.EPERM:  # epoll_ctl(2): the file does not support it
                return False
            raise
    return True


class Input:
    """Standard input. `resume` and `pause` turn it on and off; `on_data` gets what is read, b"" once, at its end."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self.on_data: Callable[[bytes], None] | None = None
        self.is_over = False  # the end was read
        self._descriptor = descriptor
        self._loop = loop
        self._is_polled = can_poll(descriptor)
        self._is_on = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._turn: asyncio.Handle | None = None  # the next read of what cannot be polled

    def resume(self) -> None:
        """Read on. Idempotent."""
        if self._is_on or self.is_over:
            return
        self._is_on = True
        if self._is_polled:
            self._loop.add_reader(self._descriptor, self._read)
        else:
            self._turn = self._loop.call_soon(self._read)

    def pause(self) -> None:
        """Read no more. Idempotent."""
        if not self._is_on:
            return
        self._is_on = False
        if self._is_polled:
            self._loop.remove_reader(self._descriptor)
        elif self._turn is not None:
            self._turn.cancel()

    def is_ready(self) -> bool:
        """Tell whether there is something to be read, or the end, without waiting for it."""
        return not self.is_over and bool(self._poll.poll(0))

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:  # someone else made it non-blocking, and was faster
            return
        except OSError:  # a terminal that went away
            data = b""
        if not data:
            self.pause()
            self.is_over = True
        elif not self._is_polled:
            self._turn = self._loop.call_soon(self._read)
        if self.on_data is not None:
            self.on_data(data)


class Output:
    """Standard output. What it does not take at once is kept; `on_full` and `on_drained` say when to hold back and go on."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self.on_full: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self.on_error: Callable[[OSError], None] | None = None  # nobody reads any more, or the disk is full
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._loop = loop
        self._waiting: deque[memoryview] = deque()
        self.size = 0  # octets that wait
        self._is_full = False
        self._is_watched = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._piece = _PIPE_BUF if can_poll(descriptor) else _READ
        self._emptied: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Write, now or when it is taken. Nothing happens after an error."""
        if self.error is not None:
            return
        self._waiting.append(memoryview(data))
        self.size += len(data)
        if not self._is_watched:
            self._flush()
        if self.size > _HIGH and not self._is_full:
            self._is_full = True
            if self.on_full is not None:
                self.on_full()

    async def drain(self) -> None:
        """Wait until everything is written (or cannot be)."""
        if self.size and self.error is None:
            self._emptied = self._loop.create_future()
            await self._emptied

    def _flush(self) -> None:
        try:
            while self._waiting and self._poll.poll(0):
                first = self._waiting[0]
                written = os.write(self._descriptor, first[: self._piece])
                self.size -= written
                if written == len(first):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = first[written:]
        except BlockingIOError:
            pass  # it is non-blocking after all
        except OSError as error:
            self._fail(error)
        self._watch(bool(self._waiting))
        if self._is_full and self.size <= _LOW:
            self._is_full = False
            if self.on_drained is not None:
                self.on_drained()
        if not self._waiting and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _watch(self, is_wanted: bool) -> None:
        if is_wanted != self._is_watched:
            self._is_watched = is_wanted
            if is_wanted:
                self._loop.add_writer(self._descriptor, self._flush)
            else:
                self._loop.remove_writer(self._descriptor)

    def _fail(self, error: OSError) -> None:
        self.error = error
        self._waiting.clear()
        self.size = 0
        if self.on_error is not None:
            self.on_error(error)
