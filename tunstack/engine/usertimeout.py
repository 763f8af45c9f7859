"""The user timeout: how long something may stay unacknowledged before the connection is given up.

RFC 9293 3.8.3, RFC 5482. TCP_USER_TIMEOUT acts where Linux's does: on SYNs (from the first), on data and FIN (from the first
retransmission), on a closed window (from its first probe, answered or not) and with keepalive (from when the peer was last heard); the
timers are drawn in so that they expire with it. The UTO option tells the peer of ours, and its own is taken over within limits, where the
application has asked for that and has set no timeout itself. Times are int microseconds; the option's seconds or minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.rtt import retries_timeout
from tunstack.wire.buffer import Buffer
from tunstack.wire.tcp import END, MAX_OPTIONS, NOP

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.options import SocketOptions
    from tunstack.engine.sysctl import Sysctl
    from tunstack.wire.segment import Segment

KIND = 28
LENGTH = 4  # octets
MINUTES = 0x8000  # granularity
VALUE_MAX = 0x7FFF
SECOND = 1_000_000
LEAST = 1000  # a timer that is overdue fires so soon


def timeout_of(conn: Connection) -> int:
    """Return the user timeout in force, 0: the retries decide."""
    return conn.options.user_timeout * 1000 or conn.adopted_timeout


def is_over(conn: Connection, since: int, now: int) -> bool:
    """Whether there is a user timeout, and it has passed."""
    timeout = timeout_of(conn)
    return timeout > 0 and now - since >= timeout


def clamp(conn: Connection, delay: int, since: int, now: int) -> int:
    """Return `delay`, or less so that a timer expires with the user timeout that counts from `since` (0: does not count yet)."""
    timeout = timeout_of(conn)
    if not timeout or not since:
        return delay
    return min(delay, max(since + timeout - now, LEAST))


# The option.


def is_enabled(options: SocketOptions, sysctl: Sysctl) -> bool:
    """Whether UTO options are sent and taken (ENABLED in RFC 5482 3.1)."""
    return bool(options.user_timeout_advertise) or sysctl.tcp_user_timeout_option


def advertised(options: SocketOptions, sysctl: Sysctl) -> int:
    """Return ADV_UTO: as the application says it, else its own user timeout, else what the retries come to; s."""
    return options.user_timeout_advertise or -(-options.user_timeout // 1000) or retries_timeout(sysctl.tcp_retries2) // SECOND


def encode(seconds: int) -> bytes:
    """Return the option: in seconds where they fit, else in minutes, rounded up (RFC 5482 3.3)."""
    value = seconds if seconds <= VALUE_MAX else MINUTES | min(-(-seconds // 60), VALUE_MAX)
    return bytes((KIND, LENGTH, value >> 8, value & 0xFF))


def option_for(options: SocketOptions, sysctl: Sysctl) -> bytes:
    """Return the option for a SYN, SYN-ACK or whatever leaves next, empty if there is none to send."""
    return encode(advertised(options, sysctl)) if is_enabled(options, sysctl) else b""


def decode(options: Buffer) -> int:
    """Return the seconds that the UTO option among all option octets of a segment says, 0 if there is none that says anything."""
    i = 0
    while i < len(options) and options[i] != END:
        if options[i] == NOP:
            i += 1
            continue
        length = options[i + 1] if i + 1 < len(options) else 0
        if length < 2 or i + length > len(options):
            break
        if options[i] == KIND and length == LENGTH:
            value = options[i + 2] << 8 | options[i + 3]
            return (value & VALUE_MAX) * (60 if value & MINUTES else 1)  # 0 is reserved, and ignored (RFC 5482 3.4)
        i += length
    return 0


def take(conn: Connection, remote: int) -> None:
    """Take over what the peer's option says (s), within our limits (RFC 5482 3.1)."""
    sysctl = conn.stack.sysctl
    if not remote or conn.options.user_timeout or not is_enabled(conn.options, sysctl):  # not CHANGEABLE, or not ENABLED
        return
    seconds = max(advertised(conn.options, sysctl), remote, sysctl.tcp_user_timeout_min)
    conn.adopted_timeout = min(sysctl.tcp_user_timeout_max, seconds) * SECOND


def attach(conn: Connection, seg: Segment) -> None:
    """Put the option into a segment that leaves, if it has room for it. It is advice: it comes again only when data has to."""
    sack = 4 + 8 * len(seg.sack) if seg.sack else 0
    room = MAX_OPTIONS - (conn.agreed.option_octets if conn.agreed is not None else 0) - sack
    if room >= LENGTH and seg.length + sack + LENGTH <= conn.tx.mss:
        seg.options = option_for(conn.options, conn.stack.sysctl)
        conn.uto_due = False
