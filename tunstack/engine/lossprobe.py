"""The tail loss probe, and what its acknowledgement tells: RFC 8985 7. Parts of recovery.py's work; retransmission.py sets its timer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.phase import CWR, OPEN
from tunstack.seq import seq_gt, seq_lt

if TYPE_CHECKING:
    from tunstack.engine.recovery import Recovery
    from tunstack.engine.scoreboard import Heard


def on_probe_sent(recovery: Recovery, was_resent: bool) -> None:
    """The probe leaves."""
    recovery.counters.TCPLossProbes += 1
    recovery.probe_end = recovery.tx.snd_nxt
    recovery.probe_was_resent = was_resent
    recovery.is_quiet = False


def judge_probe(recovery: Recovery, heard: Heard, is_duplicate: bool, now: int) -> None:
    """Whether the probe repaired a loss (RFC 8985 7.4.2): then the window falls, since there was one."""
    end = recovery.probe_end
    assert end is not None
    una = recovery.tx.snd_una
    if seq_lt(una, end):
        return
    if recovery.probe_was_resent and not heard.is_probe_dsacked:
        if seq_gt(una, end):
            recovery.begin_reduction(now)
            recovery.phase = CWR
            recovery.end_reduction(now)
            recovery.phase = OPEN
            recovery.try_open()
            recovery.counters.TCPLossProbeRecovery += 1
        elif not is_duplicate or heard.sacked:
            return
    recovery.probe_end = None
