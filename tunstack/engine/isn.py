"""Initial sequence numbers and timestamp offsets.

RFC 6528: a clock of 4 us ticks plus a keyed hash of the four-tuple. RFC 7323 5.4: a random offset a connection for timestamps.
The key is injected: workers that share ports share it.
"""

from __future__ import annotations

from hashlib import blake2s

from tunstack.seq import MASK


class IsnGenerator:
    """Draws initial sequence numbers from a secret of at least 16 octets."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the ISN secret needs at least 16 octets")
        self._secret = secret[:32]

    def isn(self, flow: bytes, now: int) -> int:
        """Return the initial sequence number for a connection whose segments have this flow."""
        return ((self._draw(flow) >> 32) + (now >> 2)) & MASK

    def start(self, flow: bytes, now: int) -> tuple[int, int]:
        """Return what a connection begins with: its initial sequence number, and the offset of its timestamp clock."""
        drawn = self._draw(flow)
        return ((drawn >> 32) + (now >> 2)) & MASK, drawn & MASK

    def ts_offset(self, flow: bytes) -> int:
        """Return the offset of the timestamp clock: the same for every connection of a four-tuple, so that PAWS and reuse hold."""
        return self._draw(flow) & MASK

    def derive(self, purpose: bytes, size: int) -> bytes:
        """Return a key of `size` octets for another purpose (8 octets at most): the same wherever the secret is."""
        return blake2s(digest_size=size, key=self._secret, person=purpose).digest()

    def port_offset(self, ends: bytes) -> int:
        """Return where the search for a local port begins for a destination (RFC 6056 3.3.4): both addresses and the remote port."""
        return self._hash(ends, b"port")

    def _draw(self, flow: bytes) -> int:
        return int.from_bytes(blake2s(self._secret + b"connection" + flow).digest()[:8], "big")

    def _hash(self, flow: bytes, purpose: bytes) -> int:
        return int.from_bytes(blake2s(self._secret + purpose + flow).digest()[:4], "big")
