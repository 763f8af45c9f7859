"""What a change of the path's MTU does to a connection: RFC 1191 6.5, RFC 4821 7.5. Lengths octets, times int microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.fastopenrequest import is_writable
from tunstack.engine.handshake import local_mss
from tunstack.engine.state import SYN_SENT, SYNCHRONIZED

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


def on_smaller_path(conn: Connection, mtu: int, now: int) -> None:
    """A router says what the path takes: smaller segments from now on, and again what did not pass (RFC 1191 6.5)."""
    before = conn.mtu
    mss = conn.tx.mss
    conn.stack.path_mtu.lower(conn.flow, mtu, now)  # comes to set_mtu
    if conn.mtu < before and conn.state in SYNCHRONIZED:
        conn.recovery.on_path_mss(conn.tx.mss < mss)
        conn.mark_dirty()
    elif conn.mtu < before and conn.state is SYN_SENT and conn.tx.outstanding > 1:  # a SYN with data was too large: again without
        conn.syn_due = True
        conn.mark_dirty()


def set_mtu(conn: Connection, mtu: int) -> None:
    """The path takes packets of `mtu` octets."""
    conn.mtu = mtu
    if conn.mtu_probe is not None:
        conn.mtu_probe.high = min(conn.mtu_probe.high, mtu)
    sync_mss(conn)


def sync_mss(conn: Connection) -> None:
    """Compute the MSS anew: the path, or what is known to pass of it, changed."""
    tx = conn.tx
    sysctl = conn.stack.sysctl
    mtu = conn.mtu if conn.mtu_probe is None else min(conn.mtu, conn.mtu_probe.low)
    tx.path_mss = local_mss(mtu, conn.options)
    if conn.agreed is not None:
        tx.set_mss(conn.agreed.option_octets, conn.options.maxseg, sysctl.tcp_min_snd_mss)
    if (conn.state in SYNCHRONIZED or is_writable(conn)) and tx.mss != tx.cc.mss:
        tx.cc.on_mss(tx.mss)
        tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, sysctl)
