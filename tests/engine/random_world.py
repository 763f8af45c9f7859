"""Applications that behave at random, and what must hold whatever they do."""

from __future__ import annotations

import random

import pytest

from tunstack.engine.connection import Connection
from tunstack.engine.scoreboard import LOST, RESENT, SACKED
from tunstack.engine.state import State
from tunstack.engine.timers import NEVER
from tunstack.seq import seq_gt, seq_le, seq_sub
from tunstack.sim.script.packet import FIN, RST, SYN, decode
from tunstack.sim.world import Host, World


class App:
    """Writes its stream in random pieces, reads with random pauses, closes in a random way.

    `abrupt`: it may also abort, or close with data unread or unsent.
    """

    def __init__(self, world: World, rng: random.Random, stream: bytes, abrupt: bool) -> None:
        self.world = world
        self.rng = rng
        self.stream = stream
        self.conn: Connection
        self.written = 0
        self.received = bytearray()
        self.calls: list[str] = []
        self.error: OSError | None = None
        self.gave_up = False  # it aborted, or closed before the end
        self._over = False
        self._abrupt = abrupt

    def start(self, conn: Connection) -> None:
        """Take a connection over."""
        rng = self.rng
        self.conn = conn
        conn.write_low_water = rng.choice((0, 1000, 50_000))
        now = self.world.now()
        if rng.random() < 0.3:
            conn.set_option("nodelay", True, now)
        if rng.random() < 0.2:
            conn.set_option("cork", True, now)
        # Keepalive, else who waits for a peer that has given up would wait for ever.
        conn.set_option("keepidle", 5 if self._abrupt else 120, now)
        conn.set_option("keepalive", True, now)
        if self._abrupt:
            self._later(self._end_abruptly, rng.choice((50_000, 1_000_000, 20_000_000)))
        self._later(self._write, 20_000)
        self._later(self._toggle_reading, 100_000)

    def _later(self, callback: object, most: int) -> None:
        self.world.call_later(self.rng.randrange(most), callback)  # type: ignore[arg-type]

    def _write(self) -> None:
        if self._over or "closed" in self.calls:
            return
        if self.conn.is_over:  # the peer is gone, which we are told when we have read what it sent
            with pytest.raises(OSError, match="Broken pipe"):
                self.conn.send(b"x", self.world.now())
            return
        rng = self.rng
        if self.conn.unsent <= self.conn.write_low_water:
            size = min(rng.choice((1, 100, 1448, 5000, 70_000)), len(self.stream) - self.written)
            if size:
                self.conn.send(self.stream[self.written : self.written + size], self.world.now())
                self.written += size
        if self.written < len(self.stream):
            self._later(self._write, rng.choice((2, 5_000, 300_000)))
        elif "eof" in self.calls:
            self._close()
        else:
            self.conn.shutdown_write(self.world.now())

    def _toggle_reading(self) -> None:
        if self._over or "closed" in self.calls:
            return
        if self.conn.paused:
            self.conn.resume(self.world.now())
        else:
            self.conn.pause(self.world.now())
        if not ("eof" in self.calls and self.written == len(self.stream)):
            self._later(self._toggle_reading, 400_000 if not self.conn.paused else 100_000)

    def _close(self) -> None:
        self._over = True
        self.conn.close(self.world.now())

    def _end_abruptly(self) -> None:
        if self._over or "closed" in self.calls:
            return
        self.gave_up = True
        self._over = True
        if self.rng.random() < 0.5:
            self.conn.abort(self.world.now())
        else:
            self.conn.close(self.world.now())

    def on_established(self) -> None:
        self.calls.append("established")

    def on_data(self, data: memoryview) -> None:
        assert "eof" not in self.calls
        assert "closed" not in self.calls
        assert not self._over, "data after close"
        self.received += data

    def on_eof(self) -> None:
        assert "eof" not in self.calls
        self.calls.append("eof")
        if self.written == len(self.stream):
            self._close()

    def on_writable(self) -> None:
        assert "closed" not in self.calls

    def on_closed(self, error: OSError | None) -> None:
        assert "closed" not in self.calls
        self.calls.append("closed")
        self.error = error


