"""The figures of the textbooks, exactly: windows per round trip, counted on the wire. M-38.

Peterson and Davie 6.3, Kurose and Ross 3.7, after Jacobson 1988: initial window 1, ssthresh 16, a loss at 24. The link takes 50 ms each
way and no time for a frame, so the segments of a round trip leave at one instant, and that is how they are counted.
"""

from __future__ import annotations

import pytest

from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.transfer import Drain, Source
from tunstack.sim.world import World

DELAY = 50_000
MSS = 1460
CLIMB = [1, 2, 4, 8, 16, 17, 18, 19, 20, 21, 22, 23, 24]


class Textbook:
    """A sender with much to send, whose data crosses a link that loses what it is told to."""

    def __init__(self, algorithm: str, rounds: int, lost: set[tuple[int, int]], **sysctl: object) -> None:
        """`lost`: segments by round and place in it, both from 0; what is sent for the first time counts."""
        knobs = {"tcp_initial_cwnd": 1, "tcp_initial_ssthresh": 16, "tcp_timestamps": False, **sysctl}
        self.world = World(1)
        self.sender, self.receiver, _ = self.world.pair(
            sysctl=Sysctl(tcp_congestion_control=algorithm, **knobs)  # type: ignore[arg-type]
        )
        self.lost = lost
        self.sent: list[int] = []  # data segments by round
        self.windows: list[int] = []  # cwnd at the end of each
        self.thresholds: list[int] = []  # ssthresh likewise
        self._last_at = 0
        self.sender.device.carry = self._carry_data
        self.receiver.device.carry = self._carry_ack
        self.receiver.stack.listen(self.receiver.address, 5001, on_acceptable=self._accept)
        source = Source(self.world, 10_000_000, 1)
        self.conn = source.conn = self.sender.stack.connect(self.receiver.address, 5001, source, now=self.world.now())
        until = 0
        while len(self.sent) <= rounds:
            until += DELAY
            self.world.run(until)
        del self.sent[rounds:], self.windows[rounds:], self.thresholds[rounds:]

    def _accept(self, listener: Listener) -> None:
        conn = listener.accept()
        assert conn is not None
        conn.rx.quick = 1 << 30  # every segment is acknowledged at once
        conn.sink = Drain(self.world, conn)
        conn.resume(self.world.now())

    def _carry_data(self, frame: bytes) -> None:
        length = len(frame) - 20 - (frame[32] >> 4) * 4
        if length:
            if self.world.now() != self._last_at:
                self._last_at = self.world.now()
                self.sent.append(0)
                self.windows.append(0)
                self.thresholds.append(0)
            place = (len(self.sent) - 1, self.sent[-1])
            self.sent[-1] += 1
            self.world.call_later(1000, self._look, len(self.sent) - 1, self.conn)
            if place in self.lost:
                return
        self.world.call_later(DELAY, self.receiver.device.deliver, frame)

    def _look(self, index: int, conn: Connection) -> None:
        self.windows[index] = conn.tx.cc.cwnd // MSS
        self.thresholds[index] = conn.tx.cc.ssthresh // MSS

    def _carry_ack(self, frame: bytes) -> None:
        self.world.call_later(DELAY, self.sender.device.deliver, frame)


WHOLE_WINDOW = {(len(CLIMB) - 1, place) for place in range(24)}
FIRST_OF_WINDOW = {(len(CLIMB) - 1, 0)}
AVOIDANCE = [13, 14, 15, 16, 17, 18, 19, 20]


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("algorithm", ["tahoe", "reno"])
def test_doubling_to_16_one_a_round_to_24_and_from_a_timeout_up_again_with_half_of_it(algorithm: str, sack: bool) -> None:
    """M-38: the figure of Tahoe; Reno does the same at a timeout. Neither knows of F-RTO or tail loss probes."""
    expected = [*CLIMB, 1, 2, 4, 8, 12, *AVOIDANCE]
    run = Textbook(algorithm, len(expected), WHOLE_WINDOW, tcp_sack=sack, tcp_frto=0, tcp_early_retrans=0)
    assert run.sent == expected
    assert run.windows == expected
    assert run.thresholds == [16] * 13 + [12] * 13
    assert run.sender.stack.counters.TCPTimeouts == 1


def test_tahoe_answers_three_duplicate_acks_as_a_timeout() -> None:
    """M-38: window 1 at once, slow start to 12."""
    expected = [*CLIMB, 1, 2, 4, 8, 12, *AVOIDANCE]
    run = Textbook("tahoe", len(expected), FIRST_OF_WINDOW)
    assert run.sent == run.windows == expected
    assert run.thresholds == [16] * 13 + [12] * 13
    assert run.sender.stack.counters.TCPTimeouts == 0


def test_tahoe_without_sack_goes_on_from_one_segment_too() -> None:
    """M-38: the ACK of the retransmission covers the window, and slow start counts octets (RFC 3465), past 12 at once, as in Linux."""
    expected = [*CLIMB, 1, *AVOIDANCE]
    run = Textbook("tahoe", len(expected), FIRST_OF_WINDOW, tcp_sack=False)
    assert run.sent == expected
    assert run.windows == expected


@pytest.mark.parametrize("sack", [True, False])
def test_reno_answers_three_duplicate_acks_with_half_the_window_and_linear_growth(sack: bool) -> None:
    """M-38: 24 gives 12, then one more a round trip. Without SACK the round of the repair sends one segment only."""
    expected = [*CLIMB, 12, *([] if sack else [12]), *AVOIDANCE]
    run = Textbook("reno", len(expected), FIRST_OF_WINDOW, tcp_sack=sack)
    assert run.windows == expected
    assert run.thresholds == [16] * 13 + [12] * (len(expected) - 13)
    if not sack:
        expected[len(CLIMB)] = 1
    assert run.sent == expected
    assert run.sender.stack.counters.TCPTimeouts == 0
