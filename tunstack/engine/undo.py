"""Retransmissions that were needless, and what is taken back then: F-RTO, Eifel, D-SACK.

RFC 5682 3.1 (with SACK), RFC 3522, RFC 3708, RFC 4015, as Linux has them. Parts of recovery.py's work. Times are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.phase import DISORDER, LOSS, OPEN, RECOVERY
from tunstack.seq import HALF, MASK, seq_ge, seq_gt

if TYPE_CHECKING:
    from tunstack.engine.recovery import Recovery
    from tunstack.engine.scoreboard import Heard


def go_on_after_timeout(recovery: Recovery, heard: Heard, is_duplicate: bool, echoed: int | None, now: int) -> None:
    """An ACK in phase LOSS: was the timeout spurious (RFC 5682 3.1, with SACK), or is all recovered?"""
    tx = recovery.tx
    recovered = seq_ge(tx.snd_una, recovery.recover)
    if heard.acked and undo_loss(recovery, False, echoed, now):
        return
    if recovery.expects_original:
        if heard.has_original and undo_loss(recovery, True, echoed, now):
            return  # step 3b: what was sent only once arrives, nothing was lost
        if seq_gt(tx.snd_nxt, recovery.recover):
            if heard.sacked or is_duplicate:
                recovery.expects_original = False  # step 3a: the loss was real
        elif heard.acked and not recovered:
            recovery.recover = tx.snd_nxt
            if tx.unsent and tx.snd_wnd > tx.outstanding:
                recovery.new_first = True  # step 2b
                return
            recovery.expects_original = False
    if recovered:
        if not recovery.is_sack:
            tx.board.clear_duplicate_acks()
        undo_whole(recovery, echoed, now)


def came_before_retransmission(recovery: Recovery, echoed: int | None) -> bool:
    """Whether the ACK was caused by an original, by the timestamp echoed (Eifel), or because nothing was resent yet."""
    if not recovery.resent_at:
        return recovery.is_sack or not seq_ge(recovery.tx.snd_una, recovery.recover)
    return echoed is not None and (echoed - recovery.resent_at // 1000) & MASK >= HALF


def may_undo(recovery: Recovery, echoed: int | None) -> bool:
    """Whether all that was resent was needless."""
    return recovery.undo_marker is not None and (not recovery.undo_resent or came_before_retransmission(recovery, echoed))


def undo(recovery: Recovery, now: int, forget_losses: bool) -> None:
    """Take the reduction back."""
    if forget_losses:
        recovery.tx.board.forget_losses()
    if recovery.undo_window:
        recovery.tx.cc.on_spurious(now)
        recovery.cwr_due = False
    recovery.undo_marker = None
    recovery.rack.is_advanced = True  # look at what is in flight with fresh eyes


def undo_whole(recovery: Recovery, echoed: int | None, now: int) -> bool:
    """All that was outstanding is acknowledged: undo if it was in error. Return True to stay in the phase (RFC 6582 3.2 step 1)."""
    if may_undo(recovery, echoed):
        if recovery.phase == LOSS:
            recovery.counters.TCPLossUndo += 1
        else:
            recovery.counters.TCPFullUndo += 1
        undo(recovery, now, False)
    else:
        recovery.rack.on_recovery_end()
    if not recovery.is_sack and recovery.tx.snd_una == recovery.recover:
        # Without SACK more duplicate ACKs for the same octet may still come: nothing above it was acknowledged yet.
        if not recovery.tx.board.retrans_out:
            recovery.resent_at = 0
        return True
    if recovery.phase == RECOVERY:
        recovery.end_reduction(now)
    recovery.phase = OPEN
    return False


def undo_partly(recovery: Recovery, heard: Heard, echoed: int | None, now: int) -> bool:
    """A partial ACK by a delayed original. Return True when nothing more should be marked now."""
    board = recovery.tx.board
    if recovery.undo_marker is None or not came_before_retransmission(recovery, echoed):
        return False
    recovery.counters.TCPTSReorder += 1
    recovery.on_reordering(heard.prior_una)
    if board.retrans_out:
        recovery.is_holding = True  # retransmissions are on their way: neither more of them nor an end yet
        return True
    recovery.resent_at = 0
    recovery.counters.TCPPartialUndo += 1
    undo(recovery, now, True)
    recovery.phase = OPEN
    recovery.try_open()
    return False


def undo_by_dsack(recovery: Recovery, now: int) -> bool:
    """Every retransmission was reported to have arrived twice."""
    if recovery.undo_marker is None or recovery.undo_resent:
        return False
    recovery.counters.TCPDSACKUndo += 1
    undo(recovery, now, False)
    if recovery.phase == RECOVERY:
        recovery.phase = DISORDER
    return True


def undo_loss(recovery: Recovery, by_frto: bool, echoed: int | None, now: int) -> bool:
    """Undo a timeout if F-RTO found it spurious, or the ACK shows it. Return whether it was undone."""
    if not by_frto and not may_undo(recovery, echoed):
        return False
    undo(recovery, now, True)
    recovery.counters.TCPLossUndo += 1
    if by_frto:
        recovery.counters.TCPSpuriousRTOs += 1
    if not recovery.is_sack and recovery.tx.snd_una == recovery.recover:
        return True
    if by_frto or recovery.is_sack:
        recovery.phase = OPEN
    return True
