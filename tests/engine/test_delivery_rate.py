"""Delivery-rate samples against figures worked out by hand (draft-cheng-iccrg-delivery-rate-estimation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
from engine.notation import Play
from engine.openings import OPEN

from tunstack.congestion import CongestionControl, RateSample, registry
from tunstack.engine.rate import DeliveryRate
from tunstack.engine.scoreboard import Flight, Scoreboard

MSS = 1000
MS = 1000


class Path:
    """An estimator, and flights of one segment each."""

    def __init__(self) -> None:
        self.rate = DeliveryRate(0)
        self.board = Scoreboard()
        self.flights: list[Flight] = []
        self.outstanding = 0

    def send(self, at: int, octets: int = MSS) -> Flight:
        flight = Flight(0, octets, at, False)
        self.rate.on_sent(flight, not self.outstanding, at)
        self.outstanding += octets
        return flight

    def acknowledge(self, flight: Flight, at: int, octets: int = MSS, min_rtt: int = 1) -> RateSample:
        """An ACK at `at` delivers `octets`, of which those of `flight` left last."""
        self.rate.on_ack(self.outstanding, self.board)
        self.outstanding -= octets
        self.rate.take(octets, flight.rate, flight.sent_at, min_rtt, MSS, at)
        return self.rate.sample


def test_the_rate_is_what_was_delivered_since_the_flight_left() -> None:
    """M-38: one segment a millisecond over 10 ms: the first round trip rises, from then on it is a megabyte a second."""
    path = Path()
    flights = [path.send(at * MS) for at in range(10)]
    rates = []
    for at in range(10, 30):
        sample = path.acknowledge(flights[at - 10], at * MS)
        rates.append((sample.delivered - sample.prior_delivered, sample.interval, sample.rate))
        flights.append(path.send(at * MS))
    # Of the first ten nothing was delivered when they left, 10 + n ms before their ACK.
    assert rates[:3] == [(1000, 10 * MS, 100_000), (2000, 11 * MS, 181_818), (3000, 12 * MS, 250_000)]
    assert rates[10:] == [(10_000, 10 * MS, 1_000_000)] * 10


def test_acks_that_come_together_do_not_raise_the_rate() -> None:
    """M-38: the time in which it was sent counts where that in which it was acknowledged is shorter (compressed ACKs)."""
    path = Path()
    flights = [path.send(at * MS) for at in range(10)]
    path.acknowledge(flights[0], 10 * MS)
    flights += [path.send(at * MS) for at in range(10, 21)]
    # The ACKs of all others were held back somewhere and come at once: 20 segments in 10 ms, which were sent in 20.
    path.acknowledge(flights[10], 20 * MS, 10_000)
    sample = path.acknowledge(flights[20], 20 * MS, 10_000)
    assert (sample.delivered - sample.prior_delivered, sample.interval, sample.rate) == (20_000, 20 * MS, 1_000_000)


def test_a_burst_that_was_sent_at_once_counts_for_the_time_of_its_acks() -> None:
    """M-38: ten segments at one instant, acknowledged a millisecond apart."""
    path = Path()
    flights = [path.send(0) for _ in range(10)]
    samples = [path.acknowledge(flight, (10 + index) * MS) for index, flight in enumerate(flights)]
    assert samples[-1].interval == 19 * MS
    assert samples[-1].rate == 10_000_000 // 19


def test_time_with_nothing_in_flight_does_not_count() -> None:
    """M-38: after a pause the interval begins with what is sent then."""
    path = Path()
    path.acknowledge(path.send(0), 10 * MS)
    sample = path.acknowledge(path.send(5000 * MS), 5010 * MS)
    assert (sample.rate, sample.interval) == (100_000, 10 * MS)


def test_an_interval_shorter_than_the_round_trip_gives_no_sample() -> None:
    """M-38: a spurious retransmission whose original was acknowledged right after it left."""
    path = Path()
    flight = path.send(0)
    path.send(1 * MS)
    path.rate.on_sent(flight, False, 20 * MS)
    flight.sent_at = 20 * MS
    path.acknowledge(Flight(0, 0, 0, False), 19 * MS, 1000)
    sample = path.acknowledge(flight, 21 * MS, min_rtt=25 * MS)
    assert (sample.rate, sample.interval) == (0, 0)


def test_what_follows_a_pause_is_marked_until_the_pause_is_through() -> None:
    """M-38: samples of octets that left while the application held us back say so, those after it do not."""
    path = Path()
    first = path.send(0)
    path.rate.limit(1000)  # one segment is in flight, and nothing more to send
    second = path.send(5 * MS)
    marks = [path.acknowledge(first, 10 * MS).is_app_limited]
    third = path.send(10 * MS)
    marks.append(path.acknowledge(second, 15 * MS).is_app_limited)  # more than `first` is delivered now: the pause is through
    fourth = path.send(15 * MS)
    marks.append(path.acknowledge(third, 20 * MS).is_app_limited)
    marks.append(path.acknowledge(fourth, 25 * MS).is_app_limited)
    assert marks == [False, True, True, False]


def test_a_lone_small_segment_is_taken_for_acknowledged_late() -> None:
    """M-38: its round-trip time may hold the peer's delayed ACK."""
    path = Path()
    assert path.acknowledge(path.send(0, 100), 50 * MS, 100).is_ack_delayed
    assert not path.acknowledge(path.send(100 * MS), 110 * MS).is_ack_delayed
    path.send(200 * MS)
    assert not path.acknowledge(path.send(200 * MS, 100), 210 * MS, 1100).is_ack_delayed


