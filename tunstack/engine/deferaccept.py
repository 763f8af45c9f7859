"""TCP_DEFER_ACCEPT: a connection is accepted when its first data is there, not with the bare third segment (M-27).

tcp(7). As Linux has it the option's seconds become a number of SYN-ACK retransmissions, up to which a bare ACK is ignored; the SYN-ACK
is not sent again meanwhile, but for the last time, which draws another ACK. That one, or data, makes the connection.
"""

from __future__ import annotations

from tunstack.engine.rtt import RTO_INITIAL, RTO_MAX

SECOND = 1_000_000
RETRIES_MAX = 255


def retries(seconds: int) -> int:
    """Return the retransmissions of a SYN-ACK that take as long as this, rounded up; 0: nothing is deferred."""
    if seconds <= 0:
        return 0
    count = 1
    timeout = end = RTO_INITIAL
    while end < seconds * SECOND and count < RETRIES_MAX:
        timeout = min(2 * timeout, RTO_MAX)
        end += timeout
        count += 1
    return count


def rounded(seconds: int) -> int:
    """Return the seconds that the option's value comes to, which getsockopt(2) tells."""
    timeout = RTO_INITIAL
    end = 0
    for _ in range(retries(seconds)):
        end += timeout
        timeout = min(2 * timeout, RTO_MAX)
    return end // SECOND
