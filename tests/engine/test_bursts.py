"""What leaves together: bursts by the pace of the path, PSH at their end. Linux's TSO autosizing."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.openings import opening

from tunstack.engine.sender import BURST_MAX, Sender
from tunstack.engine.sysctl import Sysctl

OPEN = opening(60_000)


class Cwnd:
    """A congestion control that stands still."""

    def __init__(self, cwnd: int, ssthresh: int) -> None:
        self.cwnd = cwnd
        self.ssthresh = ssthresh
        self.pacing_rate = 0


@pytest.mark.parametrize(
    ("cwnd", "ssthresh", "srtt", "segments"),
    [
        (10_000, 1 << 30, 100_000, 2),  # 200 octets a millisecond: the least
        (100_000, 1 << 30, 10_000, 19),  # in slow start twice the rate
        (100_000, 100_000, 10_000, 11),  # else 120 percent
        (200_000, 1 << 30, 0, BURST_MAX / 1000),  # the pace is not known
        (11_000, 1 << 30, 0, 5),  # never more than half the window
        (11_000, 1 << 30, 1000, 5),
        (1000, 1 << 30, 0, 1),
    ],
)
def test_a_burst_is_what_the_path_takes_in_a_millisecond(cwnd: int, ssthresh: int, srtt: int, segments: int) -> None:
    sender = Sender(0, 1000)
    sender.peer_mss = 1000
    sender.set_mss(0)
    sender.cc = Cwnd(cwnd, ssthresh)  # type: ignore[assignment]
    sender.size_bursts(srtt, srtt, Sysctl())
    assert sender.burst / 1000 == segments


def test_a_short_path_takes_larger_bursts() -> None:
    """Below half a millisecond as much as fits into a super-segment, at twice that half of it."""
    sender = Sender(0, 1000)
    sender.peer_mss = 1000
    sender.set_mss(0)
    sender.cc = Cwnd(200_000, 1 << 30)  # type: ignore[assignment]
    sizes = []
    for min_rtt in (500, 600, 1100):
        sender.size_bursts(10_000_000, min_rtt, Sysctl())
        sizes.append(sender.burst // 1000)
    assert sizes == [65, 32, 16]


def test_each_burst_ends_with_push_and_a_single_segment_in_the_middle_has_none(play: Play) -> None:
    play(
        opening(5000)
        + """
        +0   write 8000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +0   > . 4001:5001(1000) ack 1
        """
    )


def test_the_least_burst_is_a_knob(play: Play) -> None:
    play(
        OPEN
        + """
        +0   write 8000
        +0   > . 1:1001(1000) ack 1
        +0   > . 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +0   > . 4001:5001(1000) ack 1
        +0   > . 5001:6001(1000) ack 1
        +0   > . 6001:7001(1000) ack 1
        +0   > P. 7001:8001(1000) ack 1
        """,
        tcp_min_tso_segs=4,
    )
