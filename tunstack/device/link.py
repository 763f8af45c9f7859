"""A network that misbehaves on command: what happens to the frames of one direction of a link.

`Impairment` says what shall go wrong, `Direction` carries it out frame by frame and is pure: time comes in, frames
come in, (time, frame) comes out, and the randomness is injected. So the same code serves virtual time, real time and
tests. `join` puts one into each direction of a memory pipe.

A frame meets, in this order: loss, corruption, duplication, the queue and the rate of the bottleneck, then delay, jitter and
reordering on the way. Times int microseconds, rate bits a second, probabilities 0..1, lengths octets.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tunstack.device.memory import MemoryDevice

HOLD_LIMIT = 20_000  # µs that a frame is held back at most for others to overtake it, when none come


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one direction does to frames. The default does nothing: frames arrive at once, in order."""

    delay: int = 0  # µs, one way
    jitter: int = 0  # µs: the delay varies evenly between delay - jitter and delay + jitter; order is kept all the same
    loss: float = 0.0  # each frame by itself
    duplicate: float = 0.0  # sent twice
    corrupt: float = 0.0  # one bit flipped, anywhere in the packet
    reorder: float = 0.0  # held back until `reorder_depth` later frames overtook it (or HOLD_LIMIT passed)
    reorder_depth: int = 3
    rate: int = 0  # bits a second; 0: no limit
    queue: int = 1000  # frames that wait for the rate at most; what comes beyond is dropped

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("delay", "jitter", "rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        if self.jitter > self.delay:
            raise ValueError(f"jitter {self.jitter} is larger than the delay {self.delay}: frames would arrive before they were sent")
        if self.queue < 1 or self.reorder_depth < 1:
            raise ValueError("queue and reorder_depth are at least 1")


class Direction:
    """One direction of a link: `offer` a frame, get what arrives and when.

    A frame that is held back comes out of a later `offer`, or of `release` at `next_deadline()` when no other frame
    comes. Deliver times never go back, so a heap keyed by (time, order of coming) keeps the order that is meant.
    Set `impairment` anew at any time.
    """

    def __init__(self, impairment: Impairment, rng: random.Random) -> None:
        self.impairment = impairment
        self.offered = self.lost = self.corrupted = self.duplicated = self.reordered = self.dropped = 0  # frames; dropped: queue full
        self._rng = rng
        self._busy_ns = 0  # when the bottleneck has sent all that it holds, ns (a µs is too coarse for short frames at high rates)
        self._departures_ns: deque[int] = deque()  # of the frames in the bottleneck's queue
        self._last_at = 0  # latest deliver time handed out
        self._held: list[tuple[int, int, bytes]] = []  # (give up at µs, frames that still have to overtake, frame)

    def offer(self, frame: bytes, now: int) -> list[tuple[int, bytes]]:  # hot
        """Take a frame that is sent now; return (deliver at, frame) of all frames that this lets go on."""
        imp = self.impairment
        rng = self._rng
        self.offered += 1
        if imp.loss and rng.random() < imp.loss:
            self.lost += 1
            return []
        if imp.corrupt and rng.random() < imp.corrupt:
            self.corrupted += 1
            frame = flip_bit(frame, rng.randrange(len(frame) * 8))
        out: list[tuple[int, bytes]] = []
        self._pass(frame, now, imp, out)
        if imp.duplicate and rng.random() < imp.duplicate:
            self.duplicated += 1
            self._pass(frame, now, imp, out)
        return out

    def next_deadline(self) -> int | None:
        """Return when to call `release`, if a frame is held back."""
        return min(held[0] for held in self._held) if self._held else None

    def release(self, now: int) -> list[tuple[int, bytes]]:
        """Let go what was held back in vain."""
        due = [frame for at, _, frame in self._held if at <= now]
        self._held = [held for held in self._held if held[0] > now]
        return [(self._arrival(now, now), frame) for frame in due]

    def _pass(self, frame: bytes, now: int, imp: Impairment, out: list[tuple[int, bytes]]) -> None:  # hot
        """Queue for the bottleneck, then travel."""
        departs_at = now
        if imp.rate:
            departures = self._departures_ns
            now_ns = now * 1000
            while departures and departures[0] <= now_ns:
                departures.popleft()
            if len(departures) >= imp.queue:
                self.dropped += 1
                return
            self._busy_ns = max(self._busy_ns, now_ns) + len(frame) * 8_000_000_000 // imp.rate
            departures.append(self._busy_ns)
            departs_at = -(-self._busy_ns // 1000)
        delay = imp.delay
        if imp.jitter:
            delay += self._rng.randint(-imp.jitter, imp.jitter)
        if imp.reorder and self._rng.random() < imp.reorder:
            self.reordered += 1
            self._held.append((departs_at + delay + HOLD_LIMIT, imp.reorder_depth, frame))
            return
        at = self._arrival(departs_at + delay, now)
        out.append((at, frame))
        if self._held:
            self._overtake(at, out)

    def _overtake(self, at: int, out: list[tuple[int, bytes]]) -> None:
        """Count one frame past those held back; those that have been passed by enough follow it."""
        still = []
        for give_up_at, left, frame in self._held:
            if left <= 1:
                out.append((at, frame))
            else:
                still.append((give_up_at, left - 1, frame))
        self._held = still

    def _arrival(self, at: int, now: int) -> int:
        """Keep the order on the way: jitter alone reorders nothing."""
        self._last_at = at = max(at, self._last_at, now)
        return at


def flip_bit(frame: bytes, bit: int) -> bytes:
    """Return the frame with one bit flipped."""
    damaged = bytearray(frame)
    damaged[bit >> 3] ^= 0x80 >> (bit & 7)
    return bytes(damaged)


class Clock(Protocol):
    """What a link needs of a clock: a World (sim/world.py), or an event loop's (sim/loop.py, LoopClock)."""

    def now(self) -> int: ...

    def call_at(self, at: int, callback: Callable[..., object], *args: object) -> None: ...


class _Way:
    """One direction of a link at work: from `carry` at the sender to `deliver` at the receiver."""

    def __init__(self, direction: Direction, to: MemoryDevice, clock: Clock) -> None:
        self.direction = direction
        self.in_flight = 0  # frames on the way
        self._to = to
        self._clock = clock
        self._armed = False  # a call of _release is coming

    def carry(self, frame: bytes) -> None:  # hot
        self._send(self.direction.offer(frame, self._clock.now()))

    def _send(self, frames: list[tuple[int, bytes]]) -> None:  # hot
        for at, frame in frames:
            self.in_flight += 1
            self._clock.call_at(at, self._arrive, frame)
        if not self._armed and (deadline := self.direction.next_deadline()) is not None:
            self._armed = True
            self._clock.call_at(deadline, self._release)

    def _release(self) -> None:
        self._armed = False
        self._send(self.direction.release(self._clock.now()))

    def _arrive(self, frame: bytes) -> None:
        self.in_flight -= 1
        self._to.deliver(frame)


class Link:
    """Impairments between the two ends of a memory pipe; `forward` is from a to b."""

    def __init__(self, a: MemoryDevice, b: MemoryDevice, clock: Clock, forward: Direction, backward: Direction) -> None:
        if a.offload or b.offload:
            raise ValueError("a link takes frames of wire size: make the pipe without offload")
        self.forward = forward
        self.backward = backward
        self._ways = _Way(forward, b, clock), _Way(backward, a, clock)
        a.carry, b.carry = self._ways[0].carry, self._ways[1].carry

    @property
    def in_flight(self) -> int:
        """Frames on the way, both directions."""
        return sum(way.in_flight for way in self._ways)


def join(a: MemoryDevice, b: MemoryDevice, clock: Clock, forward: Impairment, backward: Impairment | None = None, *, seed: int = 0) -> Link:
    """Put a link between the ends of a memory pipe, equal in both directions if only `forward` is given."""
    source = random.Random(seed)
    directions = [Direction(imp, random.Random(source.getrandbits(64))) for imp in (forward, backward or forward)]
    return Link(a, b, clock, *directions)
