"""The driver: one reader, one timer, one flush; devices with and without a descriptor, that block, and that go away."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import socket

import pytest
import uvloop
from aio.recorder import Recorder, connected
from aio.worlds import LOOPS, Ours, assert_nothing_left, settle

from tunstack.aio import Endpoint
from tunstack.aio.driver import GRAIN, LOOKS_TO_SKIP, WORK_A_TURN, loop_clock
from tunstack.device import memory
from tunstack.device.memory import memory_pipe
from tunstack.sim.loop import VirtualLoop
from tunstack.wire import codec, ipv4
from tunstack.wire.flow import pack_flow, reverse_flow
from tunstack.wire.segment import ACK, SYN, Batch, Segment

BIG = bytes(range(256)) * 16 * 1024  # 4 MiB


class SocketDevice:
    """A device with a descriptor: one frame a datagram. It blocks when its peer has a few of them to read, less than a first window."""

    on_readable = None
    mtu = 1500
    max_payload = 60_000

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.sock = sock
        self.frames = []  # of the item that is being written
        self.blocked = 0
        self.reader = codec.Reader(vnet=False)

    def fileno(self):
        return self.sock.fileno()

    def read_batch(self):
        return self.reader.read(self.sock.fileno())

    def write(self, item):
        frames = [item] if isinstance(item, bytes) else codec.encode(item)
        if not self.frames:
            self.frames = frames
        while self.frames:
            try:
                self.sock.send(self.frames[0])
            except BlockingIOError:
                self.blocked += 1
                return False  # what was sent of it stays sent
            del self.frames[0]
        return True

    def close(self):
        self.sock.close()


class Wrapper:
    """Another device, with something in the way."""

    def __init__(self, device) -> None:
        self.device = device
        self.mtu, self.max_payload = device.mtu, device.max_payload
        self.read_error = self.write_error = None
        self.blocking = 0  # writes that will block

    @property
    def on_readable(self):
        return self.device.on_readable

    @on_readable.setter
    def on_readable(self, callback):
        self.device.on_readable = callback

    def fileno(self):
        return -1

    def read_batch(self):
        if self.read_error:
            raise self.read_error
        return self.device.read_batch()

    def write(self, item):
        if self.write_error:
            raise self.write_error
        if self.blocking:
            self.blocking -= 1
            return False
        return self.device.write(item)

    def close(self):
        self.device.close()


class OverDevices(Ours):
    """Our world over devices of the test's choice."""

    def __init__(self, kind, devices) -> None:
        super().__init__(kind, LOOPS[kind])
        self.devices = devices

    async def __aenter__(self):
        from contextlib import AsyncExitStack

        self._stack = AsyncExitStack()
        self.client = await self._stack.enter_async_context(Endpoint(self.devices[0], "10.77.0.1"))
        self.server = await self._stack.enter_async_context(Endpoint(self.devices[1], "10.77.0.2"))
        self.create_connection = self.client.create_connection
        self.open_connection = self.client.open_connection
        return self


@pytest.fixture(params=["asyncio", "uvloop"])
def sockets(request):
    yield OverDevices(request.param, [SocketDevice(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)])


@pytest.fixture(params=list(LOOPS))
def wrapped(request):
    yield OverDevices(request.param, [Wrapper(end) for end in memory_pipe()])


