"""The fast path is a subset of the full way: after every step each field of each connection is the same on both.

Random worlds are rough and leave the fast path often; conversations on good links stay on it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import ModuleType

import pytest
from worlds.draw import draw_world
from worlds.play import Play, WatchedHost
from worlds.states import Fields, digest, fields

from tunstack.device.memory import memory_pipe
from tunstack.engine import accepting, ending, fastinput, fastoutput
from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NullSink
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.world import World
from tunstack.wire.flow import pack_address

WORLDS = 4  # to a seed of the suite
CONVERSATIONS = 3
STEPS = 800  # of a run that are looked at
SIZES = (1, 1, 1, 87, 88, 500, 535, 1448, 1460, 5000, 70_000, 400_000)
TURNS = 40  # of each side of a conversation

Look = Callable[[Stack], object]
Run = Callable[[bool, Look], None]


class Talker(NullSink):
    """Answers what comes and speaks by itself, of a seed: writes of all sizes, options that come and go, pauses."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self._left = TURNS
        self.conn: Connection

    def on_established(self) -> None:
        if self._dice.random() < 0.5:
            self._turn()  # in the handshake's third segment
        else:
            self._world.call_later(100, self._turn)

    def on_data(self, data: memoryview) -> None:
        if self._dice.random() < 0.7:
            self._turn()

    def on_eof(self) -> None:
        self.conn.close(self._world.now())

    def _turn(self) -> None:
        dice, conn, now = self._dice, self.conn, self._world.now()
        if not self._left or conn.is_over:
            return
        self._left -= 1
        if not self._left:
            conn.resume(now)
            if dice.random() < 0.3:
                conn.close(now)  # FIN rides on what is unsent
            else:
                self._world.call_later(2_000_000, self._leave)
            return
        what = dice.random()
        if what < 0.75:
            for _ in range(dice.choice((1, 1, 1, 3))):
                conn.send(bytes(dice.choice(SIZES)), now, more=dice.random() < 0.05, urgent=dice.random() < 0.01)
        elif what < 0.8:
            name, values = dice.choice(
                (("nodelay", (False, True)), ("cork", (False, False, True)), ("quickack", (0, 1)), ("max_pacing_rate", (0, 10**6)))
            )
            conn.set_option(name, dice.choice(values), now)
        elif what < 0.85 and not conn.paused:
            conn.pause(now)
            self._world.call_later(dice.choice((10, 5000, 300_000)), self._go_on)
        if dice.random() < 0.3:
            self._world.call_later(dice.choice((0, 100, 30_000, 50_000, 1_000_000)), self._turn)

    def _leave(self) -> None:
        """Close when all is quiet, if the other side has not done so."""
        self.conn.close(self._world.now())

    def _go_on(self) -> None:
        self.conn.resume(self._world.now())
        self._turn()


class Visitor(Talker):
    """Asks once, takes the answer and leaves, at once or after a while."""

    def on_data(self, data: memoryview) -> None:
        self._world.call_later(self._dice.choice((0, 0, 300_000)), self._leave)

    def _turn(self) -> None:
        self.conn.send(bytes(100), self._world.now())


class Echo(Talker):
    """Answers a visitor."""

    def on_established(self) -> None:
        pass

    def on_data(self, data: memoryview) -> None:
        self.conn.send(bytes(data), self._world.now())


def converse(seed: int, client: type[Talker] = Talker, server: type[Talker] = Talker) -> Run:
    """Return a run of three connections, of a seed, on a link that is good or nearly so; visitors are six."""

    def run(fast_path: bool, look: Look) -> None:
        dice = random.Random(seed)
        world = World(seed)
        offload = dice.random() < 0.7
        a, b = memory_pipe(1500, offload=offload)
        delay, loss, jitter = dice.choice((50, 500, 20_000)), dice.choice((0, 0, 0.005)), dice.choice((1, 1, 100))
        fate = random.Random(seed)

        def carry(deliver: Callable[[bytes], None]) -> Callable[[bytes], None]:
            def send(frame: bytes) -> None:
                if fate.random() >= loss:
                    world.call_later(delay + fate.randrange(jitter), deliver, frame)

            return send

        a.carry, b.carry = carry(b.deliver), carry(a.deliver)
        stacks = []
        for name, device in (("10.0.0.1", a), ("10.0.0.2", b)):
            sysctl = Sysctl(
                tcp_timestamps=dice.random() < 0.8,
                tcp_sack=dice.random() < 0.9,
                tcp_ecn=dice.choice((0, 1, 2)),
                tcp_mem=dice.choice(((1 << 20, 1 << 21, 1 << 22), (20, 40, 400))),
                tcp_rmem=(4096, dice.choice((131072, 20_000)), 6291456),
                tcp_congestion_control=dice.choice(("cubic", "cubic", "reno", "bbr")),
                tcp_early_retrans=dice.choice((0, 3)),
            )
            config = StackConfig((pack_address(name),), 1500, device.max_payload if offload else 1460, sysctl, fast_path)
            stack = Stack(config, random.Random(dice.getrandbits(64)), dice.randbytes(32))
            host = WatchedHost(world, name, stack, device, 0.0, 0)
            host.look = look
            world.hosts.append(host)
            stacks.append(stack)

        def accept(listener: Listener) -> None:
            while (conn := listener.accept()) is not None:
                talker = server(world, random.Random(dice.getrandbits(64)))
                talker.conn = conn
                conn.sink = talker
                conn.resume(world.now())

        stacks[1].listen(pack_address("10.0.0.2"), 80, on_acceptable=accept)
        for _ in range(3 if client is Talker else 6):
            talker = client(world, random.Random(dice.getrandbits(64)))
            talker.conn = stacks[0].connect(pack_address("10.0.0.2"), 80, talker, world.now())
        world.run(until=60_000_000)

    return run


