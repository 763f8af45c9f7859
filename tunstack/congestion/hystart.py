"""HyStart++: leave slow start when the round-trip time rises, before the queue overflows.

RFC 9406. A part of the algorithms that slow-start, for their first slow start only (RFC 9406 4.3). A round is counted in octets: it
ends when all that was outstanding at its start is acknowledged. Times int microseconds.

Deviates: growth is not limited to L = 8 segments an ACK, because one ACK stands for up to 64 KB where segments are merged
(offload), and the sender bounds its bursts by the pace of the path; for the same reason an ACK of many segments counts as the samples
that delayed ACKs would have brought.
"""

from __future__ import annotations

MIN_RTT_THRESH = 4_000
MAX_RTT_THRESH = 16_000
MIN_RTT_DIVISOR = 8
N_RTT_SAMPLE = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5

NONE = 1 << 62  # no sample: above every RTT


class HyStart:
    """Follows the ACKs of one connection's slow start. Phases: slow start (`css_round` 0), conservative slow start (1 to CSS_ROUNDS)."""

    __slots__ = ("_baseline", "_current_min", "_last_min", "_samples", "css_round", "left")

    def __init__(self) -> None:
        self.css_round = 0  # rounds of conservative slow start, the one in progress included
        self.left = 0  # octets to be acknowledged until the round ends; 0: it begins with what is outstanding at the next ACK
        self._last_min = NONE  # lastRoundMinRTT
        self._current_min = NONE  # currentRoundMinRTT
        self._samples = 0  # rttSampleCount
        self._baseline = NONE  # cssBaselineMinRtt

    def on_ack(self, acked: int, flight: int, rtt: int, mss: int) -> int:  # hot
        """Return by what the growth of slow start is to be divided: 1, or 4 (conservative), or 0: slow start is over.

        `acked` octets of the `flight` that was outstanding are acknowledged; `rtt` is 0 where there is no sample.
        """
        left = self.left
        if not left:
            left = flight
        if rtt:
            if rtt < self._current_min:
                self._current_min = rtt
            samples = acked // (2 * mss)
            self._samples += samples if samples > 1 else 1
            if self._samples >= N_RTT_SAMPLE:
                self._judge()
        left -= acked
        if left <= 0:
            self._last_min = self._current_min
            self._current_min = NONE
            self._samples = 0
            left = flight - acked if flight > acked else 0
            if self.css_round:
                self.css_round += 1
        self.left = left
        if not self.css_round:
            return 1
        return CSS_GROWTH_DIVISOR if self.css_round <= CSS_ROUNDS else 0

    def rest(self) -> None:
        """The window is not used and does not grow: there is nothing to judge. The round in progress is dropped."""
        self.left = 0
        self._current_min = NONE
        self._samples = 0

    def _judge(self) -> None:
        """Compare the round with the one before it (slow start), or with the one in which slow start was left (RFC 9406 4.2)."""
        if self.css_round:
            if self._current_min < self._baseline:  # it was jitter: back to slow start
                self._baseline = NONE
                self.css_round = 0
        elif self._last_min != NONE:
            threshold = min(max(self._last_min // MIN_RTT_DIVISOR, MIN_RTT_THRESH), MAX_RTT_THRESH)
            if self._current_min >= self._last_min + threshold:
                self._baseline = self._current_min
                self.css_round = 1  # the rest of this round counts (RFC 9406 4.2)
