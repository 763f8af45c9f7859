"""Pieces of a stream in any order, overlapping at random: what is read is the stream."""

from __future__ import annotations

import random

import pytest

from tunstack.sim.script import Runner
from tunstack.sim.script.packet import ACK, Packet


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
