"""Every loss of a transfer of 100 segments, enumerated: recovered without a timeout wherever RFC 8985 says that it can be.

Of the pairs a share, and all that touch the tail; scripts/loss_table.py runs all 4950 in each way and prints the table.
"""

from __future__ import annotations

from itertools import combinations

import pytest
from sim import loss_expectations as expect
from sim.losses import SEGMENTS, run

STEP = 23  # of the pairs every so many
WAYS = {
    "SACK, timestamps": {},
    "SACK": {"timestamps": False},
    "super-segments": {"bursts": True},
    "timestamps": {"sack": False},
    "neither": {"sack": False, "timestamps": False},
}
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
def test_any_one_segment(way: str) -> None:
    """M-34, M-35, M-36: with SACK never a timeout; the last segment takes a probe. Without, the last three wait for the timer.

    So does the fourth where the ACK of the segment before it was delayed: the first of three ACKs is then no duplicate.
    """
    options = WAYS[way]
    sack = options.get("sack", True)
    timeouts = 0
    for segment in range(1, SEGMENTS + 1):
        course = run([(segment, 0)], **options)
        expected = expect.one_segment(segment, course, sack)
        assert expect.agrees(course, expected), (segment, course.figures, expected)
        timeouts += course.timeouts
    assert timeouts == 0 if sack else timeouts in (3, 4)


@each_way
def test_any_two_segments(way: str) -> None:
    """M-34, M-35, M-36: with SACK never a timeout, and nothing is sent again that was not lost."""
    options = WAYS[way]
    sack = options.get("sack", True)
    for index, (first, second) in enumerate(combinations(range(1, SEGMENTS + 1), 2)):
        if index % STEP and first < SEGMENTS - 8:
            continue
        course = run([(first, 0), (second, 0)], **options)
        expected = expect.two_segments(first, second, course, sack)
        assert expect.agrees(course, expected), (first, second, course.figures, expected)
        assert not sack or (course.timeouts, course.resent) == (0, 2)


@each_way
def test_any_one_ack(way: str) -> None:
    """M-34, M-36: the next one makes up for it; for the last one the probe draws another, which says so by a D-SACK: the window stays."""
    options = WAYS[way]
    sack = options.get("sack", True)
    undisturbed = run(**options)
    last = undisturbed.acks_sent
    for number in range(1, last + 1):
        course = run((), [number], **options)
        expected = expect.one_ack(number, last, sack)
        assert expect.agrees(course, expected), (number, course.figures, expected)
        assert not sack or number < last or course.cwnd == undisturbed.cwnd


@each_way
def test_a_segment_and_its_first_retransmission(way: str) -> None:
    """M-35, RFC 8985 6: found by whatever was sent after the retransmission and delivered; only where nothing was, by the timer."""
    options = WAYS[way]
    sack = options.get("sack", True)
    found = 0
    for segment in range(1, SEGMENTS + 1):
        course = run([(segment, 0), (segment, 1)], **options)
        expected = expect.retransmission_too(segment, course, sack)
        assert expect.agrees(course, expected), (segment, course.figures, expected)
        found += not course.timeouts
    assert found >= (30 if sack else 0)


def test_nothing_lost_costs_nothing() -> None:
    """M-34: no timeout, no probe, nothing sent again, and the time that the link takes."""
    for options in WAYS.values():
        course = run(**options)
        assert course.is_whole and course.figures == (0, 0, 0, 0)
