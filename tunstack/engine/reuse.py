"""connect() takes a four-tuple that is in TIME-WAIT (tcp_tw_reuse, M-55).

RFC 6191 from the other side: timestamps tell the peer that the SYN is new, and the ISN lies beyond all that was sent before.
Times are int microseconds.
"""

from __future__ import annotations

from typing import TypeGuard

from tunstack.engine.timewait import NEW_ISS_DISTANCE, TimeWait
from tunstack.seq import MASK
from tunstack.wire.flow import unpack_flow

LOOPBACK_ONLY = 2


def may_take(entry: object, is_given: bool, now: int) -> TypeGuard[TimeWait]:
    """Tell whether an owner of a four-tuple gives it up to a new connection of ours; `is_given`: the application chose the port."""
    if not isinstance(entry, TimeWait):
        return False
    was = entry.remembered
    if not was.ts_ok:  # nothing would tell the new connection's segments from the old one's
        return False
    if is_given:  # Linux: neither tcp_tw_reuse nor its delay are asked for then
        return True
    sysctl = entry.stack.sysctl
    if not sysctl.tcp_tw_reuse or (sysctl.tcp_tw_reuse == LOOPBACK_ONLY and not _is_loopback(entry.flow)):
        return False
    return now - was.entered_at > sysctl.tcp_tw_reuse_delay * 1000


def take_over(entry: TimeWait) -> int:
    """End an entry in favour of a new connection; return the ISN for that."""
    stack = entry.stack
    stack.counters.TWRecycled += 1
    stack.time_wait.remove(entry)
    return (entry.remembered.snd_nxt + NEW_ISS_DISTANCE) & MASK


def _is_loopback(flow: bytes) -> bool:
    src, _, dst, _ = unpack_flow(flow)
    return src == dst or dst[0] == 127
