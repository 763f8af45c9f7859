"""Round-trip time and retransmission timeout.

RFC 6298, with Linux's bounds: RTO = SRTT + max(4 * RTTVAR, 200 ms), at most 120 s, 1 s before the first sample. There is a sample with
every ACK, many a round trip, and by RFC 6298's weights alone RTTVAR would forget within one round trip (RFC 7323 appendix G). As in
Linux it is the largest deviation of a round trip that counts, RTTVAR follows it down by a quarter a round trip, and a fall of the
round-trip time adds little to it.
"""

from __future__ import annotations

from tunstack.seq import HALF, MASK

RTO_INITIAL = 1_000_000
RTO_FALLBACK = 3_000_000  # when data begins and the handshake gave no sample (RFC 6298 5.7)
RTO_MIN = 200_000
RTO_MAX = 120_000_000
RTTVAR_MIN = RTO_MIN >> 2
HALF_SECOND = 500_000
MIN_WINDOW = 300  # s, tcp_min_rtt_wlen's default


class RttEstimator:
    """SRTT, RTTVAR and the RTO of one connection; `srtt == 0` until the first sample."""

    __slots__ = (
        "_largest",
        "_min_until",
        "_min_window",
        "_recent_min",
        "_round_end",
        "backoff",
        "deviation",
        "latest",
        "min_rtt",
        "rto",
        "rttvar",
        "srtt",
    )

    def __init__(self, min_window: int = MIN_WINDOW) -> None:
        """`min_window` is in s, as tcp_min_rtt_wlen."""
        self.srtt = 0  # smoothed round-trip time, us
        self.rttvar = 0  # its deviation as the RTO has it, us
        self.deviation = 0  # its mean deviation, smoothed sample by sample, us (what TCP_INFO calls rttvar)
        self._largest = 0  # the most that this was in this round trip, or the least that counts
        self._round_end = 0  # snd_nxt when the round trip began
        self.rto = RTO_INITIAL  # without backoff, us
        self.backoff = 0  # doublings since the last valid sample (RFC 6298 5.5)
        self.min_rtt = 0  # least sample of the last `min_window` s or, at the least, of their second half
        self._min_window = min_window
        self._recent_min = 0  # least sample of the present half
        self._min_until = 0  # when it ends
        self.latest = 0  # newest sample, us

    def sample(self, rtt: int, newest: int, snd_una: int, snd_nxt: int, now: int) -> None:  # hot
        """Take one measurement (RFC 6298 2.2, 2.3), of the oldest and of the newest data acknowledged, at least 1 each.

        The caller obeys Karn's rule. The oldest counts for the RTO, since it waited for its ACK like that; the newest tells what the
        path takes.
        """
        self.latest = newest
        if self.srtt:
            error = rtt - self.srtt
            self.srtt += error >> 3
            deviation = self.deviation
            if error < 0:
                error = -error - deviation
                self.deviation = deviation = deviation + (error >> 5 if error > 0 else error >> 2)
            else:
                self.deviation = deviation = deviation + ((error - deviation) >> 2)
            if deviation > self._largest:
                self._largest = deviation
                if deviation > self.rttvar:
                    self.rttvar = deviation
            if (self._round_end - snd_una) & MASK >= HALF:  # seq_gt(snd_una, _round_end)
                if self._largest < self.rttvar:
                    self.rttvar -= (self.rttvar - self._largest) >> 2
                self._round_end = snd_nxt
                self._largest = RTTVAR_MIN
                if now >= self._min_until:  # the path may have become longer: what is older than both halves is forgotten
                    self.min_rtt, self._recent_min = self._recent_min, newest
                    self._min_until = now + (self._min_window * HALF_SECOND)
            if newest < self._recent_min:
                self._recent_min = newest
                if newest < self.min_rtt:
                    self.min_rtt = newest
        else:
            self.srtt = rtt
            self.deviation = rtt >> 1
            self.rttvar = self._largest = max(self.deviation, RTTVAR_MIN)
            self._round_end = snd_nxt
            self.min_rtt = self._recent_min = newest
            self._min_until = now + (self._min_window * HALF_SECOND)
        rto = self.srtt + (self.rttvar << 2)
        self.rto = rto if rto < RTO_MAX else RTO_MAX
        self.backoff = 0

    @property
    def backed_off(self) -> int:
        """The timeout to arm now: RTO doubled `backoff` times, at most 120 s."""
        return min(self.rto << self.backoff, RTO_MAX)


def retries_timeout(retries: int, base: int = RTO_MIN) -> int:
    """Return the time after which a connection that needs `retries` retransmissions is given up, us.

    Linux turns the counts tcp_retries1 and tcp_retries2 into the time that as many doublings from the least RTO would
    take, so that the outcome does not depend on the round-trip time.
    """
    linear_from = (RTO_MAX // base).bit_length() - 1
    if retries <= linear_from:
        return ((2 << retries) - 1) * base
    return ((2 << linear_from) - 1) * base + (retries - linear_from) * RTO_MAX
