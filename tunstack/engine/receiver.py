"""Receive half of a connection: RCV.* variables and reassembly.

RFC 9293 3.3.1 and 3.10.7.4, RFC 2018 4 (SACK blocks), RFC 7323 4.3 (TS.Recent). What is advertised is in receivewindow.py, when it is
said in ackpolicy.py. Knows no clock and no I/O. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tunstack.engine import prune, receivewindow
from tunstack.engine.counters import Counters
from tunstack.engine.receivewindow import PIECE_COST, RATIO_DEFAULT, RATIO_ONE, SPACE_SEGMENTS, WINDOW_MAX, field_of
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK, seq_ge, seq_gt, seq_lt, seq_max

if TYPE_CHECKING:
    from tunstack.engine.memory import Memory
    from tunstack.engine.urgent import Urgent

MSS_GUESS = 536  # of the peer's segments, before the first
MSS_MIN = 88  # TCP_MIN_MSS in Linux: no full segment is thought to be smaller
OUT_OF_ORDER_MAX = 4096  # pieces held for reassembly, whatever their size
JOIN_MAX = 2048  # octets to which pieces that wait for the application are joined


class Piece:
    """Out-of-order data held until the hole before it is filled: [seq, end), FIN not counted."""

    __slots__ = ("data", "end", "fin", "seq")

    def __init__(self, seq: int, end: int, data: bytes, fin: bool) -> None:
        self.seq = seq
        self.end = end
        self.data = data
        self.fin = fin


# What a receiver has while it holds nothing, as an idle one does: the same for all of them. Both stay empty.
NO_QUEUE: Final[deque[bytes]] = deque(maxlen=0)
NO_PIECES: Final[list[Piece]] = []


class ReceiveTerms:
    """What a receiver begins with that no peer decides: the same for all connections of a listener whose SYNs are alike."""

    __slots__ = (
        "advmss",
        "clamp_max",
        "field",
        "full_space",
        "is_tuned",
        "mss",
        "open_field",
        "rcv_ssthresh",
        "rcvbuf",
        "rcvbuf_max",
        "space",
        "window",
        "window_clamp",
        "wscale",
    )

    def __init__(self, window: int, rcvbuf: int, rcvbuf_max: int, clamp: int, wscale: int, mss: int) -> None:
        """`window` is what our SYN offered; `clamp` bounds all later ones, as does their field. `mss` is the peer's to us.

        The window is clamped to the buffer, of which a segment is kept free (Linux's tcp_init_buffer_space).
        """
        self.window = window
        self.wscale = wscale
        self.advmss = mss
        self.rcvbuf = rcvbuf
        self.rcvbuf_max = rcvbuf_max
        self.is_tuned = rcvbuf_max > rcvbuf
        self.full_space = full = rcvbuf * RATIO_DEFAULT // RATIO_ONE
        self.clamp_max = clamp
        clamp = min(clamp, WINDOW_MAX << wscale, full)
        if clamp > 2 * mss and clamp + mss > full:
            clamp = max(2 * mss, full - mss)
        self.window_clamp = clamp
        self.rcv_ssthresh = min(window, clamp)
        self.space = min(self.rcv_ssthresh, SPACE_SEGMENTS * mss)
        self.field = window and 1
        self.mss = max(min(mss, MSS_GUESS, window >> 1), MSS_MIN)
        self.open_field = field_of(self.rcv_ssthresh, full, wscale, self.mss)


class Receiver:
    """The RCV.* variables of RFC 9293 3.3.1.

    Invariants: `rcv_nxt <= rcv_adv`, the right edge that was advertised, which is never taken back; pieces are in order,
    disjoint, and lie after rcv_nxt. `ready` are the octets to deliver at the end of the segment, `queue` what waits for a paused reader.
    """

    __slots__ = (
        "acks_due",
        "advmss",
        "ato",
        "clamp_max",
        "counters",
        "delack_at",
        "dsack",
        "dup_acks",
        "dup_nxt",
        "ece",
        "ecn_ok",
        "ecn_seen",
        "eof",
        "field",
        "field_nxt",
        "full_space",
        "irs",
        "is_tuned",
        "last_data_at",
        "last_size",
        "memory",
        "mss",
        "open_field",
        "pieces",
        "pieces_size",
        "pingpong",
        "pushed",
        "queue",
        "queued",
        "quick",
        "ratio",
        "rcv_adv",
        "rcv_nxt",
        "rcv_rtt",
        "rcv_ssthresh",
        "rcv_wup",
        "rcvbuf",
        "rcvbuf_max",
        "ready",
        "received",
        "received_seq",
        "rtt_at",
        "rtt_ecr",
        "rtt_seq",
        "sack_blocks",
        "space",
        "space_at",
        "space_seq",
        "ts_recent",
        "ts_recent_at",
        "urgent",
        "window_clamp",
        "wscale",
    )

    def __init__(self, irs: int, terms: ReceiveTerms, counters: Counters, memory: Memory, now: int) -> None:
        self.counters = counters
        self.memory = memory  # of the whole stack
        self.irs = irs  # initial receive sequence number
        self.rcv_nxt = rcv_nxt = (irs + 1) & MASK  # next sequence number expected
        self.rcv_adv = (rcv_nxt + terms.window) & MASK  # right edge of the window that was advertised
        self.rcv_wup = rcv_nxt  # rcv_nxt of the last ACK that left
        self.wscale = terms.wscale  # shift of the windows that we send
        self.advmss = terms.advmss  # the largest segment that we told the peer to send
        # What is held.
        self.ready: tuple[memoryview, ...] = ()  # in-order data of the segment in hand, borrowed
        self.queue = NO_QUEUE  # in-order data that the application has not taken
        self.queued = 0  # its octets
        self.pieces = NO_PIECES
        self.pieces_size = 0  # octets of the pieces, with PIECE_COST for each
        self.sack_blocks: Sequence[tuple[int, int]] = ()  # newest first (RFC 2018 4)
        self.dsack: tuple[int, int] | None = None  # what came twice, to be told with the next ACK (RFC 2883)
        self.eof = False  # the peer's FIN was reached
        self.urgent: Urgent | None = None  # the urgent octet ahead of the reader (urgent.py)
        self.received = 0  # octets of sequence space that came in order until ...
        self.received_seq = rcv_nxt  # ... here (count_received)
        self.ts_recent = 0  # TS.Recent
        self.ts_recent_at = 0  # when it was taken
        # receivewindow.py
        self.rcvbuf = terms.rcvbuf  # memory that we are willing to hold, with its overhead; grows to ...
        self.rcvbuf_max = terms.rcvbuf_max
        self.is_tuned = terms.is_tuned  # it grows by itself
        self.ratio = RATIO_DEFAULT  # share of it that is data
        self.full_space = terms.full_space  # octets of data that it holds: rcvbuf by ratio
        self.clamp_max = terms.clamp_max  # TCP_WINDOW_CLAMP, NEVER: none
        self.window_clamp = terms.window_clamp  # largest window that the buffer and that allow
        self.rcv_ssthresh = terms.rcv_ssthresh  # largest window for now: opens with what comes (slow start)
        self.field = terms.field  # window field of the last segment; of the SYN only whether there was a window
        self.field_nxt = -1  # rcv_nxt of that segment, -1 where something changed since
        self.open_field = terms.open_field  # what the field is while nothing is held, 0 if that must be computed
        self.rcv_rtt = NEVER  # round-trip time as the receiver sees it, NEVER until there is a sample
        self.rtt_seq = rcv_nxt  # when this has come, a window of data has been sent for ...
        self.rtt_at = 0  # ... what was advertised then; 0: not begun
        self.rtt_ecr = 0  # timestamp echo of the last sample
        self.space = terms.space  # octets that the application took in a round trip, the most so far
        self.space_seq = rcv_nxt  # what it had taken when the round trip in progress began ...
        self.space_at = now  # ... which was then
        # ackpolicy.py
        self.mss = terms.mss  # size of the peer's full segments, as seen
        self.last_size = 0  # of the last segment, if that may have been a full one of a smaller MSS
        self.acks_due = 0  # ACKs that must leave at the next poll, one for each event that asks for its own
        self.delack_at = NEVER
        self.quick = 0  # segments to acknowledge at once before delaying
        self.pingpong = False  # an interactive session: ACKs wait for data to ride on
        self.pushed = 0  # PUSHED, PUSHED_TWICE: segments since the last ACK after which more may not follow soon
        self.ato = 0  # delayed-ACK timeout; 0 until there was data
        self.last_data_at = now  # when data came last
        self.dup_acks = 0  # segments beyond the hole at ...
        self.dup_nxt = -1  # ... this rcv_nxt
        # ecn.py
        self.ecn_ok = False  # both sides know ECN
        self.ece = 0  # the flag ECE from a CE mark on until the peer says CWR
        self.ecn_seen = False  # data came that was ECT or CE

    @property
    def rcv_wnd(self) -> int:
        """Octets of the window that was advertised and not yet used."""
        return (self.rcv_adv - self.rcv_nxt) & MASK

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
            self.ready += (payload,)
        self.rcv_nxt = end
        if fin:
            self.reach_fin()
        elif self.pieces:
            self._take_pieces()
        return True

    @property
    def is_full(self) -> bool:
        """Whether the buffer is used up, or the memory of the whole stack.

        It can be within the window: small segments have more overhead, and a peer that sends an octet for each ACK gains up to a unit
        of the scaled window with it, since the edge is not taken back.
        """
        return receivewindow.held(self) > self.rcvbuf or self.memory.is_exhausted

    def keep(self, data: memoryview) -> None:
        """Copy in-order data that the application does not take now; small pieces are joined, each would cost more than its octets."""
        queue = self.queue
        if queue and len(queue[-1]) + len(data) <= JOIN_MAX:
            queue[-1] += bytes(data)
        elif queue:
            queue.append(bytes(data))
        else:
            self.queue = deque((bytes(data),))
        self.queued += len(data)
        self.field_nxt = -1

    def take(self) -> bytes:
        """Give the application the first piece of what waits for it."""
        data = self.queue.popleft()
        if not self.queue:
            self.queue = NO_QUEUE
        self.queued -= len(data)
        self.field_nxt = -1
        return data

    def put_back(self, data: bytes) -> None:
        """Take back the part of a piece that the application had no room for."""
        if self.queue:
            self.queue.appendleft(data)
        else:
            self.queue = deque((data,))
        self.queued += len(data)

    def reach_fin(self) -> None:
        """The FIN takes one sequence number; nothing after it exists."""
        self.rcv_nxt = (self.rcv_nxt + 1) & MASK
        if seq_gt(self.rcv_nxt, self.rcv_adv):
            self.rcv_adv = self.rcv_nxt  # a FIN is taken from a closed window too
        self.eof = True
        self.pieces = NO_PIECES
        self.pieces_size = 0
        self.sack_blocks = ()

    def _take_pieces(self) -> None:
        """Move the pieces that have become in-order to `ready`."""
        pieces = self.pieces
        taken = 0
        ready = []
        for piece in pieces:
            if seq_gt(piece.seq, self.rcv_nxt):
                break
            taken += 1
            self.pieces_size -= len(piece.data) + PIECE_COST
            if seq_gt(piece.end, self.rcv_nxt):
                ready.append(memoryview(piece.data)[(self.rcv_nxt - piece.seq) & MASK :])
                self.rcv_nxt = piece.end
            if piece.fin and piece.end == self.rcv_nxt:
                self.ready += tuple(ready)
                self.reach_fin()
                return
        self.ready += tuple(ready)
        if taken < len(pieces):
            del pieces[:taken]
        else:
            self.pieces = NO_PIECES
        self.sack_blocks = [block for block in self.sack_blocks if seq_gt(block[0], self.rcv_nxt)]

    def _hold(self, seq: int, end: int, payload: memoryview, fin: bool) -> None:
        """Keep out-of-order data, without what is held already. What is held first stays."""
        pieces = self.pieces or []
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
                if len(pieces) >= OUT_OF_ORDER_MAX or self.is_full:
                    if not prune.make_room(self, left):
                        self.counters.TCPOFODrop += 1
                        return
                    self._hold(left, end, payload[(left - seq) & MASK :], fin)  # the pieces are others now
                    return
                data = bytes(payload[(left - seq) & MASK : (right - seq) & MASK])
                pieces.insert(index, Piece(left, right, data, fin and right == end))
                self.pieces = pieces
                self.pieces_size += len(data) + PIECE_COST
                self.field_nxt = -1
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

    def poll_blocks(self, limit: int) -> Sequence[tuple[int, int]]:
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

    def discard(self) -> None:
        """Forget all that is held (reset, or the application has gone)."""
        self.queue = NO_QUEUE
        self.queued = 0
        self.ready = ()
        self.pieces = NO_PIECES
        self.pieces_size = 0
        self.sack_blocks = ()
