"""Real time to the microsecond: a heap of calls behind one timerfd.

timerfd_create(2). An event loop's own timers are too coarse for a link (uvloop's step by milliseconds), and so are timeouts of
epoll_wait; a timerfd wakes any loop that watches its descriptor when the kernel's high-resolution timer fires, without the slack of
50 µs that the kernel gives to sleeps. Times int microseconds of CLOCK_MONOTONIC.

To set a timer costs the more the nearer it is (in a virtual machine 25 µs for one that is 50 µs away, 1.5 µs beyond the next tick,
measured). So what is due within SLACK is called together; that is as early as waking up makes others late.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from heapq import heappop, heappush

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
SLACK = 50  # µs
_NEVER = 1 << 62


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("it_interval", _Timespec), ("it_value", _Timespec)]


class RealClock:
    """Watch `fileno()` for reading and call `run_due` when it is readable. Not thread-safe."""

    slack = SLACK

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)  # os.timerfd_create came with Python 3.13
        self._settime = libc.timerfd_settime
        # TFD_NONBLOCK and TFD_CLOEXEC are open(2)'s.
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._spec = _Itimerspec()
        self._spec_ref = ctypes.byref(self._spec)
        self._armed_at = _NEVER  # when the timerfd fires
        self._serial = 0
        self._calls: list[tuple[int, int, Callable[..., object], tuple[object, ...]]] = []

    def fileno(self) -> int:
        """Return the descriptor to watch, -1 once closed."""
        return self._fd

    def now(self) -> int:
        """Return the time, µs."""
        return time.monotonic_ns() // 1000

    def call_at(self, at: int, callback: Callable[..., object], *args: object) -> None:  # hot
        """Have `run_due` call at a time, at once if it has passed; calls for one instant come in the order of asking."""
        self._serial += 1
        heappush(self._calls, (at, self._serial, callback, args))
        if at < self._armed_at:
            self._arm(at)

    def run_due(self) -> None:  # hot
        """Call what is due, and set the timer to the next; what a call raises comes out, and the rest is called next time."""
        calls = self._calls
        if not calls:
            return
        now = time.monotonic_ns() // 1000
        until = now + SLACK
        if calls[0][0] > until:
            return
        # What the calls ask for is later than this, so that the timer is set once, below.
        self._armed_at = until
        try:
            while calls and calls[0][0] <= until:
                _, _, callback, args = heappop(calls)
                callback(*args)
        finally:
            self._arm(calls[0][0] if calls else _NEVER)

    def close(self) -> None:
        """Forget all calls. Idempotent."""
        fd, self._fd = self._fd, -1
        self._calls.clear()
        if fd >= 0:
            os.close(fd)

    def _arm(self, at: int) -> None:  # hot
        """Set the timer, which also takes back that it has fired."""
        self._armed_at = at
        value = self._spec.it_value
        if at == _NEVER:
            value.tv_sec = value.tv_nsec = 0  # off
        else:
            value.tv_sec, micros = divmod(max(at, 1), 1_000_000)
            value.tv_nsec = micros * 1000
        if self._settime(self._fd, _TFD_TIMER_ABSTIME, self._spec_ref, None):
            raise OSError(ctypes.get_errno() or errno.EBADF, "the timer of the link is gone")
