"""The driver: one reader, one timer, one flush; devices with and without a descriptor, that block, and that go away."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import socket

import pytest
from aio.devices import OverDevices, Prompt, SocketDevice, Wrapper
from aio.recorder import Recorder, connected
from aio.worlds import LOOPS, assert_nothing_left, settle

from tunstack.aio import Endpoint
from tunstack.aio.driver import LOOKS_TO_SKIP, WORK_A_TURN
from tunstack.device.memory import memory_pipe
from tunstack.wire import codec
from tunstack.wire.flow import pack_flow
from tunstack.wire.segment import ACK, SYN, Segment

BIG = bytes(range(256)) * 16 * 1024  # 4 MiB


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
