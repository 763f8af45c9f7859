"""The driver: joins one stack, one device and one event loop.

It alone moves things: frames from the device into the stack, what the stack has to send to the device, and time into
both. It owns one reader, one loop timer and at most one pending flush, and leaves none of them behind.
Knows nothing of protocols and transports. Times are int microseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from tunstack.device.base import Device
from tunstack.device.handover import Handover
from tunstack.engine.errors import socket_error
from tunstack.engine.stack import Stack

WORK_A_TURN = 256  # segments in and out; then the loop's other callbacks have their turn
BATCH_WORK = 16  # what a batch itself counts for
BULK, LARGE = 3, 4096  # segments of a batch, octets of the last: a bulk transfer, whose next batch may be there already ...
HELD_MAX = 3  # ... then what so many of them cause is sent with what the next one does: not an ACK for every segment of many flows
LOOKS_TO_SKIP = 15  # after one in vain, for a peer that asks, is answered and asks again
ITEMS_A_FLUSH = 256  # likewise, on the way out: at 256 KiB an item this is 64 MiB
GRAIN = 1000  # least distance and step of a timer: uvloop counts milliseconds, and below half of one it would spin
LATE = 10_000  # a timer that fires so much too late finds a process that was held up
NEVER = 1 << 62


def loop_clock(loop: asyncio.AbstractEventLoop) -> tuple[Callable[[], int], int]:
    """Return the clock of a loop in µs, and the grain of its timers.

    The loops of asyncio and uvloop live in real time, where the monotonic clock is finer than `loop.time()` (uvloop's steps by
    milliseconds and stands still within a turn). Any other loop is taken at its word: it may live in virtual time.
    """
    kind = type(loop)
    if kind.__module__.partition(".")[0] == "uvloop" or (
        isinstance(loop, asyncio.BaseEventLoop) and kind.time is asyncio.BaseEventLoop.time
    ):
        return _monotonic_us, GRAIN
    return lambda: round(loop.time() * 1e6), 1


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class Driver:
    """Runs a stack over a device. `start`, then nothing but callbacks of the loop, then `close`.

    The application's calls into the engine take their time from `now()`. `on_down` is called once, with the error, if the
    device goes away by itself.
    """

    __slots__ = (
        "_armed_for",
        "_blocked",
        "_clock",
        "_fd",
        "_flush_handle",
        "_goes_on",
        "_grain",
        "_in_turn",
        "_looks_to_skip",
        "_now",
        "_read_handle",
        "_retry_handle",
        "_timer",
        "_timer_at",
        "device",
        "error",
        "is_running",
        "loop",
        "on_down",
        "stack",
    )

    def __init__(self, stack: Stack, device: Device, loop: asyncio.AbstractEventLoop, on_down: Callable[[OSError], None]) -> None:
        self.stack = stack
        self.device = device
        self.loop = loop
        self.on_down = on_down
        self.is_running = False
        self.error: OSError | None = None  # why the device went away
        self._clock, self._grain = loop_clock(loop)
        self._now = 0  # time of the turn
        self._in_turn = False  # time stands still, and a flush follows by itself
        self._fd = -1
        self._goes_on = False  # this turn does, with another batch
        self._looks_to_skip = 0  # for so many short answers we do not look whether the next question is there
        self._timer: asyncio.Handle | None = None
        self._timer_at = NEVER  # when it fires
        self._armed_for = NEVER  # the deadline that it is for: nothing that is due later need be looked at
        self._flush_handle: asyncio.Handle | None = None
        self._read_handle: asyncio.Handle | None = None  # devices without a descriptor, and busy_poll
        self._retry_handle: asyncio.TimerHandle | None = None  # devices without a descriptor only
        self._blocked: Callable[[], bool] | None = None  # writes what the device would not take yet

    def start(self) -> None:
        """Begin to read the device."""
        self.is_running = True
        self.stack.on_dirty = self._on_dirty
        self.stack.octets = getattr(self.device, "octets", None)
        self.stack.timer_grain = self._grain - 1
        self._fd = self.device.fileno()
        if self._fd >= 0:
            self.loop.add_reader(self._fd, self._on_readable)
        else:
            self.device.on_readable = self._read_soon
            self._read_soon()  # what came before we listened

    def now(self) -> int:
        """Return the time for an application's call: that of the turn, within one."""
        return self._now if self._in_turn else self._clock()

    def close(self, error: OSError | None = None) -> None:
        """Reset every connection (telling it `error`, else ECONNABORTED), send what that takes, give the device back. Idempotent."""
        if not self.is_running:
            return
        self._end_connections(error or socket_error("ECONNABORTED"))
        self._flush(self._clock())
        self._stop()

    def _stop(self) -> None:
        self.is_running = self._goes_on = False
        self.stack.on_dirty = None
        if self._fd >= 0:
            self.loop.remove_reader(self._fd)
            self.loop.remove_writer(self._fd)
        else:
            self.device.on_readable = None
        for handle in (self._timer, self._flush_handle, self._read_handle, self._retry_handle):
            if handle is not None:
                handle.cancel()
        self._timer = self._flush_handle = self._read_handle = self._retry_handle = None
        self._timer_at = self._armed_for = NEVER
        self._blocked = None
        self.device.close()

    def _end_connections(self, error: OSError) -> None:
        sinks = [connection.sink for connection in self.stack.connections]
        self.stack.abort_all(self.now())
        for sink in sinks:
            sink.on_closed(error)

    def _fail(self, error: OSError) -> None:
        """The device is gone."""
        if self.is_running:
            self.error = error
            self._stop()
            self._end_connections(error)
            self.on_down(error)

    # Frames in.

    def _read_soon(self) -> None:
        if self._read_handle is None:
            self._read_handle = self.loop.call_soon(self._on_read_soon)

    def _on_read_soon(self) -> None:
        self._read_handle = None
        self._on_readable()

    def _on_readable(self) -> None:  # hot
        self._in_turn = True
        try:
            self._turn()
        except BaseException:
            self._flush_soon()  # what it came between
            raise
        finally:
            self._in_turn = False
        if self.stack.sysctl.busy_poll and self._fd >= 0:
            self._poll_on()

    def _poll_on(self) -> None:
        """net.core.busy_poll: have the loop not sleep, and look again, until nothing has happened for so long."""
        if self.is_running and self._clock() - self._now < self.stack.sysctl.busy_poll:
            self._read_soon()

    def _turn(self) -> None:  # hot
        """Read some batches; what each causes is sent before the next, so that there is one ACK a batch; in bulk one for a few.

        Time stands still within a batch, not from one to the next: the answer to what the first has caused may be in the second.
        A peer on our own CPU has answered by the time that our write returns; one on another has still to wake up, and we need not look.
        """
        stack = self.stack
        read_batch = self.device.read_batch
        self._goes_on = True
        work = held = 0
        while work < WORK_A_TURN:
            try:
                batch = read_batch()
            except OSError as error:
                self._now = self._clock()
                self._fail(error)
                return
            segments = batch.segments
            if not (segments or batch.packets or batch.checksum_errors or batch.header_errors or batch.ignored):
                stack.memory.is_behind = False
                if held:
                    self._flush(self._now)
                if work and self._fd >= 0:
                    self._looks_to_skip = LOOKS_TO_SKIP
                return
            now = self._now = self._clock()
            stack.receive(batch, now)
            if len(segments) >= BULK and segments[-1].length >= LARGE and held < HELD_MAX and self._goes_on and not batch.packets:
                held += 1
                work += len(segments) + BATCH_WORK
                continue
            held = 0
            sent = self._flush(now)
            if batch.packets:
                self._arm(now)  # fragments have a deadline of their own
            if not self._goes_on:
                break
            if self._looks_to_skip and sent == 1 == len(segments) and segments[0].packets == 1 and segments[0].length:
                self._looks_to_skip -= 1
                return
            work += len(segments) + sent + BATCH_WORK
        else:
            stack.memory.is_behind = True
            if held:
                self._flush(self._now)
        if self._fd < 0 and self.is_running:
            self._read_soon()  # with a descriptor the loop comes back by itself

    def take_over(self, handover: Handover) -> bool:
        """Handle what other workers have handed over; tell whether there may be more."""
        batch = handover.read_batch()
        if not (batch.segments or batch.packets) or not self.is_running:
            return False
        now = self._now = self._clock()
        self._in_turn = True
        try:
            self.stack.receive(batch, now)
            if self.is_running:
                self._flush(now)
                self._arm(now)  # fragments have a deadline of their own
        finally:
            self._in_turn = False
        return self.is_running

    def end_turn(self) -> None:
        """Read no further batch in this turn: somebody will take no more before others have run."""
        self._goes_on = False

    # Segments out.

    def _on_dirty(self) -> None:  # hot
        """Something is to be sent: once for all that the application does in this turn of the loop."""
        if not self._in_turn:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush_handle is None and self.is_running and self._blocked is None:
            self._flush_handle = self.loop.call_soon(self._on_flush)

    def flush_now(self) -> None:
        """Send what is due, from inside an application's call; within a turn it follows anyway. Nobody else is told anything in here."""
        if self._in_turn or self._blocked is not None or not self.is_running:
            return
        stack = self.stack
        stack.may_tell = False
        try:
            self._on_flush()
        finally:
            stack.may_tell = True
        if stack.writable:
            self._flush_soon()

    def _on_flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        now = self._now = self._clock()
        self._in_turn = True
        try:
            self._flush(now)
        finally:
            self._in_turn = False

    def _flush(self, now: int) -> int:  # hot
        """Send what is due until there is no more, or until the device would block; then set the timer. Return how many items left."""
        stack = self.stack
        sent = 0
        if self._blocked is None:
            poll_transmit = stack.poll_transmit
            write = self.device.write
            for sent in range(ITEMS_A_FLUSH):
                item = poll_transmit(now)
                if item is None:
                    break
                try:
                    if not write(item):
                        self._wait_writable(partial(write, item))
                        break
                except OSError as error:
                    self._fail(error)
                    return sent
            else:
                self._flush_soon()
        if stack.timers.soonest < self._armed_for:
            self._arm(now)
        return sent

    def _wait_writable(self, write: Callable[[], bool]) -> None:
        self._blocked = write
        if self._fd >= 0:
            self.loop.add_writer(self._fd, self._on_writable)
        else:
            # A device without a descriptor cannot say when; none of ours blocks.
            self._retry_handle = self.loop.call_later(GRAIN / 1e6, self._on_writable)

    def _on_writable(self) -> None:
        self._retry_handle = None
        write = self._blocked
        assert write is not None
        try:
            if not write():
                if self._fd < 0:
                    self._wait_writable(write)
                return
        except OSError as error:
            self._fail(error)
            return
        self._blocked = None
        if self._fd >= 0:
            self.loop.remove_writer(self._fd)
        self._on_flush()

    # Time.

    def _arm(self, now: int) -> None:  # hot
        """See to it that the timer fires no later than the stack's next deadline.

        A timer that would fire too early is left alone: it will find nothing due, and set itself anew.
        """
        deadline = self.stack.next_deadline()
        if deadline is None or deadline >= self._armed_for or not self.is_running:
            return
        self._armed_for = deadline
        grain = self._grain
        delay = deadline - now
        delay = -(-delay // grain) * grain if delay > grain else grain  # rounded up: early is in vain
        if now + delay >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = now + delay
        self._timer = self.loop.call_later(delay / 1e6, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = self._armed_for = NEVER
        now = self._now = self._clock()
        deadline = self.stack.next_deadline()
        if deadline is not None and deadline <= now:
            self._in_turn = True
            try:
                if now - deadline > LATE:
                    # We were held up. What lies in the device's queue is older than the timeout that it may prevent.
                    self._looks_to_skip = 0
                    self._turn()
                    while self.is_running and not self._goes_on:
                        self._turn()  # a reader that paused ended it; none resumes before this callback ends
                    if not self.is_running:
                        return
                    now = self._now
                self.stack.advance(now)
                deadline = self.stack.next_deadline()
                if deadline is not None and deadline <= now:  # a burst of timers: the answers to the first are read in between
                    self._timer_at = self._armed_for = now
                    self._timer = self.loop.call_soon(self._on_timer)
                self._flush(now)
                self._arm(now)  # fragments have a deadline that a flush does not look at
            finally:
                self._in_turn = False
        else:
            self._arm(now)
