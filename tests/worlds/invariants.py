"""What always holds of a connection, whatever the network and the applications do.

`check_connection` is called after every step; `check_rest` when everything that may leave has left: then whatever is unfinished has a
timer, or waits for somebody else's word. Nothing is stuck, seen locally.
"""

from __future__ import annotations

from tunstack.engine.connection import Connection
from tunstack.engine.fastopenclient import is_deferred
from tunstack.engine.fastopenrequest import is_writable
from tunstack.engine.finwait import FinWait2
from tunstack.engine.phase import DISORDER, OPEN
from tunstack.engine.receiver import Receiver
from tunstack.engine.scoreboard import EVER_RESENT, LOST, RESENT, SACKED
from tunstack.engine.sender import Sender
from tunstack.engine.stack import Stack
from tunstack.engine.state import CLOSED, SYN_RECEIVED, SYN_SENT, TIME_WAIT
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import TimeWait
from tunstack.seq import HALF, MASK


def check_stack(stack: Stack) -> None:
    """Check every connection of a host between two calls into its stack, and what the stack counts of all."""
    pages = buckets = 0
    for owner in stack.flows.values():
        if isinstance(owner, Connection):
            check_connection(owner)
            pages += owner.pages
        elif isinstance(owner, TimeWait | FinWait2):
            buckets += 1
    assert pages == stack.memory.pages, f"{stack.memory.pages} pages are counted, connections hold {pages}"
    assert buckets == len(stack.time_wait), f"{len(stack.time_wait)} buckets are counted, there are {buckets}"


def check_connection(conn: Connection) -> None:
    """Check one connection between two calls."""
    assert conn.state is not CLOSED and conn.state is not TIME_WAIT
    if (conn.state is not SYN_SENT and conn.state is not SYN_RECEIVED) or is_writable(conn):
        check_sender(conn.tx, conn.recovery.is_sack)
        check_recovery(conn)
    elif conn.tx.board.flights and conn.fastopen is None:
        raise AssertionError("data in flight before the handshake is done")
    if conn.rx is not None:
        check_receiver(conn.rx)


def check_sender(tx: Sender, is_sack: bool) -> None:
    """The flights cover what is outstanding, and the sums over them are right."""
    board = tx.board
    snd_una = at = tx.snd_una
    lost = sacked = resent = segments = 0
    for flight in board.flights:
        end = flight.end
        assert flight.seq == at, "a gap or an overlap between flights"
        size = (end - at) & MASK
        assert 0 < size < HALF, "an empty flight"
        marks = flight.marks
        if marks:
            if marks & SACKED:
                assert not marks & (LOST | RESENT), "a flight is SACKed and lost"
                sacked += size
                segments += flight.segments
            elif marks & RESENT:
                assert marks & EVER_RESENT
                resent += size
            elif marks & LOST:
                lost += size
        at = end
    assert at == tx.snd_nxt, "the flights do not reach to snd_nxt"
    assert lost == board.lost_out, f"lost_out is {board.lost_out}, the flights say {lost}"
    assert resent == board.retrans_out, f"retrans_out is {board.retrans_out}, the flights say {resent}"
    if is_sack:
        assert sacked == board.sacked_out, f"sacked_out is {board.sacked_out}, the flights say {sacked}"
        assert segments == board.sacked_segments, f"sacked_segments is {board.sacked_segments}, the flights say {segments}"
    else:
        assert not sacked, "SACKed without SACK"
        assert board.sacked_out >= 0 and board.sacked_segments >= 0
    assert tx.pipe >= 0, f"the pipe is {tx.pipe}"
    assert tx.unsent >= 0
    assert (tx.snd_nxt - snd_una) & MASK < HALF, "snd_una has overtaken snd_nxt"
    cc = tx.cc
    assert cc.cwnd >= cc.mss > 0, f"cwnd is {cc.cwnd}"
    assert cc.ssthresh >= cc.mss, f"ssthresh is {cc.ssthresh}"
    assert cc.mss == tx.mss, "congestion control counts in another MSS"
    assert 0 < tx.mss_now <= tx.mss
    assert not tx.fin_sent or (tx.fin_queued and not tx.unsent), "FIN before the end"
    assert tx.queue.end - tx.queue.start == tx.unsent + ((tx.snd_nxt - snd_una) & MASK) - _fin_in_flight(tx), "queue and flights differ"


