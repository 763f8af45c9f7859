"""Compares the sender with the kernel's: the same ACKs, at the same times, and who sends what.

    python scripts/interop/differential.py --first 1 --seeds 120 --record games.jsonl --brief
    python scripts/interop/differential.py --record games.jsonl --only 7

A seed is a connection: a peer with or without SACK and timestamps, a path that loses, delays and reorders, and ACKs with it. The peer
plays with the kernel first, in a network namespace of its own (needs root), in real time, many seeds at once; what it did is written
down. Then the engine hears the same ACKs in virtual time. From the first packet on that is another, or leaves at another time, the two
play different games, so that one is told, with both states around it. Reno, no pacing.

A tool to find things with, no test. Known not to be the engine's fault: without SACK the engine resends with every partial ACK (RFC 6582)
where Linux lets PRR hold it back; Linux counts D-SACKs as delivered; RACK in Linux forgets what an undo found not to be lost; and an ACK
that races a timer.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LOCAL, REMOTE = "192.0.2.1", "192.0.2.2"
PORT = 8080
MSS = 1000
MASK = 0xFFFFFFFF
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
LAST = 6_000_000  # us after which a game ends
TOLERANCE = 25_000  # us: the kernel's timers have a grain, and this program is late now and then
STALE = 15_000  # us between an ACK and a timer's packet: which came first is luck
PLAYERS = 24  # games at once


@dataclass
class Packet:
    """Sent by the kernel or by the engine. Times are us from the SYN, numbers begin with the ISN = 0."""

    at: int
    seq: int
    length: int
    fin: bool
    ack_index: int  # how many ACKs had come


@dataclass
class Input:
    """What the sender hears: an ACK, or what its application does."""

    at: int
    kind: str  # ack, write, close
    ack: int = 0
    sack: list[tuple[int, int]] = field(default_factory=list)
    window: int = 0
    ts: tuple[int, int] | None = None  # TS val, and which of the sender's packets had the TS val that is echoed, -1: the SYN-ACK
    size: int = 0
    info: dict[str, int] = field(default_factory=dict)  # the kernel's TCP_INFO right after it


class Plan:
    """What a seed means."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = random.Random(seed)
        self.seed = seed
        self.sack = rng.random() < 0.75
        self.ts = rng.random() < 0.5
        self.dsack = self.sack and rng.random() < 0.7
        self.rtt = rng.choice((40_000, 80_000, 120_000))
        self.loss = rng.choice((0.0, 0.02, 0.05, 0.1, 0.25))
        self.ack_loss = rng.choice((0.0, 0.0, 0.1, 0.3))
        self.reorder = rng.choice((0.0, 0.0, 0.05, 0.2))
        self.reorder_by = rng.choice((5_000, 20_000, 60_000))
        self.stall = rng.choice((0.0, 0.0, 0.02))  # that the path stands still, beginning with a packet
        self.stall_for = rng.choice((300_000, 700_000))
        self.renege = rng.choice((0.0, 0.0, 0.0, 0.03))
        self.delack = rng.random() < 0.5
        self.window = rng.choice((250, 250, 250, 16, 40)) * (MSS - 12 * self.ts)
        self.nodelay = rng.random() < 0.3
        self.writes: list[tuple[int, int]] = []
        at = self.rtt + 20_000
        for _ in range(rng.choice((1, 1, 2, 4, 12))):
            self.writes.append((at, rng.choice((100, 60, 30, 10, 3, 1)) * (MSS - 12 * self.ts)))
            at += rng.choice((1000, 30_000, 200_000, 900_000))
        self.close_at = at if rng.random() < 0.6 else 0


