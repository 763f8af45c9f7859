"""Reno: slow start and congestion avoidance.

RFC 5681 3.1, counted in octets (RFC 3465, with no limit to what one ACK may bring: it stands for up to 64 KB).
Deviates: a loss halves the window, as in Linux, not what is in flight (RFC 5681 equation 4), and to whole segments.
"""

from __future__ import annotations

from tunstack.congestion.base import INFINITE, CongestionControl
from tunstack.congestion.hystart import HyStart


class Reno(CongestionControl):
    """Additive increase of one MSS a round trip, halving on loss. What slow-starts derives from it.

    `hystart` True has the first slow start end by HyStart++ (RFC 9406) rather than by a loss.
    """

    __slots__ = ("_credit", "_hystart", "_uses_hystart")

    name = "reno"
    hystart = False

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self._credit = 0  # octets acknowledged in congestion avoidance since cwnd last grew
        self._uses_hystart = self.hystart
        self._hystart: HyStart | None = None  # made with the first ACK that it is to judge

    def use_hystart(self, is_wanted: bool) -> None:
        self._uses_hystart = is_wanted
        self._hystart = None

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:  # hot
        if self.cwnd < self.ssthresh:
            acked = self.slow_start(acked, flight, rtt, cwnd_limited)
        if acked and cwnd_limited:
            self.increase(acked)

    def slow_start(self, acked: int, flight: int, rtt: int, cwnd_limited: bool) -> int:  # hot
        """Grow by what was acknowledged, up to ssthresh (RFC 5681 3.1). Return the octets that are left for congestion avoidance."""
        hystart = self._hystart
        if not cwnd_limited:
            if hystart is not None and hystart.left:
                hystart.rest()
            return 0
        if self._uses_hystart and self.ssthresh >= INFINITE:
            if hystart is None:
                hystart = self._hystart = HyStart()
            divisor = hystart.on_ack(acked, flight, rtt, self.mss)
            if divisor != 1:
                if divisor:
                    self.cwnd += acked // divisor
                    return 0
                self.ssthresh = self.cwnd
                return acked
        room = self.ssthresh - self.cwnd
        if acked <= room:
            self.cwnd += acked
            return 0
        self.cwnd = self.ssthresh
        return acked - room

    def increase(self, acked: int) -> None:  # hot
        """Grow by one MSS for each window acknowledged (RFC 5681 3.1)."""
        credit = self._credit + acked
        cwnd = self.cwnd
        if credit >= cwnd:
            self.cwnd = cwnd + credit // cwnd * self.mss
            credit %= cwnd
        self._credit = credit

    def on_congestion(self, flight: int, now: int) -> None:
        self.remember()
        self.ssthresh = max(self.cwnd // (2 * self.mss), 2) * self.mss
        self._credit = 0

    def on_rto(self, flight: int, now: int) -> None:
        self.on_congestion(flight, now)

    def on_spurious(self, now: int) -> None:
        super().on_spurious(now)
        if self._hystart is not None:
            # Its rounds were not counted meanwhile; the RTT of the last that was stays the one to compare with, since the queue
            # may have grown in between.
            self._hystart.rest()

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        super().on_idle(idle, rto, now)
        self._credit = 0
