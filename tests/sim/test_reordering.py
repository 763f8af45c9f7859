"""Reordering without loss: no larger share of needless retransmissions than Linux has, and the window is given back.

Linux 6.18's figures are those of `sudo .venv/bin/python scripts/bench/reordering.py --depth 3 --depth 10 --depth 30`: four runs of
4 s, Linux to Linux over `tunstack link`, round trip 20 ms, 20 Mbit/s, 2 % of the frames overtaken by `depth` others.
"""

from __future__ import annotations

import pytest
from sim.reordering import Reordering, run

RUNS = range(1, 5)  # seeds
SECONDS = 4.0
LINUX = {  # needless retransmissions in about 26,600 segments
    ("reno", 3): 4,
    ("reno", 10): 11,
    ("reno", 30): 58,
    ("cubic", 3): 4,
    ("cubic", 10): 9,
    ("cubic", 30): 51,
}
LINUX_SENT = 26_600  # segments, of 19.1 Mbit/s and 16 s
GOODPUT_KEPT = 0.97  # of that without reordering; Linux kept 0.99


@pytest.mark.parametrize(("congestion", "depth"), LINUX)
def test_no_more_is_resent_than_by_linux_and_it_is_undone(congestion: str, depth: int) -> None:
    """M-35, M-36, M-37: RACK's window widens, every recovery ends with the window as it was, and the rate stays."""
    courses = [run(Reordering(congestion, depth), SECONDS, seed) for seed in RUNS]
    resent = sum(course.resent for course in courses)
    sent = sum(course.sent for course in courses)
    assert sum(course.reordered for course in courses) > 100  # the link did reorder
    assert resent * LINUX_SENT <= LINUX[congestion, depth] * sent, (resent, sent)
    assert all(course.undone == course.recoveries and not course.timeouts for course in courses), courses
    assert depth < 10 or all(course.undone for course in courses), courses  # there was something to undo
    undisturbed = [run(Reordering(congestion, 0), SECONDS, seed) for seed in RUNS[:1]]
    assert all(course.received >= GOODPUT_KEPT * undisturbed[0].received for course in courses), courses
