"""RACK: loss detection by time.

RFC 8985 6 and 7.1, with Linux's names and bounds. Remembers the newest transmission that was delivered; whatever left before it by
more than the reordering window, and is neither acknowledged nor SACKed, is lost. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.scoreboard import EVER_RESENT, LOST, RESENT, SACKED, Heard, Scoreboard
from tunstack.seq import seq_ge, seq_gt

if TYPE_CHECKING:
    from tunstack.engine.rtt import RttEstimator
    from tunstack.engine.sysctl import Sysctl

PERSIST = 16  # recoveries after which a window widened for D-SACKs becomes narrow again (RFC 8985 6.2 step 4)
STEPS_MAX = 0xFF

# Bits of tcp_recovery.
STATIC_WINDOW = 2  # the reordering window stays a quarter of the least RTT
NO_DUPTHRESH = 4  # also at three SACKed segments it is waited for


class Rack:
    """RACK's per-connection variables (RFC 8985 5.2)."""

    __slots__ = ("dsack_round", "end", "is_advanced", "persist", "reordering", "reorderings", "rtt", "sent_at", "steps")

    def __init__(self, reordering: int) -> None:
        self.sent_at = 0  # RACK.xmit_ts: when the newest transmission that was delivered left
        self.end = 0  # RACK.end_seq: its end
        self.rtt = 0  # RACK.rtt: how long it took
        self.is_advanced = False  # something was delivered since losses were last looked for
        self.reordering = reordering  # duplicate-ACK threshold, segments (tcp_reordering)
        self.reorderings = 0  # how often segments were seen to overtake each other
        self.steps = 1  # RACK.reo_wnd_mult: the reordering window in quarters of the least RTT
        self.persist = 0  # RACK.reo_wnd_persist: recoveries until it is one again
        self.dsack_round: int | None = None  # RACK.dsack_round: until then another D-SACK widens nothing

    def advance(self, heard: Heard) -> None:
        """Take note of the newest transmission delivered (RFC 8985 6.2 step 2)."""
        sent_at = heard.newest
        if not sent_at:
            return
        self.is_advanced = True
        self.rtt = heard.rtt
        if sent_at > self.sent_at or (sent_at == self.sent_at and seq_gt(heard.newest_end, self.end)):
            self.sent_at = sent_at
            self.end = heard.newest_end

    def on_reordering(self, distance: int, mss: int, most: int) -> None:
        """Data overtook other data by `distance` octets."""
        self.reorderings += 1
        self.reordering = max(self.reordering, min(-(-distance // mss), most))

    def on_dsack(self, una: int, nxt: int) -> None:
        """A retransmission was needless: wait longer, at most one step a round trip (RFC 8985 6.2 step 4)."""
        if self.dsack_round is not None and not seq_ge(una, self.dsack_round):
            return
        self.dsack_round = nxt
        self.steps = min(self.steps + 1, STEPS_MAX)
        self.persist = PERSIST

    def on_recovery_end(self) -> None:
        """One recovery less to wait for."""
        if self.persist:
            self.persist -= 1
            if not self.persist:
                self.steps = 1

    def window(self, is_recovering: bool, sacked_segments: int, rtt: RttEstimator, sysctl: Sysctl) -> int:
        """Return the reordering window (RFC 8985 6.2 step 4): none while nothing was ever reordered and the evidence is plain."""
        if not self.reorderings and (is_recovering or (sacked_segments >= self.reordering and not sysctl.tcp_recovery & NO_DUPTHRESH)):
            return 0
        steps = 1 if sysctl.tcp_recovery & STATIC_WINDOW else self.steps
        return min((rtt.min_rtt >> 2) * steps, rtt.srtt)

    def detect(self, board: Scoreboard, reo_wnd: int, now: int) -> tuple[int, int]:
        """Mark what is lost (RFC 8985 6.2 step 5). Return when to look again, 0: need not; and the octets of lost retransmissions."""
        look_at = 0
        resent_lost = 0
        for flight in board.flights:
            marks = flight.marks
            if marks & SACKED or marks & (LOST | RESENT) == LOST:
                continue
            sent_at = flight.sent_at
            if sent_at > self.sent_at or (sent_at == self.sent_at and not seq_gt(self.end, flight.end)):
                if marks & EVER_RESENT:
                    continue
                break  # all that follow left later still
            due_at = sent_at + self.rtt + reo_wnd
            if due_at <= now:
                if marks & LOST:
                    resent_lost += 1
                board.mark_lost(flight)
            elif due_at > look_at:
                look_at = due_at
        return look_at, resent_lost

    def is_overdue(self, sent_at: int, reo_wnd: int, now: int) -> bool:
        """Whether a segment that left then should have been acknowledged by now (RFC 8985 6.3)."""
        return sent_at + self.rtt + reo_wnd <= now
