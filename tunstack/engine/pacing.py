"""Pacing: data leaves spread over the round trip instead of in bursts.

Linux's internal pacing and sch_fq, on the pacing rate of the congestion control or SO_MAX_PACING_RATE. Each departure puts the next one
off by the time that its octets take at that rate, counted without rounding, so that the mean rate is right whatever the grain of
the timer: who wakes up late sends at once what has become due meanwhile. And since a timer that is coarser than the round trip would
leave the path idle, data may leave early by that grain (`Stack.timer_grain`): a token bucket a millisecond deep, which is the burst
that Linux's TSO autosizing makes too. Bare ACKs, SYN, RST, a lone FIN, tail loss probes and the first retransmission are not paced.
Knows no clock. Times are int microseconds, lengths octets, rates octets a second.
"""

from __future__ import annotations

# How much of a timer's lateness is made up for. A process that waits for the processor in each round trip would else send less than it
# means to, measure that, and mean to send less the next time. The congestion window bounds the burst anyway.
CATCH_UP = 50_000
UNPACED_SEGMENTS = 10  # the first ones of a connection leave at once, as in Linux: the initial window is to be a burst


class Pacer:
    """When data of one connection may leave. The sender obeys `at`; who sends calls `on_sent`."""

    __slots__ = ("_rest", "_stopped_at", "at", "is_waiting", "rate", "unpaced")

    def __init__(self, unpaced: int) -> None:
        self.rate = 1  # set by the owner before anything is sent
        self.at = 0  # earliest departure of the next data
        self.is_waiting = False  # something was held back until `at` and has not been sent
        self.unpaced = unpaced  # octets that need not wait
        self._stopped_at = 0  # since when a window holds data back, 0: none does
        self._rest = 0  # what `at`, being whole microseconds, does not count yet, in millionths of an octet

    def on_stop(self, has_data: bool, now: int) -> None:
        """Nothing may leave, and not for its pace: a window is full (`has_data`), or there is nothing to send.

        That time gives no right to a burst afterwards. What a late timer had cost until then stays to be made up for, if there is data.
        """
        if not has_data:
            self.is_waiting = False
        elif not self._stopped_at:
            self._stopped_at = now

    def on_sent(self, octets: int, now: int) -> None:
        """Data leaves: put the next departure off."""
        if self.unpaced > 0:
            self.unpaced -= octets
            self.at = now
            return
        at = self.at
        if self._stopped_at:
            if at < now:
                at += now - max(self._stopped_at, at)
            self._stopped_at = 0
        if at < now:
            # Only for what waited: a pause of the application's gives no right to a burst.
            earliest = now - CATCH_UP if self.is_waiting else now
            if at < earliest:
                at = earliest
                self._rest = 0
        delay, self._rest = divmod(octets * 1_000_000 + self._rest, self.rate)
        self.at = at = at + delay
        if at > now:
            self.is_waiting = False  # caught up