class Watch:
    """Looks at every frame that two hosts send, and at their connections.

    Frames are sound (checksums, DF, MTU); a window's right edge is never taken back; nothing is sent beyond the edge that the
    other side has shown, but a FIN; a connection's variables keep their order.
    """

    def __init__(self, *hosts: Host) -> None:
        self.frames = 0
        self._edges: dict[tuple[bytes, int, bytes, int], int] = {}  # right edge shown, by flow
        self._shifts: dict[tuple[bytes, int, bytes, int], int | None] = {}  # window scale in the SYN, by flow
        self._ends: dict[tuple[bytes, int, bytes, int], int] = {}  # behind the FIN, by flow
        self._hosts = hosts
        for host in hosts:
            self._tap(host)

    def _tap(self, host: Host) -> None:
        carry = host.device.carry

        def look(frame: bytes) -> None:
            self._look(frame, host.device.mtu)
            carry(frame)

        host.device.carry = look

    def _look(self, frame: bytes, mtu: int) -> None:
        self.frames += 1
        assert len(frame) <= mtu
        packet, _, src, dst = decode(frame)
        assert packet.ports is not None
        assert packet.win is not None
        flow = (src, packet.ports[0], dst, packet.ports[1])
        back = (dst, packet.ports[1], src, packet.ports[0])
        if packet.flags & RST:
            return
        if packet.flags & SYN:
            self._shifts[flow] = next((int(str(option[1])) for option in packet.options or () if option[0] == "wscale"), None)
            if packet.ack is not None:
                self._edges[flow] = (packet.ack + packet.win) & 0xFFFFFFFF
            return
        assert packet.ack is not None
        if packet.flags & FIN:
            self._ends[flow] = (packet.seq + packet.length + 1) & 0xFFFFFFFF
        if packet.ack == self._ends.get(back):
            return  # nothing comes any more, the window means nothing
        ours, theirs = self._shifts[flow], self._shifts[back]
        shift = 0 if ours is None or theirs is None else ours
        new = (packet.ack + (packet.win << shift)) & 0xFFFFFFFF
        edge = self._edges.get(flow, new)
        assert seq_le(edge, new), f"the window shrank by {seq_sub(edge, new)}: {packet}"
        self._edges[flow] = new
        if packet.length:
            end = (packet.seq + packet.length) & 0xFFFFFFFF
            assert seq_le(end, self._edges[back]), f"beyond the window of the other side: {packet}"
        for host in self._hosts:
            for conn in host.stack.connections:
                check_connection(conn)


def check_connection(conn: Connection) -> None:
    """Assert what always holds."""
    tx, rx = conn.tx, conn.rx
    assert conn.state is not State.CLOSED
    assert seq_le(tx.snd_una, tx.snd_nxt)
    assert tx.unsent >= 0
    check_scoreboard(conn)
    if rx is not None:
        assert seq_le(rx.rcv_nxt, rx.rcv_adv)
        assert seq_le(rx.rcv_wup, rx.rcv_nxt)
        assert rx.queued == sum(map(len, rx.queue))
        last = rx.rcv_nxt
        for piece in rx.pieces:
            assert seq_gt(piece.seq, last) or (piece.seq == last and piece is not rx.pieces[0])
            assert seq_le(piece.end, rx.rcv_adv)
            last = piece.end


def check_scoreboard(conn: Connection) -> None:
    """Assert what always holds of what is in flight."""
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
        return
    tx, board = conn.tx, conn.tx.board
    at = tx.snd_una
    lost = resent = sacked = segments = 0
    for flight in board.flights:
        assert flight.seq == at
        assert seq_gt(flight.end, flight.seq)
        size = seq_sub(flight.end, flight.seq)
        at = flight.end
        if flight.marks & SACKED:
            assert not flight.marks & (LOST | RESENT)
            sacked += size
            segments += flight.segments
        elif flight.marks & RESENT:
            resent += size
        elif flight.marks & LOST:
            lost += size
    assert at == tx.snd_nxt
    assert (lost, resent) == (board.lost_out, board.retrans_out)
    if conn.recovery.is_sack:
        assert (sacked, segments) == (board.sacked_out, board.sacked_segments)
    assert board.sacked_out >= 0
    assert tx.pipe >= 0
    assert tx.cc.cwnd >= tx.mss
    if tx.outstanding and conn.state not in (State.CLOSED, State.TIME_WAIT):
        assert conn.rto_at < NEVER, "nothing would ever send it again"
    if not tx.outstanding:
        assert not board.flights
        assert not board.sacked_out
    assert not conn.recovery.is_quiet or not (lost or resent or sacked)