class Peer:
    """The receiving end of one connection, and the path to it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = plan.rng
        self.rcv_nxt = 1
        self.pieces: list[tuple[int, int]] = []  # out of order, what came last in front
        self.unacked = 0
        self.ts_recent = 0
        self.ts_index = -1  # the packet that had it
        self.stalled_until = 0
        self.last_at = 0
        self.sent_end = 0

    def fate(self, seq: int, now: int) -> int | None:
        """Return when a packet that leaves now arrives, None: never."""
        plan, rng = self.plan, self.rng
        draws = rng.random(), rng.random(), rng.random()
        if draws[0] < plan.loss:
            return None
        if draws[1] < plan.stall:
            self.stalled_until = now + plan.stall_for
        at = now + plan.rtt + (2000 if seq < self.sent_end else 0)  # else its round trip would now and then be the shortest, or not
        self.sent_end = max(self.sent_end, seq + 1)
        if draws[2] < plan.reorder:
            return at + plan.reorder_by
        at = max(at, self.stalled_until, self.last_at)
        self.last_at = at
        return at

    def arrives(self, seq: int, end: int) -> tuple[int, list[tuple[int, int]]] | None:
        """Take in a packet; return the ACK that it draws, if any."""
        plan = self.plan
        duplicate: tuple[int, int] | None = None
        at_once = bool(self.pieces)
        if plan.renege and self.pieces and self.rng.random() < plan.renege:
            self.pieces.clear()
        if end <= self.rcv_nxt:
            duplicate = (seq, end)
            at_once = True
        elif seq <= self.rcv_nxt:
            self.rcv_nxt = end
            for left, right in sorted(self.pieces):
                if left <= self.rcv_nxt:
                    self.rcv_nxt = max(self.rcv_nxt, right)
            self.pieces = [piece for piece in self.pieces if piece[1] > self.rcv_nxt]
        else:
            at_once = True
            left, right = seq, end
            for piece in list(self.pieces):
                if piece[0] <= seq and end <= piece[1]:
                    duplicate = (seq, end)
                if piece[0] <= right and left <= piece[1]:
                    left, right = min(left, piece[0]), max(right, piece[1])
                    self.pieces.remove(piece)
            self.pieces.insert(0, (left, right))
        self.unacked += 1
        if plan.delack and not at_once and self.unacked < 2:
            return None
        self.unacked = 0
        blocks = self.pieces[: 3 if plan.ts else 4]
        if duplicate and plan.dsack:
            blocks = [duplicate, *blocks][: 3 if plan.ts else 4]
        return self.rcv_nxt, blocks if plan.sack else []


# The kernel's game.


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(port: int, seq: int, ack: int, flags: int, window: int, options: bytes) -> bytes:
    """Return an IPv4 packet from the peer."""
    options += b"\1" * (-len(options) % 4)
    src, dst = socket.inet_aton(REMOTE), socket.inet_aton(LOCAL)
    tcp = struct.pack("!HHIIBBHHH", port, PORT, seq & MASK, ack & MASK, (20 + len(options)) << 2, flags, window, 0, 0) + options
    total = checksum(src + dst + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, src, dst)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


def ack_options(plan: Plan, sack: list[tuple[int, int]], ts: tuple[int, int] | None, isn: int) -> bytes:
    options = b""
    if ts is not None:
        options += struct.pack("!BBBBII", 1, 1, 8, 10, ts[0] & MASK, ts[1] & MASK)
    if sack:
        options += struct.pack("!BBBB", 1, 1, 5, 2 + 8 * len(sack))
        for left, right in sack:
            options += struct.pack("!II", (left + isn) & MASK, (right + isn) & MASK)
    return options


class Game:
    """One connection with the kernel."""

    def __init__(self, players: Kernel, plan: Plan, port: int) -> None:
        self.players = players
        self.plan = plan
        self.port = port
        self.peer = Peer(plan)
        self.isn = 0
        self.ts_base = 0
        self.sent: list[Packet] = []
        self.heard: list[Input] = []
        self.acks = 0
        self.began = time.monotonic_ns() // 1000
        self.sock: socket.socket | None = None
        self.dead = False
        options = struct.pack("!BBH", 2, 4, MSS) + struct.pack("!BBBB", 1, 3, 3, 2)
        if plan.sack:
            options += struct.pack("!BBBB", 1, 1, 4, 2)
        if plan.ts:
            options += struct.pack("!BBBBII", 1, 1, 8, 10, 1000, 0)
        players.write(build(port, 0, 0, SYN, 60_000, options))
        self.syn_window = 60_000

    def now(self) -> int:
        return time.monotonic_ns() // 1000 - self.began

    def later(self, at: int, what: object, *values: object) -> None:
        self.players.later(self.began + at, self, what, values)

    def on_packet(self, seq: int, flags: int, length: int, ts: int | None) -> None:
        now = self.now()
        plan = self.plan
        if flags & RST:
            self.dead = True
            return
        if flags & SYN:
            if not self.isn:
                self.isn = seq
                self.ts_base = ts or 0
                self.peer.ts_recent = ts or 0
                self.later(now + plan.rtt, self.complete)
            return
        seq = (seq - self.isn) & MASK
        fin = bool(flags & FIN)
        if not length and not fin:
            return
        self.sent.append(Packet(now, seq, length, fin, self.acks))
        at = self.peer.fate(seq, now)
        if at is not None:
            self.later(at, self.deliver, seq, seq + length + fin, ts, len(self.sent) - 1)

    def complete(self) -> None:
        self.acknowledge(1, [], syn=True)
        self.sock = self.players.accept(self.port)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self.plan.nodelay)
        for at, size in self.plan.writes:
            self.later(at, self.send, size)
        if self.plan.close_at:
            self.later(self.plan.close_at, self.shut)

    def send(self, size: int) -> None:
        assert self.sock is not None
        self.heard.append(Input(self.now(), "write", size=size))
        try:
            done = self.sock.send(bytes(size))
        except OSError:
            done = 0
        self.heard[-1].size = done

    def shut(self) -> None:
        assert self.sock is not None
        self.heard.append(Input(self.now(), "close"))
        self.sock.shutdown(socket.SHUT_WR)

    def deliver(self, seq: int, end: int, ts: int | None, index: int) -> None:
        if ts is not None and seq <= self.peer.rcv_nxt and ts > self.peer.ts_recent:
            self.peer.ts_recent, self.peer.ts_index = ts, index
        answer = self.peer.arrives(seq, end)
        if answer is not None and self.plan.rng.random() >= self.plan.ack_loss:
            self.acknowledge(*answer)
        elif self.peer.unacked:
            self.later(self.now() + 40_000, self.late, self.peer.rcv_nxt)

    def late(self, rcv_nxt: int) -> None:
        if self.peer.unacked and self.peer.rcv_nxt == rcv_nxt:
            self.peer.unacked = 0
            self.acknowledge(rcv_nxt, [])

    def acknowledge(self, ack: int, sack: list[tuple[int, int]], syn: bool = False) -> None:
        now = self.now()
        ts = (1000 + now // 1000, self.peer.ts_recent) if self.plan.ts else None
        window = self.plan.window >> 2
        self.acks += 1
        said = Input(now, "ack", ack, sack, window, (ts[0], self.peer.ts_index) if ts else None)
        self.heard.append(said)
        self.players.write(build(self.port, 1, ack + self.isn, ACK, window, ack_options(self.plan, sack, ts, self.isn)))
        if self.sock is not None:
            said.info = tcp_info(self.sock)


# What of struct tcp_info is compared by eye, and where it stands.
INFO = {
    "ca_state": (1, "B"),
    "backoff": (4, "B"),
    "rto": (8, "I"),
    "unacked": (24, "I"),
    "sacked": (28, "I"),
    "lost": (32, "I"),
    "retrans": (36, "I"),
    "rtt": (68, "I"),
    "ssthresh": (76, "I"),
    "cwnd": (80, "I"),
    "reordering": (88, "I"),
    "reord_seen": (220, "I"),
    "dsack_dups": (216, "I"),
    "min_rtt": (148, "I"),
}


def tcp_info(sock: socket.socket) -> dict[str, int]:
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return {name: struct.unpack_from(f"={kind}", raw, offset)[0] for name, (offset, kind) in INFO.items()}


class Kernel:
    """All games with the kernel, in the namespace that this process is in."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.fd, 0x400454CA, struct.pack("16sH22x", b"peer", 0x1001))
        for command in ("ip link set lo up", "ip link set peer up mtu 1500", f"ip addr add {LOCAL}/24 dev peer"):
            subprocess.run(command.split(), check=True)
        for knob, value in {
            "tcp_congestion_control": "reno",
            "tcp_no_metrics_save": "1",
            "tcp_ecn": "0",
            "tcp_tso_win_divisor": "255",
        }.items():
            Path(f"/proc/sys/net/ipv4/{knob}").write_text(value)
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.listener.bind((LOCAL, PORT))
        self.listener.listen(1000)
        self.listener.setblocking(False)
        self.accepted: dict[int, socket.socket] = {}
        self.games: dict[int, Game] = {}
        self.events: list[tuple[int, int, Game, object, tuple[object, ...]]] = []
        self.serial = 0

    def write(self, packet: bytes) -> None:
        os.write(self.fd, packet)
        self.read()

    def later(self, at: int, game: Game, what: object, values: tuple[object, ...]) -> None:
        self.serial += 1
        heapq.heappush(self.events, (at, self.serial, game, what, values))

    def accept(self, port: int) -> socket.socket:
        while port not in self.accepted:
            sock, (_, number) = self.listener.accept()
            sock.setblocking(False)
            self.accepted[number] = sock
        return self.accepted.pop(port)

    def read(self) -> None:
        while True:
            try:
                packet = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            if packet[0] != 0x45 or packet[9] != 6:
                continue
            total = struct.unpack_from("!H", packet, 2)[0]
            _, port, seq, _, offset, flags = struct.unpack_from("!HHIIBB", packet, 20)
            header = offset >> 4 << 2
            ts = None
            i, end = 40, 20 + header
            while i < end and packet[i]:
                if packet[i] == 1:
                    i += 1
                    continue
                if packet[i] == 8:
                    ts = struct.unpack_from("!I", packet, i + 2)[0]
                i += packet[i + 1]
            game = self.games.get(port)
            if game is not None:
                game.on_packet(seq, flags, total - 20 - header, ts)

    def play(self, seeds: list[int]) -> list[Game]:
        waiting = [(seed, 20000 + i) for i, seed in enumerate(seeds)][::-1]
        running: list[Game] = []
        over: list[Game] = []
        begin_at = 0
        while waiting or running:
            now = time.monotonic_ns() // 1000
            if waiting and len(running) < PLAYERS and now >= begin_at:
                seed, port = waiting.pop()
                self.games[port] = None  # type: ignore[assignment]
                game = Game.__new__(Game)
                self.games[port] = game
                game.__init__(self, Plan(seed), port)  # type: ignore[misc]
                running.append(game)
                begin_at = now + 37_000
            while self.events and self.events[0][0] <= time.monotonic_ns() // 1000:
                _, _, game, what, values = heapq.heappop(self.events)
                if not game.dead:
                    what(*values)  # type: ignore[operator]
            for game in list(running):
                if game.now() > LAST:
                    game.dead = True
                    running.remove(game)
                    over.append(game)
                    del self.games[game.port]
                    if game.sock is not None:
                        game.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        game.sock.close()
            wait = min(self.events[0][0] - time.monotonic_ns() // 1000, 20_000) if self.events else 20_000
            select.select([self.fd], [], [], max(wait, 0) / 1e6)
            self.read()
        return over


def play_with_kernel(seeds: list[int]) -> None:
    for game in Kernel().play(seeds):
        record = {"seed": game.plan.seed, "sent": [asdict(p) for p in game.sent], "heard": [asdict(i) for i in game.heard]}
        print(json.dumps(record), flush=True)


# The engine's game.


def replay(plan: Plan, heard: list[Input], kernel: list[Packet]) -> tuple[list[Packet], list[dict[str, int]]]:
    """Play what the kernel heard to the engine; return what it sends, and its state after each input."""
    from tunstack.engine import retransmission
    from tunstack.engine.config import StackConfig
    from tunstack.engine.stack import Stack
    from tunstack.engine.sysctl import Sysctl
    from tunstack.wire.flow import pack_address, pack_flow
    from tunstack.wire.segment import Batch, Segment

    retransmission.REORDER_SLACK = 0  # type: ignore[misc]  # ours is the most that the kernel's may be: here it is as late as that was
    start = 1_000_000_000
    local, remote = pack_address(LOCAL), pack_address(REMOTE)
    stack = Stack(StackConfig((local,), sysctl=Sysctl(tcp_congestion_control="reno", tcp_ecn=0)), random.Random(1), bytes(32))
    accepted = []

    class Sink:
        def __getattr__(self, name: str) -> object:
            return lambda *values: None

    def on_acceptable(listener: Any) -> None:
        conn = listener.accept()
        conn.sink = Sink()
        conn.resume(now)
        accepted.append(conn)

    stack.listen(local, PORT, on_acceptable=on_acceptable)
    flow = pack_flow(remote, 20000, local, PORT)
    now = start
    sent: list[Packet] = []
    states: list[dict[str, int]] = []
    isn = -1
    stamps: list[int] = []  # TS vals of the SYN-ACK and of each packet
    acks = 0
    active_at = start

    def flush() -> None:
        nonlocal isn
        while (out := stack.poll_transmit(now)) is not None:
            assert isinstance(out, Segment)
            if out.flags & SYN:
                isn = out.seq
                stamps.append(out.ts_val or 0)
                continue
            seq, left = (out.seq - isn) & MASK, out.length
            fin = bool(out.flags & FIN)
            while left or fin:
                size = min(left, out.gso_size or left)
                left -= size
                sent.append(Packet(now - start, seq, size, fin and not left, acks))
                stamps.append(out.ts_val or 0)
                seq += size
                if not left:
                    break

    def give(seg: Segment) -> None:
        batch = Batch()
        batch.segments.append(seg)
        stack.receive(batch, now)

    def run_to(at: int) -> None:
        nonlocal now, active_at
        while (deadline := stack.next_deadline()) is not None:
            # The kernel's timer wheel rounds up, by an eighth at most: our timers are as late as its were.
            due_at = deadline
            if len(sent) < len(kernel):
                theirs = kernel[len(sent)].at + start
                if deadline < theirs <= deadline + 12_000 + (deadline - active_at) // 7:
                    due_at = theirs
            if due_at > at:
                break
            now = max(now, due_at)
            stack.advance(now)
            count = len(sent)
            flush()
            if len(sent) > count:
                active_at = now
        now = max(now, at)

    give(Segment(flow, 0, 0, SYN, 60_000, ts_val=1000 if plan.ts else None, mss=MSS, wscale=2, sack_ok=plan.sack))
    flush()
    for item in heard:
        run_to(start + item.at)
        active_at = now
        if item.kind == "ack":
            acks += 1
            ts_val, ts_ecr = (item.ts[0], stamps[min(item.ts[1] + 1, len(stamps) - 1)]) if item.ts else (None, 0)
            blocks = [((left + isn) & MASK, (right + isn) & MASK) for left, right in item.sack]
            give(Segment(flow, 1, (item.ack + isn) & MASK, ACK, item.window, (), 0, ts_val, ts_ecr, 0, blocks))
            if accepted and acks == 1:
                accepted[0].set_option("nodelay", plan.nodelay, now)
        elif item.kind == "write":
            accepted[0].send(bytes(item.size), now)
        else:
            accepted[0].shutdown_write(now)
        flush()
        state = {}
        if accepted:
            conn = accepted[0]
            tx = conn.tx
            mss = tx.mss_now
            state = {
                "ca_state": conn.recovery.phase,
                "backoff": conn.rtt.backoff,
                "rto": conn.rtt.backed_off,
                "unacked": -(-tx.outstanding // mss),
                "sacked": tx.board.sacked_segments,
                "lost": -(-tx.board.lost // mss),
                "retrans": -(-tx.board.retrans_out // mss),
                "rtt": conn.rtt.srtt,
                "ssthresh": min(tx.cc.ssthresh // mss, 9999),
                "cwnd": tx.cc.cwnd // mss,
                "reordering": conn.recovery.rack.reordering,
                "reord_seen": conn.recovery.rack.reorderings,
                "dsack_dups": conn.recovery.dsack_dups,
                "min_rtt": conn.rtt.min_rtt,
                "timer": conn.recovery.timer,
                "rto_at": conn.rto_at - start,
                "look_at": conn.recovery.look_at and conn.recovery.look_at - start,
            }
        states.append(state)
    run_to(start + LAST)
    return sent, states


# Comparing.


@dataclass
class Difference:
    """The first packet in which the two differ."""

    seed: int
    index: int
    kernel: Packet | None
    engine: Packet | None
    is_luck: bool  # a timer raced an ACK


def compare(seed: int, kernel: list[Packet], engine: list[Packet], heard: list[Input]) -> Difference | None:
    end = LAST - 100_000
    kernel = [packet for packet in kernel if packet.at < end]
    engine = [packet for packet in engine if packet.at < end]
    ack_times = [item.at for item in heard if item.kind == "ack"]
    for index in range(max(len(kernel), len(engine))):
        theirs = kernel[index] if index < len(kernel) else None
        ours = engine[index] if index < len(engine) else None
        if (
            theirs
            and ours
            and (theirs.seq, theirs.length, theirs.fin) == (ours.seq, ours.length, ours.fin)
            and abs(theirs.at - ours.at) <= TOLERANCE
        ):
            continue
        if (theirs or ours).at > end - 200_000 and not (theirs and ours):
            return None
        return Difference(seed, index, theirs, ours, any(is_luck(packet, ack_times) for packet in (theirs, ours) if packet))
    return None


def is_luck(packet: Packet, ack_times: list[int]) -> bool:
    """Whether a packet that no ACK called forth came so near to one that another order was possible."""
    apart = [packet.at - at for at in ack_times]
    if any(0 <= gap < 1500 for gap in apart):
        return False
    return any(abs(gap) < STALE for gap in apart)


def tell(
    difference: Difference, plan: Plan, heard: list[Input], states: list[dict[str, int]], kernel: list[Packet], engine: list[Packet]
) -> None:
    print(
        f"seed {difference.seed}: packet {difference.index}: kernel {show(difference.kernel)}, engine {show(difference.engine)}"
        + (" (luck)" if difference.is_luck else "")
    )
    keys = ("sack", "ts", "dsack", "rtt", "loss", "ack_loss", "reorder", "reorder_by", "stall", "renege", "delack", "window", "nodelay")
    print("   ", ", ".join(f"{key}={getattr(plan, key)}" for key in keys))
    at = min(packet.at for packet in (difference.kernel, difference.engine) if packet)
    first = max(difference.index - 6, 0)
    begin = min([p.at for p in kernel[first : difference.index][:1]] + [at - 1])
    lines: list[tuple[int, int, str]] = []
    for which, packets in (("kernel", kernel), ("engine", engine)):
        lines.extend((packet.at, 1, f"  {which} > {show(packet)}") for packet in packets if begin <= packet.at <= at + 2_000)
    for item, state in zip(heard, states, strict=True):
        if begin - 5_000 <= item.at <= at + 1_000:
            lines.append((item.at, 0, f"< {item.kind} {item.ack or item.size} {item.sack} ts={item.ts}"))
            if item.info:
                lines.append((item.at, 2, "      kernel " + " ".join(str(min(v, 9999999)) for k, v in item.info.items())))
                lines.append((item.at, 2, "      engine " + " ".join(f"{v}" for k, v in state.items())))
    for when, _, text in sorted(lines, key=lambda line: line[:2]):
        print(f"    {when / 1e6:9.6f} {text}")


def show(packet: Packet | None) -> str:
    return (
        "nothing" if packet is None else f"{packet.seq}:{packet.seq + packet.length}{' FIN' if packet.fin else ''} at {packet.at / 1e6:.6f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--record", type=Path, help="play with the kernel, and write what happened; or read it, if it is there")
    parser.add_argument("--only", type=int, help="this seed of a record alone")
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    seeds = list(range(args.first, args.first + args.seeds))
    if args.inside:
        play_with_kernel(seeds)
        return 0
    if args.record and args.record.exists():
        text = args.record.read_text()
    else:
        command = ["unshare", "-n", sys.executable, __file__, "--inside", "--first", str(args.first), "--seeds", str(args.seeds)]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        if args.record:
            args.record.write_text(text)
    games = differences = lucky = 0
    for line in text.splitlines():
        record = json.loads(line)
        seed = record["seed"]
        if args.only and seed != args.only:
            continue
        games += 1
        kernel = [Packet(**packet) for packet in record["sent"]]
        heard = [Input(**item) for item in record["heard"]]
        plan = Plan(seed)
        engine, states = replay(plan, heard, kernel)
        difference = compare(seed, kernel, engine, heard)
        if difference is None:
            continue
        if difference.is_luck:
            lucky += 1
        else:
            differences += 1
        if args.brief:
            d = difference
            print(
                f"seed {seed}: packet {d.index} of {len(kernel)}: kernel {show(d.kernel)}, engine {show(d.engine)}"
                + (" (luck)" if d.is_luck else ""),
                "sack" if plan.sack else "nosack",
            )
        elif not difference.is_luck or args.only:
            tell(difference, plan, heard, states, kernel, engine)
    print(f"{games} games, {differences} differ, {lucky} perhaps by luck")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
