"""A user's algorithm under guard: whatever it does, the connection goes on.

What it raises is reported, and Reno takes its place from the windows as they were before; what it leaves in `cwnd`, `ssthresh` and
`pacing_rate` is made an int within bounds. Windows are octets, times int microseconds, rates octets a second.
"""

from __future__ import annotations

from collections.abc import Callable

from tunstack.congestion.base import INFINITE, CongestionControl, RateSample
from tunstack.congestion.reno import Reno

RATE_MAX = 1 << 50  # octets a second; no path is that fast


class Guard(CongestionControl):
    """Stands between the engine, which reads and writes the windows here, and a user's algorithm, `inner`."""

    __slots__ = ("_failed", "fast_recovery", "inner", "name", "rate_based")

    def __init__(
        self, algorithm: type[CongestionControl], name: str, failed: Callable[[str, Exception], None], mss: int, cwnd: int
    ) -> None:
        super().__init__(mss, cwnd)
        self._failed = failed
        self.name = name
        try:
            self.inner = algorithm(mss, cwnd)
            self._adopt()
        except Exception as error:
            self._fall_back(error)

    def on_start(self, srtt: int, min_rtt: int, now: int) -> None:
        self._tell("on_start", srtt, min_rtt, now)

    def on_restart(self, is_app_limited: bool, now: int) -> None:
        self._tell("on_restart", is_app_limited, now)

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:
        self._tell("on_ack", acked, flight, rtt, now, cwnd_limited)

    def on_rate(self, sample: RateSample) -> None:
        self._tell("on_rate", sample)

    def on_congestion(self, flight: int, now: int) -> None:
        self._tell("on_congestion", flight, now)

    def on_rto(self, flight: int, now: int) -> None:
        self._tell("on_rto", flight, now)

    def on_recovery_exit(self, flight: int, now: int) -> None:
        self._tell("on_recovery_exit", flight, now)

    def on_spurious(self, now: int) -> None:
        self._tell("on_spurious", now)

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        self._tell("on_idle", idle, rto, now)

    def on_mss(self, mss: int) -> None:
        self._tell("on_mss", mss)
        self.mss = mss

    def use_hystart(self, is_wanted: bool) -> None:
        self._tell("use_hystart", is_wanted)

    def _tell(self, event: str, *values: object) -> None:
        inner = self.inner
        inner.mss = self.mss
        inner.cwnd = self.cwnd
        inner.ssthresh = self.ssthresh
        inner.pacing_rate = self.pacing_rate
        inner.restart_window = self.restart_window
        try:
            getattr(inner, event)(*values)
            self._adopt()
        except Exception as error:
            self._fall_back(error)
            if event != "on_rate":
                self._tell(event, *values)  # a loss is a loss

    def _adopt(self) -> None:
        """Take over what the algorithm decided. A float is a number too; what is no number raises."""
        inner = self.inner
        cwnd = int(min(inner.cwnd, INFINITE))
        ssthresh = int(min(inner.ssthresh, INFINITE))
        pacing_rate = int(min(inner.pacing_rate, RATE_MAX))
        restart_window = int(min(inner.restart_window, INFINITE))
        self.cwnd = max(cwnd, self.mss)
        self.ssthresh = max(ssthresh, 2 * self.mss)
        self.pacing_rate = max(pacing_rate, 0)
        self.restart_window = max(restart_window, self.mss)
        self.fast_recovery = bool(inner.fast_recovery)
        self.rate_based = bool(inner.rate_based)

    def _fall_back(self, error: Exception) -> None:
        """Go on with Reno, from the windows that there were."""
        name, self.name = self.name, Reno.name
        self.inner = Reno(self.mss, self.cwnd)
        self.pacing_rate = 0
        self.fast_recovery = Reno.fast_recovery
        self.rate_based = Reno.rate_based
        self._failed(name, error)
