"""A lane of `tunstack link`: frames from one descriptor to the other, whole or at wire size; no interface, no root."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator

import pytest

from tunstack.daemon.link import FRAMES_A_TURN, Lane
from tunstack.device.impairment import Impairment
from tunstack.device.link import Direction
from tunstack.sim.world import World
from tunstack.wire import virtio


class Wire:
    """What a lane uses of a TunDevice, on a socket that keeps frames apart; `kernel` is the far side."""

    def __init__(self, vnet: bool = True, offload: bool = True) -> None:
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.kernel, self._ours):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        self.vnet, self.offload = vnet, offload
        self.asked: list[bool] = []

    def fileno(self) -> int:
        return self._ours.fileno()

    def set_offload(self, wanted: bool) -> None:
        self.asked.append(wanted)

    def frames(self) -> list[bytes]:
        """Return what was written."""
        out = []
        while True:
            try:
                out.append(self.kernel.recv(1 << 17))
            except BlockingIOError:
                return out

    def close(self) -> None:
        self.kernel.close()
        self._ours.close()


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    made: list[Wire] = []
    yield made
    for wire in made:
        wire.close()


def lane(wires: list[Wire], impairment: Impairment, *, vnet: bool = True, offload: bool = True) -> tuple[Lane, Wire, Wire, World]:
    wires += [Wire(vnet, offload), Wire(vnet, offload)]
    world = World()
    direction = Direction(impairment, random.Random(1))
    return Lane(wires[0], wires[1], direction, world), wires[0], wires[1], world  # type: ignore[arg-type]


GSO = virtio.HEADER.pack(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, 52, 1448, 20, 16)
PACKET = bytes(range(100))


def test_without_trouble_super_segments_pass_whole_with_their_header(wires: list[Wire]) -> None:
    passing, source, sink, _ = lane(wires, Impairment())
    assert (passing.is_whole, source.asked) == (True, [True])
    big = GSO + bytes(60_000)
    source.kernel.send(big)
    source.kernel.send(virtio.NO_OFFLOAD + PACKET)
    assert passing.on_readable() is False
    assert sink.frames() == [big, virtio.NO_OFFLOAD + PACKET]
    assert passing.delivered == 2


def test_a_delay_alone_lets_them_pass_whole_at_their_time(wires: list[Wire]) -> None:
    passing, source, sink, world = lane(wires, Impairment(delay=5000))
    source.kernel.send(GSO + PACKET)
    passing.on_readable()
    assert not world.run(until=4999)
    assert sink.frames() == []
    assert world.run()
    assert sink.frames() == [GSO + PACKET]


@pytest.mark.parametrize("vnet", [True, False])
def test_for_anything_else_packets_are_asked_for_and_pass_unaltered(wires: list[Wire], vnet: bool) -> None:
    passing, source, sink, world = lane(wires, Impairment(delay=100, rate=1_000_000_000), vnet=vnet, offload=vnet)
    assert (passing.is_whole, source.asked) == (False, [False] if vnet else [])
    prefix = virtio.NO_OFFLOAD if vnet else b""
    source.kernel.send(prefix + PACKET)
    passing.on_readable()
    assert world.run()
    assert world.elapsed == 101  # 800 bits at 1 Gbit/s; the virtio header is on no wire
    assert sink.frames() == [prefix + PACKET]


def test_a_super_segment_that_comes_too_late_is_lost_and_counted(wires: list[Wire]) -> None:
    passing, source, sink, _ = lane(wires, Impairment(loss=1e-9))
    source.kernel.send(GSO + PACKET)
    source.kernel.send(virtio.HEADER.pack(virtio.NEEDS_CSUM, 0, 0, 0, 20, 16) + PACKET)
    source.kernel.send(virtio.NO_OFFLOAD + PACKET)
    passing.on_readable()
    assert sink.frames() == [virtio.NO_OFFLOAD + PACKET]
    assert passing.stale == 2


def test_a_change_holds_for_what_is_sent_after_it(wires: list[Wire]) -> None:
    passing, source, sink, world = lane(wires, Impairment(delay=1000))
    for i in range(2 * FRAMES_A_TURN + 1):
        source.kernel.send(GSO + bytes([i]) * 100)
    passing.settle()
    passing.direction.impairment = Impairment(loss=1.0)
    passing.change()
    assert (passing.is_whole, source.asked) == (False, [True, False, False])
    source.kernel.send(virtio.NO_OFFLOAD + PACKET)
    passing.on_readable()
    assert world.run()
    assert [frame[-1] for frame in sink.frames()] == list(range(2 * FRAMES_A_TURN + 1))
    assert passing.direction.lost == 1
    passing.settle()
    passing.direction.impairment = Impairment()
    passing.change()
    assert (passing.is_whole, source.asked[-1]) == (True, True)


def test_a_turn_is_bounded(wires: list[Wire]) -> None:
    passing, source, sink, _ = lane(wires, Impairment())
    for _ in range(FRAMES_A_TURN + 3):
        source.kernel.send(virtio.NO_OFFLOAD + PACKET)
    assert passing.on_readable() is True
    assert len(sink.frames()) == FRAMES_A_TURN
    assert passing.on_readable() is False
    assert len(sink.frames()) == 3


def test_what_the_kernel_refuses_is_counted_and_an_interface_that_is_gone_raises(
    wires: list[Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    passing, source, _, _ = lane(wires, Impairment())
    answers = [errno.EINVAL, errno.EIO, errno.EAGAIN, errno.EBADFD]

    def refuse(fd: int, frame: bytes) -> int:
        number = answers.pop(0)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    for _ in range(4):
        source.kernel.send(virtio.NO_OFFLOAD + PACKET)
    with pytest.raises(OSError, match="bad state"):
        passing.on_readable()
    assert (passing.refused, passing.delivered) == (3, 0)
