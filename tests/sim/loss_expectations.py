"""What losses must lead to, by the RFCs' reasoning, from what was sent when.

With SACK the reasoning is RFC 8985's: whatever is sent later and delivered shows what was lost before it, be it by the reordering window's
timer; a tail loss probe is that later sending where there is none. So a timeout is left only to a retransmission that is lost with
nothing behind it: in recovery there are no probes (7.2). Without SACK it is RFC 6582's: three duplicate ACKs, or a partial ACK.
Each function returns (timeouts, probes, recoveries, segments sent again), None where a figure is not determined.
"""

from __future__ import annotations

from sim.losses import SEGMENTS, Course

Figures = tuple[int, int | None, int | None, int | None]

DUPLICATES = 3  # ACKs after which a segment is taken for lost without SACK


def one_segment(segment: int, course: Course, sack: bool) -> Figures:
    """A single segment is lost once."""
    if sack:
        return (0, 1, 0, 1) if segment == SEGMENTS else (0, 0, 1, 1)
    return (0, 0, 1, 1) if course.duplicates(segment) >= DUPLICATES else (1, 0, 0, 1)


def two_segments(first: int, second: int, course: Course, sack: bool) -> Figures:
    """Two segments, `first` before `second`, are lost once each."""
    if sack:
        return _two_with_sack(first, second, course)
    if course.duplicates(first) < DUPLICATES:  # a timeout, after which all that is not acknowledged is sent again
        later = course.place(second) > course.place(first, 1)
        return 2 if later and course.duplicates(second) < DUPLICATES else 1, 0, None, None
    if course.place(second) < course.place(first, 1):  # recovery covers it: the partial ACK asks for it
        return 0, 0, 1, 2
    recover = max(sending.segment for sending in course.sendings[: course.place(first, 1)])
    if course.duplicates(second) >= DUPLICATES and second > recover + 1:  # RFC 6582 3.2 step 2: the ACK covers more than `recover`
        return 0, 0, 2, 2
    return 1, 0, 1, None


def _two_with_sack(first: int, second: int, course: Course) -> Figures:
    if first == SEGMENTS - 1:  # the last two: the probe for the last shows that the one before is lost too
        return 0, 1, 1, 2
    if course.place(second) < course.place(first, 1):  # both had left when the first was found: one recovery
        return 0, 0, 1, 2
    return (0, 1, 1, 2) if second == SEGMENTS else (0, 0, 2, 2)


def one_ack(number: int, last: int, sack: bool) -> Figures:
    """A single ACK of `last` is lost: the next one makes up for it. For the last one the probe, or the timeout, draws another."""
    if number < last:
        return 0, 0, 0, 0
    return (0, 1, 0, 1) if sack else (1, 0, 0, 1)


def retransmission_too(segment: int, course: Course, sack: bool) -> Figures:
    """A segment and its first retransmission are lost."""
    if not sack:
        return (1, 0, 1, 2) if course.duplicates(segment) >= DUPLICATES else (2, 0, 0, 2)
    if segment == SEGMENTS:
        return 1, 1, 0, 2
    between = course.sendings[course.place(segment, 1) + 1 : course.place(segment, 2)]
    return (0 if any(not sending.is_lost for sending in between) else 1), 0, 1, 2


def agrees(course: Course, expected: Figures) -> bool:
    """Whether a course is whole, and its figures are the expected ones."""
    pairs = zip(course.figures, expected, strict=True)
    return course.is_whole and all(wanted is None or figure == wanted for figure, wanted in pairs)
