"""What random worlds found (tests/worlds), each brought down to a few segments."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import OPEN, opening

from tunstack.congestion.base import RateSample
from tunstack.congestion.bbr import Bbr
from tunstack.engine.mtuprobe import MtuProbe, on_progress
from tunstack.engine.pathmss import set_mtu, sync_mss
from tunstack.engine.prr import RateReduction
from tunstack.engine.scoreboard import Flight, Scoreboard
from tunstack.sim.script import Runner

SACK_OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1000,sackOK>
    +0   > S. 0:0(0) ack 1
    +.01 < . 1:1(0) ack 1 win 60000
    +0   accept
"""


def test_on_writable_is_not_called_for_who_has_written_since() -> None:
    """M-30: a device that had no room for a while leaves time to write again before the application is told."""
    runner = Runner(opening(60_000)).run()
    socket = runner.sockets.all[-1]
    conn = socket.conn
    assert conn is not None
    conn.send(bytes(1000), runner.now)
    assert runner.stack.poll_transmit(runner.now) is not None
    assert runner.stack.writable == [conn]
    socket.calls.clear()
    conn.send(bytes(100_000), runner.now)
    while runner.stack.poll_transmit(runner.now) is not None:
        pass
    assert conn.unsent > conn.write_low_water
    assert "writable" not in socket.calls


def test_who_closed_while_the_syns_crossed_does_not_hear_of_the_handshake(play: Play) -> None:
    """M-22, M-50: closed in SYN_RECEIVED, FIN follows the SYN; nobody is there to be told that the connection is made."""
    runner = play(
        """
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1 <...>
        +0   close
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000>
        +0   > F. 1:1(0) ack 1
        """
    )
    assert "established" not in runner.sockets.all[-1].calls


def test_a_challenge_from_a_half_open_connection_does_not_show_more_than_the_connection_keeps(play: Play) -> None:
    """M-23, M-31: its window is rounded up to the scale of the SYN-ACK, and the edge stays."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 64240 <mss 1460,nop,wscale 7>
        +0   > S. 0:0(0) ack 1 win 64240 <mss 1460,nop,wscale 7>
        +.01 < . 70000:70000(0) ack 1 win 502
        +0   > . 1:1(0) ack 1 win 502
        +.01 < . 1:1(0) ack 1 win 502
        +0   accept
        +.01 < P. 1:113(112) ack 1 win 502
        +0   > . 1:1(0) ack 113 win 502
        """,
        tcp_rmem=(4096, 131072, 6291456),
    )


def test_a_syn_that_comes_again_late_finds_a_half_open_connection_that_waits_on(play: Play) -> None:
    """M-23: Linux (tcp_check_req) starts the timer of the SYN-ACK anew with the answer, whose ACK is not to be met with RST."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +1   > S. 0:0(0) ack 1
        +2   > S. 0:0(0) ack 1
        +3.9 < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.2  < . 1:1(0) ack 1 win 30000
        +0   accept
        """,
        tcp_synack_retries=2,
    )


def test_data_that_acknowledges_nothing_does_not_put_the_loss_probe_off(play: Play) -> None:
    """M-36, RFC 8985 7.2: only what is acknowledged, or sent, starts the PTO anew; and the fast path makes no difference to it."""
    play(
        SACK_OPEN
        + """
        +0   write 3000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > P. 2001:3001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 60000
        +.01 < P. 1:11(10) ack 1001 win 60000
        +0   > . 3001:3001(0) ack 11
        +.01~+.013 > P. 2001:3001(1000) ack 11
        +0   counter TCPLossProbes=1
        """
    )


def test_the_window_of_a_reduction_is_never_below_a_segment() -> None:
    """M-35, congestion/base.py: also where a few octets are all that is in the network."""
    prr = RateReduction(10_000)
    prr.out = 100
    assert prr.window(2, 5_000, 1, 1_000, False) == 1_000
    assert prr.window(8_000, 5_000, 1_000, 1_000, False) >= 8_000


