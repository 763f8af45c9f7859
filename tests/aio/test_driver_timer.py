"""The driver's one timer, and the clock: when it is set, and what is read before it is judged."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop
from aio.recorder import Recorder, connected
from aio.worlds import LOOPS, Ours, settle

from tunstack.aio.driver import GRAIN, LOOKS_TO_SKIP, loop_clock
from tunstack.device import memory
from tunstack.sim.loop import VirtualLoop
from tunstack.wire import ipv4


class CountingLoop(VirtualLoop):
    """Counts timers."""

    def __init__(self):
        super().__init__()
        self.timers = 0

    def call_at(self, when, callback, *args, context=None):
        if getattr(callback, "__self__", None).__class__.__name__ == "Driver":
            self.timers += 1
        return super().call_at(when, callback, *args, context=context)


def test_the_timer_is_set_anew_only_to_fire_earlier():
    world = Ours("virtual", CountingLoop)

    async def main():
        loop = asyncio.get_running_loop()
        near, far, server = await connected(world)
        for _ in range(1000):
            near.transport.write(b"x" * 100)  # each moves the retransmission timer further away
            await settle()
        assert loop.timers < 50
        before = loop.timers
        await asyncio.sleep(300)
        assert loop.timers - before < 10  # and it falls asleep when nothing is due
        near.transport.close()
        await far.until("lost")
        server.close()

    world.run(main())


def test_a_timer_of_a_connection_does_not_put_fragments_off_for_good():
    """M-08: an incomplete datagram is given up after ipfrag_time, whatever became due before."""
    world = Ours("virtual", LOOPS["virtual"])

    async def main():
        near, far, server = await connected(world)
        far.transport.get_extra_info("connection").set_option("quickack", 0, world.server.now())
        us, host = (bytes([10, 77, 0, last]) for last in (2, 1))
        counters = world.server.stack.counters
        world.client._driver.device.write(ipv4.build(host, us, ipv4.UDP, bytes(64), ident=7, more_fragments=True))
        near.transport.write(b"x")  # its ACK is delayed: a deadline before that of the fragment, and the last one of the connection
        await asyncio.sleep(20)
        assert (counters.DelayedACKs, counters.IpReasmReqds, counters.IpReasmTimeout) == (1, 1, 0)
        await asyncio.sleep(20)
        assert counters.IpReasmTimeout == 1
        near.transport.close()
        await far.until("lost")
        server.close()

    world.run(main())


async def test_a_deadline_that_an_idle_connection_is_given_sets_the_timer(virtual):
    """M-42: SO_KEEPALIVE through the socket view, while nothing is to be sent and the timer is for much later, or for nothing."""
    near, far, server = await connected(virtual)
    await asyncio.sleep(60)
    sock = near.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # two hours
    await settle()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 70)
    await asyncio.sleep(5)
    counters = virtual.client.stack.counters
    assert counters.TCPKeepAlive == 0
    await asyncio.sleep(10)
    assert counters.TCPKeepAlive == 1
    far.transport.close()
    await near.until("lost")
    server.close()


def test_clock_is_fine_for_real_loops_and_the_loops_own_for_others():
    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        loop = factory()
        clock, grain = loop_clock(loop)
        first = clock()
        assert grain == GRAIN and abs(first / 1e6 - loop.time()) < 1
        while clock() == first:
            pass
        assert clock() - first < GRAIN  # steps finer than uvloop's time()
        loop.close()
    loop = VirtualLoop()
    clock, grain = loop_clock(loop)
    assert grain == 1 and clock() == loop.time_us() == clock()
    loop.close()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_real_timers_are_a_millisecond_away_at_least(kind):
    world = Ours(kind, LOOPS[kind])

    async def main():
        driver = world.client._driver
        fired = []
        original = driver.stack.next_deadline
        deadline = driver.now() + 300
        driver.stack = Stub(driver.stack, lambda: deadline if not fired else original(), fired.append)
        start = driver.now()
        driver._arm(start)
        assert driver._timer_at - start == GRAIN
        while not fired:
            await asyncio.sleep(0)
        assert fired[0] >= deadline
        driver.stack = driver.stack.stack

    world.run(main())


class Stub:
    """A stack with a deadline of the test's own."""

    def __init__(self, stack, next_deadline, advance):
        self.stack = stack
        self.next_deadline = next_deadline
        self.advance = advance

    def __getattr__(self, name):
        return getattr(self.stack, name)


def test_what_arrived_is_read_before_a_late_timer_is_judged():
    """A process that was held up must not retransmit what was acknowledged long ago."""
    world = Ours("virtual", VirtualLoop)

    async def main():
        loop = asyncio.get_running_loop()
        near, far, server = await connected(world)
        await asyncio.sleep(1)
        near.transport.write(b"x" * 1000)
        await asyncio.sleep(0)  # it is sent, its answer is on the way
        driver = world.client._driver
        while not world.client.device.waiting:
            await asyncio.sleep(0)
        if driver._read_handle is not None:
            driver._read_handle.cancel()
            driver._read_handle = None
        loop._now += 900_000  # held up
        driver._on_timer()
        counters = world.client.stack.counters
        assert (counters.TCPTimeouts, counters.TcpRetransSegs) == (0, 0) and not near.transport.get_extra_info("connection").unacked
        near.transport.close()
        await far.until("lost")
        server.close()

    world.run(main())


def test_all_that_arrived_is_read_before_a_late_timer_is_judged(monkeypatch):
    """Neither a look that is spared nor a reader that paused may hide the acknowledgement behind what is read first."""
    monkeypatch.setattr(memory, "_BATCH", 1)
    for answer in ("look", "pause"):
        world = Ours("virtual", VirtualLoop)

        class Asked(Recorder):
            def data_received(self, data, answer=answer):
                super().data_received(data)
                if answer == "pause":
                    self.transport.pause_reading()
                else:
                    self.transport.write(b"short")

        async def main(world=world, asked=Asked):
            loop = asyncio.get_running_loop()
            near, far, server = await connected(world)
            other, _ = await world.create_connection(asked, world.host, server.sockets[0].getsockname()[1])
            await asyncio.sleep(1)
            driver, device = world.client._driver, world.client.device
            question = next(conn for conn in world.server.stack.connections if conn.flow_in == other.get_extra_info("connection").flow)
            near.transport.write(b"x" * 1000)
            question.send(b"ask", world.server.now())
            while device.waiting < 2:
                await asyncio.sleep(0)
                if driver._read_handle is not None:
                    driver._read_handle.cancel()
                    driver._read_handle = None
            driver._looks_to_skip = LOOKS_TO_SKIP
            loop._now += 900_000  # held up
            driver._on_timer()
            counters = world.client.stack.counters
            assert (counters.TCPTimeouts, counters.TcpRetransSegs) == (0, 0)
            assert not near.transport.get_extra_info("connection").unacked
            near.transport.close()
            other.abort()
            await far.until("lost")
            server.close()

        world.run(main())
