"""Which congestion control a connection has: chosen when it opens, changed by TCP_CONGESTION.

tcp(7). By name, of the stack's `algorithms`: the connection's option, or the stack's tcp_congestion_control. Windows are octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.congestion import INFINITE, CongestionControl
from tunstack.engine.fastopenrequest import is_writable
from tunstack.engine.rate import DeliveryRate
from tunstack.engine.state import SYNCHRONIZED

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

# What tcp_hystart means.
HYSTART_NOBODY = 0
HYSTART_ALL = 2  # who slow-starts at all; 1, the default, leaves it to the algorithm


def start(conn: Connection, now: int) -> None:
    """Choose the algorithm; the MSS is known now. One segment is the first window if the SYN was lost twice (RFC 6928 2)."""
    tx = conn.tx
    sysctl = conn.stack.sysctl
    initial = sysctl.tcp_initial_cwnd * tx.mss
    name = conn.options.congestion or sysctl.tcp_congestion_control
    cc = _make(conn, name, tx.mss if conn.retransmits > 1 else initial)
    cc.restart_window = initial
    if sysctl.tcp_initial_ssthresh:
        cc.ssthresh = min(sysctl.tcp_initial_ssthresh * tx.mss, INFINITE)
    tx.cc = cc
    rtt = conn.rtt
    if cc.rate_based:
        tx.rate = DeliveryRate(now)
    cc.on_start(rtt.srtt, rtt.min_rtt, now)
    if conn.options.max_pacing_rate:
        tx.limit_pacing_rate(conn.options.max_pacing_rate)
    if tx.forget_burst():
        tx.size_bursts(rtt.srtt, rtt.min_rtt, sysctl)


def change(conn: Connection, name: str, now: int) -> None:
    """Go on with another algorithm, from the windows that there are; the one that runs is left alone. The name is known to be right."""
    if not (conn.state in SYNCHRONIZED or is_writable(conn)) or conn.tx.cc.name == name:
        return
    old = conn.tx.cc
    cc = _make(conn, name, old.cwnd)
    cc.ssthresh = old.ssthresh
    cc.restart_window = old.restart_window
    _take_charge(conn, cc, now)
    conn.mark_dirty()  # what was held back may go, or another amount


def limit_pacing_rate(conn: Connection) -> None:
    """SO_MAX_PACING_RATE changed."""
    if conn.state in SYNCHRONIZED or is_writable(conn):
        conn.tx.limit_pacing_rate(conn.options.max_pacing_rate or 0)
        conn.tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, conn.stack.sysctl)
        conn.mark_dirty()


def name_of(conn: Connection) -> str:
    """Return the algorithm that a connection has or, before it is open, will have."""
    cc: CongestionControl | None = getattr(conn.tx, "cc", None)
    return cc.name if cc is not None else conn.options.congestion or conn.stack.sysctl.tcp_congestion_control


def _make(conn: Connection, name: str, cwnd: int) -> CongestionControl:
    stack = conn.stack
    cc = stack.algorithms.factory(name)(conn.tx.mss, cwnd)
    knob = stack.sysctl.tcp_hystart
    if knob in (HYSTART_NOBODY, HYSTART_ALL):
        cc.use_hystart(knob == HYSTART_ALL)
    return cc


def _take_charge(conn: Connection, cc: CongestionControl, now: int) -> None:
    """Put an algorithm into service, and what it needs: delivery-rate samples, pacing."""
    tx, rtt = conn.tx, conn.rtt
    tx.cc = cc
    tx.pacer = None
    tx.rate = DeliveryRate(now) if cc.rate_based else None
    for flight in tx.board.flights:  # what they remember is another estimator's
        flight.rate = None
    cc.on_start(rtt.srtt, rtt.min_rtt, now)
    if conn.options.max_pacing_rate:
        tx.limit_pacing_rate(conn.options.max_pacing_rate)
    tx.size_bursts(rtt.srtt, rtt.min_rtt, conn.stack.sysctl)
