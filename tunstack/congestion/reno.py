"""Reno: slow start and congestion avoidance.

RFC 5681 3.1, counted in octets (RFC 3465). The loss response halves the window, as Linux does, not the flight.
"""

from __future__ import annotations

from tunstack.congestion.base import INFINITE, CongestionControl


class Reno(CongestionControl):
    """Additive increase of one MSS a round trip, halving on loss."""

    __slots__ = ("_acked", "_before")

    name = "reno"

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self._acked = 0  # octets acknowledged in congestion avoidance since cwnd last grew
        self._before = (cwnd, INFINITE)  # (cwnd, ssthresh) before the last reduction

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:  # hot
        if not cwnd_limited:
            return
        cwnd = self.cwnd
        if cwnd < self.ssthresh:
            room = self.ssthresh - cwnd
            if acked <= room:
                self.cwnd = cwnd + acked
                return
            cwnd = self.cwnd = self.ssthresh
            acked -= room
        self._acked += acked
        if self._acked >= cwnd:
            self._acked -= cwnd
            self.cwnd = cwnd + self.mss

    def on_congestion(self, flight: int, now: int) -> None:
        self._before = (self.cwnd, self.ssthresh)
        self.ssthresh = max(self.cwnd // 2, 2 * self.mss)
        self._acked = 0

    def on_rto(self, flight: int, now: int) -> None:
        self.on_congestion(flight, now)

    def on_spurious(self, now: int) -> None:
        cwnd, ssthresh = self._before
        self.cwnd = max(self.cwnd, cwnd)
        self.ssthresh = max(self.ssthresh, ssthresh)

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        # RFC 5681 4.1 by RFC 2861 as Linux has it: halved once an RTO, never below the restart window of 10 segments.
        restart = min(10 * self.mss, self.cwnd)
        self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
        while idle >= rto and self.cwnd > restart:
            idle -= rto
            self.cwnd //= 2
        self.cwnd = max(self.cwnd, restart)
        self._acked = 0
