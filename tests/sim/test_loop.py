"""The event loop on virtual time: jumps, order, determinism, and clear errors in place of hanging."""

from __future__ import annotations

import asyncio
import random
import socket
import time

import pytest

from tunstack.sim.loop import START, Deadlock, LoopClock, TimeLimit, VirtualLoop, run


def running() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_an_hour_of_sleep_returns_at_once_and_the_clock_shows_it() -> None:
    async def main() -> tuple[int, int]:
        before = running().time_us()
        await asyncio.sleep(3600)
        return before, running().time_us()

    began = time.monotonic()
    assert run(main()) == (START, START + 3_600_000_000)
    assert time.monotonic() - began < 5


def test_timers_fire_in_order_of_time_and_ties_in_order_of_making() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        loop = running()
        for name, delay in (("d", 2.0), ("a", 0.5), ("b", 1.0), ("c", 1.0)):
            loop.call_later(delay, seen.append, name)
        for i in range(50):
            loop.call_later(1.5, seen.append, str(i))
        await asyncio.sleep(3)
        return seen

    assert run(main()) == ["a", "b", "c", *map(str, range(50)), "d"]


def test_a_timer_sees_its_own_microsecond_exactly() -> None:
    async def main() -> list[int]:
        loop, at = running(), []
        clock = LoopClock(loop)
        for step in (1, 57, 1001, 333_333, 86_400_000_001, 10**14 + 1):
            clock.call_at(START + step, lambda: at.append(clock.now() - START))
        await asyncio.sleep(2e8)
        return at

    assert run(main()) == [1, 57, 1001, 333_333, 86_400_000_001, 10**14 + 1]


def test_a_cancelled_timer_neither_fires_nor_moves_the_clock() -> None:
    async def main() -> int:
        handles = [running().call_later(5 + i, pytest.fail, "cancelled timer fired") for i in range(300)]
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(1)
        return running().time_us() - START

    assert run(main()) == 1_000_000


def test_wait_for_times_out_in_virtual_time() -> None:
    async def main() -> int:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running().create_future(), 12.5)
        async with asyncio.timeout(100):
            await asyncio.sleep(99)
        return running().time_us() - START

    assert run(main()) == 111_500_000


def test_a_program_that_waits_for_ever_raises_and_names_the_task() -> None:
    async def forgotten() -> None:
        await running().create_future()

    async def main() -> None:
        await asyncio.sleep(2)
        await asyncio.create_task(forgotten(), name="the-forgotten-one")

    with pytest.raises(Deadlock, match=r"(?s)at 2 s.*the-forgotten-one: .*forgotten waits at .*test_loop\.py:\d+"):
        run(main())


def test_a_program_that_never_ends_meets_the_time_limit() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(TimeLimit, match=r"(?s)after 60 s.*main waits at"):
        run(main(), time_limit=60)


def test_the_seed_decides_the_randomness_and_the_global_generator_is_given_back() -> None:
    async def main() -> tuple[float, float]:
        return running().random.random(), random.random()

    random.seed(99)
    expected = random.random()
    random.seed(99)
    assert run(main(), seed=5) == run(main(), seed=5)
    assert run(main(), seed=5)[0] != run(main(), seed=6)[0]
    assert run(main(), seed=5)[1] != run(main(), seed=6)[1]
    assert random.random() == expected


def test_descriptors_and_signals_are_refused_clearly() -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            with pytest.raises(NotImplementedError, match="memory device"):
                running().add_reader(a, print)
            with pytest.raises(NotImplementedError, match="memory device"):
                await running().sock_recv(a, 1)
            with pytest.raises(NotImplementedError, match="memory device"):
                await asyncio.open_connection(sock=a)
        with pytest.raises(NotImplementedError, match="memory device"):
            running().add_signal_handler(15, print)
        with pytest.raises(NotImplementedError, match="memory device"):
            await asyncio.create_subprocess_exec("true")

    run(main())


def test_to_thread_runs_inline_and_carries_results_and_errors() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return await asyncio.to_thread(sum, [1, 2, 3])

    assert run(main()) == 6


def test_tasks_left_over_are_cancelled_at_the_end() -> None:
    seen: list[str] = []

    async def server() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            seen.append("closed")

    async def main() -> str:
        task = asyncio.create_task(server())
        await asyncio.sleep(1)
        assert not task.done()
        return "done"

    assert run(main()) == "done"
    assert seen == ["closed"]


def test_queues_locks_and_streams_of_asyncio_work_unchanged() -> None:
    async def main() -> list[tuple[int, int]]:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        got: list[tuple[int, int]] = []

        async def producer() -> None:
            for i in range(4):
                await queue.put(i)

        async def consumer() -> None:
            for _ in range(4):
                await asyncio.sleep(1)
                got.append((await queue.get(), (running().time_us() - START) // 1_000_000))

        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            group.create_task(consumer())
        return got

    assert run(main()) == [(0, 1), (1, 2), (2, 3), (3, 4)]
