"""A network that misbehaves on command: what happens to the frames of one direction of a link.

`Impairment` (impairment.py) says what shall go wrong, `Direction` carries it out frame by frame and is pure: time comes in, frames
come in, (time, frame) comes out, and the randomness is injected. So the same code serves virtual time, real time and
tests. `Way` is a direction at work on a clock; `join` puts one into each direction of a memory pipe.

A frame meets, in this order: the MTU, loss, corruption, a mark, duplication, the queue and rate of the bottleneck (which may mark it), then
delay, jitter and reordering on the way. Times int microseconds, rate bits a second, probabilities 0..1, lengths octets.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tunstack.device.impairment import GilbertElliott, Impairment
from tunstack.device.memory import MemoryDevice
from tunstack.wire import icmp, ipv4

HOLD_LIMIT = 20_000  # µs that a frame is held back at most for others to overtake it, when none come
IN_FLIGHT_LIMIT = 256 << 20  # octets on the way in one direction; a delay alone would else keep whatever is sent into it


# What a direction counts, in frames. Oversize: larger than the MTU. Dropped: the queue was full. Marked: CE was set.
COUNTERS = ("offered", "lost", "corrupted", "duplicated", "reordered", "dropped", "marked", "oversize")


class Direction:
    """One direction of a link: `offer` a frame, get what arrives and when.

    A frame that is held back comes out of a later `offer`, or of `release` at `next_deadline()` when no other frame
    comes. Deliver times never go back, so a heap keyed by (time, order of coming) keeps the order that is meant.
    Set `impairment` and `rng` anew at any time.
    """

    def __init__(self, impairment: Impairment, rng: random.Random) -> None:
        self.impairment = impairment
        self.offered = self.oversize = self.lost = self.corrupted = self.duplicated = self.reordered = self.dropped = self.marked = (
            0  # see COUNTERS
        )
        self.rng = rng
        self.answers: list[bytes] = []  # ICMP errors, to be sent the other way by whoever offers
        self._is_bad = False  # state of the Gilbert-Elliott channel
        self._busy_ns = 0  # when the bottleneck has sent all that it holds, ns (a µs is too coarse for short frames at high rates)
        self._departures_ns: deque[int] = deque()  # of the frames in the bottleneck's queue
        self._last_at = 0  # latest deliver time handed out
        self._held: list[tuple[int, int, bytes]] = []  # (give up at µs, frames that still have to overtake, frame)

    def offer(self, frame: bytes, now: int) -> list[tuple[int, bytes]]:  # hot
        """Take a frame that is sent now; return (deliver at, frame) of all frames that this lets go on."""
        imp = self.impairment
        rng = self.rng
        if imp.mtu and len(frame) > imp.mtu:
            pieces = self._fit(frame, imp)
            return [arrival for piece in pieces for arrival in self.offer(piece, now)]
        self.offered += 1
        if imp.loss and rng.random() < imp.loss:
            self.lost += 1
            return []
        if imp.gemodel is not None and self._is_lost_in_burst(imp.gemodel):
            self.lost += 1
            return []
        if imp.corrupt and rng.random() < imp.corrupt:
            self.corrupted += 1
            frame = flip_bit(frame, rng.randrange(len(frame) * 8))
        if imp.ce and rng.random() < imp.ce:
            frame = self._mark(frame)
        out: list[tuple[int, bytes]] = []
        self._pass(frame, now, imp, out)
        if imp.duplicate and rng.random() < imp.duplicate:
            self.duplicated += 1
            self._pass(frame, now, imp, out)
        return out

    def counts(self) -> dict[str, int]:
        """Return the counters by their names."""
        return {name: getattr(self, name) for name in COUNTERS}

    def queued(self, now: int) -> int:
        """Return how many frames are in the bottleneck's queue, the one that is being sent among them."""
        departures = self._departures_ns
        while departures and departures[0] <= now * 1000:
            departures.popleft()
        return len(departures)

    def queueing_delay(self, now: int) -> int:
        """Return the µs after which a frame of no length that came now would have passed the bottleneck."""
        return max(-(-self._busy_ns // 1000) - now, 0)

    def next_deadline(self) -> int | None:
        """Return when to call `release`, if a frame is held back."""
        return min(held[0] for held in self._held) if self._held else None

    def release(self, now: int) -> list[tuple[int, bytes]]:
        """Let go what was held back in vain."""
        due = [frame for at, _, frame in self._held if at <= now]
        self._held = [held for held in self._held if held[0] > now]
        return [(self._arrival(now, now), frame) for frame in due]

    def _fit(self, packet: bytes, imp: Impairment) -> list[bytes]:
        """Return the fragments of a packet that is larger than the MTU; where DF forbids that none, and there is an answer (RFC 1191 4)."""
        parsed = ipv4.parse(packet)
        if parsed is not None and not parsed.dont_fragment:
            return ipv4.fragment(packet, imp.mtu)
        self.offered += 1
        self.oversize += 1
        is_error = parsed is not None and parsed.protocol == ipv4.ICMP and parsed.payload[0] in icmp.ERRORS
        if parsed is not None and not imp.mtu_silent and not parsed.is_fragment and not is_error:
            quote = packet[: imp.mtu - ipv4.MIN_HEADER - icmp.HEADER_LENGTH]  # the answer fits too
            error = icmp.destination_unreachable(icmp.FRAGMENTATION_NEEDED, quote, imp.mtu)
            # The router has no address of its own: it speaks for the one whom it could not reach.
            self.answers.append(ipv4.build(parsed.dst, parsed.src, ipv4.ICMP, error))
        return []

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
            if imp.ecn and len(departures) >= imp.ecn:
                frame = self._mark(frame)
            self._busy_ns = max(self._busy_ns, now_ns) + len(frame) * 8_000_000_000 // imp.rate
            departures.append(self._busy_ns)
            departs_at = -(-self._busy_ns // 1000)
        delay = imp.delay
        if imp.jitter:
            delay += self.rng.randint(-imp.jitter, imp.jitter)
        if imp.reorder and self.rng.random() < imp.reorder:
            self.reordered += 1
            self._held.append((departs_at + delay + HOLD_LIMIT, imp.reorder_depth, frame))
            return
        at = self._arrival(departs_at + delay, now)
        out.append((at, frame))
        if self._held:
            self._overtake(at, out)

    def _mark(self, frame: bytes) -> bytes:
        marked = mark_ce(frame)
        self.marked += marked is not frame
        return marked

    def _is_lost_in_burst(self, model: GilbertElliott) -> bool:
        """Decide by the state of the channel, which then changes, or not."""
        random = self.rng.random
        is_lost = random() < (model.loss_bad if self._is_bad else model.loss_good)
        if random() < (model.to_good if self._is_bad else model.to_bad):
            self._is_bad = not self._is_bad
        return is_lost

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


def mark_ce(frame: bytes) -> bytes:
    """Return the packet with Congestion Experienced set, if its sender can be told that way (ECT); else the packet itself.

    RFC 3168 5; the checksum of an IPv4 header is put right by RFC 1624's equation 3, so that a wrong one stays wrong.
    """
    version = frame[0] >> 4 if len(frame) >= 20 else 0
    if version == 4 and frame[1] & 3 in (1, 2):
        marked = bytearray(frame)
        marked[1] |= 3
        total = (~(frame[10] << 8 | frame[11]) & 0xFFFF) + (~(frame[0] << 8 | frame[1]) & 0xFFFF) + (marked[0] << 8 | marked[1])
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        marked[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
        return bytes(marked)
    if version == 6 and frame[1] >> 4 & 3 in (1, 2):
        marked = bytearray(frame)
        marked[1] |= 0x30
        return bytes(marked)
    return frame


class Clock(Protocol):
    """What a link needs of a clock: a World (sim/world.py), an event loop's (sim/loop.py, LoopClock), or real time (realclock.py)."""

    slack: int  # µs that a call may come early

    def now(self) -> int: ...

    def call_at(self, at: int, callback: Callable[..., object], *args: object) -> None: ...


class Way:
    """A direction at work: from `carry` at the sender to `deliver` at the receiver.

    A frame whose time is now, with none before it, is delivered from inside `carry`.
    """

    def __init__(self, direction: Direction, deliver: Callable[[bytes], object], clock: Clock) -> None:
        self.direction = direction
        self.octets = 0  # on the way
        self.overflowed = 0  # frames lost beyond IN_FLIGHT_LIMIT
        self._deliver = deliver
        self._clock = clock
        self._pipe: deque[tuple[int, bytes]] = deque()  # (deliver at, frame) on the way; times never go back
        self._release_comes = False  # a call of _release is asked for
        self.back: Way | None = None  # takes the answers of a router; None: they are lost

    @property
    def in_flight(self) -> int:
        """Frames on the way; those held back for others to overtake are not among them."""
        return len(self._pipe)

    def carry(self, frame: bytes) -> None:  # hot
        """Take a frame that is sent now."""
        now = self._clock.now()
        frames = self.direction.offer(frame, now)
        if frames:
            self._send(frames, now)
        elif self.direction.answers:
            self._answer()
        if not self._release_comes:
            self._call_release()

    def _answer(self) -> None:
        answers, self.direction.answers = self.direction.answers, []
        for packet in answers:
            if self.back is not None:
                self.back.carry(packet)

    def flush(self) -> None:
        """Deliver at once what is on the way. The last call: nothing is carried afterwards."""
        while self._pipe:
            self._deliver(self._pipe.popleft()[1])
        self.octets = 0

    def _send(self, frames: list[tuple[int, bytes]], now: int) -> None:  # hot
        pipe = self._pipe
        for at, frame in frames:
            if at <= now and not pipe:
                self._deliver(frame)
            elif self.octets >= IN_FLIGHT_LIMIT:
                self.overflowed += 1
            else:
                pipe.append((at, frame))
                self.octets += len(frame)
                if len(pipe) == 1:
                    self._clock.call_at(at, self._arrive)

    def _arrive(self) -> None:  # hot
        """Deliver what is due, and come again for the next."""
        pipe = self._pipe
        until = self._clock.now() + self._clock.slack
        while pipe and pipe[0][0] <= until:
            frame = pipe.popleft()[1]
            self.octets -= len(frame)
            self._deliver(frame)
        if pipe:
            self._clock.call_at(pipe[0][0], self._arrive)

    def _call_release(self) -> None:
        deadline = self.direction.next_deadline()
        if deadline is not None:
            self._release_comes = True
            self._clock.call_at(deadline, self._release)

    def _release(self) -> None:
        self._release_comes = False
        now = self._clock.now() + self._clock.slack
        self._send(self.direction.release(now), now)
        self._call_release()


def join_ways(forward: Way, backward: Way) -> None:
    """Let what a router on one way has to say to the sender go the other way."""
    forward.back, backward.back = backward, forward


class Link:
    """Impairments between the two ends of a memory pipe; `forward` is from a to b."""

    def __init__(self, a: MemoryDevice, b: MemoryDevice, clock: Clock, forward: Direction, backward: Direction) -> None:
        if a.offload or b.offload:
            raise ValueError("a link takes frames of wire size: make the pipe without offload")
        self.forward = forward
        self.backward = backward
        self._ways = Way(forward, b.deliver, clock), Way(backward, a.deliver, clock)
        join_ways(*self._ways)
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
