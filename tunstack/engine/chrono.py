"""What a sender spends its time with: busy, held up by the peer's window, or by its own buffer (tcpi_busy_time and its parts).

Kept by the connection's polling, which knows why nothing leaves. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunstack.engine.sender import Sender

IDLE = 0  # nothing to send, nothing in flight
BUSY = 1
RWND = 2  # the peer's window holds it up
SNDBUF = 3  # our send buffer does


def switch(tx: Sender, kind: int, now: int) -> None:
    """Account for the time until now, and go on with another kind."""
    if tx.chrono:
        tx.busy_time += now - tx.chrono_at
        if tx.chrono == RWND:
            tx.rwnd_time += now - tx.chrono_at
        elif tx.chrono == SNDBUF:
            tx.sndbuf_time += now - tx.chrono_at
    tx.chrono = kind
    tx.chrono_at = now


def held_up(tx: Sender, now: int) -> None:
    """There is data that does not leave."""
    outstanding = tx.outstanding
    least = min(tx.unsent, tx.mss_now)
    if tx.cc.cwnd - tx.pipe < least:
        kind = BUSY  # the network holds it up
    elif tx.snd_wnd - outstanding < least:
        kind = RWND
    elif tx.sndbuf - outstanding < least:
        kind = SNDBUF
    else:
        kind = BUSY  # waits for more, or for the application to uncork
    if kind != tx.chrono:
        switch(tx, kind, now)


def times(tx: Sender, now: int) -> tuple[int, int, int]:
    """Return (busy, thereof held up by the window, by the buffer)."""
    spent = now - tx.chrono_at if tx.chrono else 0
    return (
        tx.busy_time + spent,
        tx.rwnd_time + (spent if tx.chrono == RWND else 0),
        tx.sndbuf_time + (spent if tx.chrono == SNDBUF else 0),
    )
