"""Loss detection and repair: three duplicate ACKs, NewReno, the retransmission timeout.

RFC 5681 3.2, RFC 6582, RFC 6298 5.4 to 5.7, RFC 3042 (limited transmit, which the pipe gives for nothing). The one place that
decides that something is lost; sender.py sends what is marked. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from tunstack.engine.counters import Counters
from tunstack.engine.sender import Sender
from tunstack.seq import MASK, seq_ge

DUPACK_THRESHOLD = 3

OPEN = 0  # nothing amiss
RECOVERY = 1  # fast recovery: ends when `recover` is acknowledged
LOSS = 2  # after a timeout: everything in flight then is sent again


class Recovery:
    """Follows one connection's ACKs and marks what is lost. Called by input.py for ACKs and by the connection for the timer."""

    __slots__ = ("_counters", "dupacks", "force", "phase", "recover", "tx")

    def __init__(self, tx: Sender, counters: Counters) -> None:
        self.tx = tx
        self._counters = counters
        self.phase = OPEN
        self.dupacks = 0  # duplicate ACKs in a row
        self.recover = tx.iss  # snd_nxt when the last recovery began (RFC 6582 3.2)
        self.force = False  # one retransmission may leave whatever the window says (RFC 5681 3.2 step 3)

    def on_duplicate_ack(self, now: int) -> None:
        """An ACK that acknowledges nothing new while data is in flight (RFC 5681 2)."""
        tx = self.tx
        self.dupacks += 1
        if self.phase == LOSS:
            return
        tx.add_reno_sacked(tx.mss_now)
        if self.phase == OPEN and self.dupacks == DUPACK_THRESHOLD and not self._is_before_recover():
            self._counters.TCPRenoRecovery += 1
            self._counters.TCPFastRetrans += 1
            self.phase = RECOVERY
            self.recover = tx.snd_nxt
            if not tx.cc.fast_recovery:
                self.on_timeout(now)
                return
            tx.cc.on_congestion(tx.outstanding, now)
            tx.cc.cwnd = tx.cc.ssthresh
            tx.mark_head_lost()
            self.force = True

    def _is_before_recover(self) -> bool:
        """Whether the cumulative ACK does not cover more than `recover` (RFC 6582 3.2 step 2).

        It counts only in what is in flight: two gigabytes after the last recovery it would seem to lie ahead.
        """
        tx = self.tx
        return (self.recover - tx.snd_una) & MASK <= tx.outstanding

    def on_ack(self, acked: int, flight: int, rtt: int, now: int) -> None:  # hot
        """New data of `acked` octets was acknowledged; `flight` octets were outstanding before."""
        tx = self.tx
        self.dupacks = 0
        if self.phase == OPEN:
            tx.reno_sacked = 0
            cc = tx.cc
            # In slow start a window of which more than half was used may grow (RFC 7661 as Linux has it).
            limited = tx.cwnd_limited or (cc.cwnd < cc.ssthresh and 2 * flight > cc.cwnd)
            cc.on_ack(acked, flight, rtt, now, limited)
            return
        if seq_ge(tx.snd_una, self.recover):
            loss = self.phase == LOSS
            self.phase = OPEN
            self.force = False
            tx.reno_sacked = 0
            if loss:
                tx.cc.on_ack(acked, flight, rtt, now, True)
            else:
                tx.cc.on_recovery_exit(tx.outstanding, now)
                # RFC 6582 3.2 step 3, option 1: no burst when little is in flight.
                tx.cc.cwnd = max(min(tx.cc.cwnd, tx.outstanding + 3 * tx.mss), 2 * tx.mss)
        elif self.phase == RECOVERY:
            # A partial ACK: the next hole begins at snd_una (RFC 6582 3.2 step 3).
            left = max(tx.reno_sacked - max(acked - tx.mss_now, 0), 0)
            tx.reno_sacked = min(left, tx.outstanding - tx.lost_out)
            if tx.flights and not tx.flights[0].lost:
                self._counters.TCPFastRetrans += 1
                tx.mark_head_lost()
            self.force = True
        else:
            tx.cc.on_ack(acked, flight, rtt, now, True)

    def on_timeout(self, now: int) -> None:
        """The retransmission timer expired (RFC 6298 5.4): all in flight is taken for lost, sending starts over with one segment."""
        tx = self.tx
        self._counters.TCPTimeouts += 1
        if self.phase != LOSS:
            tx.cc.on_rto(tx.outstanding, now)
        tx.cc.cwnd = tx.mss  # the loss window, also when a retransmission is lost in its turn (RFC 5681 3.1)
        tx.mark_all_lost()
        self.phase = LOSS
        self.dupacks = 0
        self.recover = tx.snd_nxt
        self.force = True

    def on_ecn_echo(self, now: int) -> None:
        """The peer saw Congestion Experienced: the window falls as for a loss, once a window of data (RFC 3168 6.1.2)."""

    def on_path_mss(self) -> None:
        """The path takes smaller packets: what is in flight did not pass (RFC 1191 6.5). No sign of congestion."""
        self.tx.mark_all_lost()
        self.force = True
