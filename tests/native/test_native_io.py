"""Reader and Writer on descriptors: socket pairs that keep frames apart as a TUN interface does; C and twin alike."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from native.support import CODECS, content, fields, make_segment, random_segment
from scapy.layers.inet import IP, TCP

from tunstack.wire import native, twin
from tunstack.wire.checksum import fold
from tunstack.wire.segment import ACK, CWR, FIN, PSH, SYN, URG, Segment
from tunstack.wire.tcp import pseudo_header_sum
from tunstack.wire.virtio import HEADER

both = pytest.mark.parametrize("codec", CODECS, ids=lambda module: module.BACKEND)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with near, far:
        yield near, far


def frames_of(end: socket.socket) -> list[bytes]:
    frames = []
    while True:
        try:
            frames.append(end.recv(70000))
        except BlockingIOError:
            return frames


def fill(end: socket.socket, frame: bytes) -> int:
    """Send a frame until the queue is full; return how often."""
    for count in itertools.count():
        try:
            end.send(frame)
        except BlockingIOError:
            return count
    raise AssertionError


@both
def test_a_super_segment_goes_through_whole(codec: ModuleType, pair: Pair) -> None:
    segment = make_segment(60000, gso_size=1448, ts_val=1, ts_ecr=2, flags=ACK | PSH, ident=7)
    assert codec.Writer(pair[0].fileno(), vnet=True, tso=True).write(segment)
    (received,) = codec.Reader(True).read(pair[1].fileno()).segments
    segment.packets = 42
    assert fields(received) == fields(segment)


@both
def test_the_virtio_header_and_the_partial_checksum_of_a_super_segment(codec: ModuleType, pair: Pair) -> None:
    segment = make_segment(3000, gso_size=1000, ts_val=1, flags=ACK | CWR)
    codec.Writer(pair[0].fileno(), vnet=True, tso=True, ttl=9).write(segment)
    (frame,) = frames_of(pair[1])
    assert HEADER.unpack(frame[:10]) == (1, 0x81, 52, 1000, 20, 16)
    seen = IP(frame[10:])
    assert (seen.len, seen.ttl, bytes(seen[TCP].payload)) == (3052, 9, bytes(segment.payload[0]))
    assert seen[TCP].chksum == fold(pseudo_header_sum(segment.flow[:8], 3032))
    # completed as a network card would, it is right
    whole = bytearray(frame[10:])
    whole[36:38] = codec.checksum(whole[20:]).to_bytes(2, "big")
    assert codec.parse_datagram(whole) is not None


@both
@pytest.mark.parametrize(("size", "gso_size", "flags"), [(0, 0, ACK), (1000, 1000, ACK), (1000, 0, ACK), (3000, 1000, SYN)])
def test_one_packet_has_no_gso_in_its_virtio_header(codec: ModuleType, pair: Pair, size: int, gso_size: int, flags: int) -> None:
    codec.Writer(pair[0].fileno(), vnet=True, tso=True).write(make_segment(size, gso_size=gso_size, flags=flags))
    (frame,) = frames_of(pair[1])
    assert HEADER.unpack(frame[:10]) == (1, 0, 0, 0, 20, 16)


@both
@pytest.mark.parametrize("vnet", [False, True])
def test_without_offload_the_packets_are_those_of_encode(codec: ModuleType, pair: Pair, vnet: bool) -> None:
    segment = make_segment(5000, gso_size=1448, flags=ACK | PSH | FIN | CWR, ident=0xFFFF, ts_val=3)
    assert codec.Writer(pair[0].fileno(), vnet, tso=False, ttl=63).write(segment)
    prefix = bytes(10) if vnet else b""
    assert frames_of(pair[1]) == [prefix + frame for frame in codec.encode(segment, ttl=63)]


@both
def test_urgent_data_is_cut_here_even_with_offload(codec: ModuleType, pair: Pair) -> None:
    segment = make_segment(3000, gso_size=1000, flags=ACK | URG, urgent=1500)
    codec.Writer(pair[0].fileno(), vnet=True, tso=True).write(segment)
    assert frames_of(pair[1]) == [bytes(10) + frame for frame in codec.encode(segment)]


@pytest.mark.parametrize(("vnet", "tso"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(40))
def test_both_write_the_same_octets(pair: Pair, seed: int, vnet: bool, tso: bool) -> None:
    segment = random_segment(random.Random(seed))
    results: list[Any] = []
    for codec in CODECS:
        try:
            sent: Any = codec.Writer(pair[0].fileno(), vnet, tso).write(segment)
        except OSError as error:
            sent = error.errno
        frames = frames_of(pair[1])
        pad = len(frames) < 100  # the pair holds them all
        results.append((sent, frames))
        assert pad
    assert results[0] == results[1]


@both
@pytest.mark.parametrize("views", [2, 16, 17, 300])
@pytest.mark.parametrize("tso", [False, True])
def test_payload_in_several_views(codec: ModuleType, pair: Pair, views: int, tso: bool) -> None:
    parts = [bytes([n & 0xFF]) * (n % 7) for n in range(views)]
    segment = make_segment(0, payload=tuple(map(memoryview, parts)), length=sum(map(len, parts)), gso_size=100)
    writer = codec.Writer(pair[0].fileno(), tso, tso)
    assert writer.write(segment) and writer.write(segment)
    batch = codec.Reader(tso, coalesce=False).read(pair[1].fileno())
    assert b"".join(b"".join(each.payload) for each in batch.segments) == b"".join(parts) * 2


@both
def test_a_view_that_was_released_is_an_error_and_leaves_nothing_behind(codec: ModuleType, pair: Pair) -> None:
    gone = memoryview(b"gone")
    gone.release()
    writer = codec.Writer(pair[0].fileno(), True, True)
    with pytest.raises((ValueError, TypeError)):  # join() words it in its own way
        writer.write(make_segment(0, payload=(memoryview(b"first"), gone), length=9))
    assert writer.write(make_segment(0, payload=(memoryview(b"right"),), length=5))
    (segment,) = codec.Reader(True).read(pair[1].fileno()).segments
    assert b"".join(segment.payload) == b"right"


@both
@pytest.mark.parametrize("vnet", [False, True])
def test_write_packet(codec: ModuleType, pair: Pair, vnet: bool) -> None:
    writer = codec.Writer(pair[0].fileno(), vnet, False)
    packet = b"E" + bytes(99)
    assert writer.write_packet(packet) and writer.write_packet(bytearray(packet)) and writer.write_packet(memoryview(packet))
    assert frames_of(pair[1]) == [bytes(10 if vnet else 0) + packet] * 3
    with pytest.raises(OSError) as caught:
        writer.write_packet(bytes(65536))
    assert caught.value.errno == errno.EMSGSIZE


@both
@pytest.mark.parametrize(("vnet", "tso"), [(False, False), (True, True)])
def test_a_full_queue_is_false_and_nothing_is_lost(codec: ModuleType, pair: Pair, vnet: bool, tso: bool) -> None:
    writer = codec.Writer(pair[0].fileno(), vnet, tso)
    sent = fill(pair[0], b"x")
    assert writer.write(make_segment(3000, gso_size=1000)) is False
    assert writer.write_packet(b"E" + bytes(30)) is False
    assert writer.lost == 0 and len(frames_of(pair[1])) == sent
    assert writer.write(make_segment(3000, gso_size=1000)) is True


@both
def test_a_queue_that_fills_in_the_middle_of_a_run_loses_the_rest_and_counts(codec: ModuleType, pair: Pair) -> None:
    segment = make_segment(60000, gso_size=100)
    packets = codec.encode(segment)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
    writer = codec.Writer(pair[0].fileno(), False, False)
    assert writer.write(segment) is True
    arrived = frames_of(pair[1])
    assert 0 < len(arrived) < len(packets) == 600
    assert arrived == packets[: len(arrived)] and writer.lost == 600 - len(arrived)


@both
def test_offload_without_the_virtio_header_makes_no_sense(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match="virtio"):
        codec.Writer(1, vnet=False, tso=True)


@both
def test_a_segment_that_does_not_fit_is_emsgsize(codec: ModuleType, pair: Pair) -> None:
    writer = codec.Writer(pair[0].fileno(), True, True)
    with pytest.raises(OSError) as caught:
        writer.write(make_segment(0, payload=(memoryview(bytes(65490)),), length=65490, ts_val=1))
    assert caught.value.errno == errno.EMSGSIZE and not frames_of(pair[1])


@both
def test_a_device_that_is_gone_is_an_oserror(codec: ModuleType, pair: Pair) -> None:
    reader, writer = codec.Reader(False), codec.Writer(pair[0].fileno(), False, False)
    pair[1].close()
    with pytest.raises(OSError) as caught:
        writer.write(make_segment(10))
    assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)
    with pytest.raises(OSError) as caught:
        reader.read(pair[0].fileno())
    assert caught.value.errno == errno.ENODEV


@both
def test_reading_from_what_cannot_be_read_is_an_oserror(codec: ModuleType) -> None:
    descriptor = os.open("/dev/null", os.O_WRONLY)
    try:
        with pytest.raises(OSError) as caught:
            codec.Reader(False).read(descriptor)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(descriptor)


@both
def test_nothing_to_read_is_an_empty_batch(codec: ModuleType, pair: Pair) -> None:
    batch = codec.Reader(False).read(pair[0].fileno())
    assert content(batch) == {"segments": [], "packets": [], "checksum_errors": 0, "header_errors": 0, "ignored": 0}


@both
def test_frames_before_an_end_are_returned_before_its_error(codec: ModuleType, pair: Pair) -> None:
    reader = codec.Reader(False)
    pair[1].send(codec.encode(make_segment(5))[0])
    pair[1].close()
    assert len(reader.read(pair[0].fileno()).segments) == 1
    with pytest.raises(OSError):
        reader.read(pair[0].fileno())


def test_the_twin_returns_frames_before_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # no descriptor at hand gives a frame and then an error that is not its end; in C the two are one branch
    class Failing:
        def __init__(self, fd: int, mode: str, closefd: bool) -> None:
            self.reads = iter((twin.encode(make_segment(5))[0], None, None))

        def fileno(self) -> int:
            return 5

        def readinto(self, buffer: bytearray) -> int:
            frame = next(self.reads)
            if frame is None:
                raise OSError(errno.EIO, "gone")
            buffer[: len(frame)] = frame
            return len(frame)

    monkeypatch.setattr(twin, "FileIO", Failing)
    reader = twin.Reader(False)
    assert len(reader.read(5).segments) == 1
    with pytest.raises(OSError, match="gone"):
        reader.read(5)


@both
def test_at_most_max_frames_and_max_octets_at_once(codec: ModuleType, pair: Pair) -> None:
    def send(count: int) -> None:
        for n in range(count):
            pair[1].send(codec.encode(make_segment(960, flow=bytes([n]) * 12))[0])  # 1000 octets

    send(10)
    reader = codec.Reader(False, max_frames=4)
    assert [len(reader.read(pair[0].fileno()).segments) for _ in range(4)] == [4, 4, 2, 0]
    send(10)
    reader = codec.Reader(False, max_octets=2500)
    assert [len(reader.read(pair[0].fileno()).segments) for _ in range(5)] == [3, 3, 3, 1, 0]


@both
def test_counters_are_of_one_batch(codec: ModuleType, pair: Pair) -> None:
    reader = codec.Reader(False)
    damaged = bytearray(codec.encode(make_segment(5))[0])
    damaged[-1] ^= 1
    for frame in (damaged, b"\x60abc", b"short", b"short"):
        pair[1].send(frame)
    batch = reader.read(pair[0].fileno())
    assert (batch.checksum_errors, batch.header_errors, batch.ignored) == (1, 2, 1)
    batch = reader.read(pair[0].fileno())
    assert (batch.checksum_errors, batch.header_errors, batch.ignored) == (0, 0, 0)


@both
def test_sixty_four_frames_of_64_kilobytes_fit_one_batch(codec: ModuleType, pair: Pair) -> None:
    payload = random.Random(6).randbytes(65483)
    reader = codec.Reader(True, max_octets=1 << 30)
    writer = codec.Writer(pair[0].fileno(), True, True)
    segments: list[Segment] = []
    sent = 0
    while sent < 64 and writer.write(
        make_segment(0, seq=65483 * sent, payload=(memoryview(payload),), length=65483, gso_size=1448, ts_val=1)
    ):
        sent += 1
    segments = reader.read(pair[1].fileno()).segments
    assert len(segments) == sent > 4
    assert all(bytes(segment.payload[0]) == payload and segment.packets == 46 for segment in segments)


def test_a_batch_read_is_the_batch_parsed(pair: Pair) -> None:
    frames = list(itertools.chain.from_iterable(twin.encode(make_segment(5000, seq=5000 * n, gso_size=1000)) for n in range(3)))
    expected = content(twin.Reader(False).parse(frames))
    for codec in CODECS:
        for frame in frames:
            pair[1].send(frame)
        assert content(codec.Reader(False).read(pair[0].fileno())) == expected
    assert content(native.Reader(False).parse(frames)) == expected and len(expected["segments"]) == 1


IN_A_CYCLE = """
import gc
from tunstack.wire import native
for _ in range(20):
    reader = native.Reader(True, max_frames=2)
    reader.itself = reader
    views = [value for value in vars(reader).values() if isinstance(value, memoryview)]
    holder = [reader]
    del reader
    gc.collect()  # puts what is alive in the order in which it is reached: the views before their reader
    del views, holder
    gc.collect()
