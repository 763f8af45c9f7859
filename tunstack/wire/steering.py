"""Which worker a flow belongs to, where several share the addresses of one interface.

A keyed hash of the flow as it comes in (flow.py), scaled to the number of workers: multilinear hashing, the upper half of
k0 + k1 x1 + k2 x2 + k3 x3 modulo 2^64 over the flow's words of 32 bits. Whoever has not the keys can make no flows that all fall to one
worker, and the kernel can compute it too (device/steeringprogram.py). No state.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

WORDS = 3  # of an IPv4 flow: both addresses, the two ports
KEYS = 1 + WORDS
KEY_BITS = 64

_MASK = (1 << KEY_BITS) - 1
_FLOW = Struct("!III")


class Steering:
    """The rule that all workers of an interface share."""

    __slots__ = ("_k0", "_k1", "_k2", "_k3", "count", "keys")

    def __init__(self, keys: Sequence[int], count: int) -> None:
        """Take KEYS random numbers of KEY_BITS bits, and how many workers there are."""
        if count < 1:
            raise ValueError(f"there is at least one worker: {count}")
        self.keys = tuple(keys)
        self.count = count
        self._k0, self._k1, self._k2, self._k3 = self.keys

    def owner(self, flow: bytes) -> int:
        """Return the worker (0 to count - 1) that has the connection whose incoming segments have this flow."""
        x1, x2, x3 = _FLOW.unpack(flow)
        digest: int = (self._k0 + self._k1 * x1 + self._k2 * x2 + self._k3 * x3 & _MASK) >> 32
        return digest * self.count >> 32
