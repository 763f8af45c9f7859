"""Tahoe: Reno before fast recovery. Every loss, however it was found, is answered with a window of one segment and slow start.

Jacobson, "Congestion Avoidance and Control", 1988; RFC 5681 3.1.
"""

from __future__ import annotations

from tunstack.congestion.reno import Reno


class Tahoe(Reno):
    """Reno's growth without fast recovery."""

    __slots__ = ()

    name = "tahoe"
    fast_recovery = False
