"""Both ways agree field by field, too, where a conversation changes under way: every option, ends from within callbacks, a path that
gets narrower, bursts as large as a TUN interface takes, and ACKs that come as one.
"""

from __future__ import annotations

import random

from worlds.play import WatchedHost
from worlds.test_fast_path_states import Look, Run, Talker, compare

from tunstack.device.memory import memory_pipe
from tunstack.device.tun import MAX_PAYLOAD
from tunstack.engine import pathmss
from tunstack.engine.config import StackConfig
from tunstack.engine.listener import Listener
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.world import World
from tunstack.wire.flow import pack_address

OPTIONS: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("nodelay", (False, True)),
    ("cork", (False, False, True)),
    ("quickack", (0, 1, 2)),
    ("max_pacing_rate", (0, 10**6)),
    ("sndbuf", (4000, 20_000, 10**6)),
    ("rcvbuf", (3000, 20_000, 10**6)),
    ("window_clamp", (0, 3000, 60_000)),
    ("keepalive", (False, True)),
    ("keepidle", (1, 5)),
    ("user_timeout", (0, 1000, 30_000)),
    ("user_timeout_advertise", (0, 100)),
    ("linger", (None, 0, 1)),
    ("congestion", ("cubic", "reno", "bbr")),
    ("tos", (0, 0x20)),
    ("oobinline", (False, True)),
)
PAUSES = (10, 5000, 300_000)


class Fickle(Talker):
    """Sets options, pauses, and ends it from within its callbacks."""

    def on_data(self, data: memoryview) -> None:
        what, now = self._dice.random(), self._world.now()
        if what < 0.004:
            self.conn.abort(now)
        elif what < 0.008:
            self.conn.close(now)
        elif what < 0.012:
            self.conn.shutdown_write(now)
        elif what < 0.03:
            self.conn.pause(now)
            self._world.call_later(self._dice.choice(PAUSES), self._go_on)
        elif what < 0.04:
            self.conn.pause(now)
            self.conn.resume(now)
        super().on_data(data)

    def _turn(self) -> None:
        dice, conn = self._dice, self.conn
        if conn.is_over or conn.is_orphan or conn.tx.fin_queued:
            return
        if dice.random() < 0.15:
            name, values = dice.choice(OPTIONS)
            conn.set_option(name, dice.choice(values), self._world.now())
        super()._turn()

    def _go_on(self) -> None:
        if not self.conn.is_orphan:
            super()._go_on()


def converse(seed: int) -> Run:
    """Return a run of three connections, of a seed."""

    def run(fast_path: bool, look: Look) -> None:
        dice = random.Random(seed)
        world = World(seed)
        a, b = memory_pipe(1500, queue=100_000)
        a._reader.coalesce_acks = b._reader.coalesce_acks = dice.random() < 0.5
        delay, loss, step = dice.choice((50, 500, 20_000)), dice.choice((0, 0, 0.005)), dice.choice((1, 200, 5000))
        fate = random.Random(seed)
        stacks = []
        for name, device, other in (("10.0.0.1", a, b), ("10.0.0.2", b, a)):

            def send(frame: bytes, other: object = other) -> None:
                if fate.random() >= loss:
                    at = world.now() + delay
                    world.call_at(at + -at % step, other.deliver, frame)  # type: ignore[attr-defined]  # some come together

            device.carry = send
            sysctl = Sysctl(
                tcp_timestamps=dice.random() < 0.8,
                tcp_sack=dice.random() < 0.9,
                tcp_ecn=dice.choice((0, 1, 2)),
                tcp_mem=dice.choice(((1 << 20, 1 << 21, 1 << 22), (20, 40, 400))),
                tcp_rmem=(4096, dice.choice((131_072, 2_000_000)), 6_291_456),
                tcp_initial_cwnd=dice.choice((1, 10, 200)),
                tcp_mtu_probing=dice.choice((0, 0, 2)),
                tcp_keepalive_time=dice.choice((1, 7200)),
            )
            config = StackConfig((pack_address(name),), 1500, MAX_PAYLOAD, sysctl, fast_path)
            stack = Stack(config, random.Random(dice.getrandbits(64)), dice.randbytes(32))
            host = WatchedHost(world, name, stack, device, 0.0, 0)
            host.look = look
            world.hosts.append(host)
            stacks.append(stack)

        def accept(listener: Listener) -> None:
            while (conn := listener.accept()) is not None:
                talker = Fickle(world, random.Random(dice.getrandbits(64)))
                talker.conn = conn
                conn.sink = talker
                conn.resume(world.now())

        def narrow(stack: Stack, mtu: int) -> None:
            for conn in list(stack.connections):
                pathmss.on_smaller_path(conn, mtu, world.now())

        stacks[1].listen(pack_address("10.0.0.2"), 80, on_acceptable=accept)
        if dice.random() < 0.5:
            world.call_later(dice.choice((1000, 50_000, 500_000)), narrow, dice.choice(stacks), dice.choice((600, 1000, 1400)))
        for _ in range(3):
            talker = Fickle(world, random.Random(dice.getrandbits(64)))
            talker.conn = stacks[0].connect(pack_address("10.0.0.2"), 80, talker, world.now())
        world.run(until=60_000_000)

    return run


def test_every_field_is_the_same_where_options_change_under_way(world_seed: int) -> None:
    compare(converse(world_seed), f"conversation {world_seed}")
