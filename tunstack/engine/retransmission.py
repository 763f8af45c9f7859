"""The retransmission timer: when it is set and to what.

RFC 6298 5, RFC 8985 6.2 step 5 and 7.2. One deadline serves three ends, as in Linux: the RTO, the tail loss probe, and RACK's
reordering window; `recovery.timer` says which. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import usertimeout
from tunstack.engine.phase import CWR, PROBE, RECOVERY, REORDER, TIMEOUT
from tunstack.engine.rtt import RTO_INITIAL, RTO_MIN
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.sysctl import Sysctl

RENEGING_MIN = 10_000  # how long at least a peer that took its SACKs back is waited for
# Added to what follows the round trip, since clocks and schedulers have a grain. Linux adds two ticks and rounds up to the next:
# 8 to 12 ms at 250 ticks a second, and the public scripts that time the reordering window expect that.
PROBE_SLACK = 2_000
REORDER_SLACK = 12_000


def set_timer(conn: Connection, progress: bool, now: int) -> None:  # hot
    """Set the timer after an ACK, or after new data left. `progress`: something new was acknowledged (RFC 6298 5.3)."""
    tx = conn.tx
    recovery = conn.recovery
    if tx.snd_una == tx.snd_nxt:
        conn.rto_at = NEVER  # RFC 6298 5.2
        recovery.timer = TIMEOUT
        return
    rtt = conn.rtt
    if recovery.is_quiet or recovery.phase == CWR:
        rto = rtt.backed_off if rtt.backoff else rtt.rto
        if conn.can_probe and recovery.probe_end is None and (progress or recovery.timer == PROBE or conn.rto_at == NEVER):
            # The PTO (RFC 8985 7.2): two round trips, and for a lone segment the time that its ACK may be delayed.
            flights = tx.board.flights
            if not rtt.srtt:
                at = now + RTO_INITIAL
            elif len(flights) == 1 and (tx.snd_nxt - tx.snd_una) & MASK <= tx.mss_now:
                at = now + 2 * rtt.srtt + RTO_MIN
            else:
                at = now + 2 * rtt.srtt + PROBE_SLACK
            latest = (now if progress else flights[0].sent_at) + rto
            if at >= latest:
                at = latest if latest > now else now + 1
            recovery.timer = PROBE
            conn.rto_at = at
        elif progress or conn.rto_at == NEVER:
            recovery.timer = TIMEOUT
            conn.rto_at = at = now + rto
        else:
            return
    else:
        at = unquiet_deadline(conn, progress, now)
    if at < conn.heap_at:
        conn.arm(at)


def unquiet_deadline(conn: Connection, progress: bool, now: int) -> int:
    """Set the timer while losses are suspected or repaired."""
    recovery = conn.recovery
    rtt = conn.rtt
    board = conn.tx.board
    if board.is_reneged:
        recovery.timer = TIMEOUT
        conn.rto_at = now + max(rtt.srtt >> 1, RENEGING_MIN)
    elif recovery.look_at:
        recovery.timer = REORDER
        conn.rto_at = max(recovery.look_at, now) + REORDER_SLACK
    elif recovery.timer == REORDER or (recovery.timer == PROBE and (progress or recovery.phase >= RECOVERY)):
        # What the timer was for put the RTO off: it counts from when the oldest data left, whatever was acknowledged since (Linux).
        head = board.flights[0]
        recovery.timer = TIMEOUT
        conn.rto_at = max((now if head.is_waiting else head.sent_at) + rtt.backed_off, now + 1)
    elif progress or conn.rto_at == NEVER:
        recovery.timer = TIMEOUT
        conn.rto_at = now + rtt.backed_off
    return conn.rto_at


def restart_timer(conn: Connection, now: int) -> None:
    """A retransmission or a probe left: the RTO counts from now (RFC 6298 5.1, RFC 8985 7.3)."""
    conn.recovery.timer = TIMEOUT
    conn.rto_at = now + usertimeout.clamp(conn, conn.rtt.backed_off, conn.retrans_at, now)
    conn.arm(conn.rto_at)


def may_probe(conn: Connection) -> bool:
    """Whether tail loss probes are for this connection: its peer must send SACK (RFC 8985 7)."""
    return uses_probes(conn.may_sack, conn.stack.sysctl)


def uses_probes(sack_ok: bool, sysctl: Sysctl) -> bool:
    """The same of a peer that sends SACK, or does not."""
    return sack_ok and sysctl.tcp_early_retrans in (3, 4)
