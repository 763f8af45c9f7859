"""An orphan in FIN_WAIT_2: a small entry that waits for the peer's FIN. RFC 9293 3.6, RFC 1122 4.2.2.13, Linux."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import OPEN
from engine.rawpeer import RawPeer

from tunstack.engine.finwait import FinWait2
from tunstack.engine.timewait import TimeWait
from tunstack.wire.segment import ACK, FIN, RST, SYN

ORPHAN = OPEN + "+0 close\n+0 > F. 1:1(0) ack 1\n+.01 < . 1:1(0) ack 2 win 30000\n+0 state FIN_WAIT_2\n"


def test_the_fin_is_acknowledged_and_the_minute_of_time_wait_begins(play: Play) -> None:
    """M-53, M-54."""
    play(
        ORPHAN
        + """
        +30  < F. 1:1(0) ack 2 win 30000
        +0   > . 2:2(0) ack 2
        +0   state TIME_WAIT
        +59.9 state TIME_WAIT
        +.1  gone
        +0   counter TW=1 TWKilled=0
        """
    )


def test_data_that_nobody_will_read_is_reset(play: Play) -> None:
    """M-53, M-59, RFC 1122 4.2.2.13; with a FIN behind it too."""
    for flags in ("P.", "FP."):
        play(ORPHAN + f"+1 < {flags} 1:101(100) ack 2 win 30000\n+0 > R 2:2(0) win 0\n+0 counter TCPAbortOnData=1\n+0 gone")


def test_only_the_exact_reset_ends_it(play: Play) -> None:
    """M-59, RFC 5961 3.2: a RST elsewhere in the window draws a challenge ACK; outside of it, nothing."""
    play(
        ORPHAN
        + """
        +1   < R 2:2(0)
        +0   > . 2:2(0) ack 1
        +1   < R 1000000:1000000(0)
        +0   state FIN_WAIT_2
        +1   < R 1:1(0)
        +0   gone
        """
    )


def test_a_syn_in_the_window_is_challenged(play: Play) -> None:
    """M-59, RFC 5961 4.2."""
    play(ORPHAN + "+1 < S 100:100(0) win 30000\n+0 > . 2:2(0) ack 1\n+0 counter TCPChallengeACK=1\n+0 state FIN_WAIT_2")


def test_an_ack_of_what_was_never_sent_is_challenged_and_moves_nothing(play: Play) -> None:
    """M-59, RFC 5961 5.2: the FIN with it is not believed either."""
    play(ORPHAN + "+1 < F. 1:1(0) ack 3 win 30000\n+0 > . 2:2(0) ack 1\n+0 state FIN_WAIT_2")


def test_a_segment_from_before_the_ack_of_our_fin_is_answered_and_ends_nothing(play: Play) -> None:
    """M-53: data that was overtaken comes again, with the acknowledgement."""
    play(ORPHAN + "+1 < . 1:101(100) ack 1 win 30000\n+0 > . 2:2(0) ack 1\n+0 state FIN_WAIT_2")


def test_stray_acks_draw_one_answer_in_half_a_second(play: Play) -> None:
    """M-59, tcp_invalid_ratelimit: what may be part of an ACK loop."""
    play(
        ORPHAN
        + """
        +1   < . 1000000:1000000(0) ack 2 win 30000
        +0   > . 2:2(0) ack 1
        +.1  < . 1000000:1000000(0) ack 2 win 30000
        +0   counter TCPACKSkippedFinWait2=1
        +.1  < . 1:1(0) ack 2 win 30000
        +.3  < . 1000000:1000000(0) ack 2 win 30000
        +0   > . 2:2(0) ack 1
        """
    )


def test_a_short_wait_is_counted_as_linux_counts_it(play: Play) -> None:
    """M-53: tcp_fin_timeout of four seconds or less is TWKilled."""
    play(ORPHAN + "+3.9 state FIN_WAIT_2\n+.1 gone\n+0 counter TW=0 TWKilled=1", tcp_fin_timeout=4)


def test_there_is_an_entry_and_no_connection() -> None:
    """M-53: what a peer that never sends its FIN holds of us is an entry, and it is one of the buckets."""
    peer = RawPeer()
    conn = peer.open(1000)
    conn.close(peer.now)
    (fin,) = peer.poll()
    assert fin.flags == FIN | ACK
    assert len(peer.stack.orphans) == 1
    peer.bring(peer.segment(conn))
    entry = peer.stack.flows[conn.flow_in]
    assert isinstance(entry, FinWait2) and not list(peer.stack.connections)
    assert (len(peer.stack.orphans), len(peer.stack.time_wait)) == (0, 1)
    assert conn.sink is not None and conn.is_over
    peer.bring(peer.segment(conn, FIN | ACK))
    assert isinstance(peer.stack.flows[conn.flow_in], TimeWait) and len(peer.stack.time_wait) == 1
    peer.wait(60_000_000)
    assert not peer.stack.flows and not len(peer.stack.time_wait)


def test_without_a_bucket_the_connection_is_dropped_at_once() -> None:
    """M-56: counted, and its peer is a stranger from then on."""
    peer = RawPeer(tcp_max_tw_buckets=1)
    for port in (1000, 1001):
        conn = peer.open(port)
        conn.close(peer.now)
        peer.poll()
        assert not peer.bring(peer.segment(conn))
    assert peer.stack.counters.TCPTimeWaitOverflow == 1 and len(peer.stack.flows) == 1
    (reset,) = peer.bring(peer.segment(conn, FIN | ACK))
    assert reset.flags == RST


def test_a_stack_that_goes_down_resets_who_has_not_sent_its_fin() -> None:
    """M-59: the peer may still be writing."""
    peer = RawPeer()
    conn = peer.open(1000)
    conn.close(peer.now)
    peer.poll()
    peer.bring(peer.segment(conn))
    peer.stack.abort_all(peer.now)
    (reset,) = peer.poll()
    assert reset.flags & RST and not reset.flags & SYN and reset.seq == conn.tx.snd_nxt
    assert not peer.stack.flows and not len(peer.stack.time_wait)