def rough(seed: int) -> Run:
    """Return a run of a random world."""

    def run(fast_path: bool, look: Look) -> None:
        play = Play(replace(draw_world(seed), fast_path=fast_path, twice=False))
        for host in play.world.hosts:
            assert isinstance(host, WatchedHost)
            host.look = look
        play.run()

    return run


def steps(run: Run, fast_path: bool, look_at: int | None = None) -> tuple[list[bytes], Fields]:
    """Return the state after every step that changed it as a digest, and in full after the step `look_at`."""
    seen: list[bytes] = []
    full: Fields = {}
    last: dict[int, bytes] = {}  # of each stack

    def look(stack: Stack) -> None:
        if len(seen) >= STEPS or (state := digest(stack)) == last.get(id(stack)):
            return  # to be asked for output in vain changes nothing, and need not be
        if len(seen) == look_at:
            full.update(fields(stack))
        seen.append(state)
        last[id(stack)] = state

    run(fast_path, look)
    return seen, full


def compare(run: Run, title: str) -> None:
    """Fail with the fields that differ after the first step in which some do."""
    fast, slow = steps(run, True)[0], steps(run, False)[0]
    if fast == slow:
        return
    at = next((index for index, (one, other) in enumerate(zip(fast, slow, strict=False)) if one != other), min(len(fast), len(slow)))
    one, other = steps(run, True, at)[1], steps(run, False, at)[1]
    names = [name for name in one | other if one.get(name) != other.get(name)]
    differing = "; ".join(f"{name}: {one.get(name)} on the fast path, {other.get(name)} else" for name in names)
    pytest.fail(f"{title}, step {at}: {differing}")


def count_calls(monkeypatch: pytest.MonkeyPatch, ways: Iterable[tuple[ModuleType, str]]) -> Counter[str]:
    """Return what will count the calls of functions, without those that declined."""
    taken: Counter[str] = Counter()

    def count(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            answer = call(*arguments)
            taken[name] += answer is not False
            return answer

        return counted

    for module, name in ways:
        monkeypatch.setattr(module, name, count(name, getattr(module, name)))
    return taken


def test_every_field_is_the_same_in_random_worlds(world_seed: int) -> None:
    for seed in range(world_seed * WORLDS, (world_seed + 1) * WORLDS):
        compare(rough(seed), f"world {seed}")


def test_every_field_is_the_same_in_conversations(world_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ((fastinput, "_acknowledged"), (fastoutput, "_poll_lone"), (fastoutput, "_poll_ack"), (fastoutput, "_send"))
    taken = count_calls(monkeypatch, ways)
    for seed in range(world_seed * CONVERSATIONS, (world_seed + 1) * CONVERSATIONS):
        compare(converse(seed), f"conversation {seed}")
    assert len(taken) == len(ways) and min(taken.values()) > 10, f"the fast path was hardly taken: {taken}"


def test_every_field_is_the_same_in_short_visits(world_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = count_calls(monkeypatch, ((accepting, "complete"), (ending, "_fin"), (ending, "_last_ack"), (ending, "poll")))
    for seed in range(world_seed * CONVERSATIONS, (world_seed + 1) * CONVERSATIONS):
        compare(converse(seed, Visitor, Echo), f"visits {seed}")
    assert len(taken) == 4 and min(taken.values()) > 5, f"the fast path was hardly taken: {taken}"
