"""TCP_INFO by name: what `ss -i` prints of a socket.

Names and units are those of struct tcp_info: times us, `last_*` ms, the congestion window, ssthresh, what is lost and in flight in
segments, the other windows in octets, rates in octets a second. What ss takes from elsewhere has the names that it prints:
`congestion`, the options agreed on, and under `algorithm` what the congestion control tells of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.inspect.record import Info

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.listener import Listener

INITIAL_CWND = 10  # segments: what Linux tells of a listener
INFINITE_SSTHRESH = 0x7FFFFFFF
MS = 1000  # us
SAME = (  # in ConnectionInfo by the same name and unit
    *("rto", "ato", "snd_mss", "rcv_mss", "rttvar", "pmtu", "rcv_ssthresh", "advmss", "reordering", "reord_seen", "rcv_rtt", "rcv_space"),
    *("total_retrans", "retrans", "retransmits", "backoff", "probes", "bytes_acked", "bytes_received", "bytes_sent", "bytes_retrans"),
    *("segs_out", "segs_in", "data_segs_out", "data_segs_in", "min_rtt", "busy_time", "rwnd_limited", "sndbuf_limited", "delivered"),
    *("dsack_dups", "snd_wnd", "rcv_wnd", "ca_state", "ecn", "ecn_seen", "timestamps", "sack", "congestion", "snd_wscale", "rcv_wscale"),
)


def of_connection(conn: Connection, now: int) -> Info:
    """Return TCP_INFO of a connection."""
    known = conn.info(now)
    mss = max(known.snd_mss, 1)
    info: dict[str, object] = {name: getattr(known, name) for name in SAME}
    info |= {
        "rtt": known.srtt,
        "snd_cwnd": known.cwnd // mss,
        "snd_ssthresh": min(known.ssthresh // mss, INFINITE_SSTHRESH) if known.ssthresh < INFINITE_SSTHRESH else INFINITE_SSTHRESH,
        "unacked": -(-known.unacked // mss),
        "lost": -(-known.lost // mss),
        "sacked": -(-known.sacked // mss),
        "notsent_bytes": known.unsent,
        "last_data_sent": known.last_data_sent // MS,
        "last_data_recv": known.last_data_recv // MS,
        "last_ack_recv": known.last_ack_recv // MS,
        "wscale": conn.agreed is not None and conn.agreed.is_scaled,
        "congestion": known.congestion or conn.options.congestion or conn.stack.sysctl.tcp_congestion_control,
    }
    if known.cwnd:  # the handshake is done
        tx = conn.tx
        info["pacing_rate"] = _pacing_rate(conn)
        if tx.max_pacing_rate:
            info["max_pacing_rate"] = tx.max_pacing_rate
        if tx.rate is not None:
            info["delivery_rate"] = tx.rate.sample.rate
            info["app_limited"] = tx.rate.limited_until > 0
        algorithm = tx.cc.details()
        if algorithm:
            info["algorithm"] = dict(algorithm)
    return info


def of_listener(listener: Listener) -> Info:
    """Return TCP_INFO of a listener: as in Linux, `unacked` and `sacked` are its accept queue and that queue's limit."""
    return {
        "congestion": listener.options.congestion or listener.stack.sysctl.tcp_congestion_control,
        "snd_cwnd": INITIAL_CWND,
        "unacked": listener.acceptable,
        "sacked": listener.backlog_limit,
    }


def _pacing_rate(conn: Connection) -> int:
    """Return the rate that bursts are sized by, or that of the algorithm where it paces (Linux's sk_pacing_rate), octets a second."""
    tx, sysctl = conn.tx, conn.stack.sysctl
    if tx.pacer is not None:
        return tx.pacer.rate
    percent = sysctl.tcp_pacing_ss_ratio if tx.cc.cwnd < tx.cc.ssthresh >> 1 else sysctl.tcp_pacing_ca_ratio
    return tx.cc.cwnd * percent * 10_000 // conn.rtt.srtt if conn.rtt.srtt else 0
