"""Receive half of a connection: RCV.* variables, reassembly, ACK and window policy.

RFC 9293 3.8.6 and 3.10.7.4, RFC 1122 4.2.3.2 and 4.2.3.3 (delayed ACK, silly window), RFC 5681 4.2, RFC 2018 4 (SACK blocks),
RFC 7323 4.3 (TS.Recent). Knows no clock and no I/O. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tunstack.engine.timers import NEVER
from tunstack.seq import MASK, seq_ge, seq_gt, seq_lt, seq_max

if TYPE_CHECKING:
    from tunstack.engine.urgent import Urgent

WINDOW_MAX = 65535  # of the header, unscaled
MSS_GUESS = 536  # of the peer's segments, before the first
DELACK_MIN = 40_000  # us, Linux's TCP_DELACK_MIN and TCP_ATO_MIN
DELACK_MAX = 200_000  # us, in an interactive session; else 500 ms, which a round trip always is below
QUICKACKS_MAX = 16  # segments acknowledged at once at the start of a connection
OUT_OF_ORDER_MAX = 4096  # pieces held for reassembly, whatever their size
JOIN_MAX = 2048  # octets to which pieces that wait for the application are joined
PIECE_COST = 256  # octets of memory that a piece held costs beside its data


class Piece:
    """Out-of-order data held until the hole before it is filled: [seq, end), FIN not counted."""

    __slots__ = ("data", "end", "fin", "seq")

    def __init__(self, seq: int, end: int, data: bytes, fin: bool) -> None:
        self.seq = seq
        self.end = end
        self.data = data
        self.fin = fin


class Receiver:
    """The RCV.* variables of RFC 9293 3.3.1.

    Invariants: `rcv_nxt <= rcv_adv`, the right edge that was advertised, which is never taken back; pieces are in order,
    disjoint, and lie after rcv_nxt. `ready` are the octets to deliver at the end of the segment, `queue` what waits for a paused reader.
    """

    __slots__ = (
        "acks_due",
        "advmss",
        "ato",
        "buffer_max",
        "buffer_size",
        "delack_at",
        "dsack",
        "ece",
        "ecn_ok",
        "ecn_seen",
        "eof",
        "irs",
        "last_data_at",
        "mss",
        "pieces",
        "pieces_size",
        "pingpong",
        "queue",
        "queued",
        "quick",
        "rcv_adv",
        "rcv_nxt",
        "rcv_wup",
        "ready",
        "round_at",
        "round_seq",
        "sack_blocks",
        "ts_recent",
        "ts_recent_at",
        "urgent",
        "wscale",
    )

    def __init__(self, irs: int, window: int, buffer_size: int, buffer_max: int, wscale: int, mss: int) -> None:
        self.irs = irs  # initial receive sequence number
        self.rcv_nxt = (irs + 1) & MASK  # next sequence number expected
        self.rcv_adv = (self.rcv_nxt + window) & MASK  # right edge of the window that was advertised
        self.rcv_wup = self.rcv_nxt  # rcv_nxt of the last ACK that left
        self.wscale = wscale  # shift of the windows that we send
        self.buffer_size = buffer_size  # octets that we are willing to hold; grows to buffer_max
        self.buffer_max = buffer_max
        self.advmss = mss  # the largest segment that we told the peer to send
        self.mss = min(mss, MSS_GUESS)  # size of the peer's full segments, as seen
        self.ready: deque[memoryview] = deque()  # in-order data of the segment in hand, borrowed
        self.queue: deque[bytes] = deque()  # in-order data that the application has not taken
        self.queued = 0  # its octets
        self.pieces: list[Piece] = []
        self.pieces_size = 0  # octets of the pieces, their cost included
        self.sack_blocks: list[tuple[int, int]] = []  # newest first (RFC 2018 4)
        self.dsack: tuple[int, int] | None = None  # what came twice, to be told with the next ACK (RFC 2883)
        self.eof = False  # the peer's FIN was reached
        self.urgent: Urgent | None = None  # the urgent octet ahead of the reader (urgent.py)
        self.acks_due = 0  # ACKs that must leave at the next poll, one for each event that asks for its own
        self.delack_at = NEVER
        self.quick = 0  # segments to acknowledge at once before delaying
        self.pingpong = False  # an interactive session: ACKs wait for data to ride on
        self.ato = 0  # delayed-ACK timeout, us; 0 until there was data
        self.last_data_at = -DELACK_MIN  # when data came last
        self.ecn_ok = False  # both sides know ECN (ecn.py)
        self.ece = 0  # the flag ECE from a CE mark on until the peer says CWR
        self.ecn_seen = False  # data came that was ECT or CE
        self.ts_recent = 0  # TS.Recent
        self.ts_recent_at = 0  # when it was taken
        self.round_seq = self.rcv_nxt  # where the receive round in progress ends (buffer auto-tuning)
        self.round_at = 0

    # The window.

    @property
    def rcv_wnd(self) -> int:
        """Octets of the window that was advertised and not yet used."""
        return (self.rcv_adv - self.rcv_nxt) & MASK

    def select_window(self) -> int:
        """Return the window to advertise, in octets: never less than what was, and grown only by a useful amount.

        RFC 9293 3.8.6.2.2: the right edge moves by at least an MSS or half the buffer.
        """
        current = (self.rcv_adv - self.rcv_nxt) & MASK
        free = self.buffer_size - self.queued - self.pieces_size
        if free - current < min(self.advmss, self.buffer_size >> 1):
            return current
        return free

    def advertise(self) -> int:  # hot
        """Return the header's window field for a segment that leaves now; it carries the ACK."""
        current = (self.rcv_adv - self.rcv_nxt) & MASK
        window = self.buffer_size - self.queued - self.pieces_size
        if window - current < self.advmss and window - current < self.buffer_size >> 1:
            window = current
        shift = self.wscale
        field = (window + (1 << shift) - 1) >> shift  # rounded up: rounding down would take the edge back
        if field > WINDOW_MAX:
            field = WINDOW_MAX
        window = field << shift
        if window > current:
            self.rcv_adv = (self.rcv_nxt + window) & MASK
        self.rcv_wup = self.rcv_nxt
        self.delack_at = NEVER
        return field

    def tune(self, now: int, srtt: int) -> None:
        """Once a round trip: where the peer filled more than half the buffer in it, double the buffer (dynamic right-sizing)."""
        if not self.round_at:
            self.round_at = now
            self.round_seq = self.rcv_nxt
        elif now - self.round_at >= srtt:
            received = (self.rcv_nxt - self.round_seq) & MASK
            if received * 2 > self.buffer_size and self.queued * 4 < self.buffer_size:
                self.buffer_size = min(self.buffer_size * 2, self.buffer_max)
            self.round_at = now
            self.round_seq = self.rcv_nxt

    def wants_window_update(self) -> bool:
        """Whether the application's reading opened the window enough to say so unasked: it would at least double."""
        return self.select_window() >= 2 * max((self.rcv_adv - self.rcv_nxt) & MASK, 1)

    # Data.

    def is_acceptable(self, seq: int, end: int) -> bool:
        """RFC 9293 3.10.7.4, first step, as Linux reads it: some of [seq, end) may lie in the window, edges included."""
        return seq_ge(end, self.rcv_wup) and seq_ge(self.rcv_adv, seq)

    def accept(self, seq: int, payload: memoryview, fin: bool) -> bool:
        """Take in the data of a segment (payload not trimmed, seq that of its first octet). Return whether rcv_nxt moved.

        What is new and in order goes to `ready`; what lies beyond a hole is copied and held; the rest is trimmed away.
        The caller sees to the ACK.
        """
        rcv_nxt = self.rcv_nxt
        end = (seq + len(payload)) & MASK
        if seq_gt(end, self.rcv_adv):  # beyond the window: the peer may send it again later
            payload = payload[: (self.rcv_adv - seq) & MASK]
            end = self.rcv_adv
            fin = False
        if seq_lt(seq, rcv_nxt):
            self.note_duplicate(seq, len(payload))
            if seq_lt(end, rcv_nxt) or (end == rcv_nxt and not fin):
                return False
            payload = payload[(rcv_nxt - seq) & MASK :]
            seq = rcv_nxt
        if seq == end and not fin:
            return False
        if seq != rcv_nxt:
            self._hold(seq, end, payload, fin)
            return False
        if len(payload):
            self.ready.append(payload)
        self.rcv_nxt = end
        if fin:
            self._reach_fin()
        elif self.pieces:
            self._take_pieces()
        return True

    @property
    def is_full(self) -> bool:
        """Whether more waits for the application than our windows, each rounded up, can have asked for.

        A peer that sends an octet for each ACK gains up to a unit of the scaled window with it, since the edge is not taken back.
        """
        return self.queued > self.buffer_size + (2 << self.wscale)

    def keep(self, data: memoryview) -> None:
        """Copy in-order data that the application does not take now; small pieces are joined, each would cost more than its octets."""
        queue = self.queue
        if queue and len(queue[-1]) + len(data) <= JOIN_MAX:
            queue[-1] += bytes(data)
        else:
            queue.append(bytes(data))
        self.queued += len(data)

    def _reach_fin(self) -> None:
        """The FIN takes one sequence number; nothing after it exists."""
        self.rcv_nxt = (self.rcv_nxt + 1) & MASK
        if seq_gt(self.rcv_nxt, self.rcv_adv):
            self.rcv_adv = self.rcv_nxt  # a FIN is taken from a closed window too
        self.eof = True
        self.pieces.clear()
        self.pieces_size = 0
        self.sack_blocks.clear()

    def _take_pieces(self) -> None:
        """Move the pieces that have become in-order to `ready`."""
        pieces = self.pieces
        taken = 0
        for piece in pieces:
            if seq_gt(piece.seq, self.rcv_nxt):
                break
            taken += 1
            self.pieces_size -= len(piece.data) + PIECE_COST
            if seq_gt(piece.end, self.rcv_nxt):
                self.ready.append(memoryview(piece.data)[(self.rcv_nxt - piece.seq) & MASK :])
                self.rcv_nxt = piece.end
            if piece.fin and piece.end == self.rcv_nxt:
                self._reach_fin()
                return
        del pieces[:taken]
        self.sack_blocks = [block for block in self.sack_blocks if seq_gt(block[0], self.rcv_nxt)]

    def _hold(self, seq: int, end: int, payload: memoryview, fin: bool) -> None:
        """Keep out-of-order data, without what is held already. What is held first stays."""
        pieces = self.pieces
        index = len(pieces)
        while index and seq_gt(pieces[index - 1].seq, seq):
            index -= 1
        first = index
        left = seq
        if index and seq_ge(pieces[index - 1].end, seq):
            left = pieces[index - 1].end
            first = index - 1
        if left != seq:
            self.dsack = (seq, end if seq_lt(end, left) else left)
        fin = fin and not self._holds_fin(end)
        # Fill each gap between the pieces that [left, end) reaches over.
        while seq_lt(left, end) or (fin and left == end):
            right = pieces[index].seq if index < len(pieces) and seq_lt(pieces[index].seq, end) else end
            if seq_lt(left, right) or (fin and right == end == left):
                if len(pieces) >= OUT_OF_ORDER_MAX:
                    return
                data = bytes(payload[(left - seq) & MASK : (right - seq) & MASK])
                pieces.insert(index, Piece(left, right, data, fin and right == end))
                self.pieces_size += len(data) + PIECE_COST
                index += 1
            if right == end:
                break
            left = pieces[index].end
            self.dsack = (pieces[index].seq, end if seq_lt(end, left) else left)
            index += 1
        self._report_block(first, index)

    def _holds_fin(self, seq: int) -> bool:
        """Whether the FIN with this sequence number is held already."""
        for piece in reversed(self.pieces):
            if seq_lt(piece.end, seq):
                return False
            if piece.fin and piece.end == seq:
                return True
        return False

    def _report_block(self, low: int, high: int) -> None:
        """Put the contiguous block around pieces[low:high], contiguous themselves, first among the SACK blocks (RFC 2018 4).

        A FIN counts. Blocks that are listed are not looked at piece by piece: behind one lost packet there may be thousands.
        """
        pieces = self.pieces
        left, right = pieces[low].seq, self._end_of(high - 1)
        rest = []
        for block in self.sack_blocks:
            if seq_lt(block[1], left) or seq_gt(block[0], right):
                rest.append(block)
            else:
                left = block[0] if seq_lt(block[0], left) else left
                right = seq_max(block[1], right)
        while low and pieces[low - 1].end == left:
            low -= 1
            left = pieces[low].seq
        while high < len(pieces) and pieces[high].seq == right:
            right = self._end_of(high)
            high += 1
        self.sack_blocks = [(left, right), *rest[:3]]

    def note_duplicate(self, seq: int, length: int) -> None:
        """Octets came: those of them before rcv_nxt for the second time."""
        if length and seq_lt(seq, self.rcv_nxt):
            end = (seq + length) & MASK
            self.dsack = (seq, end if seq_lt(end, self.rcv_nxt) else self.rcv_nxt)

    def poll_blocks(self, limit: int) -> list[tuple[int, int]]:
        """Return the SACK blocks for an ACK that leaves now, `limit` of them at most; a D-SACK comes first, and once (RFC 2883 4)."""
        blocks = self.sack_blocks
        if self.dsack is not None:
            blocks = [self.dsack, *blocks]
            self.dsack = None
        return blocks[:limit]

    def _end_of(self, index: int) -> int:
        """Return the sequence number behind a piece, its FIN counted."""
        piece = self.pieces[index]
        return (piece.end + piece.fin) & MASK

    # ACK policy.

    def ack_policy(self, size: int, now: int, rto: int) -> None:  # hot
        """In-order data in packets of `size` octets came (0: only a FIN): acknowledge at once or within the delayed-ACK timeout.

        RFC 5681 4.2. At once: more than one full segment is unacknowledged, or the connection is young. Octets count, not segments.
        """
        if size:
            if size > self.mss:
                self.mss = size if size < self.advmss else self.advmss
            if self.ato:
                self._follow_pace(now - self.last_data_at, rto)
            else:
                self.add_quickacks()
                self.ato = DELACK_MIN
            self.last_data_at = now
        if self.acks_due:
            return
        unacked = (self.rcv_nxt - self.rcv_wup) & MASK
        if unacked > self.mss or (self.quick and not self.pingpong) or not self.ato:
            self.acks_due = 1
        elif self.delack_at == NEVER:
            self.delack_at = now + min(self.ato, DELACK_MAX)
        elif self.delack_at <= now + (self.ato >> 2):  # about to leave anyway
            self.acks_due = 1

    def _follow_pace(self, gap: int, rto: int) -> None:  # hot
        """The delayed-ACK timeout follows the time between segments (Linux's tcp_event_data_recv)."""
        if gap <= DELACK_MIN >> 1:
            self.ato = (self.ato >> 1) + (DELACK_MIN >> 1)
        elif gap < self.ato:
            self.ato = min((self.ato >> 1) + gap, rto)
        elif gap > rto:  # the peer may have started anew: do not hold it up
            self.add_quickacks()

    def add_quickacks(self, limit: int = QUICKACKS_MAX) -> None:
        """Acknowledge the next half window at once, `limit` segments at most: a sender in slow start waits for ACKs."""
        segments = ((self.rcv_adv - self.rcv_wup) & MASK) // (2 * self.mss) or 2
        self.quick = max(self.quick, min(segments, limit))

    def ack_sent(self) -> None:  # hot
        """An ACK leaves, alone or with data."""
        if self.quick and (self.acks_due or self.delack_at != NEVER):
            self.quick -= 1
            if not self.quick:
                self.ato = DELACK_MIN
        if self.acks_due:
            self.acks_due -= 1

    def delay_passed(self, rto: int) -> None:
        """The delayed-ACK timeout passed without data to ride on: this is no conversation, or a slower one."""
        self.acks_due = max(self.acks_due, 1)
        if self.pingpong:
            self.pingpong = False
            self.ato = DELACK_MIN
        else:
            self.ato = min(self.ato << 1, rto)

    def enter_quickack(self, limit: int = QUICKACKS_MAX) -> None:
        """Something is amiss (a hole, a duplicate): acknowledge at once for a while (Linux's quick-ACK mode)."""
        self.add_quickacks(limit)
        self.pingpong = False
        self.ato = DELACK_MIN

    def discard(self) -> None:
        """Forget all that is held (reset, or the application has gone)."""
        self.queue.clear()
        self.queued = 0
        self.ready.clear()
        self.pieces.clear()
        self.pieces_size = 0
        self.sack_blocks.clear()
