"""How many ICMP errors may be sent: to one target, and to all together.

RFC 1812 4.3.2.8, RFC 1122 3.2.2; Linux's icmp_ratelimit, icmp_msgs_per_sec and icmp_msgs_burst. Knows no clock.
Times are int microseconds.
"""

from __future__ import annotations

from tunstack.engine.counters import Counters
from tunstack.engine.sysctl import Sysctl

TARGET_BURST = 6  # errors at once to a target that had none for long (Linux's XRLIM_BURST_FACTOR)
PRUNE_LENGTH = 1024  # targets remembered before those with nothing to remember are looked for


class IcmpRateLimit:
    """Token buckets, as Linux has them: one of all errors, one a target.

    The common bucket bounds the number of targets too: one is remembered only while its own bucket fills up again, and no faster
    than errors are sent, spoofed sources or not.
    """

    def __init__(self, sysctl: Sysctl, counters: Counters) -> None:
        self._sysctl = sysctl
        self._counters = counters
        self._filled_at: dict[bytes, int] = {}  # by target: when its bucket is full again, what is stored of it; order of last error
        self._prune_length = PRUNE_LENGTH
        self._credit = sysctl.icmp_msgs_burst  # of the common bucket, errors
        self._credited_at: int | None = None  # up to when the common bucket has got its credit

    def allow(self, target: bytes, now: int) -> bool:
        """Tell whether an error may be sent to target, and count it if so."""
        if not self._has_credit(now):
            self._counters.IcmpOutRateLimitGlobal += 1
            return False
        if not self._take_from_target(target, now):
            self._counters.IcmpOutRateLimitHost += 1
            return False
        self._credit -= 1
        return True

    def _has_credit(self, now: int) -> bool:
        sysctl = self._sysctl
        if self._credited_at is None:
            self._credited_at = now
        earned = (now - self._credited_at) * sysctl.icmp_msgs_per_sec // 1_000_000
        if earned:
            self._credit = min(self._credit + earned, sysctl.icmp_msgs_burst)
            self._credited_at += earned * 1_000_000 // sysctl.icmp_msgs_per_sec
        return self._credit > 0

    def _take_from_target(self, target: bytes, now: int) -> bool:
        interval = self._sysctl.icmp_ratelimit * 1000
        if not interval:
            return True
        filled_at = max(self._filled_at.pop(target, now), now) + interval
        allowed = filled_at <= now + TARGET_BURST * interval
        self._filled_at[target] = filled_at if allowed else filled_at - interval
        if len(self._filled_at) > self._prune_length:
            self._filled_at = {t: at for t, at in self._filled_at.items() if at > now}
            self._prune_length = max(PRUNE_LENGTH, 2 * len(self._filled_at))
        return allowed
