"""The opening that most scripts begin with."""

from __future__ import annotations


def opening(window: int, mss: int = 1000) -> str:
    """Return the script of a passive open, accepted after 10 ms; the peer's window (octets) is not scaled, its MSS the only option."""
    return f"""
    0    listen 8080
    +0   < S 0:0(0) win {window} <mss {mss}>
    +0   > S. 0:0(0) ack 1
    +.01 < . 1:1(0) ack 1 win {window}
    +0   accept
"""


OPEN = opening(30_000)
