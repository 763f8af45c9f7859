"""The common end of a handshake: its third segment, with nothing else about it, to a listener that has room.

It does what `HalfOpen.on_segment` and `Listener.establish` would do, and `input.arrives` with the segment then, whose steps stand here in
one function without those that are known to do nothing; where anything is out of the ordinary nothing is changed, and False is the
answer. What the connection begins with was worked out with its SYN (terms.py). RFC 9293 3.10.7.4. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import control, ecn
from tunstack.engine.receiver import Receiver
from tunstack.engine.state import ESTABLISHED
from tunstack.seq import HALF, MASK
from tunstack.wire.flow import source
from tunstack.wire.segment import ACK, PSH, Segment

if TYPE_CHECKING:
    from tunstack.engine.halfopen import HalfOpen


def complete(entry: HalfOpen, seg: Segment, now: int) -> bool:  # hot
    """Make the connection of which this is the handshake's third segment, and have it accepted."""
    kind = entry.kind
    agreed = kind.agreed
    listener = entry.listener
    stack = listener.stack
    sysctl = stack.sysctl
    ts_val = seg.ts_val
    sent_at = entry.sent_at
    if (
        seg.flags & ~PSH != ACK
        or seg.length
        or seg.seq != (entry.irs + 1) & MASK
        or seg.ack != (entry.iss + 1) & MASK
        or (agreed.ts_ok and (seg.ts_ecr != entry.ts_last or ts_val is None or (ts_val - entry.ts_recent) & MASK >= HALF))
        or not sent_at  # or twice
        or seg.sack
        or seg.options
        or not kind.is_common
        or entry.window != kind.window
        or not kind.terms.are_current(listener.options, stack.path_mtu.get(entry.flow))
        or listener.acceptable
        or listener.options.defer_accept
        or stack.signing is not None
        or sysctl.tcp_reflect_tos
        or sysctl.tcp_mtu_probing > 1
    ):
        return False
    listener.drop(entry)
    conn = listener.make_connection(entry.flow, entry.flow_in, entry.iss, entry.ts_offset)
    conn.state = ESTABLISHED
    conn.agreed = agreed
    conn.opened_at = conn.last_received_at = now
    conn.segs_in = 1 + seg.packets
    conn.syn_sent_at = sent_at
    conn.can_probe = kind.can_probe
    conn.recovery.is_sack = agreed.sack_ok
    rx = conn.rx = Receiver(entry.irs, kind.receive, stack.counters, stack.memory, now)
    rx.ts_recent_at = now
    if agreed.ts_ok:
        conn.ts_ok = True
        rx.ts_recent = ts_val  # type: ignore[assignment]  # looked at above
    tx = conn.tx
    if agreed.ecn_ok:
        rx.ecn_ok = True
        tx.ect = ecn.ECT_0
    tx.snd_una = tx.snd_nxt = tx.snd_sml = tx.snd_wl2 = seg.ack
    tx.snd_wl1 = seg.seq
    tx.wscale = agreed.snd_wscale
    tx.snd_wnd = tx.max_window = seg.window << agreed.snd_wscale
    tx.sndbuf = kind.sndbuf
    tx.peer_mss = agreed.mss
    tx.mss = kind.mss
    tx.bound_mss()
    rtt = now - sent_at or 1
    conn.rtt.sample(rtt, rtt, entry.iss, seg.ack, now)
    control.start(conn, now)
    if conn.options.keepalive:
        conn.start_keepalive(now)
    stack.proven.add(source(entry.flow_in))
    stack.counters.TCPPureAcks += 1
    listener.enqueue(conn)
    listener.on_acceptable(listener)
    return True
