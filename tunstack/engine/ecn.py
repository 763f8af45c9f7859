"""Explicit Congestion Notification: who asks for it, what is marked, what is echoed.

RFC 3168 6.1, with Linux's choices: `tcp_ecn` 0 never, 1 ask and agree, 2 agree only; `tcp_ecn_fallback`. What the sender does about an
echo is recovery.py's matter. A peer that offers Accurate ECN (RFC 9768 3.1.3) is answered with the ECN that there is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.ackpolicy import enter_quickack
from tunstack.wire.segment import ACK, AE, CWR, ECE

if TYPE_CHECKING:
    from tunstack.engine.counters import Counters
    from tunstack.engine.receiver import Receiver
    from tunstack.engine.sysctl import Sysctl
    from tunstack.wire.segment import Segment

MASK = 3  # of the TOS octet; the other bits are the DSCP
NOT_ECT = 0
ECT_1 = 1
ECT_0 = 2  # what we send
CE = 3
SETUP = ECE | CWR  # of a SYN that asks
QUICKACKS = 2  # segments that are acknowledged at once after a mark: the peer's window may be very small


def agrees_to_syn(syn: Segment, sysctl: Sysctl) -> bool:
    """Tell whether a peer that asked by its SYN gets its way (RFC 3168 6.1.1).

    A SYN that is itself ECT was tampered with, or is not by RFC 3168, as Linux sees it; one with AE offers Accurate ECN.
    """
    if syn.flags & SETUP != SETUP or not sysctl.tcp_ecn:
        return False
    return not syn.tos & MASK or bool(syn.flags & AE)


def is_agreed(answer: Segment) -> bool:
    """Tell whether the peer agreed to what our SYN asked: ECE alone in its SYN-ACK, both flags in its own SYN (simultaneous open).

    Both in a SYN-ACK are an echo by a peer that does not know them (RFC 3168 6.1.1.1).
    """
    return answer.flags & SETUP == (ECE if answer.flags & ACK else SETUP)


def data_came(rx: Receiver, mark: int) -> None:
    """Data with this codepoint was taken in, on a connection that agreed on ECN (RFC 3168 6.1.3): echo CE until the peer says CWR."""
    if mark == CE:
        if not rx.ece:
            rx.ece = ECE
            enter_quickack(rx, QUICKACKS)
            rx.acks_due = max(rx.acks_due, 1)
        rx.ecn_seen = True
    elif mark:
        rx.ecn_seen = True
    elif rx.ecn_seen:  # data that is not ECT after data that was: sent again, most likely, so something was lost
        enter_quickack(rx, QUICKACKS)
        rx.acks_due = max(rx.acks_due, 1)


def count_mark(counters: Counters, tos: int, packets: int) -> int:
    """Count packets by their ECN codepoint; return how many were not plain."""
    mark = tos & MASK
    if mark == ECT_0:
        counters.IpExtInECT0Pkts += packets
    elif mark == ECT_1:
        counters.IpExtInECT1Pkts += packets
    elif mark == CE:
        counters.IpExtInCEPkts += packets
    else:
        counters.IpExtInNoECTPkts += packets
    return packets
