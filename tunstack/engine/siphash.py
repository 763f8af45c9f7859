"""SipHash-2-4 (Aumasson and Bernstein, 2012): the keyed hash that Fast Open cookies are made with, as Linux makes them.

A server behind the same address as a Linux one, and with its key, gives the same cookies: clients may be moved between the two.
"""

from __future__ import annotations

import struct

MASK64 = (1 << 64) - 1
WORDS = struct.Struct("<QQ")
WORD = struct.Struct("<Q")
# The initial state: the words of "somepseudorandomlygeneratedbytes".
INITIAL = struct.unpack(">4Q", b"somepseudorandomlygeneratedbytes")


def siphash(key: bytes, data: bytes) -> bytes:
    """Return the eight octets of the hash under a key of sixteen octets, the lowest first."""
    k0, k1 = WORDS.unpack(key)
    v0, v1, v2, v3 = INITIAL[0] ^ k0, INITIAL[1] ^ k1, INITIAL[2] ^ k0, INITIAL[3] ^ k1
    whole = len(data) & ~7
    words = [word for (word,) in WORD.iter_unpack(data[:whole])]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v0, v1, v2, v3 = _rounds(2, v0, v1, v2, v3 ^ word)
        v0 ^= word
    v0, v1, v2, v3 = _rounds(4, v0, v1, v2 ^ 0xFF, v3)
    return WORD.pack(v0 ^ v1 ^ v2 ^ v3)


def _rounds(count: int, v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = (v0 + v1) & MASK64
        v1 = _rotate(v1, 13) ^ v0
        v2 = (v2 + v3) & MASK64
        v3 = _rotate(v3, 16) ^ v2
        v2 = (v2 + v1) & MASK64
        v1 = _rotate(v1, 17) ^ v2
        v0 = _rotate(v0, 32)
        v0 = (v0 + v3) & MASK64
        v3 = _rotate(v3, 21) ^ v0
        v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & MASK64
