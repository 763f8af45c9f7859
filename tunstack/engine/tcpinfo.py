"""struct tcp_info, as Linux lays it out (linux/tcp.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tunstack.engine.state import State

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.listener import Listener

MS = 1000  # us
OPT_TIMESTAMPS = 1
OPT_SACK = 2
OPT_WSCALE = 4
OPT_ECN = 8
OPT_ECN_SEEN = 16
OPT_SYN_DATA = 32
INFINITE_SSTHRESH = 0x7FFFFFFF  # segments; and the octets from which on it is infinite
RATE_MAX = (1 << 64) - 1

# The fields in the order of the struct, which has no holes, each line begun by their kind (H, I, Q as in `struct`). The first eight
# octets and the last four hold bit fields and are made by hand.
TABLE = """
I rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv last_ack_recv
I pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans
Q pacing_rate max_pacing_rate bytes_acked bytes_received
I segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out
Q delivery_rate busy_time rwnd_limited sndbuf_limited
I delivered delivered_ce
Q bytes_sent bytes_retrans
I dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash
H total_rto total_rto_recoveries
I total_rto_time received_ce delivered_e1_bytes delivered_e0_bytes delivered_ce_bytes
I received_e1_bytes received_e0_bytes received_ce_bytes
"""
FIELDS = [(name, line[0]) for line in TABLE.strip().splitlines() for name in line[2:].split()]
LAYOUT = struct.Struct("=8B" + "".join(kind for _, kind in FIELDS) + "I")
MAX = {"H": 0xFFFF, "I": 0xFFFFFFFF, "Q": RATE_MAX}


def pack(conn: Connection | None, listener: Listener | None, now: int) -> bytes:
    """Return struct tcp_info of a connection, a listener, or of a socket that is neither. What the engine does not know is zero."""
    values: dict[str, int] = {"max_pacing_rate": RATE_MAX, "reordering": 3}
    state = State.CLOSED
    retransmits = probes = backoff = options = scales = ca_state = client_fail = 0
    if listener is not None:
        state = State.LISTEN
        values["unacked"] = listener.acceptable
        values["sacked"] = listener.backlog
    elif conn is not None:
        info = conn.info(now)
        mss = max(info.snd_mss, 1)

        def segments(octets: int) -> int:
            return -(-octets // mss)

        # A field of the same name in ConnectionInfo means the same in the same unit, but for those that are given below.
        values |= {name: int(getattr(info, name)) for name, _ in FIELDS if hasattr(info, name)}
        values |= {
            "unacked": segments(info.unacked),
            "lost": segments(info.lost),
            "sacked": segments(getattr(info, "sacked", 0)),
            "rtt": info.srtt,
            "snd_cwnd": info.cwnd // mss,
            "snd_ssthresh": INFINITE_SSTHRESH if info.ssthresh >= INFINITE_SSTHRESH else info.ssthresh // mss,
            "notsent_bytes": info.unsent,
            "last_data_sent": info.last_data_sent // MS,
            "last_data_recv": info.last_data_recv // MS,
            "last_ack_recv": info.last_ack_recv // MS,
        }
        state = State.CLOSED if conn.is_over else conn.state  # Linux's socket is closed when TIME_WAIT begins
        retransmits, probes, backoff = info.retransmits, info.probes, info.backoff
        ca_state = int(getattr(info, "ca_state", 0))
        options = int(getattr(info, "options", 0))
        options |= OPT_TIMESTAMPS if info.timestamps else 0
        options |= OPT_SACK if info.sack else 0
        options |= OPT_ECN if info.ecn else 0
        options |= OPT_ECN_SEEN if info.ecn_seen else 0
        options |= OPT_SYN_DATA if info.syn_data else 0
        client_fail = info.fastopen_client_fail
        if conn.agreed is not None and conn.agreed.is_scaled:
            options |= OPT_WSCALE
            scales = info.snd_wscale | info.rcv_wscale << 4
    body = (min(max(values.get(name, 0), 0), MAX[kind]) for name, kind in FIELDS)
    head = state, ca_state, min(retransmits, 255), min(probes, 255), min(backoff, 255), options, scales, client_fail << 1
    return LAYOUT.pack(*head, *body, 0)
