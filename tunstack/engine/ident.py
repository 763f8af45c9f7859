"""The identification of IPv4 packets that may be fragmented: what is not TCP.

RFC 6864, RFC 7739 5.3 (written for IPv6), with Linux's ways: a counter for each of some buckets of (source, destination, protocol), which
advances by one a packet and by a random amount for the time that has passed, so that nobody can count what is sent to others (idle scans)
and a number does not come again soon. TCP segments carry DF and no number. Times are int microseconds.
"""

from __future__ import annotations

from array import array
from hashlib import blake2s

from tunstack.engine.config import Random

BUCKETS = 2048
TICK = 4_000  # us that may add one to the step: Linux's jiffy at 250 a second


class IdentSource:
    """Draws identifications. The key is drawn with the first of them."""

    __slots__ = ("_counters", "_key", "_random", "_used_at")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._key = b""
        self._counters = array("H")  # by bucket
        self._used_at = array("Q")  # by bucket: when it was used, ticks

    def next(self, src: bytes, dst: bytes, protocol: int, now: int) -> int:
        """Return the identification of a packet."""
        if not self._key:
            self._key = self._random.getrandbits(128).to_bytes(16, "big")
            self._counters = array("H", bytes(2 * BUCKETS))
            self._used_at = array("Q", bytes(8 * BUCKETS))
        digest = int.from_bytes(blake2s(src + dst + bytes((protocol,)), digest_size=4, key=self._key).digest(), "big")
        bucket = digest % BUCKETS
        ticks = now // TICK
        passed = min(ticks - self._used_at[bucket], 0xFFFF)
        self._used_at[bucket] = ticks
        step = 1 + (self._random.randrange(0, passed) if passed > 0 else 0)
        self._counters[bucket] = (self._counters[bucket] + step) & 0xFFFF
        return (self._counters[bucket] + (digest >> 16)) & 0xFFFF
