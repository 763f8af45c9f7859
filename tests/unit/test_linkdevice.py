"""A device behind a link: what meets the link, what comes out of it, and what a device owes its user."""

from __future__ import annotations

import errno
import random
import select

import pytest

from tunstack.device.impairment import Impairment
from tunstack.device.link import Direction
from tunstack.device.linkdevice import LinkDevice
from tunstack.device.memory import MemoryDevice, memory_pipe
from tunstack.device.realclock import RealClock
from tunstack.sim.world import World
from tunstack.wire import codec, ipv4
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, PSH, Batch, Segment

HERE, THERE = pack_address("10.0.0.1"), pack_address("10.0.0.2")
OUT = pack_flow(HERE, 1000, THERE, 80)
UDP = ipv4.build(THERE, HERE, 17, b"any datagram")


def segment(data: bytes, seq: int = 7, gso_size: int = 0) -> Segment:
    return Segment(OUT, seq, 9, ACK | PSH, 1000, (memoryview(data),) if data else (), len(data), ts_val=1, ts_ecr=2, gso_size=gso_size)


def wrapped(
    up: Impairment | None = None, down: Impairment | None = None, *, offload: bool = False
) -> tuple[World, LinkDevice, MemoryDevice]:
    """Return a device behind a link, and the far end of the pipe under it."""
    world = World()
    inner, far = memory_pipe(offload=offload)
    directions = (Direction(imp or Impairment(), random.Random(seed)) for seed, imp in enumerate((up, down)))
    return world, LinkDevice(inner, *directions, world), far


