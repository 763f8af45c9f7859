"""Plays a world to its end and judges it: streams equal, every run ends, nothing left behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from worlds.application import Application
from worlds.draw import HostPlan, PairPlan, WorldPlan, draw_world
from worlds.faults import FaultyWay
from worlds.invariants import check_connection, check_rest, check_stack
from worlds.trace import describe
from worlds.wire import Watch

from tunstack.device.memory import MemoryDevice
from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.fastopencookie import Cookie, keys_of, make_cookie
from tunstack.engine.isn import IsnGenerator
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.stack import Stack
from tunstack.engine.state import CLOSED, TIME_WAIT
from tunstack.engine.sysctl import Sysctl
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import TIME_WAIT_LENGTH
from tunstack.seq import MASK
from tunstack.sim.world import SECOND, START, Host, World
from tunstack.wire import codec, virtio
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import Batch, Segment

PORT = 80
TIME_LIMIT = 10 * 86400 * SECOND  # every world comes to rest in it, also with segments of 48 octets and timeouts of 120 s
ADDRESSES = ("10.0.0.1", "10.0.0.2")

FASTOPEN = {"": 1, "cookie": 0x403, "bare": 0x607}  # tcp_fastopen

Trace = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a world came to; counters of both hosts, of the links, and of how connections ended."""

    plan: WorldPlan
    counters: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    elapsed: int = 0  # virtual us
    digest: bytes = b""  # of every frame and its time