def _fin_in_flight(tx: Sender) -> int:
    flights = tx.board.flights
    return int(bool(flights) and flights[-1].fin)


def check_recovery(conn: Connection) -> None:
    """The phases are what the scoreboard says, and a quiet connection has an unmarked one."""
    recovery, board, tx = conn.recovery, conn.tx.board, conn.tx
    if recovery.is_quiet:
        assert recovery.phase == OPEN
        assert not board.lost_out and not board.retrans_out and not board.sacked_out, "quiet, and yet something is amiss"
        for flight in board.flights:
            assert not flight.marks, "quiet, and yet a flight is marked"
    if recovery.phase <= DISORDER:
        assert not board.lost_out, "something is lost outside of recovery"
    if recovery.probe_end is not None:
        assert (tx.snd_nxt - recovery.probe_end) & MASK < HALF, "a probe beyond snd_nxt"


def check_receiver(rx: Receiver) -> None:
    """The window is never negative, what is held lies in order within it."""
    rcv_nxt = rx.rcv_nxt
    window = (rx.rcv_adv - rcv_nxt) & MASK
    assert window < HALF, "rcv_nxt is beyond the window"
    assert (rcv_nxt - rx.rcv_wup) & MASK < HALF, "rcv_wup is ahead of rcv_nxt"
    assert rx.queued == sum(map(len, rx.queue))
    assert not rx.ready, "data was not delivered"
    last = 0
    for piece in rx.pieces:
        start, end = (piece.seq - rcv_nxt) & MASK, (piece.end - rcv_nxt) & MASK
        assert start > 0 or (piece.fin and not piece.data), "a piece that could have been delivered"
        assert last <= start <= end <= window, "pieces overlap, or lie outside of the window"
        assert len(piece.data) == end - start
        last = end
    for left, right in rx.sack_blocks:
        start, end = (left - rcv_nxt) & MASK, (right - rcv_nxt) & MASK
        assert start < end <= last + 1, "a SACK block of nothing that is held"


def check_rest(stack: Stack, now: int) -> None:
    """Check every connection of a host that has nothing to send at the moment."""
    for owner in stack.flows.values():
        if isinstance(owner, TimeWait):  # the table looks after them
            continue
        deadline = owner.next_deadline()
        look_at = stack.first_timeouts.heap_at if owner in stack.first_timeouts else owner.heap_at
        assert deadline == NEVER or look_at <= deadline, f"nobody looks at a timer: {deadline - now} us from now"
        if isinstance(owner, Connection):
            check_connection_at_rest(owner)


def check_connection_at_rest(conn: Connection) -> None:
    """Nothing that it could do is left undone, and somebody will wake it up for the rest."""
    assert not conn.is_dirty
    tx, rx = conn.tx, conn.rx
    if conn.state is SYN_SENT or conn.state is SYN_RECEIVED:
        assert conn.rto_at < NEVER or is_deferred(conn), "the SYN has no timer"
        return
    assert not rx.acks_due, "an ACK is due and does not leave"
    assert rx.rcv_wup == rx.rcv_nxt or rx.delack_at < NEVER, "data was not acknowledged, and no timer runs"
    if tx.snd_nxt != tx.snd_una:
        assert conn.rto_at < NEVER, "data is in flight and no timer runs"
    elif tx.unsent:
        assert min(conn.persist_at, conn.pacing_at) < NEVER, "data waits and no timer runs"
    else:
        assert tx.fin_sent or not tx.fin_queued, "the FIN does not leave"
    if tx.board.lost_out and tx.pipe == 0 and conn.pacing_at == NEVER:
        raise AssertionError("everything is lost and nothing is sent again")
