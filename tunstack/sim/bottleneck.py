"""A shared bottleneck in a world: pairs of hosts whose data passes through one queue (a dumbbell).

    sender 1 --\\                        /-- half of flow 1's round trip --> receiver 1
    sender 2 ---> loss, queue, rate ---+--- half of flow 2's round trip --> receiver 2
    sender n --/                        \\-- half of flow n's round trip --> receiver n

The receivers' packets go back each by its own way, which takes the other half and queues for nobody, unless `backward` says so. What the
queue does is an `Impairment` (its rate, length, ECN threshold, and loss before the queue). Times int microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from tunstack.device.impairment import Impairment
from tunstack.device.link import Direction, Way
from tunstack.device.memory import memory_pipe
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.world import Host, World

HOSTS_MAX = 65534  # pairs that the address plan has room for
INBOX = 1_000_000  # frames that wait at a host: the bottleneck alone shall drop


@dataclass(frozen=True, slots=True)
class Pair:
    """A sender, its receiver, and the round-trip time between them when the queue is empty."""

    sender: Host
    receiver: Host
    rtt: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The bottleneck's queue at one moment."""

    at: int  # µs since the world began
    frames: int  # that wait or are being sent
    delay: int  # µs until a frame that came now would have left


class Dumbbell:
    """The bottleneck, and the pairs of hosts around it. `forward` counts what it dropped and marked."""

    def __init__(self, world: World, forward: Impairment, backward: Impairment | None = None, *, mtu: int = 1500) -> None:
        self.world = world
        self.forward = Direction(forward, self._rng(world))
        self.backward = backward or Impairment()
        self.mtu = mtu
        self.pairs: list[Pair] = []
        self.samples: list[Sample] = []
        self._routes: dict[bytes, Callable[[bytes], None]] = {}  # by destination
        self._way = Way(self.forward, self._route, world)

    def pair(self, rtt: int, *, sysctl: Sysctl | None = None) -> Pair:
        """Add a sender and a receiver that are `rtt` apart, the delays of both impairments not counted."""
        number = len(self.pairs) + 1
        if number > HOSTS_MAX:
            raise ValueError(f"a dumbbell takes {HOSTS_MAX} pairs of hosts")
        world = self.world
        near, far = memory_pipe(self.mtu, queue=INBOX)
        high, low = divmod(number, 256)
        sender = world.host(f"sender {number}", f"10.1.{high}.{low}", near, sysctl=sysctl)
        receiver = world.host(f"receiver {number}", f"10.2.{high}.{low}", far, sysctl=sysctl)
        back = replace(self.backward, delay=self.backward.delay + rtt // 2)
        near.carry = self._way.carry
        far.carry = Way(Direction(back, self._rng(world)), near.deliver, world).carry
        # Whatever its impairments, the way from the queue to the receiver only takes time.
        self._routes[receiver.address] = Way(Direction(Impairment(delay=rtt - rtt // 2), self._rng(world)), far.deliver, world).carry
        pair = Pair(sender, receiver, rtt)
        self.pairs.append(pair)
        return pair

    def watch(self, every: int) -> None:
        """Take a sample of the queue now and every so many µs from now on. The world then never comes to rest: run it until a time."""
        world = self.world
        now = world.now()
        self.samples.append(Sample(world.elapsed, self.forward.queued(now), self.forward.queueing_delay(now)))
        world.call_later(every, self.watch, every)

    def _route(self, frame: bytes) -> None:  # hot
        """Hand a frame that has passed the bottleneck to its receiver's way; one whose address was damaged goes nowhere."""
        carry = self._routes.get(frame[16:20])
        if carry is not None:
            carry(frame)

    @staticmethod
    def _rng(world: World) -> random.Random:
        return random.Random(world.random.getrandbits(64))
