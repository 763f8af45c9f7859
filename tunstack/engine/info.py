"""What is known about a connection, as Linux's TCP_INFO tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    rcv_space: int  # size of the receive buffer
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

    @classmethod
    def of(cls, conn: Connection) -> ConnectionInfo:
        """Take the snapshot of a connection in any state."""
        tx, rx, rtt = conn.tx, conn.rx, conn.rtt
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
            rttvar=rtt.rttvar,
            min_rtt=rtt.min_rtt,
            cwnd=cc.cwnd if cc else 0,
            ssthresh=cc.ssthresh if cc else 0,
            congestion=cc.name if cc else "",
            snd_wnd=tx.snd_wnd,
            rcv_wnd=rx.rcv_wnd if rx else 0,
            rcv_space=rx.buffer_size if rx else 0,
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
            delivered=-(-(tx.bytes_acked + tx.board.sacked_out) // tx.mss),
            retransmits=conn.retransmits,
            backoff=rtt.backoff,
            probes=conn.probes_out,
            pmtu=conn.mtu,
        )
