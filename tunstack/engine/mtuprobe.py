"""Path MTU discovery without ICMP: out of a black hole, and upward again by probes.

RFC 4821, with Linux's knobs and steps (net.ipv4.tcp_mtu_probing, off by default). Where retransmissions of data fail for long, segments
become small; after that a segment larger than the MSS leaves now and then, in the middle of others, so that its loss is noticed at once:
halfway between what is known to pass and what is known not to, or supposed. It is new data, its loss is repaired without a smaller
congestion window. Times are int microseconds, lengths octets; `low`, `high` and `size` are of IPv4 packets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import output
from tunstack.engine.config import IPV4_HEADER, TCP_HEADER
from tunstack.engine.pathmss import sync_mss
from tunstack.engine.phase import OPEN
from tunstack.seq import seq_ge
from tunstack.wire.segment import PSH, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection

HEADERS = IPV4_HEADER + TCP_HEADER
CWND_MIN = 11  # segments: below, a probe might cost more than the window has (Linux)
SECOND = 1_000_000


class MtuProbe:
    """One connection's search. Invariant: packets of `low` octets pass, or are the least that is tried; none above `high` does."""

    __slots__ = ("began_at", "end", "high", "low", "seq", "size")

    def __init__(self, conn: Connection, now: int) -> None:
        self.low = packet_size(conn, conn.stack.sysctl.tcp_base_mss)
        self.high = highest(conn)
        self.size = 0  # of the probe in flight; 0: there is none
        self.seq = 0  # where it begins
        self.end = 0
        self.began_at = now  # this search

    def is_lost_at(self, snd_una: int) -> bool:
        """Whether the probe is in flight, and is what the peer waits for."""
        return self.size > 0 and snd_una == self.seq

    def fail(self) -> None:
        """It was lost, and what followed it was not: packets of this size do not pass."""
        self.high = self.size - 1
        self.size = 0


def highest(conn: Connection) -> int:
    """Return the largest packet that may pass: what the peer takes, and the path as far as it is known."""
    peer = conn.tx.peer_mss if conn.options.maxseg is None else min(conn.tx.peer_mss, conn.options.maxseg)
    return min(peer + HEADERS, conn.mtu)


def option_octets(conn: Connection) -> int:
    return conn.agreed.option_octets if conn.agreed is not None else 0


def packet_size(conn: Connection, payload: int) -> int:
    """Return the octets of a packet that carries so much."""
    return payload + option_octets(conn) + HEADERS


def payload_of(conn: Connection, size: int) -> int:
    """Return what a packet of this size carries, between what the peer takes and the least that is sent."""
    return max(min(size, highest(conn)) - HEADERS, conn.stack.sysctl.tcp_min_snd_mss) - option_octets(conn)


def begin(conn: Connection, now: int) -> None:
    """The connection is established: with tcp_mtu_probing = 2 it begins with small segments, and probes."""
    if conn.stack.sysctl.tcp_mtu_probing > 1:
        _enable(conn, now)
        sync_mss(conn)


def _enable(conn: Connection, now: int) -> None:
    conn.mtu_probe = conn.recovery.mtu_probe = MtuProbe(conn, now)


def on_black_hole(conn: Connection, now: int) -> None:
    """Retransmissions fail (tcp_retries1): smaller segments from now on, with every further timeout smaller ones yet."""
    sysctl = conn.stack.sysctl
    if not sysctl.tcp_mtu_probing:
        return
    probe = conn.mtu_probe
    if probe is None:
        _enable(conn, now)
    else:
        mss = min(payload_of(conn, probe.low) >> 1, sysctl.tcp_base_mss)
        probe.low = packet_size(conn, max(mss, sysctl.tcp_mtu_probe_floor, sysctl.tcp_min_snd_mss))
    sync_mss(conn)


def may_leave(conn: Connection, now: int) -> int | None:
    """Return the payload of a probe to send now, 0 if there is none to send, None if all new data should wait for one."""
    probe = conn.mtu_probe
    tx = conn.tx
    assert probe is not None
    mss = tx.mss_now
    if probe.size or conn.recovery.phase != OPEN or tx.cc.cwnd < CWND_MIN * mss or conn.rx.sack_blocks:
        return 0
    payload = payload_of(conn, (probe.high + probe.low) >> 1)
    if payload > payload_of(conn, probe.high) or probe.high - probe.low < conn.stack.sysctl.tcp_probe_threshold:
        _search_anew(conn, probe, now)
        return 0
    needed = payload + (conn.recovery.rack.reordering + 1) * mss  # the segments behind it tell that it was lost
    if tx.unsent < needed or tx.snd_wnd < needed:
        return 0
    if tx.outstanding + needed > tx.snd_wnd:
        return None
    if tx.pipe + 2 * mss > tx.cc.cwnd:
        return None if tx.pipe else 0
    return payload


def _search_anew(conn: Connection, probe: MtuProbe, now: int) -> None:
    """The search is over; the path may be another after tcp_probe_interval."""
    if now - probe.began_at >= conn.stack.sysctl.tcp_probe_interval * SECOND:
        probe.high = highest(conn)
        probe.low = packet_size(conn, conn.tx.mss)
        probe.began_at = now


def send(conn: Connection, payload: int, now: int) -> Segment:
    """Send new data as one packet larger than the MSS."""
    probe = conn.mtu_probe
    tx = conn.tx
    assert probe is not None
    snd_sml = tx.snd_sml
    seg = output.poll_data(conn, payload, now)
    tx.snd_sml = snd_sml  # it is more than full
    seg.gso_size = 0
    seg.flags &= ~PSH
    probe.size = packet_size(conn, payload)
    probe.seq = seg.seq
    probe.end = tx.snd_nxt
    tx.cc.cwnd -= tx.mss  # what leaves is about two segments (Linux)
    return seg


def on_progress(conn: Connection) -> None:
    """New data was acknowledged: if it was the probe, packets of its size pass."""
    probe = conn.mtu_probe
    tx = conn.tx
    assert probe is not None
    if not probe.size or not seq_ge(tx.snd_una, probe.end):
        return
    conn.stack.counters.TCPMTUPSuccess += 1
    probe.low = probe.size
    probe.size = 0
    cc = tx.cc
    windows = cc.cwnd, cc.ssthresh
    sync_mss(conn)
    cc.cwnd, cc.ssthresh = max(windows[0], tx.mss), max(windows[1], 2 * tx.mss)  # larger segments, no more octets