async def start_echo(world):
    async def answer(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    return await world.start_server(answer)


async def connect(world, server):
    return await world.open_connection(world.host, server.sockets[0].getsockname()[1])


async def echo(world):
    server = await start_echo(world)
    reader, writer = await connect(world, server)

    async def send():
        for at in range(0, len(BIG), 200_000):
            writer.write(BIG[at : at + 200_000])
            await writer.drain()
        writer.write_eof()

    task = asyncio.create_task(send())
    assert await reader.read() == BIG
    await task
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_descriptors_are_polled_for_reading_and_for_writing(sockets):
    await echo(sockets)
    assert sockets.devices[0].blocked
    while sockets.client._driver._blocked is not None:
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert not loop.remove_writer(sockets.devices[0].fileno())


@pytest.mark.parametrize("busy_poll", [0, 1 << 30])
async def test_busy_polling_looks_without_being_told(sockets, busy_poll):
    """net.core.busy_poll: the loop stays awake and reads, here where nobody tells it that there is something."""
    reader, writer = await connect(sockets, await start_echo(sockets))
    sockets.client.stack.sysctl.busy_poll = busy_poll
    writer.write(b"once")
    assert await reader.readexactly(4) == b"once"
    asyncio.get_running_loop().remove_reader(sockets.devices[0].fileno())
    writer.write(b"more")
    came = asyncio.create_task(reader.readexactly(4))
    for _ in range(50):
        await asyncio.sleep(0)
    assert came.done() == bool(busy_poll)
    came.cancel()


async def test_descriptor_is_let_go_on_close(sockets):
    loop = asyncio.get_running_loop()
    fd = sockets.devices[0].fileno()
    await settle()
    sockets.client.close()
    assert not loop.remove_reader(fd) and sockets.devices[0].fileno() == -1
    await sockets.client.wait_closed()


async def test_item_that_blocks_is_kept_and_order_with_it(wrapped):
    for device in wrapped.devices:
        device.blocking = 5
    await echo(wrapped)
    assert not any(device.blocking for device in wrapped.devices)
    for endpoint in (wrapped.client, wrapped.server):
        assert endpoint.stack.counters.TCPOFOQueue == 0
        assert endpoint.stack.counters.TCPTimeouts == 0


@pytest.mark.parametrize("side", ["read_error", "write_error"])
async def test_device_that_goes_away_takes_everything_with_it(wrapped, side):
    near, far, server = await connected(wrapped)
    forever = asyncio.create_task(server.serve_forever())
    opening = asyncio.create_task(wrapped.server.create_connection(Recorder, "10.77.0.99", 80))
    closed = asyncio.create_task(wrapped.server.wait_closed())
    await settle()
    setattr(wrapped.devices[1], side, OSError(errno.EBADFD, "File descriptor in bad state"))
    near.transport.write(b"x")  # what is read or answered there meets the error
    for task in (forever, opening):
        with pytest.raises(OSError) as caught:
            await task
        assert caught.value.errno == errno.EBADFD
    await closed
    assert far.events[-1] == "lost OSError" and far.error.errno == errno.EBADFD
    assert wrapped.server.error is far.error
    assert_nothing_left(wrapped.server)
    for call in (wrapped.server.create_server(Recorder), wrapped.server.create_connection(Recorder, "10.77.0.1", 1)):
        with pytest.raises(OSError) as caught:
            await call
        assert caught.value.errno == errno.ENETDOWN
    await server.wait_closed()
    await wrapped.server.shutdown()
    assert wrapped.client.error is None


async def test_a_flood_does_not_starve_the_loop(ours):
    """Bounded work a turn: while frames never end, other callbacks have their turn."""
    device = ours.server.device
    flood = (codec.encode(make_syn(port)) for port in range(1, 65536))
    turns = 0
    original = type(device).read_batch

    def read_batch():
        nonlocal turns
        turns += 1
        for frames in flood:
            device.deliver(frames[0])
            break
        return original(device)

    device.read_batch = read_batch
    device.deliver(codec.encode(make_syn(1))[0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < turns < 50
    del device.read_batch
    ours.server.close()


async def test_a_device_that_goes_away_under_a_large_write_is_told_by_the_loop(wrapped):
    near, far, server = await connected(wrapped)
    await settle()
    wrapped.devices[0].write_error = OSError(errno.EBADFD, "File descriptor in bad state")
    near.transport.write(BIG)
    assert near.events == ["made"] and near.transport.is_closing()
    await near.until("lost OSError")
    assert near.error.errno == errno.EBADFD and "pause" not in near.events
    assert_nothing_left(wrapped.client)
    far.transport.abort()
    await settle()
    server.close()


async def test_a_driver_that_is_behind_says_so(ours):
    """A turn that ends at its bound, not for want of frames; and no longer, once all is read."""
    endpoint = ours.server
    device = endpoint.device
    for port in range(1, 2 * WORK_A_TURN):
        device.deliver(codec.encode(make_syn(port))[0])
    _, turns = count_turns(endpoint)
    while not turns or turns[-1]:
        await asyncio.sleep(0)
    assert len(turns) > 1
    assert turns[0]
    endpoint.close()


async def test_one_look_in_vain_saves_the_next_ones(sockets):
    """A peer that asks, is answered and asks again, from elsewhere: its next question is not there yet when we have answered."""
    near, far, server = await connected(sockets)
    reads, turns = count_turns(sockets.server)
    far.data_received = far.transport.write
    far.transport.set_protocol(far)
    for number in range(1, 101):
        near.transport.write(b"?")
        await near.received(number)
    assert len(turns) >= 100
    assert len(reads) - len(turns) <= 100 / LOOKS_TO_SKIP + 1
    near.transport.close()
    server.close()


async def test_looks_go_on_while_they_find_something(virtual):
    """A peer on our own CPU: its next question is there as soon as we have answered."""
    server = virtual.server
    device = server.device
    near, far, listener = await connected(virtual)
    conn = far.transport.get_extra_info("connection")
    far.data_received = far.transport.write
    far.transport.set_protocol(far)
    asked = 0
    carry = device.carry

    def answer_at_once(frame):
        nonlocal asked
        carry(frame)
        if asked < 100:
            asked += 1
            near.transport.write(b"?")
            virtual.client._driver._on_flush()
            virtual.client._driver._on_readable()

    await settle()
    device.carry = answer_at_once
    reads, turns = count_turns(server)
    near.transport.write(b"?")
    await near.received(100)
    device.carry = carry
    assert conn.segs_in > 100
    assert len(turns) < len(reads) / 8
    near.transport.close()
    listener.close()


async def test_a_reader_that_is_full_ends_the_turn(ours):
    """The task that reads must run before more comes, or that would have to be held back."""
    near, far, server = await connected(ours)
    await settle()
    reads, turns = count_turns(ours.server)
    far.transport.pause_reading()
    assert not reads
    far.transport.resume_reading()
    far.data_received = lambda data: (far.transport.pause_reading(), far.wake())
    far.transport.set_protocol(far)
    near.transport.write(BIG)
    await far.until(lambda: not far.transport.is_reading())
    assert len(reads) == len(turns) > 0
    near.transport.abort()
    server.close()
    far.transport.abort()


def count_turns(endpoint):
    """Return lists that grow by one with each read of the endpoint's device, and with each turn of its driver (whether it is behind)."""
    device, driver = endpoint.device, endpoint._driver
    reads, turns = [], []
    read_batch, turn = device.read_batch, driver._turn

    def counted_read():
        reads.append(1)
        return read_batch()

    class Counted(type(driver)):
        __slots__ = ()

        def _turn(self):
            turn()
            turns.append(endpoint.stack.memory.is_behind)

    device.read_batch = counted_read
    driver.__class__ = Counted
    return reads, turns


def make_syn(port):
    from tunstack.wire.flow import pack_address, pack_flow
    from tunstack.wire.segment import SYN, Segment

    return Segment(pack_flow(pack_address("10.77.0.1"), port, pack_address("10.77.0.2"), 9), 1, 0, SYN, 1000, mss=1460)


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


async def test_frames_that_are_no_ipv4_do_not_stop_the_reading(ours):
    """A batch of nothing else is no sign that nothing is left, and a device without a descriptor says so only once."""
    server = await ours.create_server(Recorder)
    for _ in range(100):
        ours.server.device.deliver(b"\x60" + bytes(47))  # IPv6
    near, _ = await ours.create_connection(Recorder, ours.host, server.sockets[0].getsockname()[1])
    near.close()
    server.close()


async def test_calls_within_a_turn_see_one_time(ours):
    seen = []

    class Spy(Recorder):
        def data_received(self, data):
            self.transport.write(b"answer")
            assert ours.server._driver._flush_handle is None  # the turn ends with a flush of its own
            seen.append((ours.server._driver.now(), ours.server._driver.now()))
            super().data_received(data)

    near, far, server = await connected(ours, Spy())
    near.transport.write(b"x")
    await far.received(1)
    assert seen[0][0] == seen[0][1]
    first = ours.server._driver.now()
    if ours.kind != "virtual":
        while ours.server._driver.now() == first:
            pass
    near.transport.close()
    server.close()


async def test_one_flush_sends_all_that_a_turn_wrote(ours):
    near, far, server = await connected(ours)
    sent = ours.client.stack.counters.TcpOutSegs
    for _ in range(100):
        near.transport.write(b"0123456789")
    await far.received(1000)
    assert ours.client.stack.counters.TcpOutSegs == sent + 1
    near.transport.close()
    server.close()


async def test_exception_in_the_engine_does_not_stop_the_driver(ours):
    ours.expects_errors = True

    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)

    server = await ours.create_server(Echo)
    port = server.sockets[0].getsockname()[1]
    good, near = await ours.create_connection(Recorder, ours.host, port)
    bad, _ = await ours.create_connection(Recorder, ours.host, port)

    class Bad:
        def on_segment(self, seg, now):
            raise ZeroDivisionError("on purpose")

    flow = bad.get_extra_info("connection").flow
    flows = ours.server.stack.flows
    sound, flows[flow] = flows[flow], Bad()
    good.write(b"x")
    bad.write(b"y")  # in one batch with the other
    await settle()
    assert bytes(near.data) == b"x"  # the answer left at once, though the turn did not end well
    assert isinstance(ours.errors[0]["exception"], ZeroDivisionError)
    flows[flow] = sound
    good.abort()
    bad.abort()
    await settle()
    server.close()


def test_random_source_and_secret_may_be_given():
    devices = memory_pipe()
    a = Endpoint(devices[0], "10.77.0.1", random=random.Random(1), secret=bytes(16))
    b = Endpoint(devices[1], "10.77.0.1", random=random.Random(1), secret=bytes(16))
    assert a.stack.isn.isn(bytes(12), 5) == b.stack.isn.isn(bytes(12), 5)
    a.close()
    b.close()


class Prompt:
    """A device whose peer answers at once: its SYN-ACK's ACK is there before the turn that sent it ends."""

    on_readable = None
    mtu = 1500
    max_payload = 60_000

    def __init__(self) -> None:
        self.batches = []
        self.acks = []  # what was acknowledged, by bare ACKs

    def fileno(self):
        return -1

    def bring(self, *segments):
        batch = Batch()
        batch.segments.extend(segments)
        self.batches.append(batch)

    def read_batch(self):
        return self.batches.pop(0) if self.batches else Batch()

    def write(self, seg):
        if seg.flags & SYN:
            self.bring(Segment(reverse_flow(seg.flow), 1, seg.seq + 1, ACK, 1000))
        elif not seg.length:
            self.acks.append(seg.ack)
        return True

    def close(self):
        pass


@pytest.fixture
def prompt():
    yield OverDevices("asyncio", [memory_pipe()[0], Prompt()])


async def test_time_goes_on_from_one_batch_of_a_turn_to_the_next(prompt):
    """M-34: the round-trip time of the handshake is not nothing."""
    endpoint, device = prompt.server, prompt.devices[1]
    server = await endpoint.create_server(Recorder, port=80)
    device.bring(Segment(pack_flow(bytes([10, 77, 0, 1]), 4000, bytes([10, 77, 0, 2]), 80), 0, 0, SYN, 1000))
    endpoint._driver._clock = itertools.count(endpoint.now(), 300).__next__
    device.on_readable()
    while not endpoint.stack.counters.TcpPassiveOpens:
        await asyncio.sleep(0)
    (conn,) = endpoint.stack.connections
    assert conn.rtt.srtt >= 300
    server.close()


@pytest.mark.parametrize(("size", "acks"), [(5000, [60_001, 75_001]), (1000, [3001, 6001, 9001, 12_001, 15_001])])
async def test_batches_of_large_segments_share_their_acks(prompt, size, acks):
    """M-32: one ACK for up to four batches of a bulk transfer, which are there one behind the other; else one a batch at the latest."""
    endpoint, device = prompt.server, prompt.devices[1]
    server = await endpoint.create_server(Recorder, port=80)
    flow = pack_flow(bytes([10, 77, 0, 1]), 4000, bytes([10, 77, 0, 2]), 80)
    device.bring(Segment(flow, 0, 0, SYN, 1000, mss=1000))
    device.on_readable()
    while not endpoint.stack.counters.TcpPassiveOpens:
        await asyncio.sleep(0)
    (conn,) = endpoint.stack.connections
    conn.rx.rcv_adv += 65536  # the window is no matter here
    for first in range(0, 15, 3):
        ats = [1 + number * size for number in range(first, first + 3)]
        device.bring(*(Segment(flow, at, conn.tx.snd_nxt, ACK, 1000, (bytes(size),), size, gso_size=1000) for at in ats))
    device.on_readable()
    while len(device.acks) < len(acks):
        await asyncio.sleep(0)
    assert device.acks == acks
    server.close()