"""


def test_a_reader_that_dies_in_a_cycle_dies_quietly() -> None:
    # the collector once cleared a view that cffi still held: BufferError, and a segmentation fault at exit
    done = subprocess.run([sys.executable, "-c", IN_A_CYCLE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def burst(size: int, **values: Any) -> Segment:
    """A segment of more than an IPv4 datagram holds, from the application's own buffers."""
    data = random.Random(size).randbytes(size)
    cuts = sorted(random.Random(size + 1).sample(range(1, size), 3))
    pieces = tuple(memoryview(data)[start:end] for start, end in zip((0, *cuts), (*cuts, size), strict=True))
    return make_segment(0, payload=pieces, length=size, **values)


@both
@pytest.mark.parametrize("size", [65484, 65535, 65536, 130320, 130321, 262144])
def test_a_burst_leaves_as_super_segments_of_whole_packets(codec: ModuleType, pair: Pair, size: int) -> None:
    segment = burst(size, seq=0xFFFFFF00, gso_size=1448, ts_val=1, flags=ACK | PSH | FIN | CWR, ident=0xFFF0)
    writer = codec.Writer(pair[0].fileno(), vnet=True, tso=True)
    assert writer.write(segment)
    frames = frames_of(pair[1])
    assert len(frames) == -(-size // 65160)
    assert writer.octets == size + 52 * len(frames)
    received = codec.Reader(True, coalesce=False).parse(frames).segments
    assert b"".join(bytes(each.payload[0]) for each in received) == b"".join(segment.payload)
    for n, each in enumerate(received):
        is_last = n == len(received) - 1
        assert (each.seq, each.ident) == ((0xFFFFFF00 + 65160 * n) & 0xFFFFFFFF, (0xFFF0 + 45 * n) & 0xFFFF)
        assert each.flags == ACK | (0 if n else CWR) | (PSH | FIN if is_last else 0)
        assert is_last or (each.length, each.gso_size) == (65160, 1448)
        assert HEADER.unpack(frames[n][:10])[1] == (0 if each.length <= 1448 else 1 if n else 0x81)


@pytest.mark.parametrize(("vnet", "tso"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(12))
def test_both_write_the_same_octets_of_a_burst(pair: Pair, seed: int, vnet: bool, tso: bool) -> None:
    rng = random.Random(seed)
    segment = random_segment(rng)
    size = rng.choice((65484, 70_000, rng.randrange(60_000, 262_144)))
    views = tuple(rng.randbytes(part) for part in (size // 3, 1, size - size // 3 - 1))
    segment.payload, segment.length = views, size
    segment.gso_size = rng.choice((0, 1448, 9000, 40_000, 65_000, 65_535))
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    results: list[Any] = []
    for codec in CODECS:
        writer = codec.Writer(pair[0].fileno(), vnet, tso)
        try:
            sent: Any = writer.write(segment)
        except OSError as error:
            sent = error.errno
        results.append((sent, frames_of(pair[1]), writer.lost, writer.octets))
    assert results[0] == results[1]


@both
def test_a_queue_that_fills_in_the_middle_of_a_burst_loses_the_rest_and_counts(codec: ModuleType, pair: Pair) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
    writer = codec.Writer(pair[0].fileno(), True, True)
    assert writer.write(burst(262_144, gso_size=1448)) is True
    arrived = codec.Reader(True, coalesce=False).parse(frames_of(pair[1])).segments
    packets = sum(segment.packets for segment in arrived)
    assert 0 < len(arrived) < 5 and writer.lost == 182 - packets


@both
def test_a_lone_small_frame_is_told_from_one_of_many(codec: ModuleType, pair: Pair) -> None:
    """The loop need not look again at once behind a packet that came alone."""
    reader = codec.Reader(False, max_frames=3)

    def drained(*sizes: int, waiting: int = 0) -> bool:
        for size in sizes:
            pair[1].send(codec.encode(make_segment(size))[0])
        batch = reader.read(pair[0].fileno())
        assert len(batch.segments) == min(len(sizes) + waiting, 3)
        is_drained: bool = batch.is_drained
        return is_drained

    assert drained() and drained(0) and drained(1448) and drained(0)
    assert not drained(0, 0) and not drained(5000) and not drained(0, 0, 0, 0)
    assert drained(waiting=1)  # the fourth, alone: it is small, and nothing is behind it


@both
def test_octets_are_counted_as_they_came(codec: ModuleType, pair: Pair) -> None:
    reader = codec.Reader(False)
    frames = [codec.encode(make_segment(size))[0] for size in (0, 100, 1000)]
    ping = bytes(IP(src="10.77.0.1", dst="10.77.0.2", proto=1) / (b"\x08" + bytes(7)))
    for frame in (*frames, ping, b"\x60" + bytes(99), bytes(30)):
        pair[1].send(frame)
    reader.read(pair[0].fileno())
    assert reader.octets == sum(map(len, frames)) + len(ping) == 1248
    reader.parse(frames)
    assert reader.octets == 1248 + 1220
    writer = codec.Writer(pair[0].fileno(), False, False)
    assert writer.write(make_segment(2000, gso_size=1000)) and writer.write_packet(ping)
    assert writer.octets == 2080 + 28
