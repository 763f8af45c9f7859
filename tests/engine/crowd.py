"""Peers and applications that open connections in every way and let go at every moment, while knobs change and listeners come and go.

What must hold all the same: nothing raises, invariants hold after each step, and at the end nothing is left in any table.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from worlds.invariants import check_rest, check_stack

from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.fastopencookie import Cookie, encode, keys_of, make_cookie
from tunstack.engine.fastopenrequest import Requests
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.sink import NullSink
from tunstack.engine.stack import Stack
from tunstack.engine.state import SYN_RECEIVED
from tunstack.engine.sysctl import Sysctl
from tunstack.seq import MASK
from tunstack.wire import icmp, ipv4
from tunstack.wire.flow import pack_address, pack_flow, reverse_flow, unpack_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Batch, Segment

LOCAL, REMOTE = pack_address("192.0.2.1"), pack_address("198.51.100.1")
START = 1_000_000_000
TURNS_MAX = 5000  # of timers, until everything has come to its end
FLAGS = (ACK, ACK, ACK, ACK | FIN, ACK | FIN, RST, RST | ACK, SYN, SYN | ACK, SYN | ACK, FIN, 0)
KNOBS: dict[str, Sequence[object]] = {
    "tcp_syncookies": (0, 1, 2),
    "tcp_timestamps": (True, False),
    "tcp_sack": (True, False),
    "tcp_window_scaling": (True, False),
    "tcp_ecn": (0, 1, 2),
    "tcp_fastopen": (0, 3, 0x403, 0x603),
    "tcp_abort_on_overflow": (True, False),
    "tcp_max_syn_backlog": (1, 4, 128),
    "somaxconn": (0, 1, 128),
    "tcp_synack_retries": (0, 1, 5),
    "tcp_max_orphans": (0, 1, 8192),
    "tcp_tw_reuse": (0, 1),
    "tcp_max_tw_buckets": (0, 1, 1000),
    "tcp_reflect_tos": (True, False),
}


class Caller(NullSink):
    """A sink that calls its connection, or closes a listener, from within its callbacks."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.conn: Connection | None = None
        self.is_over = False

    def act(self) -> None:
        """Call something."""
        crowd, conn = self.crowd, self.conn
        rng, now = crowd.rng, crowd.now
        if conn is None or self.is_over or rng.random() > 0.4:
            return
        try:
            match rng.choice(("send", "close", "abort", "shutdown", "pause", "listener")):
                case "send":
                    conn.send(bytes(rng.choice((1, 500, 3000))), now)
                case "close":
                    conn.close(now)
                case "abort":
                    conn.abort(now)
                    self.is_over = True
                case "shutdown":
                    conn.shutdown_write(now)
                case "pause":
                    conn.pause(now)
                case _:
                    crowd.close_listener()
        except OSError:
            pass

    def on_established(self) -> None:
        self.act()

    def on_data(self, data: memoryview) -> None:
        self.act()

    def on_eof(self) -> None:
        self.act()

    def on_writable(self) -> None:
        self.act()

    def on_closed(self, error: OSError | None) -> None:
        assert not self.is_over, "on_closed after the end"
        self.is_over = True


