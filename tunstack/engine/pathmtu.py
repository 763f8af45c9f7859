"""Path MTUs by destination: what ICMP "fragmentation needed" taught.

RFC 1191. Bounds and lifetime are Linux's (min_pmtu, mtu_expires).
"""

from __future__ import annotations

from tunstack.wire.flow import unpack_flow

MIN_PMTU = 552
EXPIRES = 600_000_000  # us
ENTRIES_MAX = 4096


class PathMtu:
    """The MTU to each destination where it is less than the device's."""

    __slots__ = ("_learned", "mtu")

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu  # of the device
        self._learned: dict[bytes, tuple[int, int]] = {}  # destination -> (mtu, when it is forgotten)

    def get(self, flow: bytes) -> int:
        """Return the MTU for segments with this flow."""
        learned = self._learned.get(unpack_flow(flow)[2]) if self._learned else None
        return learned[0] if learned is not None else self.mtu

    def lower(self, flow: bytes, mtu: int, now: int) -> int:
        """Learn a smaller MTU (0: the router did not say) and return what holds from now on."""
        self.expire(now)
        current = self.get(flow)
        if mtu == 0:
            mtu = MIN_PMTU
        mtu = min(max(mtu, min(MIN_PMTU, self.mtu)), current)
        if mtu < current and len(self._learned) < ENTRIES_MAX:
            self._learned[unpack_flow(flow)[2]] = (mtu, now + EXPIRES)
        return mtu

    def expire(self, now: int) -> None:
        """Forget what is old."""
        for address in [address for address, (_, until) in self._learned.items() if until <= now]:
            del self._learned[address]
