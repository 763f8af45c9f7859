"""Two stacks over a link that misbehaves, with applications that behave at random: streams are equal, everything ends, nothing is left."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from engine.random_world import App, Watch

from tunstack.device.impairment import Impairment
from tunstack.engine.listener import Listener
from tunstack.engine.timers import NEVER
from tunstack.sim.script import Runner
from tunstack.sim.script.packet import ACK, Packet
from tunstack.sim.world import SECOND, World

SHARE = 25  # worlds to a seed of the suite


def draw_link(rng: random.Random) -> Impairment:
    """A link that is bad in one way or in several."""
    bad = Impairment(delay=rng.choice((0, 500, 20_000, 150_000)))
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        if rng.random() < 0.5:
            bad = replace(bad, **{name: rng.choice((0.005, 0.03, 0.15))})
    if rng.random() < 0.5:
        bad = replace(bad, jitter=bad.delay // rng.choice((1, 4)))
    if rng.random() < 0.3:
        bad = replace(bad, rate=rng.choice((2_000_000, 50_000_000)), queue=rng.choice((5, 50)))
    return bad


def play_world(seed: int, abrupt: bool) -> tuple[World, list[tuple[App, App | None]]]:
    """Open some connections between two hosts, let their applications do as they like, and run to the end."""
    world = World(seed)
    rng = world.random
    forward, backward = draw_link(rng), draw_link(rng)
    a, b, _ = world.pair(forward, backward, mtu=rng.choice((576, 1500, 9000)), fast_path=rng.random() < 0.7)
    for host in (a, b):
        host.stack.sysctl.tcp_timestamps = rng.random() < 0.7
        host.stack.sysctl.tcp_sack = rng.random() < 0.7
        host.stack.sysctl.tcp_window_scaling = rng.random() < 0.7
        host.stack.sysctl.tcp_rmem = (4096, rng.choice((8192, 131072)), rng.choice((16384, 6291456)))
    watch = Watch(a, b)
    servers: dict[int, App] = {}

    def app() -> App:
        size = rng.choice((0, 1, 1460, 20_000, 200_000))
        return App(world, random.Random(rng.getrandbits(64)), rng.randbytes(size), abrupt)

    def on_acceptable(listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            server = servers[conn.remote[1]] = app()
            conn.sink = server
            server.start(conn)

    listener = b.stack.listen(b.address, 80, on_acceptable=on_acceptable)
    clients: list[App] = []
    for _ in range(rng.randrange(1, 5)):
        client = app()
        clients.append(client)
        client.start(a.stack.connect(b.address, 80, client, now=world.now()))
    assert world.run(until=3 * 3600 * SECOND), f"seed {seed}: no end after three hours"
    listener.close(world.now())
    for host in (a, b):
        assert not host.stack.flows, f"seed {seed}: left behind: {host.stack.flows}"
        assert all(owner.next_deadline() == NEVER for owner in host.stack.timers.owners()), f"seed {seed}: a timer runs"
        assert not host.stack.has_output
        assert not host.device.oversize, f"seed {seed}: {host.device.oversize} packets beyond the MTU"
    assert watch.frames
    return world, [(client, servers.get(client.conn.local[1])) for client in clients]


def worlds(world_seed: int) -> range:
    return range(world_seed * SHARE, (world_seed + 1) * SHARE)


def test_streams_are_equal_whatever_the_link_does(world_seed: int) -> None:
    """M-30, M-31, M-40, M-50: both streams arrive whole, both ends close without error unless the network gave nothing through."""
    whole = 0
    for seed in worlds(world_seed):
        _, pairs = play_world(seed, abrupt=False)
        for client, server in pairs:
            if server is None:
                assert isinstance(client.error, TimeoutError), f"seed {seed}: {client.error}"
                continue
            for one, other in ((client, server), (server, client)):
                if one.error is None and other.error is None:
                    assert bytes(one.received) == other.stream, f"seed {seed}: {len(one.received)} of {len(other.stream)}"
                    assert one.calls[-2:] == ["eof", "closed"], f"seed {seed}: {one.calls}"
                    whole += 1
                else:
                    assert other.stream.startswith(one.received), f"seed {seed}: the stream is damaged"
    assert whole > SHARE


def test_everything_ends_also_when_applications_give_up(world_seed: int) -> None:
    """M-30, M-57, M-59, M-42: what arrived is a beginning of what was sent; errors are those of sockets; nothing is left behind."""
    gave_up = 0
    for seed in worlds(world_seed):
        _, pairs = play_world(1_000_000 + seed, abrupt=True)
        for client, server in pairs:
            if server is None:
                continue
            for one, other in ((client, server), (server, client)):
                assert other.stream[: other.written].startswith(one.received), f"seed {seed}: the stream is damaged"
                gave_up += one.gave_up
                if not one.gave_up:
                    assert one.calls[-1] == "closed", f"seed {seed}: never told of the end: {one.calls}"
    assert gave_up > SHARE // 2


@pytest.mark.parametrize("fast_path", [True, False])
def test_pieces_in_any_order_and_overlap_make_the_stream(world_seed: int, fast_path: bool) -> None:
    """M-40: random pieces of a stream, over and over, are read as the stream; the ACK is always where the first hole is."""
    rng = random.Random(world_seed)
    opening = """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
    """
    for _ in range(12):
        size = rng.choice((10, 300, 5_000))
        runner = Runner(opening, remote_isn=rng.getrandbits(32), fast_path=fast_path).run()
        socket = runner.sockets.current
        assert socket is not None
        assert socket.conn is not None
        have: set[int] = set()
        edge = 0
        while edge < size:
            start = rng.randrange(max(edge - 50, 0), size)
            length = min(rng.randrange(1, max(size // 4, 2)), size - start)
            packet = Packet(ACK, 1 + start, length, 1, 30000)
            runner._receive(runner._packet_octets(packet)[0], 0, 0)
            have.update(range(start, start + length))
            while edge in have:
                edge += 1
            rx = socket.conn.rx
            assert seq_distance(rx.rcv_nxt, runner.remote_isn) == 1 + edge
            runner.flush()
            if rng.random() < 0.3 and socket.conn.readable:
                socket.take(socket.conn.read(rng.randrange(1, socket.conn.readable + 1), runner.now))
        while socket.conn.readable:
            socket.take(socket.conn.read(1000, runner.now))
        assert socket.received == size
        assert socket.mismatch is None


def seq_distance(a: int, b: int) -> int:
    return (a - b) % 2**32
