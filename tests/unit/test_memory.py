"""The memory pipe: octets on the wire, order, bounds, notification."""

from __future__ import annotations

import pytest

from tunstack.device.memory import MemoryDevice, memory_pipe
from tunstack.wire import ipv4
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, PSH, Segment

FLOW = pack_flow(pack_address("10.0.0.1"), 1000, pack_address("10.0.0.2"), 80)


def segment(data: bytes, seq: int = 7, gso_size: int = 0) -> Segment:
    return Segment(FLOW, seq, 9, ACK | PSH, 1000, (memoryview(data),) if data else (), len(data), ts_val=1, ts_ecr=2, gso_size=gso_size)


def received(device: MemoryDevice) -> list[tuple[int, bytes, int]]:
    return [(seg.seq, b"".join(seg.payload), seg.packets) for seg in device.read_batch().segments]


@pytest.mark.parametrize("offload", [False, True])
def test_a_segment_crosses_whole_with_its_options_and_flow(offload: bool) -> None:
    a, b = memory_pipe(offload=offload)
    assert a.write(segment(b"hello"))
    (seg,) = b.read_batch().segments
    assert (seg.flow, seg.seq, seg.ack, seg.flags, seg.window, seg.ts_val, seg.ts_ecr) == (FLOW, 7, 9, ACK | PSH, 1000, 1, 2)
    assert b"".join(seg.payload) == b"hello"
    assert not a.read_batch().segments
    assert not b.read_batch().segments


def test_a_run_is_cut_to_wire_size_without_offload() -> None:
    a, b = memory_pipe(mtu=1500)
    frames: list[bytes] = []
    a.carry = frames.append
    data = bytes(range(256)) * 20
    run = segment(data, gso_size=1448)
    a.write(run)
    assert [len(frame) for frame in frames] == [1500, 1500, 1500, 52 + 5120 - 3 * 1448]
    for frame in frames:
        b.deliver(frame)
    assert b"".join(payload for _, payload, _ in received(b)) == data
    assert run.gso_size == 1448


def test_a_run_crosses_as_one_frame_with_its_segment_size_with_offload() -> None:
    a, b = memory_pipe(mtu=1500, offload=True)
    data = bytes(range(256)) * 200
    run = segment(data, gso_size=1448)
    a.write(run)
    assert b.waiting == 1
    (seg,) = b.read_batch().segments
    assert (seg.length, seg.gso_size, seg.packets) == (51200, 1448, 36)
    assert b"".join(seg.payload) == data
    assert run.gso_size == 1448


@pytest.mark.parametrize("offload", [False, True])
def test_a_damaged_frame_is_counted_and_never_delivered(offload: bool) -> None:
    """M-02."""
    a, b = memory_pipe(offload=offload)
    frames: list[bytes] = []
    a.carry = frames.append
    a.write(segment(b"payload"))
    (frame,) = frames
    for bit in range(80 if offload else 0, len(frame) * 8):  # the virtio header is not on the wire
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        b.deliver(bytes(damaged))
        batch = b.read_batch()
        assert not batch.segments
        assert batch.checksum_errors + batch.header_errors + batch.ignored == 1  # ignored: no longer version 4


def test_a_whole_packet_of_another_protocol_crosses_as_it_is() -> None:
    a, b = memory_pipe()
    udp = ipv4.build(pack_address("10.0.0.1"), pack_address("10.0.0.2"), 17, b"any datagram")
    assert a.write(udp)
    batch = b.read_batch()
    assert [bytes(packet) for packet in batch.packets] == [udp]


def test_a_full_queue_drops_the_tail_and_counts_it() -> None:
    a, b = memory_pipe(queue=3)
    for seq in range(5):
        assert a.write(segment(b"", seq))
    assert b.waiting == 3
    assert b.dropped == 2
    assert [seq for seq, _, _ in received(b)] == [0, 1, 2]


def test_a_packet_beyond_the_mtu_is_lost_and_counted() -> None:
    a, b = memory_pipe(mtu=576)
    a.write(segment(bytes(576 - 52)))
    a.write(segment(bytes(576 - 51)))
    assert b.waiting == 1
    assert a.oversize == 1


def test_the_reader_is_told_once_until_it_has_read_all() -> None:
    a, b = memory_pipe()
    told: list[int] = []
    b.on_readable = lambda: told.append(b.waiting)
    for _ in range(3):
        a.write(segment(b"x"))
    assert told == [1]
    b.read_batch()
    a.write(segment(b"x"))
    assert told == [1, 1]


def test_a_read_is_bounded_and_keeps_the_order() -> None:
    a, b = memory_pipe()
    for i in range(100):
        a.write(segment(bytes([i]), seq=7 + 2 * i))  # gaps, so that nothing is merged
    first = received(b)
    assert len(first) == 64
    assert [seq for seq, _, _ in first + received(b)] == [7 + 2 * i for i in range(100)]


def test_a_closed_device_refuses_and_its_peer_writes_into_the_void() -> None:
    a, b = memory_pipe()
    a.write(segment(b"x"))
    b.close()
    b.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        b.read_batch()
    with pytest.raises(OSError, match="Bad file descriptor"):
        b.write(segment(b"x"))
    assert a.write(segment(b"x"))
    assert b.waiting == 0
    assert a.fileno() == -1
