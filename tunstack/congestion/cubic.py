"""CUBIC: the window is a cubic function of the time since the last reduction.

RFC 9438, with Linux's constants where the two differ in nothing that matters: beta is 717/1024. The slow start is HyStart++'s (RFC 9406).
Windows are octets, times int microseconds, and all arithmetic is in integers, so that nothing drifts.
"""

from __future__ import annotations

from tunstack.congestion.hystart import NONE
from tunstack.congestion.reno import Reno

BETA = 717  # beta_cubic, of SCALE: 0.7 (RFC 9438 4.6)
SCALE = 1024
C = (4, 10)  # the constant C, segments/s^3, as a fraction (RFC 9438 4.1.1)
US3 = 10**18  # cubic microseconds in a cubic second
ALPHA = (3 * (SCALE - BETA), SCALE + BETA)  # alpha_cubic as a fraction (RFC 9438 4.3)
EARLY_DIVISOR = 20  # until the first loss the window grows by a twentieth a round trip at least, as in Linux


def cube_root(value: int) -> int:
    """Return the largest integer whose cube is at most `value` >= 0 (Newton's iteration)."""
    root = 1 << -(-value.bit_length() // 3)  # not below the root, so it falls to it
    while value:
        lower = (2 * root + value // (root * root)) // 3
        if lower >= root:
            return root
        root = lower
    return 0


class Cubic(Reno):
    """The state of RFC 9438 4.1.2. An epoch is a stretch of congestion avoidance; it begins with the first ACK that finds none."""

    __slots__ = (
        "_cwnd_prior",
        "_epoch_at",
        "_estimate",
        "_estimate_credit",
        "_grow_credit",
        "_k",
        "_last_ack_at",
        "_min_rtt",
        "_origin",
        "_saved",
        "_w_max",
    )

    name = "cubic"
    hystart = True

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self._min_rtt = NONE  # least RTT, us
        self._last_ack_at = 0  # when the last ACK came
        self._w_max = 0  # W_max, octets; 0: there was no reduction, or the last was a timeout
        self._cwnd_prior = 0  # cwnd before the last reduction
        self._epoch_at = 0  # t_epoch; 0: there is no epoch
        self._origin = 0  # where the cubic's plateau is: W_max, or cwnd at the epoch's start where that is more
        self._k = 0  # K: when the plateau is reached, us from t_epoch
        self._estimate = 0  # W_est, octets
        self._estimate_credit = 0  # what is left over of W_est's growth, of ALPHA[1] * cwnd
        self._grow_credit = 0  # what is left over of cwnd's growth, of cwnd
        self._saved = (0, 0, 0, 0, 0, 0, 0)  # the epoch before the last reduction, and when that was (RFC 9438 4.9)

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:  # hot
        if 0 < rtt < self._min_rtt:
            self._min_rtt = rtt
        if cwnd_limited:
            if self.cwnd < self.ssthresh:
                acked = self.slow_start(acked, flight, rtt, True)
            if acked:
                self._follow(acked, now)
        elif self.cwnd < self.ssthresh:
            if self._hystart is not None:  # its round is over
                self.slow_start(acked, flight, rtt, False)
        elif acked and self._epoch_at:  # time in which the application held the window back is no time (RFC 9438 4.2, 5.8)
            self._epoch_at += now - self._last_ack_at
        self._last_ack_at = now

    def _follow(self, acked: int, now: int) -> None:  # hot
        """Congestion avoidance: grow towards where the cubic will be in a round trip, or to where Reno would be (RFC 9438 4.2 to 4.5)."""
        cwnd = self.cwnd
        if not self._epoch_at:
            self._begin_epoch(now)
        estimate = self._grow_estimate(acked)
        rtt = self._min_rtt if self._min_rtt < NONE else 0
        target = self.window_at(now - self._epoch_at + rtt)
        # RFC 9438 4.2: half as much again a round trip at most; 4.4: (target - cwnd) / cwnd for each segment.
        credit = self._grow_credit + max(min(target - cwnd, cwnd >> 1), 0) * acked
        grow, self._grow_credit = divmod(credit, cwnd)
        if not self._w_max and grow < acked // EARLY_DIVISOR:
            grow = acked // EARLY_DIVISOR
        if cwnd + grow < estimate:  # the Reno-friendly region (RFC 9438 4.3)
            grow = min(estimate - cwnd, acked >> 1)
        self.cwnd = cwnd + grow

    def window_at(self, t: int) -> int:
        """Return W_cubic(t), octets; `t` in us from the epoch's start (RFC 9438 equation 1)."""
        return self._origin + C[0] * self.mss * (t - self._k) ** 3 // (C[1] * US3)

    def _begin_epoch(self, now: int) -> None:
        """RFC 9438 4.2 (K), 4.3 (W_est); 4.8 and 4.10 where there is no W_max to return to."""
        cwnd = self.cwnd
        self._epoch_at = now
        self._estimate = cwnd
        self._estimate_credit = self._grow_credit = 0
        if cwnd < self._w_max:
            self._k = cube_root((self._w_max - cwnd) * C[1] * US3 // (C[0] * self.mss))
            self._origin = self._w_max
        else:
            self._k = 0
            self._origin = cwnd

    def _grow_estimate(self, acked: int) -> int:  # hot
        """Advance W_est, the window that Reno would have, and return it (RFC 9438 4.3, equation 4)."""
        rise, fall = ALPHA if self._estimate < self._cwnd_prior else (1, 1)
        credit = self._estimate_credit + rise * self.mss * acked
        grow, self._estimate_credit = divmod(credit, fall * self.cwnd)
        self._estimate += grow
        return self._estimate

    def on_congestion(self, flight: int, now: int) -> None:
        self.remember()
        self._saved = (self._w_max, self._cwnd_prior, self._epoch_at, self._origin, self._k, self._estimate, now)
        cwnd = self._cwnd_prior = self.cwnd
        # RFC 9438 4.7, fast convergence: a flow that did not come back to its last maximum leaves room for the others.
        self._w_max = cwnd * (SCALE + BETA) // (2 * SCALE) if cwnd < self._w_max else cwnd
        self._epoch_at = 0
        self.ssthresh = max(cwnd * BETA // (SCALE * self.mss), 2) * self.mss

    def on_rto(self, flight: int, now: int) -> None:
        self.on_congestion(flight, now)
        self._w_max = 0  # RFC 9438 4.8: what was known of the path is not trusted any more
        self._min_rtt = NONE

    def on_spurious(self, now: int) -> None:
        if self.cwnd < self._cwnd_prior:
            super().on_spurious(now)
            self._w_max, self._cwnd_prior, self._epoch_at, self._origin, self._k, self._estimate, then = self._saved
            if self._epoch_at:
                self._epoch_at += now - then  # the window stood still meanwhile
        else:
            super().on_spurious(now)

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        super().on_idle(idle, rto, now)
        if self._epoch_at:
            self._epoch_at += now - self._last_ack_at  # RFC 9438 5.8
        self._last_ack_at = now

    def on_mss(self, mss: int) -> None:
        for name in ("_w_max", "_cwnd_prior", "_origin", "_estimate"):
            setattr(self, name, getattr(self, name) * mss // self.mss)
        super().on_mss(mss)
