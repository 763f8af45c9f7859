"""Round-trip time and retransmission timeout.

RFC 6298, with Linux's bounds: RTO = SRTT + max(4 * RTTVAR, 200 ms), at most 120 s, 1 s before the first sample.
"""

from __future__ import annotations

RTO_INITIAL = 1_000_000
RTO_FALLBACK = 3_000_000  # when data begins and the handshake gave no sample (RFC 6298 5.7)
RTO_MIN = 200_000
RTO_MAX = 120_000_000


class RttEstimator:
    """SRTT, RTTVAR and the RTO of one connection; `srtt == 0` until the first sample."""

    __slots__ = ("backoff", "latest", "min_rtt", "rto", "rttvar", "srtt")

    def __init__(self) -> None:
        self.srtt = 0  # smoothed round-trip time, us
        self.rttvar = 0  # its mean deviation, us
        self.rto = RTO_INITIAL  # without backoff, us
        self.backoff = 0  # doublings since the last valid sample (RFC 6298 5.5)
        self.min_rtt = 0  # least sample, us
        self.latest = 0  # newest sample, us

    def sample(self, rtt: int, newest: int) -> None:  # hot
        """Take one measurement (RFC 6298 2.2, 2.3), of the oldest and of the newest data acknowledged. The caller obeys Karn's rule.

        The oldest counts for the RTO, since it waited for its ACK like that; the newest tells what the path takes.
        """
        if rtt < 1:
            rtt = 1
        if newest < 1:
            newest = 1
        self.latest = newest
        if self.srtt:
            error = rtt - self.srtt
            self.srtt += error >> 3
            self.rttvar += ((error if error >= 0 else -error) - self.rttvar) >> 2
            if newest < self.min_rtt:
                self.min_rtt = newest
        else:
            self.srtt = rtt
            self.rttvar = rtt >> 1
            self.min_rtt = newest
        variance = self.rttvar << 2
        rto = self.srtt + (variance if variance > RTO_MIN else RTO_MIN)
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
