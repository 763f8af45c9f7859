"""Proportional rate reduction: how the congestion window falls to ssthresh at the pace of the ACKs.

RFC 6937, with the slow-start bound only where ACKs show progress (RFC 9937). Lengths octets.
"""

from __future__ import annotations


class RateReduction:
    """The variables of one reduction. `window` is for each ACK, `out` for what is sent."""

    __slots__ = ("delivered", "out", "prior_cwnd")

    def __init__(self, cwnd: int) -> None:
        self.prior_cwnd = cwnd  # RecoverFS: window when the reduction began
        self.delivered = 0  # prr_delivered: octets delivered since
        self.out = 0  # prr_out: octets sent since

    def window(self, pipe: int, ssthresh: int, delivered: int, mss: int, makes_progress: bool) -> int:
        """Return cwnd after an ACK that delivered octets; `makes_progress`: SND.UNA moved and nothing more was lost."""
        self.delivered += delivered
        if pipe > ssthresh:
            # Whole segments, rounded up, of the reduction's share.
            quota = -(-ssthresh * self.delivered // (self.prior_cwnd * mss)) * mss - self.out
        else:
            quota = max(self.delivered - self.out, delivered)
            if makes_progress:
                quota += mss
            quota = min(quota, ssthresh - pipe)
        return max(pipe + max(quota, 0 if self.out else mss), mss)
