"""Worlds: many stacks and links under one clock that jumps to the next event.

A world is single-threaded and knows no asyncio: events are callbacks on a heap, in order of time and then of asking. Each host is a stack
and its device; the world reads, advances and polls it whenever frames came, a deadline passed or its application spoke. A seed
gives the same packets every time. Times int microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

from tunstack.device.base import WaitingDevice
from tunstack.device.impairment import Impairment
from tunstack.device.link import Link, join
from tunstack.device.memory import memory_pipe
from tunstack.engine import CongestionControl
from tunstack.engine.config import StackConfig
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.wire.flow import pack_address
from tunstack.wire.segment import Segment

START = 1_000_000_000  # where virtual time starts, µs
_TURNS = 1_000_000  # rounds without the clock moving that are taken for a livelock

SECOND = 1_000_000


class Livelock(RuntimeError):
    """The hosts keep answering each other and no time passes."""


class Host:
    """A stack with its device in a world. `pump` is called by the world."""

    def __init__(self, world: World, name: str, stack: Stack, device: WaitingDevice) -> None:
        self.world = world
        self.name = name
        self.stack = stack
        self.device = device
        self._marked = False  # waits to be pumped
        self._wake_at: int | None = None  # the world will look at its timers then; never later than their deadline
        self._held: Segment | bytes | None = None  # what the device would not take
        device.on_readable = self.mark
        stack.on_dirty = self.mark

    @property
    def address(self) -> bytes:
        return self.stack.config.addresses[0]

    def mark(self) -> None:
        """Have the world pump this host at the present instant."""
        if not self._marked:
            self._marked = True
            self.world._ready.append(self)

    def pump(self, now: int) -> None:  # hot
        """Read, run timers, send."""
        self._marked = False
        stack, device = self.stack, self.device
        while device.waiting:
            stack.receive(device.read_batch(), now)
        deadline = stack.next_deadline()
        if deadline is not None and deadline <= now:
            stack.advance(now)
        item, self._held = self._held, None
        if item is None:
            item = stack.poll_transmit(now)
        while item is not None:
            if not device.write(item):
                self._held = item
                break
            item = stack.poll_transmit(now)
        deadline = stack.next_deadline()
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            self._wake_at = deadline
            self.world.call_at(deadline, self._wake, deadline)

    def _wake(self, at: int) -> None:
        if at == self._wake_at:
            self._wake_at = None
            self.mark()


class World:
    """A clock, the events to come, a seeded source of randomness, and the hosts."""

    slack = 0  # as a link's clock: calls come at their time

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.hosts: list[Host] = []
        self._now = START
        self._serial = 0
        self._events: list[tuple[int, int, Callable[..., object], tuple[object, ...]]] = []
        self._ready: list[Host] = []

    def now(self) -> int:
        """Return the time, µs."""
        return self._now

    @property
    def elapsed(self) -> int:
        """µs since the world began."""
        return self._now - START

    def call_at(self, at: int, callback: Callable[..., object], *args: object) -> None:  # hot
        """Call at a time, at once if it has passed; calls for one instant come in the order of asking."""
        self._serial += 1
        heappush(self._events, (at, self._serial, callback, args))

    def call_later(self, delay: int, callback: Callable[..., object], *args: object) -> None:
        """Call after `delay` µs."""
        self.call_at(self._now + delay, callback, *args)

    def host(
        self,
        name: str,
        address: str,
        device: WaitingDevice,
        *,
        sysctl: Sysctl | None = None,
        congestion: str | type[CongestionControl] | None = None,
        fast_path: bool = True,
    ) -> Host:
        """Make a stack with one address on a device and take it in. `congestion`: an algorithm's name, or a class of one's own."""
        config = StackConfig(
            (pack_address(address),),
            mtu=device.mtu,
            max_payload=device.max_payload,
            sysctl=sysctl if sysctl is not None else Sysctl(),
            fast_path=fast_path,
            congestion=congestion,
        )
        stack = Stack(config, random.Random(self.random.getrandbits(64)), self.random.randbytes(32))
        host = Host(self, name, stack, device)
        self.hosts.append(host)
        return host

    def pair(
        self,
        forward: Impairment | None = None,
        backward: Impairment | None = None,
        *,
        mtu: int = 1500,
        offload: bool = False,
        queue: int = 1_000_000,
        sysctl: Sysctl | None = None,
        congestion: str | type[CongestionControl] | None = None,
        fast_path: bool = True,
    ) -> tuple[Host, Host, Link | None]:
        """Make two hosts, 10.0.0.1 and 10.0.0.2, and the link between them (None: a pipe that does nothing)."""
        a, b = memory_pipe(mtu, offload=offload, queue=queue)
        link = None
        if forward is not None or backward is not None:
            link = join(
                a, b, self, forward or Impairment(), backward if backward is not None else forward, seed=self.random.getrandbits(64)
            )
        hosts = [
            self.host(name, address, device, sysctl=sysctl, congestion=congestion, fast_path=fast_path)
            for name, address, device in (("a", "10.0.0.1", a), ("b", "10.0.0.2", b))
        ]
        return hosts[0], hosts[1], link

    def run(self, until: int | None = None) -> bool:  # hot
        """Run until nothing is left to happen, or for `until` µs from the start; return whether it came to rest."""
        stop_at = None if until is None else START + until
        events = self._events
        turns = 0
        while True:
            if self._ready:
                turns += 1
                if turns > _TURNS:
                    raise Livelock(f"no end to it at {self.elapsed} us (seed {self.seed})")
                ready, self._ready = self._ready, []
                for host in ready:
                    host.pump(self._now)
                continue
            if not events:
                return True
            at = events[0][0]
            if at > self._now:
                if stop_at is not None and at > stop_at:
                    self._now = stop_at
                    return False
                self._now = at
                turns = 0
            while events and events[0][0] <= at:
                _, _, callback, args = heappop(events)
                callback(*args)

    @property
    def pending(self) -> int:
        """Events that are to come."""
        return len(self._events)
