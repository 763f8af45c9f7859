"""The Internet checksum in plain Python: reference and stand-in of native/checksum.c.

RFC 1071. A sum modulo 2^16 - 1 is a remainder, and Python divides long integers at a few nanoseconds a digit.
"""

from __future__ import annotations

from tunstack.wire.buffer import Buffer


def fold(total: int) -> int:
    """Return the ones' complement sum that a plain sum of 16-bit words stands for.

    Only a sum of nothing but zeros is 0; every other multiple of 65535 is 0xFFFF, as end-around carry gives it.
    """
    return total % 0xFFFF or (0xFFFF if total else 0)


def word_sum(data: Buffer) -> int:
    """Return a number congruent to the sum of the big-endian 16-bit words of data, the last one padded with zeros; 0 only for zeros."""
    view = memoryview(data)
    total = int.from_bytes(view, "big")
    return total << 8 if view.nbytes & 1 else total


def checksum(data: Buffer, initial: int = 0) -> int:
    """Return the checksum for a header: the complement of the sum of `initial` (>= 0) and of data's words.

    Over data that holds its own valid checksum the result is 0.
    """
    return fold(word_sum(data) + initial) ^ 0xFFFF
