"""The way of frames from one host to the other, with the trouble that a plan asks for beside that of the link emulator.

Losing the first frames of a kind, or frames by their number; blackouts; frames that come so late that others overtake them; routers that
answer with ICMP errors. Frames may have a virtio header before them (`header` octets).
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable

from worlds.draw import WayPlan

from tunstack.device.link import Direction, Way
from tunstack.sim.world import World
from tunstack.wire import icmp, ipv4, virtio

ROUTER = bytes((10, 0, 0, 254))
_FIELDS = struct.Struct("!II")  # sequence number, acknowledgment
SYN, FIN = 2, 1


class FaultyWay:
    """Carries frames from one device to the other; `back` delivers to the sender."""

    def __init__(
        self,
        world: World,
        plan: WayPlan,
        seed: int,
        deliver: Callable[[bytes], object],
        back: Callable[[bytes], object],
        header: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.trace: Callable[[bytes, str], None] | None = None  # told the fate of each frame
        self._world = world
        self._plan = plan
        self._random = random.Random(seed)
        self._deliver = deliver
        self._back = back
        self._header = header
        self._way = Way(Direction(plan.impairment, random.Random(self._random.getrandbits(64))), deliver, world)
        self._number = 0
        self._to_lose = dict(plan.first_lost)
        self._ends: dict[bytes, int] = {}  # sequence number behind the newest octet, by flow
        self._is_plain = plan == WayPlan(plan.impairment)

    @property
    def direction(self) -> Direction:
        """The everyday trouble, with its counters."""
        return self._way.direction

    def carry(self, frame: bytes) -> None:
        """Take a frame that is sent now."""
        fate = "" if self._is_plain else self._fate(frame)
        if self.trace is not None:
            self.trace(frame, fate)
        if fate:
            self.counts[fate] += 1
            return
        self._way.carry(frame)

    def _fate(self, frame: bytes) -> str:
        """Deal with a frame that something special happens to and say what; empty: the link takes it."""
        plan = self._plan
        world = self._world
        self._number += 1
        packet = frame[self._header :]
        if self._number - 1 in plan.lost:
            return "lost by number"
        if self._to_lose:
            kind = self._kind(packet)
            if self._to_lose.get(kind, 0) > 0:
                self._to_lose[kind] -= 1
                return f"lost {kind}"
        now = world.elapsed
        for start, end in plan.blackouts:
            if start <= now < end:
                return "blackout"
        if plan.path_mtu is not None and now >= plan.path_mtu[0] and len(packet) > plan.path_mtu[1]:
            self._answer(packet, icmp.FRAGMENTATION_NEEDED, plan.path_mtu[1])
            return "too big"
        if plan.soft_errors and self._random.random() < plan.soft_errors and not packet[33] & SYN:
            self._answer(packet, icmp.HOST_UNREACHABLE, 0)
            return "unreachable"
        if plan.late and self._random.random() < plan.late:
            world.call_later(plan.impairment.delay + self._random.randrange(plan.late_by), self._deliver, frame)
            return "late"
        return ""

    def _kind(self, packet: bytes) -> str:
        """Return the kind of a TCP packet: "syn", "fin", "data", "again" (sent before) or "ack"."""
        flags = packet[33]
        if flags & SYN:
            return "syn"
        if flags & FIN:
            return "fin"
        length = len(packet) - 20 - (packet[32] >> 4 << 2)
        if not length:
            return "ack"
        flow = packet[12:24]
        end = (_FIELDS.unpack_from(packet, 24)[0] + length) & 0xFFFFFFFF
        newest = self._ends.get(flow)
        if newest is not None and (newest - end) & 0xFFFFFFFF < 0x80000000:
            return "again"
        self._ends[flow] = end
        return "data"

    def _answer(self, packet: bytes, code: int, mtu: int) -> None:
        """A router on the way tells the sender, a moment later."""
        message = icmp.destination_unreachable(code, packet, mtu)
        error = ipv4.build(ROUTER, packet[12:16], ipv4.ICMP, message)
        prefix = virtio.NO_OFFLOAD if self._header else b""
        self._world.call_later(self._plan.impairment.delay, self._back, prefix + error)
