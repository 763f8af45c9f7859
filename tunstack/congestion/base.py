"""The congestion-control interface: values in, window and pacing rate out.

RFC 5681, RFC 5033. An algorithm never sees the connection. Windows are octets, times int microseconds,
rates octets a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

INFINITE = 0x7FFFFFFF


class CongestionControl(Protocol):
    """One connection's congestion control. `cwnd >= mss` at all times but inside `on_rto`'s loss window of one MSS."""

    name: str
    cwnd: int
    ssthresh: int
    pacing_rate: int  # octets a second; 0: not paced

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:
        """New data of `acked` octets was acknowledged outside recovery.

        `flight` octets were outstanding before it; `rtt` is the newest sample or 0; `cwnd_limited` tells whether
        the window, and not the application or the peer, held the sender back (RFC 7661, RFC 9293 3.8.2).
        """

    def on_congestion(self, flight: int, now: int) -> None:
        """A loss was detected by duplicate ACKs (or an ECN echo came): recovery begins. Sets ssthresh and cwnd."""

    def on_rto(self, flight: int, now: int) -> None:
        """The retransmission timer expired, for the first time for this data: ssthresh falls, cwnd is one MSS."""

    def on_recovery_exit(self, flight: int, now: int) -> None:
        """All that was outstanding when recovery began is acknowledged."""

    def on_spurious(self, now: int) -> None:
        """The last reduction was in error: take it back."""

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        """Nothing was sent for `idle` >= `rto` microseconds (RFC 5681 4.1)."""

    def on_mss(self, mss: int) -> None:
        """The effective MSS changed."""


# Builds one connection's control: (mss, initial cwnd) -> control.
Factory = Callable[[int, int], CongestionControl]
