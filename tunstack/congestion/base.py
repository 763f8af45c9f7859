"""The congestion-control interface: values in, window and pacing rate out.

RFC 5681, RFC 5033. An algorithm never sees the connection. Windows are octets, times int microseconds,
rates octets a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

INFINITE = 0x7FFFFFFF


class RateSample:
    """What one ACK tells of the rate at which the network delivers (draft-cheng-iccrg-delivery-rate-estimation).

    One object a connection, filled anew for each ACK. Only made for algorithms that are `rate_based`.
    """

    __slots__ = (
        "acked",
        "delivered",
        "flight",
        "interval",
        "is_ack_delayed",
        "is_app_limited",
        "is_cwnd_limited",
        "is_recovering",
        "lost",
        "now",
        "prior_delivered",
        "prior_flight",
        "rate",
        "rtt",
    )

    def __init__(self) -> None:
        self.now = 0
        self.acked = 0  # octets that this ACK acknowledged or SACKed
        self.lost = 0  # octets that it showed to be lost
        self.delivered = 0  # octets delivered since the connection began
        self.prior_delivered = 0  # `delivered` when the newest octets of those acknowledged were sent
        self.interval = 0  # time in which `delivered - prior_delivered` octets were; 0: no sample
        self.rate = 0  # the quotient; 0: no sample
        self.rtt = 0  # newest round-trip time; 0: none
        self.flight = 0  # octets in the network now
        self.prior_flight = 0  # and before the ACK
        self.is_ack_delayed = False  # the round-trip time is of a lone small packet, which the peer likely let wait
        self.is_app_limited = False  # the application, not the network, held the rate back
        self.is_cwnd_limited = False  # the window held the sender back
        self.is_recovering = False  # losses are being repaired


class CongestionControl:
    """One connection's congestion control; an algorithm is a subclass. `cwnd` is at least one MSS.

    The engine finds losses and repairs them. What an algorithm is told, and what it does:

    - outside of loss recovery, `on_ack` for each ACK of new data: grow `cwnd`;
    - `on_congestion` when a loss (or ECN echo) is found: lower `ssthresh`. In recovery the engine brings `cwnd` to `ssthresh` at the pace
      of the ACKs (PRR, RFC 6937) and repairs; then comes `on_recovery_exit`;
    - `on_rto` when the retransmission timer expires: lower `ssthresh`. The engine sets `cwnd` to one MSS above what is in the network;
    - `on_spurious` when a reduction turns out to have been in error: take it back.

    Class attributes: `fast_recovery` False has a loss answered as a timeout is (Tahoe); `rate_based` True says that the algorithm lives by
    `on_rate`, called for every ACK in place of `on_ack`, and owns `cwnd` at all times, in recovery too (BBR): it then overrides
    `on_recovery_exit` as well. `pacing_rate` may be set by any; the engine then spreads what leaves.
    """

    __slots__ = ("_before", "cwnd", "mss", "pacing_rate", "restart_window", "ssthresh")

    name = ""
    fast_recovery = True
    rate_based = False

    def __init__(self, mss: int, cwnd: int) -> None:
        self.mss = mss  # effective MSS, octets
        self.cwnd = cwnd
        self.ssthresh = INFINITE
        self.pacing_rate = 0  # octets a second; 0: not paced
        self.restart_window = cwnd  # RW: what an idle connection begins with again, the initial window (RFC 5681 4.1)
        self._before: tuple[int, int] | None = None  # (cwnd, ssthresh) before the last reduction

    def details(self) -> Mapping[str, int | float]:
        """Return what it tells of itself beside its windows, for `ss -i`: `bw` in bit/s, `mrtt` in us, gains as factors."""
        return {}

    def on_start(self, srtt: int, min_rtt: int, now: int) -> None:
        """It takes charge of the connection; round-trip times are the handshake's or, on a running connection, the present ones; or 0."""

    def on_restart(self, is_app_limited: bool, now: int) -> None:
        """Data is about to leave with nothing in flight (`rate_based` only): at the beginning, and after each pause of the application."""

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:
        """New data of `acked` octets was acknowledged outside recovery.

        `flight` octets were outstanding before it; `rtt` is the newest sample or 0; `cwnd_limited` tells whether
        the window, and not the application or the peer, held the sender back (RFC 7661, RFC 9293 3.8.2).
        """

    def on_rate(self, sample: RateSample) -> None:
        """An ACK came (`rate_based` only). The sample is the engine's: it changes with the next ACK."""

    def on_congestion(self, flight: int, now: int) -> None:
        """A loss was detected by ACKs, or an ECN echo came: lower ssthresh."""

    def on_rto(self, flight: int, now: int) -> None:
        """The retransmission timer expired, for the first time for this data: lower ssthresh."""

    def on_recovery_exit(self, flight: int, now: int) -> None:
        """All that was outstanding when recovery began is acknowledged (RFC 6937: cwnd is ssthresh then)."""
        self.cwnd = max(self.ssthresh, self.mss)

    def on_spurious(self, now: int) -> None:
        """The last reduction was in error: take it back. Here to what `remember` kept."""
        cwnd, ssthresh = self._before or (self.restart_window, INFINITE)
        self.cwnd = max(self.cwnd, cwnd)
        self.ssthresh = max(self.ssthresh, ssthresh)

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        """Nothing was sent for `idle` >= `rto` microseconds: slow start again (RFC 5681 4.1).

        Here as in Linux (RFC 2861): the window is halved for each RTO, and ssthresh remembers three quarters of it.
        """
        if self.rate_based:
            return
        self.ssthresh = max(self.ssthresh, self.cwnd - (self.cwnd >> 2))
        restart = min(self.restart_window, self.cwnd)
        while idle > rto and self.cwnd > restart:
            idle -= rto
            self.cwnd >>= 1
        self.cwnd = max(self.cwnd, restart)

    def on_mss(self, mss: int) -> None:
        """The effective MSS changed: the windows stay the same number of segments."""
        self.cwnd = max(self.cwnd * mss // self.mss, mss)
        self.restart_window = max(self.restart_window * mss // self.mss, mss)
        if self.ssthresh < INFINITE:
            self.ssthresh = max(self.ssthresh * mss // self.mss, 2 * mss)
        self.mss = mss

    # What an algorithm may use, and the engine.

    def remember(self) -> None:
        """Keep the windows as they are before a reduction, for `on_spurious`."""
        self._before = (self.cwnd, self.ssthresh)

    def use_hystart(self, is_wanted: bool) -> None:
        """Have slow start end by HyStart++ (RFC 9406), or not; for algorithms that slow-start."""


# Builds one connection's control: (mss, initial cwnd) -> control.
Factory = Callable[[int, int], CongestionControl]
