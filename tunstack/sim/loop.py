"""An asyncio event loop on virtual time.

When nothing is ready the clock jumps to the next timer, so `asyncio.sleep(3600)` returns at once and in order.
The loop touches no descriptor, starts no thread and reads no clock: a program that takes its randomness from `random`
(or `loop.random`) runs the same way every time. What can only wait for the real world (descriptors, sockets,
subprocesses, signals) is refused with `NotImplementedError`. Time is kept in int microseconds.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import Handle, TimerHandle
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1_000_000_000  # where virtual time starts, µs: not 0, so that "never" and "at the start" differ


class Deadlock(RuntimeError):
    """Nothing is ready, no timer runs, and the program is not done: it would wait for ever."""


class TimeLimit(RuntimeError):
    """The program went past the virtual time that `run` allows it."""


class _Timer(TimerHandle):
    """A timer that ties with another by the order in which they were made, which a heap alone does not keep."""

    __slots__ = ("serial",)
    _scheduled: bool  # BaseEventLoop's: lies in its heap

    def __init__(
        self, when: float, callback: Callable[..., object], args: Sequence[Any], loop: VirtualLoop, context: Context | None
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.serial = loop.next_serial()

    def __lt__(self, other: object) -> bool:
        if isinstance(other, _Timer):
            return (self.when(), self.serial) < (other.when(), other.serial)
        return NotImplemented


class _JumpSelector:
    """Stands where BaseEventLoop expects a selector: waiting means moving the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            self._loop.fail_deadlocked()
        if timeout > 0:
            self._loop.jump()
        return []

    def close(self) -> None: ...


class VirtualLoop(asyncio.BaseEventLoop):
    """Event loop whose `time()` is virtual. `random` is seeded by `seed`, for what wants to repeat with the loop."""

    _scheduled: list[TimerHandle]  # BaseEventLoop's heap of timers

    def __init__(self, seed: int = 0, time_limit: float | None = None) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self._now = START
        self._stop_at = None if time_limit is None else START + round(time_limit * 1e6)
        self._serial = 0  # timers made
        self._clock_resolution = 1e-7  # below the grain of the clock: a timer is due when its microsecond is reached
        self._selector = _JumpSelector(self)

    def time(self) -> float:
        return self._now / 1e6

    def time_us(self) -> int:
        """Return the time in int microseconds, exactly."""
        return self._now

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def jump(self) -> None:
        """Move the clock to the next timer."""
        at = round(self._scheduled[0].when() * 1e6)
        if self._stop_at is not None and at > self._stop_at:
            raise TimeLimit(f"not done after {(self._stop_at - START) / 1e6:g} s of virtual time; pending:\n{self._describe_tasks()}")
        self._now = max(self._now, at)

    def fail_deadlocked(self) -> NoReturn:
        raise Deadlock(f"nothing is ready and no timer runs at {(self._now - START) / 1e6:g} s; pending:\n{self._describe_tasks()}")

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> TimerHandle:
        """Call at `when`, to the microsecond; calls for the same microsecond come in the order in which they were asked for."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        timer = _Timer(round(when * 1e6) / 1e6, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Handle:
        """Call soon: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call `func` here and now: a thread would bring real time in."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _describe_tasks(self) -> str:
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            stack = task.get_stack(limit=1)
            where = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "?"
            lines.append(f"  {task.get_name()}: {getattr(task.get_coro(), '__qualname__', task.get_coro())} waits at {where}")
        return "\n".join(lines) or "  no task"

    def _process_events(self, event_list: list[object]) -> None: ...

    def _write_to_self(self) -> None: ...

    def _no_descriptors(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("virtual time has no descriptors, sockets, subprocesses or signals: use a stack over a memory device")

    async def _no_descriptors_async(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._no_descriptors()

    add_reader = add_writer = add_signal_handler = _no_descriptors  # type: ignore[assignment]
    sock_connect = sock_accept = sock_recv = sock_recv_into = sock_sendall = sock_sendto = _no_descriptors_async
    create_connection = create_server = create_datagram_endpoint = _no_descriptors_async
    create_unix_connection = create_unix_server = connect_read_pipe = connect_write_pipe = _no_descriptors_async
    subprocess_exec = subprocess_shell = _no_descriptors_async

    def remove_reader(self, fd: object) -> bool:
        return False

    def remove_writer(self, fd: object) -> bool:
        return False


def run(main: Coroutine[Any, Any, T], *, seed: int = 0, time_limit: float | None = None, debug: bool | None = None) -> T:
    """Run a coroutine to its end in virtual time and return its result, as `asyncio.run` does in real time.

    `random` is seeded for the length of the run. Raises Deadlock where it would wait for ever, TimeLimit where it
    goes beyond `time_limit` (virtual seconds).
    """
    state = random.getstate()
    random.seed(seed)
    try:
        with asyncio.Runner(debug=debug, loop_factory=lambda: VirtualLoop(seed, time_limit)) as runner:
            return runner.run(main)
    finally:
        random.setstate(state)


class LoopClock:
    """The clock of an event loop, real or virtual, in the form that links take it (device/link.py)."""

    slack = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        """Return the time in µs."""
        return round(self._loop.time() * 1e6)

    def call_at(self, at: int, callback: Callable[..., object], *args: object) -> None:
        """Call at a time in µs."""
        self._loop.call_at(at / 1e6, callback, *args)
