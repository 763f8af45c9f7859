"""The host: one stack, its virtual clock, the frames that it sent, and the calls that wait for something to happen.

Time stands still but for three things: each look at the clock moves it by a microsecond (packetdrill waits for the last few by looking),
`sleep` moves it by what was asked for, and waiting for a frame moves it to the next timer. Whoever moves it handles the timers on the
way, each at its own instant. Times are int microseconds.

Threads: packetdrill makes blocking calls from a thread of its own and moves on once that sleeps. The thread that made the host drives
it; a call that blocks in another is tried again by the driving thread after each event, and when it is through, the driver stands still
until the other thread has looked at the clock: so the call ends at its virtual instant.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from tunstack.engine import Stack, StackConfig
from tunstack.sim.packetdrill.counterfile import CounterFile
from tunstack.sim.packetdrill.flags import Flags
from tunstack.sim.packetdrill.sysctls import SysctlFolder
from tunstack.wire import codec

START = 1_000_000_000  # us; not zero, which is "never" here and there
SECRET = bytes(16)  # every run is the same
HANDOVER_TIMEOUT = 5  # s of real time for the other thread to look at the clock, should it never do so
HORIZON = 30 * 86400 * 1_000_000  # us that waiting for a frame goes forward at most
IDLE_EVENTS_MAX = 100_000  # timers in a row that send nothing, before a wait for a frame is given up


class WouldBlock(Exception):
    """What was asked for cannot be done yet. (OSError's BlockingIOError is also EINPROGRESS and EALREADY.)"""


class Waiter:
    """A call that blocks: `attempt` is tried after each event until it does not raise WouldBlock, or until `deadline`."""

    __slots__ = ("attempt", "deadline", "error", "is_done", "on_timeout", "result")

    def __init__(self, attempt: Callable[[], Any], deadline: int | None, on_timeout: Callable[[], Any]) -> None:
        self.attempt = attempt
        self.deadline = deadline  # None: never
        self.on_timeout = on_timeout  # gives the result then
        self.is_done = False
        self.result: Any = None
        self.error: OSError | None = None

    def try_again(self, now: int) -> bool:
        """Try; return whether the call is through."""
        try:
            try:
                self.result = self.attempt()
            except WouldBlock:
                if self.deadline is None or now < self.deadline:
                    return False
                self.result = self.on_timeout()
        except OSError as error:
            self.error = error
        self.is_done = True
        return True

    def finish(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class Host:
    """Call order: any call that acts on the stack, then `settle`. All of it with `lock` held."""

    def __init__(self, flags: Flags) -> None:
        config = StackConfig((flags.local,), flags.mtu, sysctl=flags.sysctl, fast_path=flags.fast_path)
        self.stack = Stack(config, random.Random(0), SECRET)
        self.now = START
        self.frames: deque[tuple[bytes, int]] = deque()  # sent and not fetched: (packet, when)
        self.lock = threading.Condition()
        self._folder = SysctlFolder(flags.folder, flags.sysctl) if flags.folder else None
        self._counters = CounterFile(flags.counters, self.stack.counters) if flags.counters else None
        self._mss = flags.mss
        self._reader = codec.Reader(vnet=False)
        self._driver = threading.get_ident()
        self._waiters: list[Waiter] = []
        self.returning = 0  # the kernel's number of the thread that came back from its call last, for plugin.c
        self._handover = False  # another thread's call is through, and it has not looked at the clock

    def read_knobs(self) -> None:
        """Take over the knobs that a script has set."""
        if self._folder is not None:
            self._folder.read()

    # Time.

    def look_at_clock(self) -> int:
        """Return the time, a microsecond later; but at once to the thread that is just back from a call that blocked."""
        if self._handover and threading.get_ident() != self._driver:
            self._handover = False
            self.returning = threading.get_native_id()
            self.lock.notify_all()
            return self.now
        self.run_until(self.now + 1)
        return self.now

    def run_until(self, until: int) -> None:
        """Go forward, handling all that is due on the way."""
        while True:
            at = self._next_event()
            if at is None or at > until:
                break
            self._step(at)
        self.now = max(self.now, until)

    def _next_event(self) -> int | None:
        deadline = self.stack.next_deadline()
        for waiter in self._waiters:
            if waiter.deadline is not None and (deadline is None or waiter.deadline < deadline):
                deadline = waiter.deadline
        return deadline

    def _step(self, at: int) -> None:
        self.now = max(self.now, at)
        self.stack.advance(self.now)
        self.settle()

    # Frames.

    def inject(self, frame: bytes) -> None:
        """The stack receives a packet."""
        batch = self._reader.parse([frame])
        for seg in batch.segments:
            if 0 < self._mss < seg.length:
                seg.gso_size = self._mss
                seg.packets = -(-seg.length // self._mss)
        self.stack.receive(batch, self.now)
        self.settle()

    def next_frame(self) -> tuple[bytes, int] | None:
        """Return the next packet that leaves, and when it left; None if none ever will, without more being done to the stack."""
        horizon = self.now + HORIZON
        for _ in range(IDLE_EVENTS_MAX):
            if self.frames:
                break
            at = self._next_event()
            if at is None or at > horizon:
                break
            self._step(at)
        return self.frames.popleft() if self.frames else None

    def settle(self) -> None:
        """After anything was done to the stack: let out what may leave now, and see who need not wait any longer."""
        self.transmit()
        if not self._waiters:
            return
        for waiter in self._waiters.copy():
            if waiter.try_again(self.now):
                self.transmit()
                self._waiters.remove(waiter)
                self._hand_over()

    def transmit(self) -> None:
        """Let out what may leave now."""
        stack = self.stack
        while (out := stack.poll_transmit(self.now)) is not None:
            frames = [out] if isinstance(out, bytes) else codec.encode(out, stack.sysctl.ip_default_ttl)
            self.frames.extend((frame, self.now) for frame in frames)
        if self._counters is not None:
            self._counters.update()

    # Calls that block.

    def block(self, attempt: Callable[[], Any], deadline: int | None, on_timeout: Callable[[], Any]) -> Any:
        """Return what `attempt` returns, once it does not raise WouldBlock; at `deadline` what `on_timeout` does.

        The driver itself goes forward in time meanwhile; if nothing more can happen: EDEADLK.
        """
        waiter = Waiter(attempt, deadline, on_timeout)
        if waiter.try_again(self.now):
            self.settle()
            return waiter.finish()
        self.settle()
        if threading.get_ident() != self._driver:
            self._waiters.append(waiter)
            while not waiter.is_done:
                self.lock.wait()
            return waiter.finish()
        while not waiter.try_again(self.now):
            at = self._next_event()
            if deadline is not None and (at is None or deadline < at):
                at = deadline
            if at is None:
                raise OSError(errno.EDEADLK, os.strerror(errno.EDEADLK))
            self._step(at)
        self.settle()
        return waiter.finish()

    def _hand_over(self) -> None:
        """Wake the thread whose call is through, and wait until it has seen what time it is."""
        self._handover = True
        self.lock.notify_all()
        self.lock.wait_for(lambda: not self._handover, HANDOVER_TIMEOUT)
        self._handover = False
