"""Loss recovery: the one place that decides that something is lost, and what becomes of the window then.

RFC 5681 3.2, RFC 6582 (NewReno, peers without SACK), RFC 6675, RFC 6937 (PRR), RFC 8985 (RACK, tail loss probe), RFC 5682 (F-RTO),
RFC 3522 and RFC 3708 (undo by timestamps and D-SACK), RFC 3042 (limited transmit: what is SACKed leaves the pipe). The states are
Linux's. Marks flights on the scoreboard; output.py sends what is marked. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.counters import Counters
from tunstack.engine.prr import RateReduction
from tunstack.engine.rack import Rack
from tunstack.engine.rtt import RttEstimator
from tunstack.engine.scoreboard import EVER_RESENT, Heard
from tunstack.engine.sender import Sender
from tunstack.seq import HALF, MASK, seq_ge, seq_gt, seq_lt

if TYPE_CHECKING:
    from tunstack.engine.mtuprobe import MtuProbe
    from tunstack.engine.sysctl import Sysctl

# Phases, by Linux's names (tcpi_ca_state).
OPEN = 0  # nothing amiss
DISORDER = 1  # duplicate ACKs or SACKs, nothing lost yet
CWR = 2  # the window falls without a loss (ECN)
RECOVERY = 3  # fast recovery: ends when `recover` is acknowledged
LOSS = 4  # after a timeout: everything in flight then is in doubt

# What the retransmission timer is for.
TIMEOUT = 0  # RTO
PROBE = 1  # tail loss probe
REORDER = 2  # RACK's reordering window


class Recovery:
    """Follows one connection's ACKs. Called by acks.py for ACKs, by timeouts.py for the timer, by output.py for what leaves."""

    __slots__ = (
        "_counters",
        "_prr",
        "_sysctl",
        "_undo_marker",
        "_undo_resent",
        "_undo_window",
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
    )

    def __init__(self, tx: Sender, rtt: RttEstimator, sysctl: Sysctl, counters: Counters) -> None:
        self.tx = tx
        self.rtt = rtt
        self._sysctl = sysctl
        self._counters = counters
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
        self._prr = RateReduction()
        # Undo: where SND.UNA stood when the window was reduced, None: nothing to undo; and the octets resent since
        # of which no D-SACK came, -1: none was resent.
        self._undo_marker: int | None = None
        self._undo_resent = -1
        self._undo_window = False  # the reduction may be taken back too: no ECN echo asked for it (prior_ssthresh in Linux)
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
        if heard.reordered is not None and (self.phase != LOSS or self._undo_marker is not None):
            self._counters.TCPSACKReorder += 1
            self._on_reordering(heard.reordered)
        rack.advance(heard)
        if not self.is_sack:
            self._count_without_sack(heard, is_duplicate)
        if self.probe_end is not None:
            self._judge_probe(heard, is_duplicate, now)
        if board.is_reneged:
            self.look_at = 0
            if self.phase <= DISORDER:
                self._try_open()
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
        self.dsack_dups += -(-octets // self.tx.mss)
        if self.dsack_dups > self.total_retrans:
            heard.dsacked = 0
            return
        heard.is_probe_dsacked = end == self.probe_end and octets <= self.tx.mss
        if self.rack.reorderings and not heard.is_probe_dsacked:  # else it was not for want of patience that it was resent (Linux)
            self.rack.on_dsack(self.tx.snd_una, self.tx.snd_nxt)
        if self._undo_marker is not None and self._undo_resent > 0 and seq_gt(end, self._undo_marker):
            self._undo_resent = max(self._undo_resent - octets, 0)

    def _on_reordering(self, low: int) -> None:
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
            self._counters.TCPRenoReorder += 1
            self.rack.on_reordering(tx.outstanding, mss, self._sysctl.tcp_max_reordering)

    def _change_phase(self, heard: Heard, is_duplicate: bool, echoed: int | None, now: int) -> None:
        """Go from one phase to another (Linux's tcp_fastretrans_alert)."""
        tx = self.tx
        if self.phase == CWR and seq_gt(tx.snd_una, self.recover):
            self._end_reduction(now)
            self.phase = OPEN
        elif self.phase == RECOVERY and seq_ge(tx.snd_una, self.recover):
            if not self.is_sack:
                tx.board.clear_duplicate_acks()
            if self._undo_whole(echoed, now):
                return
        if self.phase == RECOVERY:
            if heard.acked and self._undo_partly(heard, echoed, now):
                return
            if self._undo_by_dsack(now):
                self._try_open()
            self._find_losses(heard, now)
            if self.phase != RECOVERY and tx.board.lost:
                self._enter_recovery(now)
        elif self.phase == LOSS:
            self._go_on_after_timeout(heard, is_duplicate, echoed, now)
            resent_lost = self._find_losses(heard, now)
            if self.phase == OPEN or resent_lost:  # the window is undone, or falls once more
                if tx.board.lost:
                    self._enter_recovery(now)
                else:
                    self._try_open()
        else:
            if self.phase <= DISORDER:
                self._undo_by_dsack(now)
            self._find_losses(heard, now)
            if tx.board.lost:
                self._enter_recovery(now)
            else:
                self._try_open()

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
            self._counters.TCPLostRetransmit += 1
        return resent_lost

    # Beginnings and ends.

    def _set_quiet(self) -> None:
        if self.phase != OPEN or self.probe_end is not None:
            self.is_quiet = False
        elif not self.is_quiet:  # after an undo a flight may have been sent twice all the same: Karn's rule
            self.is_quiet = not any(flight.marks for flight in self.tx.board.flights)

    def _try_open(self) -> None:
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

    def _begin_reduction(self, now: int) -> None:
        tx = self.tx
        self.recover = tx.snd_nxt
        self.probe_end = None
        self._prr.begin(tx.cc.cwnd)
        tx.cc.on_congestion(tx.outstanding, now)
        self.cwr_due = True

    def _end_reduction(self, now: int) -> None:
        cc = self.tx.cc
        if not cc.rate_based and (self.phase == CWR or self._undo_marker is not None):
            cc.on_recovery_exit(self.tx.outstanding, now)

    def _begin_undo(self) -> None:
        """Remember what may have to be undone."""
        board = self.tx.board
        self._undo_marker = self.tx.snd_una
        self._undo_window = self.phase != CWR
        self._undo_resent = board.retrans_out or -1

    def _enter_recovery(self, now: int) -> None:
        """A loss is evident: fast recovery begins, or for Tahoe what a timeout does."""
        counters = self._counters
        tx = self.tx
        if self.mtu_probe is not None and self.phase < CWR and self.mtu_probe.is_lost_at(tx.snd_una):
            counters.TCPMTUPFail += 1
            self._mark_probe_lost()
            self.mtu_probe.fail()
            tx.cc.cwnd += tx.mss  # what it cost
            self._repair_only()  # the loss was no sign of congestion (RFC 4821 7.6.2)
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
            self._begin_reduction(now)
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
        counters = self._counters
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
        self._repair_only()

    def _mark_probe_lost(self) -> None:
        probe = self.mtu_probe
        if probe is not None and probe.size:
            for flight in self.tx.board.flights:
                if (flight.seq - probe.seq) & MASK < (probe.end - probe.seq) & MASK:
                    self.tx.board.mark_lost(flight)

    def _repair_only(self) -> None:
        """Send again what is marked, and leave the window as it is (Linux's tcp_simple_retransmit)."""
        if not self.is_sack:
            self.tx.board.clear_duplicate_acks()  # they were a guess; what is lost is counted now
        if self.tx.board.lost_out:
            self.force = True
            self.is_holding = False
            self.expects_original = self.new_first = False  # nothing is on its way that F-RTO could learn from
            if self.phase != LOSS:
                self.recover = self.tx.snd_nxt
                self._undo_marker = None
                self.phase = LOSS
                self.is_quiet = False

    def on_ecn_echo(self, now: int) -> None:
        """The peer saw Congestion Experienced: the window falls as for a loss, once a window of data (RFC 3168 6.1.2)."""
        self._undo_window = False
        if self.phase < CWR:
            self._undo_marker = None
            self._begin_reduction(now)
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
        self._undo_resent = max(self._undo_resent, 0) + octets

    # After a timeout (RFC 5682 3.1, with SACK).

    def _go_on_after_timeout(self, heard: Heard, is_duplicate: bool, echoed: int | None, now: int) -> None:
        tx = self.tx
        recovered = seq_ge(tx.snd_una, self.recover)
        if heard.acked and self._undo_loss(False, echoed, now):
            return
        if self.expects_original:
            if heard.has_original and self._undo_loss(True, echoed, now):
                return  # step 3b: what was sent only once arrives, nothing was lost
            if seq_gt(tx.snd_nxt, self.recover):
                if heard.sacked or is_duplicate:
                    self.expects_original = False  # step 3a: the loss was real
            elif heard.acked and not recovered:
                self.recover = tx.snd_nxt
                if tx.unsent and tx.snd_wnd > tx.outstanding:
                    self.new_first = True  # step 2b
                    return
                self.expects_original = False
        if recovered:
            if not self.is_sack:
                tx.board.clear_duplicate_acks()
            self._undo_whole(echoed, now)

    # Undo (RFC 3522, RFC 3708, RFC 4015 as Linux has it).

    def _came_before_retransmission(self, echoed: int | None) -> bool:
        """Whether the ACK was caused by an original, by the timestamp echoed (Eifel), or because nothing was resent yet."""
        if not self.resent_at:
            return self.is_sack or not seq_ge(self.tx.snd_una, self.recover)
        return echoed is not None and (echoed - self.resent_at // 1000) & MASK >= HALF

    def _may_undo(self, echoed: int | None) -> bool:
        return self._undo_marker is not None and (not self._undo_resent or self._came_before_retransmission(echoed))

    def _undo(self, now: int, forget_losses: bool) -> None:
        """Take the reduction back."""
        if forget_losses:
            self.tx.board.forget_losses()
        if self._undo_window:
            self.tx.cc.on_spurious(now)
            self.cwr_due = False
        self._undo_marker = None
        self.rack.is_advanced = True  # look at what is in flight with fresh eyes

    def _undo_whole(self, echoed: int | None, now: int) -> bool:
        """All that was outstanding is acknowledged: undo if it was in error. Return True to stay in the phase (RFC 6582 3.2 step 1)."""
        if self._may_undo(echoed):
            if self.phase == LOSS:
                self._counters.TCPLossUndo += 1
            else:
                self._counters.TCPFullUndo += 1
            self._undo(now, False)
        else:
            self.rack.on_recovery_end()
        if not self.is_sack and self.tx.snd_una == self.recover:
            # Without SACK more duplicate ACKs for the same octet may still come: nothing above it was acknowledged yet.
            if not self.tx.board.retrans_out:
                self.resent_at = 0
            return True
        if self.phase == RECOVERY:
            self._end_reduction(now)
        self.phase = OPEN
        return False

    def _undo_partly(self, heard: Heard, echoed: int | None, now: int) -> bool:
        """A partial ACK by a delayed original. Return True when nothing more should be marked now."""
        board = self.tx.board
        if self._undo_marker is None or not self._came_before_retransmission(echoed):
            return False
        self._counters.TCPTSReorder += 1
        self._on_reordering(heard.prior_una)
        if board.retrans_out:
            self.is_holding = True  # retransmissions are on their way: neither more of them nor an end yet
            return True
        self.resent_at = 0
        self._counters.TCPPartialUndo += 1
        self._undo(now, True)
        self.phase = OPEN
        self._try_open()
        return False

    def _undo_by_dsack(self, now: int) -> bool:
        """Every retransmission was reported to have arrived twice."""
        if self._undo_marker is None or self._undo_resent:
            return False
        self._counters.TCPDSACKUndo += 1
        self._undo(now, False)
        if self.phase == RECOVERY:
            self.phase = DISORDER
        return True

    def _undo_loss(self, by_frto: bool, echoed: int | None, now: int) -> bool:
        if not by_frto and not self._may_undo(echoed):
            return False
        self._undo(now, True)
        self._counters.TCPLossUndo += 1
        if by_frto:
            self._counters.TCPSpuriousRTOs += 1
        if not self.is_sack and self.tx.snd_una == self.recover:
            return True
        if by_frto or self.is_sack:
            self.phase = OPEN
        return True

    # Tail loss probe (RFC 8985 7).

    def on_probe_sent(self, was_resent: bool) -> None:
        """The probe leaves."""
        self._counters.TCPLossProbes += 1
        self.probe_end = self.tx.snd_nxt
        self.probe_was_resent = was_resent
        self.is_quiet = False

    def _judge_probe(self, heard: Heard, is_duplicate: bool, now: int) -> None:
        """Whether the probe repaired a loss (RFC 8985 7.4.2): then the window falls, since there was one."""
        end = self.probe_end
        assert end is not None
        una = self.tx.snd_una
        if seq_lt(una, end):
            return
        if self.probe_was_resent and not heard.is_probe_dsacked:
            if seq_gt(una, end):
                self._begin_reduction(now)
                self.phase = CWR
                self._end_reduction(now)
                self.phase = OPEN
                self._try_open()
                self._counters.TCPLossProbeRecovery += 1
            elif not is_duplicate or heard.sacked:
                return
        self.probe_end = None
