"""What is known about a connection, as Linux's TCP_INFO tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunstack.engine import chrono, receivewindow
from tunstack.engine.state import SYN_RECEIVED
from tunstack.engine.timers import NEVER

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A snapshot. Times in microseconds, lengths and windows in octets."""

    state: str
    snd_mss: int
    rcv_mss: int
    snd_wscale: int  # shift of the peer's windows
    rcv_wscale: int  # shift of ours
    timestamps: bool
    sack: bool
    ecn: bool  # agreed on, or asked for by our SYN
    ecn_seen: bool  # the peer sent data that was ECT or CE
    rto: int
    srtt: int
    rttvar: int
    min_rtt: int
    cwnd: int
    ssthresh: int
    congestion: str
    snd_wnd: int
    rcv_wnd: int
    rcv_ssthresh: int
    rcv_space: int  # octets that the application took in a round trip, the most so far
    unacked: int
    unsent: int
    readable: int
    ca_state: int  # phase of loss recovery: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss
    sacked: int  # octets
    lost: int  # octets taken for lost and not acknowledged, resent or not
    retrans: int  # segments resent and not acknowledged
    total_retrans: int  # segments
    reordering: int  # segments: the duplicate-ACK threshold
    reord_seen: int
    dsack_dups: int  # segments that the peer reported to have come twice
    delivered: int  # segments acknowledged or SACKed, about
    retransmits: int
    backoff: int
    probes: int
    pmtu: int
    ato: int  # delayed-ACK timeout
    advmss: int  # what we told the peer to send, less options
    rcv_rtt: int  # round-trip time as the receiver sees it, 0 until it is known
    last_data_sent: int  # time since
    last_data_recv: int
    last_ack_recv: int
    bytes_acked: int  # octets of sequence space; the SYN of who connects counts
    bytes_received: int  # the same, in order; the FIN counts
    bytes_sent: int  # of data, those sent again counted again
    bytes_retrans: int
    segs_out: int  # packets
    segs_in: int
    data_segs_out: int
    data_segs_in: int
    busy_time: int  # with something sent or to be sent; of it ...
    rwnd_limited: int  # ... held up by the peer's window
    sndbuf_limited: int  # ... by our send buffer
    syn_data: bool  # data that rode on the SYN was taken (RFC 7413)
    fastopen_client_fail: int  # why it was not: 1 there was no cookie, 2 it was not acknowledged, 3 the SYN was sent again

    @classmethod
    def of(cls, conn: Connection, now: int | None) -> ConnectionInfo:
        """Take the snapshot of a connection in any state."""
        tx, rx, rtt = conn.tx, conn.rx, conn.rtt
        if now is None:
            now = max(conn.last_received_at, tx.last_sent_at, rx.last_data_at if rx else 0, tx.chrono_at)
        busy, rwnd, sndbuf = chrono.times(tx, now)
        fin_acked = tx.fin_sent and tx.snd_una == tx.snd_nxt
        syn_acked = conn.listener is None and tx.snd_una != tx.iss  # Linux counts the SYN of who connects
        bytes_acked = tx.queue.start + syn_acked + fin_acked
        cc = getattr(tx, "cc", None)  # there is none before the handshake is done
        return cls(
            state=conn.state.name,
            snd_mss=tx.mss,
            rcv_mss=rx.mss if rx else 0,
            snd_wscale=tx.wscale,
            rcv_wscale=rx.wscale if rx else 0,
            timestamps=conn.ts_ok,
            sack=conn.may_sack,
            ecn=conn.agreed.ecn_ok if conn.agreed else conn.syn_ecn,
            ecn_seen=rx.ecn_seen if rx else False,
            rto=rtt.rto,
            srtt=rtt.srtt,
            rttvar=rtt.deviation,
            min_rtt=rtt.min_rtt,
            cwnd=cc.cwnd if cc else 0,
            ssthresh=cc.ssthresh if cc else 0,
            congestion=cc.name if cc else "",
            snd_wnd=tx.snd_wnd,
            rcv_wnd=rx.rcv_wnd if rx else 0,
            rcv_ssthresh=rx.rcv_ssthresh if rx else 0,
            rcv_space=rx.space if rx else 0,
            unacked=tx.outstanding,
            unsent=tx.unsent,
            readable=conn.readable,
            ca_state=conn.recovery.phase,
            sacked=tx.board.sacked_out,
            lost=tx.board.lost,
            retrans=-(-tx.board.retrans_out // tx.mss),
            total_retrans=conn.recovery.total_retrans,
            reordering=conn.recovery.rack.reordering,
            reord_seen=conn.recovery.rack.reorderings,
            dsack_dups=conn.recovery.dsack_dups,
            delivered=_delivered(conn),
            retransmits=conn.retransmits,
            backoff=rtt.backoff,
            probes=conn.probes_out,
            pmtu=conn.mtu,
            ato=rx.ato if rx else 0,
            advmss=rx.advmss if rx else 0,
            rcv_rtt=rx.rcv_rtt if rx and rx.rcv_rtt < NEVER else 0,
            last_data_sent=now - (tx.last_sent_at or conn.opened_at),
            last_data_recv=now - rx.last_data_at if rx else 0,
            last_ack_recv=now - conn.last_received_at,
            bytes_acked=bytes_acked,
            bytes_received=receivewindow.count_received(rx) if rx else 0,
            bytes_sent=tx.queue.end - tx.unsent + tx.bytes_retrans,
            bytes_retrans=tx.bytes_retrans,
            segs_out=conn.segs_out,
            segs_in=conn.segs_in,
            data_segs_out=conn.data_segs_out,
            data_segs_in=conn.data_segs_in,
            busy_time=busy,
            rwnd_limited=rwnd,
            sndbuf_limited=sndbuf,
            syn_data=conn.fastopen.syn_data if conn.fastopen else False,
            fastopen_client_fail=conn.fastopen.client_fail if conn.fastopen else 0,
        )


def _delivered(conn: Connection) -> int:
    """Return about how many segments were acknowledged or SACKed: the SYN or SYN-ACK is one, with the data in it."""
    tx = conn.tx
    if tx.snd_una == tx.iss or conn.state is SYN_RECEIVED:
        return 0
    on_syn = conn.fastopen.syn_octets if conn.fastopen is not None and conn.fastopen.syn_data else 0
    return 1 + -(-(tx.bytes_acked + tx.board.sacked_out - on_syn) // tx.mss)