def test_duplicate_acks_do_not_count_beside_what_a_smaller_path_lost() -> None:
    """M-07, M-35: without SACK they are a guess; all that was in flight is lost, once."""
    script = OPEN + "+0 write 3000\n+0 > . 1:1001(1000) ack 1\n+0 > P. 1001:2001(1000) ack 1\n+0 > P. 2001:3001(1000) ack 1\n"
    runner = Runner(script + "+.01 < . 1:1(0) ack 1 win 30000\n+0 < . 1:1(0) ack 1 win 30000\n").run()
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    assert conn.tx.pipe == 1000
    set_mtu(conn, 600)
    conn.recovery.on_path_mss(is_smaller=True)
    assert conn.tx.pipe == 0


def test_keepalive_that_is_asked_for_while_all_is_quiet_has_the_driver_look_at_its_deadline() -> None:
    """M-42: the loop's timer is set after a poll, and a poll comes when the stack asks for it."""
    runner = Runner(OPEN + "+1 idle").run()
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    asked: list[bool] = []
    runner.stack.on_dirty = lambda: asked.append(True)
    conn.set_option("keepalive", True, runner.now)
    assert asked


def test_close_after_the_fin_was_acknowledged_has_the_driver_look_at_the_deadline() -> None:
    """M-53: else FIN_WAIT_2 lasts for ever if nothing else happens on the stack."""
    runner = Runner(OPEN + "+0 shutdown\n+0 > F. 1:1(0) ack 1\n+.01 < . 1:1(0) ack 2 win 30000\n+1 idle").run()
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    asked: list[bool] = []
    runner.stack.on_dirty = lambda: asked.append(True)
    conn.close(runner.now)
    assert asked


def test_a_limit_of_one_challenge_a_second_lets_one_pass(play: Play) -> None:
    """M-59, RFC 5961 7: half the limit is rounded up, as in Linux; else who waits for the answer to its SYN-ACK waits for ever."""
    play(OPEN + "+1 < S 1:1(0) win 30000\n+0 > . 1:1(0) ack 1\n", tcp_challenge_ack_limit=1)


def test_bbr_keeps_a_segment_of_window_when_recovery_begins_with_next_to_nothing_in_flight() -> None:
    """M-39, congestion/base.py: packet conservation counts octets, and of tiny segments they are fewer than an MSS."""
    bbr = Bbr(1000, 10_000)
    sample = RateSample()
    sample.now, sample.acked, sample.delivered, sample.is_recovering = 1_000_000, 3, 500, True
    bbr.on_rate(sample)
    assert bbr.cwnd == 1000


def test_a_larger_mss_found_by_a_probe_leaves_ssthresh_two_segments() -> None:
    """M-06, RFC 5681 3.1: what was two segments of 48 octets is not a tenth of one that the path turns out to take."""
    runner = Runner(OPEN + "+0 write 100\n+0 > P. 1:101(100) ack 1").run()
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    conn.mtu_probe = probe = MtuProbe(conn, runner.now)
    probe.low = 88
    sync_mss(conn)
    conn.tx.cc.ssthresh = 2 * conn.tx.mss
    assert conn.tx.mss == 48
    probe.size, probe.end = 1040, conn.tx.snd_una
    on_progress(conn)
    assert conn.tx.mss == 1000
    assert conn.tx.cc.ssthresh == 2000


def test_a_fin_on_the_segment_that_is_lost_is_not_counted_twice() -> None:
    """M-35: without SACK, a full segment with FIN is all that is left, and duplicate ACKs had stood for one octet of it."""
    board = Scoreboard()
    board.flights.append(Flight(1000, 1089, 1, True))
    board.sacked_out = board.sacked_segments = 1
    board.mark_head_lost(88)
    assert (board.lost_out, board.sacked_out) == (89, 0)
