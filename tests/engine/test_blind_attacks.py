"""Who knows a four-tuple and nothing else neither ends nor corrupts a connection. RFC 5961 3, 4, 5 and 7, RFC 9293 3.10.7.4.

A hundred thousand tries in virtual time: RST and SYN at any sequence number but the exact one, data outside of the window, and
acknowledgements out of range, with data that is in it. The seed of a failure is in its message.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from engine.rawpeer import RawPeer, Reader

from tunstack.engine.connection import Connection
from tunstack.engine.state import State
from tunstack.seq import MASK
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, Segment

TRIES = 100_000
INTERVAL = 1_000  # us between two of them: a thousand a second


class Victims:
    """A connection in each state in which there may be something to attack, one with timestamps and one without."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.established: list[Connection] = []
        self.half_closed: list[Connection] = []
        self.orphans: list[Connection] = []
        self.all: list[Connection] = []
        for port, ts_val in ((1000, None), (2000, 5_000_000)):
            conns = [peer.open(port + i, ts_val) for i in range(5)]
            sending, idle, passive, active, orphan = conns
            for conn in (sending, idle):
                peer.bring(peer.segment(conn, PSH | ACK, data=b"before "))
            sending.send(b"x" * 3000, peer.now)  # in flight
            peer.poll()
            peer.bring(peer.segment(passive, FIN | ACK))
            active.shutdown_write(peer.now)
            peer.poll()
            peer.bring(peer.segment(active))
            orphan.close(peer.now)
            peer.poll()
            peer.bring(peer.segment(orphan))
            self.established += [sending, idle]
            self.half_closed += [passive, active]
            self.orphans.append(orphan)
            self.all += conns
        self.expected = {conn.flow_in: self.state_of(conn) for conn in self.all}
        assert sorted(set(self.expected.values())) == [State.ESTABLISHED, State.FIN_WAIT_2, State.CLOSE_WAIT]

    def state_of(self, conn: Connection) -> State:
        owner = self.peer.stack.flows[conn.flow_in]
        assert not isinstance(owner, type(None))
        return State(owner.state)  # type: ignore[union-attr]

    def check(self, tries: int) -> None:
        """Nobody has gone, or has heard anything."""
        states = {conn.flow_in: self.state_of(conn) for conn in self.all if conn.flow_in in self.peer.stack.flows}
        assert states == self.expected, f"after {tries} tries"

    def finish(self) -> None:
        """Everybody goes on as if nothing had been."""
        peer = self.peer
        for conn in self.established:
            peer.bring(peer.segment(conn, PSH | ACK, data=b"and after"))
            assert isinstance(conn.sink, Reader)
            assert conn.sink.data == b"before and after"
            assert not conn.unacked
        for conn in self.orphans:
            peer.bring(peer.segment(conn, FIN | ACK))
            assert self.state_of(conn) is State.TIME_WAIT


def blind_segment(rng: random.Random, conn: Connection, flags: int, seq: int, ack: int, length: int = 0) -> Segment:
    """Return what somebody sends who does not know the timestamps; he guesses them, or sends none."""
    ts_val = rng.choice((None, rng.getrandbits(32)))
    payload = (b"\x66" * length,) if length else ()
    window = rng.getrandbits(16)
    return Segment(conn.flow_in, seq & MASK, ack & MASK, flags, window, payload, length, ts_val, rng.getrandbits(32))


def rst(rng: random.Random, conn: Connection) -> Segment:
    """RFC 5961 3: in the window or anywhere, but not the one that counts (behind a FIN, that is the FIN's too)."""
    distance = rng.choice((rng.randrange(1, 65536), rng.randrange(1, MASK - 1)))
    return blind_segment(rng, conn, RST | rng.choice((0, ACK)), conn.rx.rcv_nxt + distance, rng.getrandbits(32))


