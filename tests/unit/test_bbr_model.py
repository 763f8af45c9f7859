"""BBR alone, fed with samples made by hand: what recovery does to the window."""

from __future__ import annotations

import pytest

from tunstack.congestion import RateSample
from tunstack.congestion.bbr import PROBE_BW, Bbr

MSS = 1000
RTT = 20_000
RATE = 1_000_000  # octets a second
BDP = RATE * RTT // 1_000_000


class Path:
    """A path of constant rate; each `ack` is one of a segment."""

    def __init__(self) -> None:
        self.bbr = Bbr(MSS, 10 * MSS)
        self.now = 1_000_000
        self.delivered = 0
        self.flight = BDP
        self.bbr.on_start(RTT, RTT, self.now)

    def ack(self, acked: int = MSS, lost: int = 0, is_recovering: bool = False) -> int:
        """Have an ACK come; return the window after it."""
        self.now += MSS * 1_000_000 // RATE
        self.delivered += acked
        sample = RateSample()
        sample.now, sample.acked, sample.lost = self.now, acked, lost
        sample.delivered, sample.prior_delivered = self.delivered, max(self.delivered - BDP, 0)
        sample.interval, sample.rate, sample.rtt = RTT, RATE, RTT
        sample.flight = sample.prior_flight = self.flight
        sample.is_recovering = is_recovering
        self.bbr.on_rate(sample)
        return self.bbr.cwnd


@pytest.fixture
def steady() -> Path:
    """A path on which the pipe was found to be full."""
    path = Path()
    for _ in range(20 * BDP // MSS):
        path.ack()
    assert path.bbr.mode == PROBE_BW
    assert path.bbr.bandwidth == RATE
    return path


def test_the_window_is_two_bandwidth_delay_products_and_three_bursts(steady: Path) -> None:
    """M-38: bursts of two segments, one segment that an ACK brings at once, the sum an even number; two more while it probes."""
    steady.flight = 2 * BDP  # enough for probing to come to its end
    windows = [steady.ack() for _ in range(10 * BDP // MSS)]
    assert (min(windows), max(windows)) == (2 * BDP + 8 * MSS, 2 * BDP + 10 * MSS)


def test_the_first_round_of_recovery_conserves_packets(steady: Path) -> None:
    """M-35, M-38: what is in flight and what the ACK delivered is all that may be in flight; after a round trip it grows again."""
    before = steady.bbr.cwnd
    steady.bbr.on_congestion(steady.flight, steady.now)
    steady.flight = 12 * MSS
    assert steady.ack(lost=5 * MSS, is_recovering=True) == 13 * MSS
    steady.flight = 13 * MSS
    for _ in range(BDP // MSS - 1):
        assert steady.ack(is_recovering=True) == 14 * MSS
    assert [steady.ack(is_recovering=True) for _ in range(3)] == [15 * MSS, 16 * MSS, 17 * MSS]
    assert steady.ack(lost=2 * MSS, is_recovering=True) == 16 * MSS
    # Over: the window from before at once, not by one segment an ACK.
    assert steady.ack() >= before - 2 * MSS


def test_the_window_is_a_segment_at_least(steady: Path) -> None:
    """M-38: also where recovery begins with next to nothing in flight, by an ACK of an octet."""
    steady.flight = 0
    assert steady.ack(acked=1, lost=50 * MSS, is_recovering=True) == MSS


def test_a_timeout_is_repaired_from_one_segment_and_the_window_then_restored(steady: Path) -> None:
    """M-34, M-38: the engine sets the window to one segment; it grows by what is acknowledged, and is back when all is repaired."""
    before = steady.bbr.cwnd
    steady.bbr.on_rto(steady.flight, steady.now)
    steady.bbr.cwnd = MSS
    steady.flight = 0
    windows = [steady.ack(is_recovering=True) for _ in range(4)]
    assert windows == [4 * MSS, 5 * MSS, 6 * MSS, 7 * MSS]
    assert steady.ack() >= before - 2 * MSS


def test_an_error_is_taken_back_at_once(steady: Path) -> None:
    """M-37, M-38."""
    before = steady.bbr.cwnd
    steady.bbr.on_rto(steady.flight, steady.now)
    steady.bbr.cwnd = MSS
    steady.bbr.on_spurious(steady.now)
    assert steady.bbr.cwnd == before


def test_acks_that_come_together_widen_the_window(steady: Path) -> None:
    """M-38: with 12 segments in each ACK instead of one, the window allows for those that are held back meanwhile."""
    assert max(steady.ack() for _ in range(4 * BDP // MSS)) == 2 * BDP + 10 * MSS
    for _ in range(20):
        steady.now += 11 * MSS * 1_000_000 // RATE
        steady.ack(acked=12 * MSS)
    assert steady.bbr.cwnd >= 2 * BDP + 6 * MSS + 12 * MSS
