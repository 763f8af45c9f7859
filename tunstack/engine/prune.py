"""The receive buffer is used up, or memory as a whole: what is held beyond a hole makes room for what comes before it.

RFC 2018 8 allows to drop what was reported by SACK: only rcv_nxt is a promise. Linux's tcp_prune_queue and tcp_prune_ofo_queue. Lengths
are octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.receivewindow import PIECE_COST
from tunstack.seq import seq_gt

if TYPE_CHECKING:
    from tunstack.engine.receiver import Receiver

# At least so much of the buffer goes at a time: pruning looks at all that is held, and a peer that fills the buffer
# with specks must not have that done for each of its segments (CVE-2018-5390 was this, in Linux).
SHARE = 8
COLLAPSED_MAX = 65536  # octets to which pieces are joined


def make_room(rx: Receiver, seq: int) -> bool:
    """Make room for data at `seq`: join what is contiguous, then drop from the end what lies behind it. Return whether there is room."""
    counters = rx.counters
    pieces = rx.pieces
    counters.PruneCalled += 1
    if pieces and seq_gt(pieces[-1].seq, seq):
        goal = rx.pieces_size - rx.rcvbuf // SHARE
        _collapse(rx)
        if rx.is_full or rx.pieces_size > goal:
            counters.OfoPruned += 1
            while pieces and seq_gt(pieces[-1].seq, seq) and (rx.is_full or rx.pieces_size > goal):
                rx.pieces_size -= len(pieces.pop().data) + PIECE_COST
            rx.sack_blocks = ()  # as after a timeout (RFC 2018 8): what is left is reported as more comes
        rx.field_nxt = -1
        if not rx.is_full:
            return True
    counters.RcvPruned += 1
    return False


def _collapse(rx: Receiver) -> None:
    """Join contiguous pieces: each costs memory beside its octets."""
    pieces = rx.pieces
    kept = 0
    run: list[bytes] = []
    size = 0
    for piece in pieces:
        last = pieces[kept - 1] if kept else None
        if last is not None and last.end == piece.seq and not last.fin and size + len(piece.data) <= COLLAPSED_MAX:
            run.append(piece.data)
            size += len(piece.data)
            last.end = piece.end
            last.fin = piece.fin
            rx.counters.TCPRcvCollapsed += 1
            rx.pieces_size -= PIECE_COST
            continue
        if len(run) > 1 and last is not None:
            last.data = b"".join(run)
        run = [piece.data]
        size = len(piece.data)
        pieces[kept] = piece
        kept += 1
    if len(run) > 1:
        pieces[kept - 1].data = b"".join(run)
    del pieces[kept:]