# In a connection


class Recorder(CongestionControl):
    """Stands still and keeps what it is told."""

    name = "recorder"
    rate_based = True
    instances: ClassVar[list[Recorder]] = []

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self.samples: list[tuple[int, ...]] = []
        self.restarts: list[bool] = []
        Recorder.instances.append(self)

    def on_restart(self, is_app_limited: bool, now: int) -> None:
        self.restarts.append(is_app_limited)

    def on_rate(self, sample: RateSample) -> None:
        self.samples.append((sample.acked, sample.lost, sample.flight, sample.interval, sample.rate, sample.rtt))

    def on_recovery_exit(self, flight: int, now: int) -> None: ...


@pytest.fixture
def samples(play: Play, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[tuple[int, ...]]]:
    """A function that runs a script, and returns (acked, lost, flight, interval, rate, rtt) of every ACK, equal in all ways to run it."""
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, "recorder": Recorder})
    monkeypatch.setattr(Recorder, "instances", [])

    def run(script: str) -> list[tuple[int, ...]]:
        play(script, tcp_congestion_control="recorder")
        first, *others = Recorder.instances
        assert others
        assert all(other.samples == first.samples for other in others)
        return first.samples

    return run


SACK_OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000,sackOK,nop,nop>
    +0   > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
    +.01 < . 1:1(0) ack 1 win 30000
    +0   accept
"""


def test_each_ack_gives_one_sample(samples: Callable[[str], list[tuple[int, ...]]]) -> None:
    """M-38: cumulative ACKs, one of them of a part of a burst of two segments."""
    told = samples(
        OPEN
        + """
        +0   write 4000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 30000
        +.01 < . 1:1(0) ack 4001 win 30000
        """
    )
    assert told == [
        (1000, 0, 3000, 10 * MS, 100_000, 10 * MS),
        (3000, 0, 0, 20 * MS, 200_000, 20 * MS),
    ]
    assert all(recorder.restarts == [True] for recorder in Recorder.instances)


def test_what_is_sacked_counts_once(samples: Callable[[str], list[tuple[int, ...]]]) -> None:
    """M-13, M-38: SACKs cover parts of bursts; the ACK of the whole brings only what had not been SACKed."""
    told = samples(
        SACK_OPEN
        + """
        +0   write 4000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,sack 1001:2001>
        +.002 < . 1:1(0) ack 1 win 30000 <nop,nop,sack 1001:3001>
        +.002 < . 1:1(0) ack 4001 win 30000
        """
    )
    assert [(acked, flight, interval, rate) for acked, _, flight, interval, rate, _ in told] == [
        (1000, 3000, 10 * MS, 100_000),
        (1000, 2000, 12 * MS, 166_666),
        (2000, 0, 14 * MS, 285_714),
    ]


def test_losses_are_told_and_a_retransmission_has_an_interval_of_its_own(samples: Callable[[str], list[tuple[int, ...]]]) -> None:
    """M-35, M-38: the first of four is lost, found by three SACKs, and sent again; what the others brought counts for its interval."""
    told = samples(
        SACK_OPEN
        + """
        +0   write 4000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,sack 1001:2001>
        +.001 < . 1:1(0) ack 1 win 30000 <nop,nop,sack 1001:3001>
        +.001 < . 1:1(0) ack 1 win 30000 <nop,nop,sack 1001:4001>
        +0   > . 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 4001 win 30000
        """
    )
    assert [lost for _, lost, *_ in told] == [0, 0, 1000, 0]
    # It left at 12 ms with 3000 delivered, the last then; the newest of those had left at 0: 12 ms of sending for one segment.
    assert told[-1] == (1000, 0, 0, 12 * MS, 83_333, 0)


def test_without_sack_a_duplicate_ack_counts_as_a_segment(samples: Callable[[str], list[tuple[int, ...]]]) -> None:
    """M-35, M-38: and what duplicate ACKs told of is not delivered once more by the ACK that follows."""
    told = samples(
        OPEN
        + """
        +0   write 5000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +0   > P. 4001:5001(1000) ack 1
        +.01 < . 1:1(0) ack 1 win 30000
        +0   < . 1:1(0) ack 1 win 30000
        +0   < . 1:1(0) ack 1 win 30000
        +0   > . 1:1001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 30000
        +.01 < . 1:1(0) ack 5001 win 30000
        """
    )
    assert [acked for acked, *_ in told] == [1000, 1000, 1000, 1000, 1000]
    assert sum(acked for acked, *_ in told) == 5000
