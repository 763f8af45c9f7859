"""Loss recovery: the one place that decides that something is lost, and what becomes of the window then.

RFC 5681 3.2, RFC 6582 (NewReno, peers without SACK), RFC 6675, RFC 6937 (PRR), RFC 8985 (RACK), RFC 3042 (limited transmit: what is
SACKed leaves the pipe). Its parts are rack.py, prr.py, undo.py and lossprobe.py; the phases are Linux's. Marks flights on the
scoreboard; output.py sends what is marked. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import lossprobe, undo
from tunstack.engine.counters import Counters
from tunstack.engine.phase import CWR, DISORDER, LOSS, OPEN, RECOVERY, TIMEOUT
from tunstack.engine.prr import RateReduction
from tunstack.engine.rack import Rack
from tunstack.engine.rtt import RttEstimator
from tunstack.engine.scoreboard import EVER_RESENT, Heard
from tunstack.engine.sender import Sender
from tunstack.seq import MASK, seq_ge, seq_gt, seq_lt

if TYPE_CHECKING:
    from tunstack.engine.mtuprobe import MtuProbe
    from tunstack.engine.sysctl import Sysctl


class Recovery:
    """Follows one connection's ACKs. Called by acks.py for ACKs, by timeouts.py for the timer, by output.py for what leaves."""

    __slots__ = (
        "_prr",
        "_sysctl",
        "counters",
        "cwr_due",
        "dsack_dups",
        "expects_original",
        "force",
        "is_holding",
        "is_quiet",
        "is_sack",
        "look_at",
        "mtu_probe",
        "new_first",
        "phase",
        "probe_due",
        "probe_end",
        "probe_was_resent",
        "rack",
        "recover",
        "resent_at",
        "rtt",
        "timer",
        "total_retrans",
        "tx",
        "undo_marker",
        "undo_resent",
        "undo_window",
    )

    def __init__(self, tx: Sender, rtt: RttEstimator, sysctl: Sysctl, counters: Counters) -> None:
        self.tx = tx
        self.rtt = rtt
        self._sysctl = sysctl
        self.counters = counters
        self.rack = Rack(sysctl.tcp_reordering)
        self.is_sack = False  # the peer sends SACK
        self.phase = OPEN
        self.is_quiet = True  # OPEN and no probe out: an ACK without SACK needs no look
        self.recover = tx.iss  # snd_nxt when the last recovery began (RFC 6582 3.2; high_seq in Linux)
        self.force = False  # one retransmission may leave whatever the window says (RFC 5681 3.2 step 3)
        self.is_holding = False  # nothing more is resent until the next ACK or timeout: all may have been in error
        self.cwr_due = False  # the window fell: the next new data says so (RFC 3168 6.1.2)
        self.resent_at = 0  # when this episode's first retransmission left; 0: none did
        self.timer = TIMEOUT  # what the connection's rto_at is for
        self.look_at = 0  # when RACK wants to look again; 0: need not
        self.total_retrans = 0  # segments resent
        self.dsack_dups = 0  # segments that the peer reported to have come twice
        self._prr: RateReduction  # the reduction in progress (RECOVERY, CWR)
        # Undo: where SND.UNA stood when the window was reduced, None: nothing to undo; and the octets resent since
        # of which no D-SACK came, -1: none was resent.
        self.undo_marker: int | None = None
        self.undo_resent = -1
        self.undo_window = False  # the reduction may be taken back too: no ECN echo asked for it (prior_ssthresh in Linux)
        self.expects_original = False  # F-RTO waits for evidence (RFC 5682 3.1)
        self.new_first = False  # F-RTO wants new data sent, not retransmissions (step 2b)
        self.mtu_probe: MtuProbe | None = None  # the search for the path MTU, if there is one
        # Tail loss probe.
        self.probe_due = False  # it is to be sent
        self.probe_end: int | None = None  # TLP.end_seq: snd_nxt when the outstanding one was; None: none is
        self.probe_was_resent = False  # it was old data

    # ACKs.

    def on_clean_ack(self, acked: int, flight: int, rtt: int, now: int) -> None:  # hot
        """New data of `acked` octets was acknowledged while all was quiet; `flight` octets were outstanding before."""
        tx = self.tx
        tx.cc.on_ack(acked, flight, rtt, now, tx.may_grow())

    def on_ack(self, heard: Heard, is_duplicate: bool, flight: int, rtt: int, echoed: int | None, now: int) -> None:
        """Anything else was acknowledged, SACKed or told twice.

        `is_duplicate`: in the sense of RFC 5681 2; `echoed`: our timestamp clock, ms, in the echo; `flight` as in `on_clean_ack`.
        """
        tx, board, rack = self.tx, self.tx.board, self.rack
        lost_before = board.lost_ever
        self.new_first = self.is_holding = False
        if heard.dsacked:
            self._count_dsack(heard)
        if heard.reordered is not None and (self.phase != LOSS or self.undo_marker is not None):
            self.counters.TCPSACKReorder += 1
            self.on_reordering(heard.reordered)
        rack.advance(heard)
        if not self.is_sack:
            self._count_without_sack(heard, is_duplicate)
        if self.probe_end is not None:
            lossprobe.judge_probe(self, heard, is_duplicate, now)
        if board.is_reneged:
            self.look_at = 0
            if self.phase <= DISORDER:
                self.try_open()
            self._set_quiet()
            return  # the timer will tell
        self._change_phase(heard, is_duplicate, echoed, now)
        self._set_quiet()
        cc = tx.cc
        if cc.rate_based:
            return
        if self.phase == RECOVERY or self.phase == CWR:
            if heard.delivered:
                progress = bool(heard.acked) and board.lost_ever == lost_before
                cc.cwnd = max(self._prr.window(tx.pipe, cc.ssthresh, heard.delivered, tx.mss, progress), tx.mss)
        elif heard.acked or (heard.sacked and rack.reordering > self._sysctl.tcp_reordering):
            cc.on_ack(heard.delivered, flight, rtt, now, self.phase == LOSS or tx.may_grow())

    def _count_dsack(self, heard: Heard) -> None:
        """Retransmissions were needless (RFC 3708, RFC 8985 6.2 step 4), unless it was the network that duplicated (RFC 3708 3)."""
        octets, end = heard.dsacked, heard.dsack_end
        packets = -(-octets // self.tx.mss)
        self.dsack_dups += packets
        self.counters.TCPDSACKRecvSegs += packets
        if self.dsack_dups > self.total_retrans:
            heard.dsacked = 0
            return
        heard.is_probe_dsacked = end == self.probe_end and octets <= self.tx.mss
        if self.rack.reorderings and not heard.is_probe_dsacked:  # else it was not for want of patience that it was resent (Linux)
            self.rack.on_dsack(self.tx.snd_una, self.tx.snd_nxt)
        if self.undo_marker is not None and self.undo_resent > 0 and seq_gt(end, self.undo_marker):
            self.undo_resent = max(self.undo_resent - octets, 0)

    def on_reordering(self, low: int) -> None:
        """Data from `low` on was overtaken by what the peer has."""
        tx = self.tx
        high = tx.board.highest_sacked if self.is_sack and tx.board.sacked_segments else tx.snd_una
        if seq_lt(low, high):
            self.rack.on_reordering((high - low) & MASK, tx.mss, self._sysctl.tcp_max_reordering)

    def _count_without_sack(self, heard: Heard, is_duplicate: bool) -> None:
        """Guess from duplicate ACKs what has left the network (RFC 6582); what was counted is not delivered again by its ACK."""
        tx, board = self.tx, self.tx.board
        mss = tx.mss_now
        exceeded = False
        if heard.acked:
            heard.delivered = max(heard.acked - board.sacked_out, min(mss, heard.acked))
            exceeded = board.take_duplicate_acks(heard.acked, mss)
            if heard.has_resent:
                heard.has_original = False  # it may have waited for the retransmission: no evidence for F-RTO, as in Linux
            if self.phase != RECOVERY:
                board.clear_duplicate_acks()
        elif is_duplicate and (self.phase != LOSS or seq_gt(tx.snd_nxt, self.recover)):
            before = board.sacked_out
            exceeded = board.add_duplicate_ack(mss)
            heard.delivered = max(board.sacked_out - before, 0)
        if exceeded and self._sysctl.tcp_max_reordering > self.rack.reordering:
            self.counters.TCPRenoReorder += 1
            self.rack.on_reordering(tx.outstanding, mss, self._sysctl.tcp_max_reordering)

    def _change_phase(self, heard: Heard, is_duplicate: bool, echoed: int | None, now: int) -> None:
        """Go from one phase to another (Linux's tcp_fastretrans_alert)."""
        tx = self.tx
        if self.phase == CWR and seq_gt(tx.snd_una, self.recover):
            self.end_reduction(now)
            self.phase = OPEN
        elif self.phase == RECOVERY and seq_ge(tx.snd_una, self.recover):
            if not self.is_sack:
                tx.board.clear_duplicate_acks()
            if undo.undo_whole(self, echoed, now):
                return
        if self.phase == RECOVERY:
            if heard.acked and undo.undo_partly(self, heard, echoed, now):
                return
            if undo.undo_by_dsack(self, now):
                self.try_open()
            self._find_losses(heard, now)
            if self.phase != RECOVERY and tx.board.lost:
                self._enter_recovery(now)
        elif self.phase == LOSS:
            undo.go_on_after_timeout(self, heard, is_duplicate, echoed, now)
            resent_lost = self._find_losses(heard, now)
            if self.phase == OPEN or resent_lost:  # the window is undone, or falls once more
                if tx.board.lost:
                    self._enter_recovery(now)
                else:
                    self.try_open()
        else:
            if self.phase <= DISORDER:
                undo.undo_by_dsack(self, now)
            self._find_losses(heard, now)
            if tx.board.lost:
                self._enter_recovery(now)
            else:
                self.try_open()

    def _find_losses(self, heard: Heard, now: int) -> int:
        """Mark what is lost. Return the octets of retransmissions among it."""
        tx, board, rack = self.tx, self.tx.board, self.rack
        if not board.flights:
            return 0
        if not self.is_sack:
            # NewReno: the first hole at the threshold; the next one with each partial ACK (RFC 6582 3.2).
            if (self.phase < RECOVERY and board.sacked_segments >= rack.reordering) or (self.phase == RECOVERY and heard.acked):
                board.mark_head_lost(tx.mss_now)
                self.force = True
            return 0
        if not rack.is_advanced:
            return 0
        return self._look_for_losses(now)

    def _look_for_losses(self, now: int) -> int:
        rack, board = self.rack, self.tx.board
        rack.is_advanced = False
        reo_wnd = rack.window(self.phase >= RECOVERY, board.sacked_segments, self.rtt, self._sysctl)
        self.look_at, resent_lost = rack.detect(board, reo_wnd, now)
        if resent_lost:
            self.counters.TCPLostRetransmit += 1
        return resent_lost

    # Beginnings and ends.

    def _set_quiet(self) -> None:
        if self.phase != OPEN or self.probe_end is not None:
            self.is_quiet = False
        elif not self.is_quiet:  # after an undo a flight may have been sent twice all the same: Karn's rule
            self.is_quiet = not any(flight.marks for flight in self.tx.board.flights)

    def try_open(self) -> None:
        """OPEN, or DISORDER while something is still unclear."""
        if self.phase == CWR:
            return
        board = self.tx.board
        if not board.retrans_out:
            self.resent_at = 0
        unclear = board.sacked_out or board.lost_out or board.retrans_out or (board.flights and board.flights[0].marks & EVER_RESENT)
        phase = DISORDER if unclear else OPEN
        if phase != self.phase:
            self.phase = phase
            self.recover = self.tx.snd_nxt

    def begin_reduction(self, now: int) -> None:
        tx = self.tx
        self.recover = tx.snd_nxt
        self.probe_end = None
        self._prr = RateReduction(tx.cc.cwnd)
        tx.cc.on_congestion(tx.outstanding, now)
        self.cwr_due = True

    def end_reduction(self, now: int) -> None:
        cc = self.tx.cc
        if not cc.rate_based and (self.phase == CWR or self.undo_marker is not None):
            cc.on_recovery_exit(self.tx.outstanding, now)

    def _begin_undo(self) -> None:
        """Remember what may have to be undone."""
        board = self.tx.board
        self.undo_marker = self.tx.snd_una
        self.undo_window = self.phase != CWR
        self.undo_resent = board.retrans_out or -1

    def _enter_recovery(self, now: int) -> None:
        """A loss is evident: fast recovery begins, or for Tahoe what a timeout does."""
        counters = self.counters
        tx = self.tx
        if self.mtu_probe is not None and self.phase < CWR and self.mtu_probe.is_lost_at(tx.snd_una):
            counters.TCPMTUPFail += 1
            self._mark_probe_lost()
            self.mtu_probe.fail()
            tx.cc.cwnd += tx.mss  # what it cost
            self.repair()  # the loss was no sign of congestion (RFC 4821 7.6.2)
            return
        if self.is_sack:
            counters.TCPSackRecovery += 1
        else:
            counters.TCPRenoRecovery += 1
        if not tx.cc.fast_recovery:
            self._enter_loss(now)
            if not self.is_sack:
                tx.board.clear_duplicate_acks()  # all is sent again, what they stood for too
            tx.board.mark_all_lost()
            tx.cc.cwnd = tx.pipe + tx.mss
            self.force = True
            return
        if not tx.board.retrans_out:
            self.resent_at = 0
        self._begin_undo()
        if self.phase != CWR and self.phase != RECOVERY:
            self.begin_reduction(now)
        self.phase = RECOVERY
        self.force = True

    def _enter_loss(self, now: int) -> None:
        """Reduce the window as for a timeout, once for the data in flight (RFC 5681 3.1)."""
        tx = self.tx
        if self.phase <= DISORDER or seq_ge(tx.snd_una, self.recover):
            tx.cc.on_rto(tx.outstanding, now)
            self._begin_undo()
        self.phase = LOSS
        self.recover = tx.snd_nxt
        self.probe_end = None
        self.cwr_due = True
        self.is_quiet = False

    # The timer.

    def on_timeout(self, is_repeated: bool, now: int) -> None:
        """The retransmission timer expired (RFC 6298 5.4): what is in flight is taken for lost, sending starts over with one segment.

        `is_repeated`: nothing was acknowledged since the last time.
        """
        tx, board, rack = self.tx, self.tx.board, self.rack
        counters = self.counters
        counters.TCPTimeouts += 1
        if self.phase == RECOVERY:
            if self.is_sack:
                counters.TCPSackRecoveryFail += 1
            else:
                counters.TCPRenoRecoveryFail += 1
        elif self.phase == LOSS:
            counters.TCPLossFailures += 1
        elif self.phase == DISORDER or board.sacked_out:
            if self.is_sack:
                counters.TCPSackFailures += 1
            else:
                counters.TCPRenoFailures += 1
        is_new = self.phase < RECOVERY
        reneged = board.is_reneged
        if self.phase <= DISORDER and board.sacked_segments >= self._sysctl.tcp_reordering:
            rack.reordering = min(rack.reordering, self._sysctl.tcp_reordering)  # it was overestimated
        if self.phase == LOSS and not is_repeated:
            self.phase = OPEN  # something was acknowledged in between: a new timeout, a new reduction
        self._enter_loss(now)
        if reneged:
            counters.TCPSACKReneging += 1
            board.forget_sacks()
        elif not self.is_sack:
            board.clear_duplicate_acks()
        reo_wnd = rack.window(True, 0, self.rtt, self._sysctl)
        for index, flight in enumerate(board.flights):
            # What left only now may still arrive (RFC 8985 6.3).
            if not index or reneged or not self.is_sack or rack.is_overdue(flight.sent_at, reo_wnd, now):
                board.mark_lost(flight)
        tx.cc.cwnd = tx.pipe + tx.mss  # the loss window (RFC 5681 3.1)
        self.expects_original = bool(self._sysctl.tcp_frto) and (is_new or is_repeated)
        self.new_first = self.is_holding = False
        self.force = True
        self.look_at = 0

    def on_reorder_timeout(self, now: int) -> None:
        """The reordering window is over (RFC 8985 6.2 step 5)."""
        tx, board = self.tx, self.tx.board
        lost_before = board.lost_ever
        self.is_holding = False
        self._look_for_losses(now)
        if board.lost_ever == lost_before:
            return
        if self.phase != RECOVERY:
            self._enter_recovery(now)
            self._set_quiet()
            if self.phase == RECOVERY and not tx.cc.rate_based:
                tx.cc.cwnd = max(self._prr.window(tx.pipe, tx.cc.ssthresh, tx.mss, tx.mss, False), tx.mss)

    def on_path_mss(self, is_smaller: bool) -> None:
        """The path takes smaller packets: what is larger did not pass (RFC 1191 6.5). No sign of congestion.

        `is_smaller`: the MSS is, too; else only a probe can have been larger.
        """
        tx = self.tx
        if not self.is_sack:
            tx.board.clear_duplicate_acks()  # they were a guess; what is lost is counted now
        if is_smaller:
            for flight in tx.board.flights:
                if (flight.end - flight.seq) & MASK > tx.mss:
                    tx.board.mark_lost(flight)
        self._mark_probe_lost()
        self.repair()

    def _mark_probe_lost(self) -> None:
        probe = self.mtu_probe
        if probe is not None and probe.size:
            for flight in self.tx.board.flights:
                if (flight.seq - probe.seq) & MASK < (probe.end - probe.seq) & MASK:
                    self.tx.board.mark_lost(flight)

    def repair(self) -> None:
        """Send again what is marked, and leave the window as it is (Linux's tcp_simple_retransmit)."""
        if not self.is_sack:
            self.tx.board.clear_duplicate_acks()  # they were a guess; what is lost is counted now
        if self.tx.board.lost_out:
            self.force = True
            self.is_holding = False
            self.expects_original = self.new_first = False  # nothing is on its way that F-RTO could learn from
            if self.phase != LOSS:
                self.recover = self.tx.snd_nxt
                self.undo_marker = None
                self.phase = LOSS
                self.is_quiet = False

    def on_ecn_echo(self, now: int) -> None:
        """The peer saw Congestion Experienced: the window falls as for a loss, once a window of data (RFC 3168 6.1.2)."""
        self.undo_window = False
        if self.phase < CWR:
            self.undo_marker = None
            self.begin_reduction(now)
            self.phase = CWR
            self.is_quiet = False

    # What leaves.

    def on_sent(self, octets: int) -> None:
        """Octets leave while the phase is not OPEN."""
        if self.phase == RECOVERY or self.phase == CWR:
            self._prr.out += octets

    def on_resent(self, octets: int, now: int) -> None:
        """Octets leave again."""
        self.on_sent(octets)
        if self.mtu_probe is not None:
            self.mtu_probe.size = 0  # what was acknowledged would be unclear
        self.total_retrans += -(-octets // self.tx.mss_now)
        if not self.resent_at:
            self.resent_at = now
        self.undo_resent = max(self.undo_resent, 0) + octets
