"""Memory of all connections together: what their queues hold, in pages, and what happens when it grows scarce (tcp_mem).

Counted are the octets that were written and are not acknowledged, and those received that wait for the application or for a hole to
be filled. A connection is looked at when it has sent what was due (`Stack.poll_transmit`): whatever changes its queues brings that
about, and it is once a flush, not once a segment. In between the sum lags by what one batch brings.
Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import receivewindow

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.counters import Counters
    from tunstack.engine.sysctl import Sysctl

PAGE_SHIFT = 12  # pages of 4096 octets, the unit of tcp_mem


class Memory:
    """The sum, and the thresholds of tcp_mem: below the first all is well, above the second there is pressure, above the third no more
    is taken.
    """

    __slots__ = ("_counters", "_pressed_at", "_sysctl", "is_behind", "is_exhausted", "is_pressed", "pages")

    def __init__(self, sysctl: Sysctl, counters: Counters) -> None:
        self._sysctl = sysctl
        self._counters = counters
        self._pressed_at = 0
        self.pages = 0  # of all connections
        self.is_pressed = False  # from above tcp_mem[1] until at tcp_mem[0]
        self.is_exhausted = False  # above tcp_mem[2]
        self.is_behind = False  # more comes than we take: it waits, outside of our sum, in the device's queue (the driver's to tell)

    def settle(self, conn: Connection, pages: int, now: int) -> None:
        """A connection holds so many pages now. Under pressure its window narrows."""
        if conn.is_over:
            pages = 0
        self.pages += pages - conn.pages
        conn.pages = pages
        self._judge(now)
        if self.is_pressed and conn.rx is not None:
            receivewindow.narrow(conn.rx)

    def release(self, conn: Connection) -> None:
        """A connection is over. The pressure is judged with the next that is looked at."""
        self.pages -= conn.pages
        conn.pages = 0
        self.is_exhausted = self.pages > self._sysctl.tcp_mem[2]

    def _judge(self, now: int) -> None:
        low, pressure, high = self._sysctl.tcp_mem
        pages = self.pages
        self.is_exhausted = pages > high
        if self.is_pressed:
            if pages <= low:
                self.is_pressed = False
                self._counters.TCPMemoryPressuresChrono += (now - self._pressed_at) // 1000
        elif pages > pressure:
            self.is_pressed = True
            self._pressed_at = now
            self._counters.TCPMemoryPressures += 1
