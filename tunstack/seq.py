"""Arithmetic modulo 2^32 on sequence numbers.

RFC 9293 3.4. A comparison is meaningful for numbers less than 2^31 apart.
Timestamps (RFC 7323 5.2) are compared in the same way.
"""

from __future__ import annotations

MASK = 0xFFFFFFFF
HALF = 0x80000000


def seq_add(a: int, n: int) -> int:
    """Return the sequence number n octets after a (n may be negative)."""
    return (a + n) & MASK


def seq_sub(a: int, b: int) -> int:
    """Return the signed distance from b to a, in [-2^31, 2^31)."""
    return ((a - b + HALF) & MASK) - HALF


def seq_lt(a: int, b: int) -> bool:
    """Tell whether a comes before b."""
    return ((a - b) & MASK) >= HALF


def seq_le(a: int, b: int) -> bool:
    """Tell whether a comes before b or is equal to it."""
    return ((b - a) & MASK) < HALF


def seq_gt(a: int, b: int) -> bool:
    """Tell whether a comes after b."""
    return ((b - a) & MASK) >= HALF


def seq_ge(a: int, b: int) -> bool:
    """Tell whether a comes after b or is equal to it."""
    return ((a - b) & MASK) < HALF


def seq_max(a: int, b: int) -> int:
    """Return the later of two sequence numbers."""
    return a if ((a - b) & MASK) < HALF else b


def seq_between(low: int, x: int, high: int) -> bool:
    """Tell whether low <= x < high going forward from low (the window test)."""
    return ((x - low) & MASK) < ((high - low) & MASK)
