"""A peer that sends what it likes, an application that calls what it likes, a clock that jumps; and what must hold all the same."""

from __future__ import annotations

import random

from worlds.invariants import check_connection

from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.receiver import Receiver
from tunstack.engine.receivewindow import PIECE_COST, held
from tunstack.engine.stack import Stack
from tunstack.engine.state import State
from tunstack.engine.sysctl import Sysctl
from tunstack.seq import MASK, seq_ge, seq_gt, seq_le
from tunstack.sim.script.runner import FixedIsn
from tunstack.wire.flow import pack_address, pack_flow, reverse_flow
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, Batch, Segment

LOCAL, REMOTE = pack_address("192.0.2.1"), pack_address("198.51.100.1")
START = 1_000_000_000
FLAGS = (ACK, ACK, ACK, ACK, ACK | PSH, ACK | PSH, ACK | FIN, FIN, RST, RST | ACK, SYN, SYN | ACK, SYN | FIN, 0, SYN | RST, 0x1FF)
IDLE = (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2)  # where a connection may stay for ever, if its application holds it


class App:
    """A sink that calls its connection from within every callback; it only knows what an application may know."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.conn: Connection | None = None
        self.calls: list[str] = []
        self.is_closed = False  # close() or abort() was called
        self.is_aborted = False

    def _note(self, call: str) -> None:
        assert "closed" not in self.calls, f"{call} after on_closed: {self.calls[-3:]}"
        assert not self.is_aborted, f"{call} after abort()"
        self.calls.append(call)
        if self.game.rng.random() < 0.3:
            self.act()

    def on_established(self) -> None:
        assert not self.calls
        self._note("established")

    def on_data(self, data: memoryview) -> None:
        assert len(data)
        assert not self.is_closed, "data after close()"
        assert "eof" not in self.calls, "data after eof"
        assert self.conn is None or not self.conn.paused, "data while paused"
        self._note("data")

    def on_eof(self) -> None:
        assert "eof" not in self.calls
        assert not self.is_closed, "eof after close()"
        self._note("eof")

    def on_writable(self) -> None:
        self._note("writable")

    def on_closed(self, error: OSError | None) -> None:
        self._note("closed")

    def act(self) -> None:
        """Call something."""
        conn, rng, now = self.conn, self.game.rng, self.game.now
        if conn is None:
            return
        try:
            match rng.choice(
                ("send", "send", "send", "shutdown", "close", "close", "abort", "pause", "resume", "resume", "read", "option")
            ):
                case "send":
                    conn.write_low_water = rng.choice((0, 0, 1000))
                    conn.send(bytes(rng.choice((0, 1, 700, 1460, 40_000))), now, rng.random() < 0.1)
                case "shutdown":
                    conn.shutdown_write(now)
                case "close" if rng.random() < 0.3:
                    self.is_closed = True
                    conn.close(now)
                case "abort" if rng.random() < 0.2:
                    self.is_closed = self.is_aborted = True
                    conn.abort(now)
                case "pause":
                    conn.pause(now)
                case "resume":
                    conn.resume(now)
                case "read":
                    if conn.paused:
                        conn.read(rng.choice((1, 5000, 1 << 30)), now)
                case "option":
                    name, value = rng.choice(
                        (
                            ("nodelay", True),
                            ("cork", rng.random() < 0.5),
                            ("linger", rng.choice((None, 0, 3))),
                            ("keepalive", rng.random() < 0.5),
                            ("keepidle", 5),
                            ("keepintvl", 2),
                            ("rcvbuf", rng.choice((0, 3000, 100_000, 5_000_000))),
                            ("user_timeout", rng.choice((0, 3000))),
                            ("quickack", rng.random() < 0.5),
                            ("congestion", "reno"),
                        )
                    )
                    conn.set_option(name, value, now)
        except OSError as error:
            assert error.strerror in ("Broken pipe", "Transport endpoint is not connected")


class Game:
    """One stack with a listener, and connections to and from one peer, played at random from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.now = START
        near = rng.choice((0, 0x80000000))
        sysctl = Sysctl(
            tcp_timestamps=rng.random() < 0.5,
            tcp_sack=rng.random() < 0.7,
            tcp_window_scaling=rng.random() < 0.7,
            tcp_rmem=(4096, rng.choice((8192, 131072)), rng.choice((16384, 6291456))),
            tcp_abort_on_overflow=rng.random() < 0.5,
            tcp_rfc1337=rng.random() < 0.5,
        )
        config = StackConfig((LOCAL,), mtu=rng.choice((1500, 576)), sysctl=sysctl, fast_path=rng.random() < 0.5)
        self.stack = Stack(config, random.Random(seed), bytes(range(32)))
        self.stack.isn = FixedIsn((near - rng.randrange(3000)) & MASK, rng.getrandbits(32))  # type: ignore[assignment]
        self.irs = (near - rng.randrange(3000)) & MASK
        self.apps: list[App] = []
        self.seen: dict[bytes, Connection] = {}  # the last connection of each flow that comes
        self.edges: dict[Receiver, int] = {}  # rcv_adv as it was last seen
        self.listener = self.stack.listen(LOCAL, 80, on_acceptable=self._accept, backlog=rng.choice((0, 1, 128)))
        self.flows = [pack_flow(REMOTE, port, LOCAL, 80) for port in (1001, 1002)]

    def _accept(self, listener: Listener) -> None:
        if self.rng.random() < 0.8:
            while (conn := listener.accept()) is not None:
                app = App(self)
                self.apps.append(app)
                app.conn = conn
                conn.sink = app
                if self.rng.random() < 0.8:
                    conn.resume(self.now)

    def _connect(self) -> None:
        app = App(self)
        flow = pack_flow(LOCAL, 50_000 + len(self.apps), REMOTE, 80)
        options = SocketOptions(nodelay=self.rng.random() < 0.5)
        app.conn = self.stack.connect(REMOTE, 80, app, self.now, local_port=50_000 + len(self.apps), options=options)
        self.apps.append(app)
        self.flows.append(reverse_flow(flow))

    def play(self, steps: int) -> None:
        """Play `steps` moves and look at everything after each."""
        rng = self.rng
        for _ in range(steps):
            match rng.choice(("segment",) * 12 + ("fitting",) * 6 + ("call",) * 4 + ("jump",) * 3 + ("connect",)):
                case "segment":
                    self._receive([self._segment() for _ in range(rng.choice((1, 1, 1, 4)))])
                case "fitting":
                    self._receive(self._fitting())
                case "call":
                    live = [app for app in self.apps if app.conn is not None]
                    if live:
                        rng.choice(live).act()
                case "jump":
                    self._jump(rng.choice((1, 1000, 50_000, 3_000_000, 100_000_000)))
                case "connect" if len(self.apps) < 4:
                    self._connect()
            if rng.random() < 0.8:
                self._poll()
            self.check()

    def _segment(self) -> Segment:
        """Anything, near the edges of what its connection expects."""
        rng = self.rng
        flow = rng.choice(self.flows)
        self._look()
        conn = self.seen.get(flow)
        seqs = [self.irs, (self.irs + 1) & MASK, rng.getrandbits(32)]
        acks = [self.stack.isn.isn(flow, 0), (self.stack.isn.isn(flow, 0) + 1) & MASK, rng.getrandbits(32)]
        if conn is not None:
            acks += [conn.tx.snd_una, conn.tx.snd_nxt, conn.tx.snd_nxt] * 3
            if conn.rx is not None:
                rx = conn.rx
                seqs += [rx.rcv_nxt] * 8 + [rx.rcv_adv, rx.rcv_wup, (rx.rcv_nxt + rx.rcv_wnd // 2) & MASK]
                seqs += [piece.end for piece in rx.pieces[:3]]
        flags = rng.choice(FLAGS)
        length = rng.choice((0, 0, 1, 2, 100, 1460, 30_000))
        nudge = rng.choice((0, 0, 0, 1, -1, 2, -100))
        seg = Segment(
            flow,
            (rng.choice(seqs) + nudge) & MASK,
            (rng.choice(acks) + rng.choice((0, 0, 0, 0, 1, -1))) & MASK if flags & ACK else 0,
            flags,
            rng.choice((0, 0, 1, 1000, 65535)),
            (memoryview(bytes(length)),) if length else (),
            length,
        )
        if rng.random() < 0.4:
            seg.ts_val = (self.now // 1000 + rng.choice((0, 0, 0, -1, -5000, 1 << 31))) & MASK
            seg.ts_ecr = rng.getrandbits(32)
        if rng.random() < 0.1:
            seg.sack = ((rng.choice(acks), rng.choice(acks)),)
        if flags & SYN:
            seg.mss = rng.choice((None, 1, 536, 1460, 65535))
            seg.wscale = rng.choice((None, 0, 7, 14, 255))
            seg.sack_ok = rng.random() < 0.5
        return seg

    def _fitting(self) -> list[Segment]:
        """What a good peer could send: part of a handshake, or an ACK of everything with some data."""
        rng = self.rng
        flow = rng.choice(self.flows)
        self._look()
        conn = self.seen.get(flow)
        iss = self.stack.isn.isn(flow, 0)
        if conn is None or conn.is_over:
            syn = Segment(flow, self.irs, 0, SYN, 65535, mss=1460, wscale=7, sack_ok=True)
            if self.stack.sysctl.tcp_timestamps:
                syn.ts_val = self.now // 1000 & MASK
            return [syn, Segment(flow, (self.irs + 1) & MASK, (iss + 1) & MASK, ACK, 1000, ts_val=syn.ts_val)]
        if conn.rx is None:
            return [Segment(flow, self.irs, (iss + 1) & MASK, SYN | ACK, 65535, mss=1460, wscale=7, sack_ok=True)]
        length = rng.choice((0, 1, 1460))
        ts_val = self.now // 1000 & MASK if conn.ts_ok else None
        payload = (memoryview(bytes(length)),) if length else ()
        flags = ACK | (FIN if rng.random() < 0.1 else 0)
        return [Segment(flow, conn.rx.rcv_nxt, conn.tx.snd_nxt, flags, rng.choice((0, 3, 65535)), payload, length, ts_val)]

    def _receive(self, segments: list[Segment]) -> None:
        batch = Batch()
        batch.segments = segments
        waiting = len(self.stack._replies)
        resets = self.stack.counters.TcpOutRsts
        self.stack.receive(batch, self.now)
        if all(seg.flags & RST for seg in segments):
            assert self.stack.counters.TcpOutRsts == resets, "RST answered with RST"
        assert len(self.stack._replies) <= waiting + 2 * len(segments), "more than an answer to a segment"

    def _jump(self, most: int) -> None:
        deadline = self.stack.next_deadline()
        self.now += self.rng.randrange(most)
        if deadline is not None and self.rng.random() < 0.7:
            self.now = max(self.now, deadline + self.rng.choice((-1, 0, 1)))
        deadline = self.stack.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.stack.advance(self.now)

    def _poll(self) -> None:
        for _ in range(1000):
            item = self.stack.poll_transmit(self.now)
            if item is None:
                return
            assert isinstance(item, Segment)
            assert item.length == sum(map(len, item.payload))
        raise AssertionError("no end of output")

    def _look(self) -> None:
        for conn in self.stack.connections:
            self.seen[conn.flow_in] = conn

    def check(self) -> None:
        """Assert what always holds."""
        self._look()
        for conn in self.stack.connections:
            check_connection(conn)
            rx = conn.rx
            if rx is None:
                continue
            assert rx.pieces_size == sum(len(piece.data) + PIECE_COST for piece in rx.pieces)
            assert all(seq_gt(right, left) and seq_gt(left, rx.rcv_nxt) for left, right in rx.sack_blocks)
            assert seq_le(self.edges.get(rx, rx.rcv_adv), rx.rcv_adv), "the right edge was taken back"
            self.edges[rx] = rx.rcv_adv
            # The buffer, and the segment that filled it.
            assert held(rx) <= max(rx.rcvbuf_max, 131072) + 2 * 65536
            assert rx.queued == sum(map(len, rx.queue))
            assert not rx.eof or not rx.pieces
            assert seq_ge(rx.rcv_nxt, rx.rcv_wup)
        assert len(self.stack.timers) < 3000

    def end(self) -> None:
        """The peer falls silent: let all timers run out. Whoever is left is idle because its application holds it."""
        stack = self.stack
        for _ in range(5000):
            self._poll()
            self.check()
            deadline = stack.next_deadline()
            if deadline is None:
                break
            self.now = max(self.now, deadline)
            stack.advance(self.now)
        else:
            raise AssertionError(f"timers without end: {[conn.info() for conn in stack.connections]}")
        for conn in stack.connections:
            assert conn.state in IDLE, f"stuck in {conn.state.name}"
            assert not conn.is_orphan, f"an orphan stays in {conn.state.name}"
            assert not conn.unacked, "unacknowledged, and no timer"
            assert not conn.unsent, "unsent, and no timer"
        for app in self.apps:
            assert app.conn is not None
            if app.is_closed and not app.is_aborted:
                assert app.calls[-1:] == ["closed"], f"never told of the end after close(): {app.calls[-3:]}"
            if app.conn.is_over and not app.conn.paused and not app.is_aborted:
                assert app.calls[-1:] == ["closed"], f"over, and never told: {app.calls[-3:]}"
        assert not stack.time_wait.count and not stack.orphans
        assert stack.memory.pages == sum(conn.pages for conn in stack.connections)
        assert stack.listener_entries() == 0 if hasattr(stack, "listener_entries") else not self.listener.half_open