class Crowd:
    """One stack, everybody around it, and the dice."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = random.Random(seed)
        self.now = START
        self.sysctl = Sysctl(**{name: rng.choice(values) for name, values in KNOBS.items()})  # type: ignore[arg-type]
        self.stack = Stack(StackConfig((LOCAL,), sysctl=self.sysctl), random.Random(seed), bytes(range(32)))
        self.listeners: list[Listener] = []
        self.requests: list[Requests] = []  # of listeners that are closed
        self.callers: list[Caller] = []
        self.seen: dict[bytes, list[Segment]] = {}  # what the stack sent, by the flow of the answers
        for _ in range(2):
            self._listen()

    def play(self, steps: int) -> None:
        """Let so many things happen."""
        for _ in range(steps):
            self._step()
            check_stack(self.stack)
            for turn in (self._poll, self._advance, self._poll):
                if self.rng.random() < 0.85:
                    turn()

    def end(self) -> None:
        """Everybody leaves; nothing must stay."""
        stack = self.stack
        while self.listeners:
            self.close_listener()
        for caller in self.callers:
            if not caller.is_over and caller.conn is not None:
                caller.conn.close(self.now)
        for _ in range(TURNS_MAX):
            self._poll()
            deadline = stack.next_deadline()
            if deadline is None:
                break
            self.now = max(deadline, self.now)
            stack.advance(self.now)
        assert stack.next_deadline() is None, "a timer runs"
        assert not stack.flows, f"left behind: {list(stack.flows.values())}"
        assert not list(stack.listeners)
        assert not stack._ports._own
        assert not len(stack.orphans) and not len(stack.time_wait)
        assert not stack.memory.pages
        for requests in self.requests:
            assert requests.pending == len(requests.resets), "a place for Fast Open was not given back"

    # Applications.

    def _listen(self) -> None:
        rng = self.rng
        options = SocketOptions(
            reuseaddr=True,
            defer_accept=rng.choice((0, 0, 1, 10)),
            fastopen=rng.choice((0, 1, 3)),
            linger=rng.choice((None, None, 0, 3)),
        )
        try:
            listener = self.stack.listen(
                LOCAL,
                rng.choice((80, 81)),
                on_acceptable=self._on_acceptable,
                backlog=rng.choice((0, 1, 5)),
                options=options,
                reuse_port=True,
            )
        except OSError:
            return
        self.listeners.append(listener)

    def close_listener(self) -> None:
        """Close one of them."""
        if self.listeners:
            listener = self.listeners.pop(self.rng.randrange(len(self.listeners)))
            if listener.fastopen is not None:
                self.requests.append(listener.fastopen)
            listener.close(self.now)
            assert not listener.half_open and not listener.acceptable and not listener.young

    def _on_acceptable(self, listener: Listener) -> None:
        luck = self.rng.random()
        if luck < 0.1:
            self.close_listener()
        elif luck < 0.6:
            self._accept(listener)

    def _accept(self, listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            caller = Caller(self)
            self.callers.append(caller)
            caller.conn = conn
            conn.sink = caller
            if self.rng.random() < 0.2:
                conn.abort(self.now)
                caller.is_over = True
            else:
                conn.resume(self.now)
            if self.rng.random() < 0.3:
                return

    def _connect(self) -> None:
        rng = self.rng
        caller = Caller(self)
        options = SocketOptions(reuseaddr=True, fastopen_connect=rng.random() < 0.3)
        data = rng.choice((None, bytes(100)))
        port = rng.choice((0, 80, 82, 83))
        try:
            caller.conn = self.stack.connect(
                REMOTE, rng.choice((2000, 2001, 9)), caller, self.now, local_port=port, options=options, data=data
            )
        except OSError:
            return
        self.callers.append(caller)

    # Peers.

    def _syn(self) -> Segment:
        rng = self.rng
        flow = pack_flow(REMOTE, rng.choice((2000, 2001, 2002, rng.randrange(3000, 3050))), LOCAL, rng.choice((80, 81)))
        syn = Segment(flow, rng.choice((1000, 5000, MASK, rng.getrandbits(32))), 0, SYN, 65535, mss=rng.choice((0, 1, 1000, 65535)))
        if rng.random() < 0.5:
            syn.ts_val = rng.choice((self.now // 1000 & MASK, 1, 0))
            syn.sack_ok = True
        if rng.random() < 0.5:
            syn.wscale = rng.choice((0, 7, 14, 15))
        if rng.random() < 0.7 and self.listeners:
            key = keys_of(rng.choice(self.listeners))[0]
            syn.options = encode(Cookie(make_cookie(key, flow) if rng.random() < 0.7 else b"", rng.random() < 0.2))
            self._fill(syn, rng.choice((0, 10, 900)))
        return syn

    def _answer(self) -> Segment:
        """Something that may fit what the stack sent."""
        rng = self.rng
        flow = rng.choice(list(self.seen)[-6:])
        last = rng.choice(self.seen[flow][-3:])
        flags = rng.choice(FLAGS)
        seq = last.ack if last.flags & ACK else rng.choice((1000, 5000))
        seq += rng.choice((0, 0, 0, 0, 0, -1, 1, 65535)) - bool(flags & SYN)
        ack = last.seq + last.length + bool(last.flags & SYN) + bool(last.flags & FIN) + rng.choice((0, 0, 0, 0, 0, 1, -1))
        seg = Segment(flow, seq & MASK, ack & MASK if flags & ACK else 0, flags, rng.choice((0, 1000, 65535)))
        if last.ts_val is not None and rng.random() < 0.8:
            seg.ts_val = rng.choice((7, self.now // 1000 & MASK))
            seg.ts_ecr = last.ts_val
        if not flags & RST:
            self._fill(seg, rng.choice((0, 0, 0, 10, 1000)))
        return seg

    @staticmethod
    def _fill(seg: Segment, length: int) -> None:
        seg.payload = (memoryview(bytes(length)),) if length else ()
        seg.length = length

    def _icmp(self) -> None:
        """A router's error about something that the stack sent."""
        rng = self.rng
        owners = [owner for owner in self.stack.flows.values() if isinstance(owner, Connection | HalfOpen)]
        if not owners:
            return
        owner = rng.choice(owners)
        if isinstance(owner, HalfOpen):
            seq = owner.iss
        else:
            seq = owner.tx.iss if owner.state is SYN_RECEIVED and rng.random() < 0.5 else owner.tx.snd_una
        source, source_port, target, target_port = unpack_flow(owner.flow)
        ports = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
        quote = ipv4.build(source, target, ipv4.TCP, ports + seq.to_bytes(4, "big"))
        code = rng.choice((0, 1, 3, 4, 13))
        message = icmp.destination_unreachable(code, quote, 600 if code == 4 else 0)
        batch = Batch()
        batch.packets = [memoryview(ipv4.build(REMOTE, LOCAL, ipv4.ICMP, message))]
        self.stack.receive(batch, self.now)

    # What happens.

    def _step(self) -> None:
        rng = self.rng
        events = {
            "segments": 60,
            "time": 12,
            "long": 4,
            "knob": 4,
            "listen": 3,
            "unlisten": 1,
            "accept": 4,
            "connect": 4,
            "icmp": 4,
            "calls": 10,
        }
        match rng.choices(list(events), list(events.values()))[0]:
            case "segments":
                batch = Batch()
                batch.segments = [
                    self._answer() if self.seen and rng.random() < 0.75 else self._syn() for _ in range(rng.choice((1, 1, 3)))
                ]
                batch.has_options = any(seg.options for seg in batch.segments)
                self.stack.receive(batch, self.now)
            case "time":
                self.now += rng.choice((10, 1000, 200_000, 1_000_000))
            case "long":
                self.now += rng.choice((10_000_000, 70_000_000, 200_000_000))
            case "knob":
                name = rng.choice(list(KNOBS))
                setattr(self.sysctl, name, rng.choice(KNOBS[name]))
            case "listen":
                self._listen()
            case "unlisten":
                self.close_listener()
            case "accept":
                if self.listeners:
                    self._accept(rng.choice(self.listeners))
            case "connect":
                self._connect()
            case "icmp":
                self._icmp()
            case "calls":
                self._act()

    def _act(self) -> None:
        if self.callers:
            caller = self.rng.choice(self.callers)
            caller.act()
            if caller.conn is not None and not caller.is_over:
                caller.conn.resume(self.now)

    def _advance(self) -> None:
        for _ in range(50):
            deadline = self.stack.next_deadline()
            if deadline is None or deadline > self.now:
                return
            self.stack.advance(self.now)

    def _poll(self) -> None:
        while (item := self.stack.poll_transmit(self.now)) is not None:
            if isinstance(item, Segment) and not item.flags & RST:
                self.seen.setdefault(reverse_flow(item.flow), []).append(item)
        check_stack(self.stack)
        check_rest(self.stack, self.now)