def spied(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the length of every frame that a direction is offered."""
    sizes: list[int] = []
    offer = direction.offer
    monkeypatch.setattr(direction, "offer", lambda frame, now: (sizes.append(len(frame)), offer(frame, now))[1])
    return sizes


@pytest.mark.parametrize("offload", [False, True])
def test_super_segments_meet_the_link_at_wire_size_in_both_directions(offload: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world, device, far = wrapped(offload=offload)
    sent, received = spied(device.forward, monkeypatch), spied(device.backward, monkeypatch)
    data = random.Random(1).randbytes(20_000)
    expected = [1500] * 13 + [52 + 20_000 - 13 * 1448]
    assert device.write(segment(data, gso_size=1448))
    assert sent == expected
    assert b"".join(bytes(view) for seg in far.read_batch().segments for view in seg.payload) == data
    far.write(segment(data, gso_size=1448))
    assert world.run()
    assert received == expected
    batch = device.read_batch()
    assert b"".join(bytes(view) for seg in batch.segments for view in seg.payload) == data
    assert sum(seg.packets for seg in batch.segments) == 14


@pytest.mark.parametrize("offload", [False, True])
def test_octets_are_those_of_whole_packets_on_either_side_of_the_link(offload: bool) -> None:
    """M-61: a super-segment is one packet to the device that takes it whole, and cut on the link."""
    world, device, far = wrapped(Impairment(), Impairment(loss=1.0), offload=offload)
    assert device.write(segment(bytes(20_000), gso_size=1448))
    assert device.write(UDP)
    on_the_link = 20_000 + 14 * 52 + len(UDP)
    assert device.octets() == (0, on_the_link)
    far.read_batch()
    assert far.octets() == (on_the_link, 0)
    far.write(segment(bytes(20_000), gso_size=1448))
    assert far.octets()[1] == 20_000 + (52 if offload else 14 * 52)
    assert world.run()
    device.read_batch()
    assert device.octets() == (0, on_the_link)  # all of it was lost


def test_the_delay_is_exact_in_each_direction_and_the_reader_is_told() -> None:
    world, device, far = wrapped(Impairment(delay=3000), Impairment(delay=500))
    seen: list[tuple[str, int]] = []
    device.on_readable = lambda: seen.append(("us", world.elapsed))
    far.on_readable = lambda: seen.append(("far", world.elapsed))
    device.write(segment(b"out"))
    far.write(UDP)
    far.write(UDP)
    assert (device.waiting, device.in_flight) == (0, 1)
    assert world.run()
    assert seen == [("us", 500), ("far", 3000)]
    assert device.waiting == 2
    assert [bytes(packet) for packet in device.read_batch().packets] == [UDP, UDP]
    assert device.waiting == device.in_flight == 0


def fields(seg: Segment) -> dict[str, object]:
    values = {name: getattr(seg, name) for name in Segment.__slots__}
    values["payload"] = b"".join(bytes(view) for view in seg.payload)
    values["options"] = bytes(seg.options)
    return values


def test_a_received_segment_says_the_same_before_and_after_the_link() -> None:
    """Every field that the engine sees, with the options of each kind, unknown ones too."""
    for values in (
        {"flags": 2, "mss": 1460, "wscale": 7, "sack_ok": True},
        {"sack": ((5, 9), (20, 30), (1, 2))},
        {"ts_val": None, "flags": ACK | 0x40 | 0x100, "tos": 3, "urgent": 77, "ident": 4711, "window": 3},
        {"options": bytes((19, 18)) + bytes(range(16)) + bytes(2)},  # an MD5 signature
        {"options": bytes((253, 4, 1, 2)), "mss": 536},
    ):
        seg = segment(b"data" if values.get("flags") != 2 else b"")
        for name, value in values.items():
            setattr(seg, name, value)
        frames = codec.encode(seg)
        (direct,) = codec.Reader(vnet=False).parse(frames).segments
        world, device, far = wrapped()
        for frame in frames:
            far.write(frame)
        assert world.run()
        (behind,) = device.read_batch().segments
        assert fields(behind) == fields(direct)


def test_corruption_is_found_and_counted() -> None:
    """M-02: in either direction, whatever bit it hits."""
    world, device, far = wrapped(Impairment(corrupt=1.0), Impairment(corrupt=1.0), offload=True)
    total = Batch()
    for i in range(400):
        device.write(segment(bytes(60), seq=100 * i))
        far.write(segment(bytes(60), seq=100 * i))
        assert world.run()
        for batch in (device.read_batch(), far.read_batch()):
            assert not batch.segments
            total.checksum_errors += batch.checksum_errors
            total.header_errors += batch.header_errors
            total.ignored += batch.ignored
            total.packets += batch.packets
    assert total.checksum_errors + total.header_errors + total.ignored == 800
    assert not total.packets
    assert device.forward.corrupted == device.backward.corrupted == 400


def test_what_the_inner_device_found_wrong_is_handed_on() -> None:
    world, device, far = wrapped()
    damaged = bytearray(codec.encode(segment(b"x"))[0])
    damaged[-1] ^= 1
    far.write(bytes(damaged))
    far.write(b"\x65" + bytes(39))
    far.write(b"\x45" + bytes(19))
    assert world.run()
    batch = device.read_batch()
    assert (batch.checksum_errors, batch.header_errors, batch.ignored) == (1, 1, 1)
    again = device.read_batch()
    assert (again.checksum_errors, again.header_errors, again.ignored) == (0, 0, 0)


def test_a_read_is_bounded_and_keeps_the_order() -> None:
    world, device, far = wrapped()
    for i in range(100):
        far.write(segment(bytes([i]), seq=7 + 2 * i))  # gaps, so that nothing is merged
    assert world.run()
    seqs = [[seg.seq for seg in device.read_batch().segments] for _ in range(3)]
    assert [len(each) for each in seqs] == [64, 36, 0]
    assert seqs[0] + seqs[1] == [7 + 2 * i for i in range(100)]


def test_impairments_may_change_on_the_way() -> None:
    world, device, far = wrapped(Impairment(loss=1.0))
    device.write(segment(b"lost"))
    device.forward.impairment = Impairment(delay=10)
    device.write(segment(b"kept", seq=11))
    assert world.run()
    assert [seg.seq for seg in far.read_batch().segments] == [11]
    assert device.forward.counts() == {
        "offered": 2, "oversize": 0, "lost": 1, "corrupted": 0, "duplicated": 0, "reordered": 0, "dropped": 0, "marked": 0
    }  # fmt: skip


def test_closing_sends_what_is_on_the_way_and_closes_the_inner_device() -> None:
    world, device, far = wrapped(Impairment(delay=1000), Impairment(delay=1000))
    inner = device.inner
    device.write(segment(b"last"))
    far.write(UDP)
    device.close()
    device.close()
    assert far.waiting == 1
    for use in (device.read_batch, lambda: device.write(UDP), inner.read_batch):
        with pytest.raises(OSError) as caught:
            use()
        assert caught.value.errno == errno.EBADF
    assert world.run()
    assert (device.waiting, device.fileno()) == (0, -1)


class Picky:
    """An inner device that refuses as a TUN interface does."""

    mtu, max_payload, on_readable = 1500, 65535, None

    def __init__(self) -> None:
        self.answers: list[bool | OSError] = []

    def fileno(self) -> int:
        return -1

    def read_batch(self) -> Batch:
        return Batch()

    def write(self, item: Segment | bytes) -> bool:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None: ...


def test_a_frame_that_the_kernel_refuses_is_counted_and_a_device_that_is_gone_raises() -> None:
    world = World()
    picky = Picky()
    device = LinkDevice(picky, *(Direction(Impairment(), random.Random(1)) for _ in range(2)), world)
    picky.answers = [True, False, OSError(errno.EINVAL, "version"), OSError(errno.EBADFD, "gone")]
    for _ in range(3):
        assert device.write(UDP)
    assert device.refused == 2
    with pytest.raises(OSError, match="gone"):
        device.write(UDP)


def is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def test_in_real_time_one_descriptor_speaks_for_the_device_and_the_clock() -> None:
    """Without waiting: everything here is due at once."""
    inner, far = memory_pipe()
    clock = RealClock()
    device = LinkDevice(inner, *(Direction(Impairment(), random.Random(1)) for _ in range(2)), clock)
    device.read_batch()
    assert device.fileno() >= 0
    assert not is_readable(device.fileno())
    for i in range(70):
        far.write(segment(b"x", seq=7 + 2 * i))
    clock.call_at(1, lambda: None)  # due long ago, so that the timer has fired when it is asked
    assert is_readable(device.fileno())
    assert len(device.read_batch().segments) == 64
    assert is_readable(device.fileno()), "six frames are left"
    assert len(device.read_batch().segments) == 6
    assert not is_readable(device.fileno())
    device.close()
    assert clock.fileno() == -1


def test_a_device_with_a_descriptor_needs_real_time() -> None:
    class WithDescriptor(Picky):
        def fileno(self) -> int:
            return 0

    with pytest.raises(ValueError, match="real time"):
        LinkDevice(WithDescriptor(), *(Direction(Impairment(), random.Random(1)) for _ in range(2)), World())


class TestRealClock:
    def test_calls_come_in_order_of_time_and_of_asking_and_only_when_due(self) -> None:
        clock = RealClock()
        seen: list[str] = []
        clock.call_at(clock.now() + 3_600_000_000, seen.append, "in an hour")
        clock.run_due()
        assert not is_readable(clock.fileno())
        for at, name in ((50, "c"), (10, "a"), (50, "d"), (20, "b")):
            clock.call_at(at, seen.append, name)
        assert is_readable(clock.fileno())
        clock.run_due()
        assert seen == ["a", "b", "c", "d"]
        assert not is_readable(clock.fileno())
        clock.close()
        clock.close()
        assert clock.fileno() == -1

    def test_what_a_call_asks_for_within_the_slack_comes_in_the_same_run(self) -> None:
        clock = RealClock()
        seen: list[int] = []
        clock.call_at(1, lambda: clock.call_at(clock.now(), seen.append, 1))
        clock.run_due()
        assert seen == [1]
        clock.close()

    def test_a_call_that_raises_leaves_the_others_for_the_next_run(self) -> None:
        clock = RealClock()
        seen: list[int] = []
        clock.call_at(1, int, "no number")
        clock.call_at(2, seen.append, 2)
        with pytest.raises(ValueError, match="no number"):
            clock.run_due()
        assert seen == []
        assert is_readable(clock.fileno())
        clock.run_due()
        assert seen == [2]
        clock.close()