def syn(rng: random.Random, conn: Connection) -> Segment:
    """RFC 5961 4: at any sequence number at all, even with the right acknowledgement."""
    distance = rng.choice((0, rng.randrange(65536), rng.randrange(MASK)))
    ack = rng.choice((conn.tx.snd_una, rng.getrandbits(32)))
    return blind_segment(rng, conn, SYN | rng.choice((0, ACK)), conn.rx.rcv_nxt + distance, ack, rng.choice((0, 0, 100)))


def data_outside(rng: random.Random, conn: Connection) -> Segment:
    """RFC 9293 3.10.7.4, first step: before or behind the window."""
    length = rng.randrange(1, 1400)
    seq = conn.rx.rcv_adv + rng.randrange(1, MASK - 70_000 - length)
    return blind_segment(rng, conn, ACK | rng.choice((0, PSH, FIN)), seq, conn.tx.snd_una, length)


def ack_outside(rng: random.Random, conn: Connection) -> Segment:
    """RFC 5961 5.2: data where it is awaited, with an acknowledgement that cannot be."""
    tx = conn.tx
    ack = tx.snd_nxt + rng.randrange(1, MASK - tx.max_window - 10_000)
    return blind_segment(rng, conn, ACK | rng.choice((0, PSH, FIN)), conn.rx.rcv_nxt, ack, rng.choice((0, 1, 1000)))


Attack = Callable[[random.Random, Connection], Segment]


@pytest.mark.parametrize("attack", [rst, syn, data_outside, ack_outside])
def test_of_a_hundred_thousand_blind_tries_none_ends_or_corrupts_a_connection(attack: Attack) -> None:
    """M-59: a quarter of the tries each. Challenge ACKs stay under the limits, that of a connection and that of the stack."""
    rng = random.Random(5961)
    limit = 10
    peer = RawPeer(tcp_challenge_ack_limit=limit, tcp_fin_timeout=1000)
    victims = Victims(peer)
    counters = peer.stack.counters
    tries = TRIES // 4
    challenges = answers = 0
    for number in range(tries):
        peer.now += INTERVAL
        (conn,) = rng.sample(victims.all, 1)
        answers += len(peer.bring(attack(rng, conn)))
        if not number % 1000:  # a second, as long as the period that the limit of the stack is for
            victims.check(number)
            assert counters.TCPChallengeACK - challenges <= 1.5 * limit, "challenge ACKs in a second"
            challenges = counters.TCPChallengeACK
    seconds = tries * INTERVAL // 1_000_000
    if attack is rst:
        assert counters.TCPChallengeACK, "none was in the window"
        assert answers == counters.TCPChallengeACK, "a RST was answered with more than challenges"
    if attack in (syn, ack_outside):
        assert counters.TCPChallengeACK >= seconds * limit // 4
        assert counters.TCPACKSkippedChallenge
    victims.check(tries)
    victims.finish()


def test_one_connection_sends_two_challenges_a_second() -> None:
    """M-59, tcp_invalid_ratelimit: whatever the stack's limit is (RFC 5961 7)."""
    rng = random.Random(1)
    peer = RawPeer(tcp_challenge_ack_limit=1_000_000)
    conn = peer.open(1000)
    answers = 0
    for _ in range(10_000):
        peer.now += INTERVAL
        answers += len(peer.bring(blind_segment(rng, conn, RST, conn.rx.rcv_nxt + 100, 0)))
    assert answers == peer.stack.counters.TCPChallengeACK == 20
    assert peer.stack.counters.TCPACKSkippedChallenge == 10_000 - 20


def test_the_limit_of_the_stack_cannot_be_counted() -> None:
    """M-59, RFC 5961 7, CVE-2016-5696: it differs from second to second, around tcp_challenge_ack_limit."""
    rng = random.Random(1)
    peer = RawPeer(tcp_challenge_ack_limit=100)
    conns = [peer.open(1000 + i) for i in range(400)]
    seen = set()
    for _ in range(20):
        peer.now += 1_000_000
        seen.add(sum(len(peer.bring(blind_segment(rng, conn, RST, conn.rx.rcv_nxt + 100, 0))) for conn in conns))
    assert len(seen) > 10 and min(seen) >= 50 and max(seen) <= 150