class NearIsn(IsnGenerator):
    """Sequence numbers and timestamps that pass zero, or the middle of their range, while the world lasts."""

    __slots__ = ("_around", "_given", "_random", "_ts_left")

    def __init__(self, plan: HostPlan, rng: random.Random) -> None:
        super().__init__(rng.randbytes(32))
        self._around = plan.isn
        self._given: set[int] = set()
        self._ts_left = plan.ts_left
        self._random = rng

    def start(self, flow: bytes, now: int) -> tuple[int, int]:
        return self.isn(flow, now), self.ts_offset(flow)

    def isn(self, flow: bytes, now: int) -> int:
        if self._around is None:
            return super().isn(flow, now)
        while True:
            isn = (self._around - self._random.randrange(0, self._random.choice((3, 3000, 100_000)))) & MASK
            if isn not in self._given:  # a connection is known by it
                self._given.add(isn)
                return isn

    def ts_offset(self, flow: bytes) -> int:
        if self._ts_left is None:
            return super().ts_offset(flow)
        middle = (self._around or 0) & MASK
        return (middle - START // 1000 - self._ts_left) & MASK


class Device(MemoryDevice):
    """A device of which a read brings a few frames at most, coalesced or not."""

    def __init__(self, plan: HostPlan, offload: bool) -> None:
        super().__init__(plan.mtu, 1_000_000, offload)
        self._batch = plan.batch
        self._reader = codec.Reader(vnet=offload, max_frames=plan.batch, coalesce=plan.coalesce, coalesce_acks=plan.coalesce)

    def read_batch(self) -> Batch:
        inbox = self._inbox
        return self._reader.parse([inbox.popleft() for _ in range(min(len(inbox), self._batch))])


class WatchedHost(Host):
    """A host whose connections are checked after every call into its stack."""

    def __init__(self, world: World, name: str, stack: Stack, device: MemoryDevice, refuses: float, seed: int) -> None:
        super().__init__(world, name, stack, device)
        self._refuses = refuses
        self._random = random.Random(seed)
        self._write = device.write
        self.look: Callable[[Stack], object] = lambda stack: None  # called after every call into the stack
        if refuses:
            device.write = self._write_or_refuse  # type: ignore[method-assign]

    def _write_or_refuse(self, item: Segment | bytes) -> bool:
        if self._random.random() < self._refuses:
            self.world.call_later(self._random.randrange(1, 20_000), self.mark)
            return False
        return self._write(item)

    def pump(self, now: int) -> None:
        self._marked = False
        stack, device = self.stack, self.device
        while device.waiting:
            stack.receive(device.read_batch(), now)
            check_stack(stack)
            self.look(stack)
        deadline = stack.next_deadline()
        if deadline is not None and deadline <= now:
            stack.advance(now)
            check_stack(stack)
            self.look(stack)
        item, self._held = self._held, None
        if item is None:
            item = stack.poll_transmit(now)
        has_sent = item is not None
        while item is not None:
            if not device.write(item):
                self._held = item
                break
            self.look(stack)
            item = stack.poll_transmit(now)
        self.look(stack)
        if has_sent:
            check_stack(stack)
        if self._held is None:
            assert not stack.has_output, "output is left"
            check_rest(stack, now)
        deadline = stack.next_deadline()
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            self._wake_at = deadline
            self.world.call_at(deadline, self._wake, deadline)


class Play:
    """One run of a world."""

    def __init__(self, plan: WorldPlan, trace: Trace | None = None) -> None:
        self.plan = plan
        self.world = World(plan.seed)
        self.random = random.Random(plan.seed ^ 0x5EED)
        # A cookie that comes a second time makes a second connection of the same numbers.
        has_cookies = plan.is_crowded and any(host.sysctl.get("tcp_syncookies", 1) for host in plan.hosts)
        self.watch = Watch(virtio.LENGTH if plan.offload else 0, judges=not has_cookies)
        self.outcome = Outcome(plan)
        self.clients: list[Application] = []
        self._pairs: list[PairPlan] = []  # of the clients
        self.servers: dict[int, Application] = {}  # by index of the client
        self._trace = trace
        self._digest = blake2b(digest_size=16)
        self._keys: dict[tuple[int, int, int], int] = {}  # (host that listens, port of the client, its ISN) -> index of the client
        self._make_hosts()
        self._make_ways()

    # Making it.

    def _make_hosts(self) -> None:
        plan, world = self.plan, self.world
        for index, host in enumerate(plan.hosts):
            device = Device(host, plan.offload)
            payload = device.max_payload if host.bursts else host.mtu - 40
            config = StackConfig(
                (pack_address(ADDRESSES[index]),),
                host.mtu,
                payload,
                Sysctl(**host.sysctl, tcp_fastopen=FASTOPEN[plan.fastopen]),
                plan.fast_path,  # type: ignore[arg-type]
            )
            stack = Stack(config, random.Random(self.random.getrandbits(64)), self.random.randbytes(32))
            stack.isn = NearIsn(host, random.Random(self.random.getrandbits(64)))
            seed = self.random.getrandbits(64)
            world.hosts.append(WatchedHost(world, "ab"[index], stack, device, host.refuses, seed))
            options = SocketOptions(defer_accept=host.defer_accept)
            stack.listen(pack_address(ADDRESSES[index]), PORT, on_acceptable=self._acceptor(index), backlog=host.backlog, options=options)

    def _make_ways(self) -> None:
        a, b = self.world.hosts
        header = self.watch.header
        self.ways = []
        for plan, source, target in ((self.plan.ways[0], a, b), (self.plan.ways[1], b, a)):
            assert isinstance(source.device, MemoryDevice) and isinstance(target.device, MemoryDevice)
            way = FaultyWay(self.world, plan, self.random.getrandbits(64), self._deliver(target), self._deliver(source), header)
            source.device.carry = self._carry(source, way)
            if self._trace is not None:
                way.trace = self._tell(f"{source.name}>{target.name}")
            self.ways.append(way)

    def _carry(self, source: Host, way: FaultyWay) -> Callable[[bytes], None]:
        digest, world, look, carry, mtu = self._digest, self.world, self.watch.look, way.carry, source.device.mtu

        def send(frame: bytes) -> None:
            digest.update(b"%d%b" % (world.now(), frame))
            look(frame, mtu)
            carry(frame)

        return send

    def _deliver(self, target: Host) -> Callable[[bytes], None]:
        assert isinstance(target.device, MemoryDevice)
        deliver = target.device.deliver
        if self._trace is None:
            return deliver
        tell = self._tell(f"  at {target.name}")

        def arrive(frame: bytes) -> None:
            tell(frame, "")
            deliver(frame)

        return arrive

    def _tell(self, where: str) -> Callable[[bytes, str], None]:
        trace = self._trace
        assert trace is not None

        def tell(frame: bytes, fate: str) -> None:
            trace(f"{self.world.elapsed / 1e6:12.6f} {where} {describe(frame[self.watch.header :], self.watch.iss)} {fate}")

        return tell

    # Connections.

    def _open(self, pair: PairPlan, local_port: int = 0) -> None:
        """Open a connection; both ends' streams are drawn now."""
        world = self.world
        opener, other = world.hosts[pair.opener], world.hosts[1 - pair.opener]
        index = len(self.clients)
        streams = self.random.randbytes(pair.client.size), self.random.randbytes(pair.server.size)
        seeds = self.random.getrandbits(64), self.random.getrandbits(64)
        client = Application(world, f"client {index}", pair.client, *streams, pair.server.piece, seeds[0])
        server = Application(world, f"server {index}", pair.server, streams[1], streams[0], pair.client.piece, seeds[1])
        remote_port = PORT
        if pair.simultaneous:
            local_port, remote_port = 2000 + index, 3000 + index
        if self.plan.fastopen == "cookie":
            self._give_cookie(opener, other)
        try:
            conn = opener.stack.connect(
                other.address,
                remote_port,
                client,
                world.now(),
                local_port=local_port,
                options=SocketOptions(**pair.client.options, fastopen_connect=bool(self.plan.fastopen)),  # type: ignore[arg-type]
            )
        except OSError:
            assert local_port or pair.may_fail, "no port is free"
            self.outcome.counters["no port"] += 1
            return  # the old connection is in TIME-WAIT
        self.watch.streams[conn.flow], self.watch.streams[conn.flow_in] = streams
        self.clients.append(client)
        self._pairs.append(pair)
        client.on_step = server.on_step = self._check
        if pair.simultaneous:
            self.servers[index] = server
            options = SocketOptions(**pair.server.options)  # type: ignore[arg-type]
            peer = other.stack.connect(opener.address, local_port, server, world.now(), local_port=remote_port, options=options)
            server.start(peer)
        else:
            self._keys[1 - pair.opener, conn.local[1], conn.tx.iss] = index
            self._waiting[index] = server
            if pair.again is not None:
                again = replace(pair, again=None, may_fail=True, client=replace(pair.client, options=dict(pair.client.options)))
                client.on_end = lambda: world.call_later(self._pause(client, pair.again or 0), self._open, again, conn.local[1])
            elif pair.chain:
                following = replace(pair, chain=pair.chain - 1)
                wait = self.random.choice((10, 1000, 5_000_000))
                client.on_end = lambda: world.call_later(self._pause(client, wait), self._open, following)
        client.start(conn)

    def _pause(self, client: Application, wait: int) -> int:
        """How long ports rest before they are used again: after a reset nothing but timestamps tells old segments from new ones."""
        has_timestamps = all(host.sysctl.get("tcp_timestamps", True) for host in self.plan.hosts)
        return wait if has_timestamps or not (client.gave_up or client.error) else max(wait, 60 * SECOND)

    def _give_cookie(self, opener: Host, other: Host) -> None:
        """Have a host know the other's cookie, or believe so."""
        flow = pack_flow(opener.address, 0, other.address, 0)
        key = keys_of(next(iter(other.stack.listeners)))[0]
        cookie = make_cookie(key, flow) if self.random.random() < 0.9 else self.random.randbytes(8)
        opener.stack.fastopen_cookies.remember(flow, self.random.choice((100, 536, 1460, 9000)), Cookie(cookie, False), 0)

    def _acceptor(self, index: int) -> Callable[[Listener], None]:
        delay = self.plan.hosts[index].accept_delay

        def accept(listener: Listener) -> None:
            while (conn := listener.accept()) is not None:
                assert conn.rx is not None
                client = self._keys[index, conn.remote[1], conn.rx.irs]
                is_stateless = self.plan.fastopen or listener.stack.counters.SyncookiesRecv
                if is_stateless and client not in self._waiting:  # what made the connection came a second time, and that is over
                    self.outcome.counters["opened twice"] += 1
                    conn.abort(self.world.now())
                    continue
                server = self._waiting.pop(client)  # KeyError: a second connection for one SYN
                self.servers[client] = server
                conn.sink = server
                for name, value in server.plan.options.items():
                    conn.set_option(name, value, self.world.now())
                server.start(conn)

        def on_acceptable(listener: Listener) -> None:
            if delay:
                self.world.call_later(delay, accept, listener)
            else:
                accept(listener)

        return on_acceptable

    def _check(self, conn: Connection) -> None:
        """After what an application orders."""
        if conn.state is not CLOSED and conn.state is not TIME_WAIT and not conn.is_delivering and not conn.is_dirty:
            check_connection(conn)

    # Playing it.

    def run(self) -> Outcome:
        """Play to the end; AssertionError where something is not as it must be."""
        world = self.world
        self._waiting: dict[int, Application] = {}
        for pair in self.plan.pairs:
            world.call_later(pair.at, self._open, pair)
        at_rest = world.run(until=TIME_LIMIT)
        assert at_rest, f"no end after {TIME_LIMIT // SECOND} s: {[conn.info() for host in world.hosts for conn in host.stack.connections]}"
        self._judge()
        outcome = self.outcome
        outcome.frames = self.watch.frames
        outcome.elapsed = world.elapsed
        outcome.digest = self._digest.digest()
        self._count()
        return outcome

    def _judge(self) -> None:
        for host in self.world.hosts:
            for listener in list(host.stack.listeners):
                listener.close(self.world.now())
            assert not host.stack.flows, f"left behind: {list(host.stack.flows.values())}"
            assert all(owner.next_deadline() == NEVER for owner in host.stack.timers.owners()), "a timer runs"
            assert not host.stack.has_output
            assert isinstance(host.device, MemoryDevice)
            assert not host.device.oversize, f"{host.device.oversize} packets beyond the MTU"
            assert not host.device.dropped
        for index, client in enumerate(self.clients):
            self._judge_pair(client, self.servers.get(index), self.plan.is_harsh or self._pairs[index].may_fail)
        apps = (*self.clients, *self.servers.values())
        sizes = [460, *(host.mtu - 100 for host in self.plan.hosts)]
        sizes += [int(str(app.plan.options["maxseg"])) - 12 for app in apps if app.plan.options.get("maxseg")]
        if any(host.sysctl.get("tcp_mtu_probing") for host in self.plan.hosts):
            sizes.append(36)  # a search may come down to tcp_min_snd_mss, timestamps counted
        least = min(sizes)
        segments = sum(app.written // least + app.writes + 1 for app in apps)
        assert self.watch.frames < 1000 + 50 * segments, f"{self.watch.frames} frames for {segments} segments"

    def _judge_pair(self, client: Application, server: Application | None, excused: bool) -> None:
        tally = self.outcome.counters
        tally["connections"] += 1
        if server is None:
            tally["never accepted"] += 1
            assert client.error is not None or client.gave_up or client.plan.is_abrupt, "closed in peace without ever having been accepted"
            # The third segment of a SYN cookie may be lost, on the way or for want of room, and only data would bring its numbers again.
            has_lost_cookie = any(host.stack.counters.SyncookiesSent for host in self.world.hosts)
            assert excused or has_lost_cookie or client.plan.is_abrupt, f"never accepted: {client.error}"
            return
        excused |= client.plan.is_abrupt or server.plan.is_abrupt
        # What overtakes the third segment of a SYN cookie is answered with RST, as by Linux: nobody knows the connection yet.
        excused |= any(host.stack.counters.SyncookiesFailed for host in self.world.hosts)
        given_up = [app for app in (client, server) if app.has_ended and app.error is not None]
        if any(not isinstance(app.error, ConnectionResetError) for app in given_up):
            tally["orphans that gave up"] += 1  # who has closed does not try for ever (tcp_orphan_retries)
            excused = True
        for one, other in ((client, server), (server, client)):
            # The last ACK was lost again and again, until the peer's TIME-WAIT was over: its answer is RST.
            has_all = other.is_closed and other.error is None and other.has_eof and other.received == len(one.stream)
            if has_all and isinstance(one.error, ConnectionResetError) and self.world.elapsed > TIME_WAIT_LENGTH:
                tally["last ACK lost for good"] += 1
                excused = True
        whole = True
        for one, other in ((client, server), (server, client)):
            assert one.is_closed or (one.has_ended and one.plan.ending == "abort"), f"{one.name} was never told of the end"
            assert one.received <= other.written
            if one.error is not None:
                tally[f"error {type(one.error).__name__} {one.error.errno}"] += 1
                assert excused, f"{one.name}: {one.error}"
            if one.error is None and other.error is None and not one.gave_up and not other.gave_up:
                assert one.has_eof, f"{one.name} has not seen the end"
                assert one.received == len(other.stream), f"{one.name} has {one.received} of {len(other.stream)} octets"
            else:
                whole = False
            tally["gave up"] += one.gave_up
        tally["whole both ways"] += whole
        tally["excused"] += excused
        assert whole or excused

    def _count(self) -> None:
        tally = self.outcome.counters
        for host in self.world.hosts:
            for name, value in host.stack.counters.as_dict().items():
                if value:
                    tally[name] += value
        for way in self.ways:
            for name, value in way.direction.counts().items():
                tally[f"link: {name}"] += value
            for name, value in way.counts.items():
                tally[f"link: {name}"] += value
        tally["wire: frames"] += self.watch.frames
        tally["wire: sent again"] += self.watch.retransmitted
        tally["wire: D-SACK blocks"] += self.watch.dsacks
        tally["worlds"] += 1


def play(plan: WorldPlan, trace: Trace | None = None) -> Outcome:
    """Play a world; where its plan says so, twice, and the fast path must make no difference to any frame."""
    outcome = Play(plan, trace).run()
    if plan.twice and trace is None:
        again = Play(replace(plan, fast_path=not plan.fast_path)).run()
        assert again.digest == outcome.digest, "the fast path makes a difference"
        outcome.counters["worlds played both ways"] += 1
    return outcome


def play_seed(seed: int) -> Outcome:
    """Play the world of a seed."""
    return play(draw_world(seed))
