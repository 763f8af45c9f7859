"""Flow control: windows, zero windows, the silly window. RFC 9293 3.8.6, RFC 1122 4.2.2.16, 4.2.3.3, 4.2.3.4."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.openings import OPEN, opening

from tunstack.engine import receivewindow
from tunstack.engine.receivewindow import BEHIND_MAX, held
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.script import Runner
from tunstack.sim.script.packet import ACK, Packet


def test_no_more_is_sent_than_the_window_takes(play: Play) -> None:
    """M-31."""
    play(
        opening(3000)
        + """
        +0   write 5000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 3000
        +0   > . 3001:4001(1000) ack 1
        +.01 < . 1:1(0) ack 2001 win 2000
        +0   idle
        +.01 < . 1:1(0) ack 4001 win 2000
        +0   > P. 4001:5001(1000) ack 1
        """
    )


def test_an_old_window_update_is_not_taken(play: Play) -> None:
    """M-31, RFC 9293 3.10.7.4: WL1 and WL2."""
    play(
        OPEN
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +0   < P. 1:101(100) ack 101 win 20000
        +0   > . 101:101(0) ack 101
        +0   < P. 1:101(100) ack 1 win 10000
        +0   > . 101:101(0) ack 101
        +0   expect snd_wnd=20000
        """
    )


def test_an_ack_of_new_data_brings_its_window_even_in_an_old_segment(play: Play) -> None:
    """M-31: the peer sends old data again with a new ACK; what it offers now counts, or we would send beyond it."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 101:101(0) ack 1 win 30000
        +.01 < P. 1:101(100) ack 1001 win 2000
        +0   > . 1001:1001(0) ack 101
        +0   expect snd_wnd=2000
        +0   write 3000
        +0   > . 1001:2001(1000) ack 101
        +0   > P. 2001:3001(1000) ack 101
        """
    )


def test_an_ack_of_a_half_open_connection_takes_no_window_back(play: Play) -> None:
    """M-31: 64240 octets are no multiple of 128, the field is rounded up."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,nop,wscale 7>
        +0   > S. 0:0(0) ack 1 win 64240
        +.01 < . 90000:90000(0) ack 1 win 30000
        +0   > . 1:1(0) ack 1 win 502
    """)


def test_a_window_that_shrinks_is_survived(play: Play) -> None:
    """M-31, RFC 9293 3.8.6: what was sent beyond the new edge is acknowledged all the same, or sent again."""
    play(
        OPEN
        + """
        +0   write 4000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   > . 2001:3001(1000) ack 1
        +0   > P. 3001:4001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 500
        +0   write 1000
        +.01 < . 1:1(0) ack 4001 win 500
        +.01 < . 1:1(0) ack 4001 win 5000
        +0   > P. 4001:5001(1000) ack 1
        """
    )


def test_a_zero_window_is_probed_with_backoff_and_its_opening_resumes_at_once(play: Play) -> None:
    """M-32: as Linux probes, without data, at one sequence number below."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   write 1000
        +.21 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +.41 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +.83 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +.1  < . 1:1(0) ack 1001 win 5000
        +0   > P. 1001:2001(1000) ack 1
        """
    )


def test_probes_go_on_for_ever_while_they_are_answered(play: Play) -> None:
    """M-32, RFC 9293 3.8.6.1."""
    script = OPEN + "+0 write 1000\n+0 > P. 1:1001(1000) ack 1\n+.01 < . 1:1(0) ack 1001 win 0\n+0 write 1000\n"
    interval = 0.21
    for _ in range(30):
        script += f"+{interval:.6f} > . 1000:1000(0) ack 1\n+0 < . 1:1(0) ack 1001 win 0\n"
        interval = min(interval * 2, 120)
    play(script + "+0 open\n+0 < . 1:1(0) ack 1001 win 1000\n+0 > P. 1001:2001(1000) ack 1")


def test_probes_that_nobody_answers_end_the_connection(play: Play) -> None:
    """M-32: tcp_retries2 counts them."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   write 1000
        +.21 > . 1000:1000(0) ack 1
        +.42 > . 1000:1000(0) ack 1
        +.84 > . 1000:1000(0) ack 1
        +1.68 closed ETIMEDOUT
        +0   gone
        """,
        tcp_retries2=3,
    )


def test_a_small_window_is_not_used_for_part_of_the_data_until_the_timer(play: Play) -> None:
    """M-32, silly window of the sender: neither a full segment nor half the largest window; the persist timer overrides."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 300
        +0   write 2000
        +.21 > . 1001:1301(300) ack 1
        +.01 < . 1:1(0) ack 1301 win 30000
        +0   > . 1301:2301(1000) ack 1
        +0   > P. 2301:3001(700) ack 1
        """
    )


def test_a_fin_waits_behind_a_closed_window(play: Play) -> None:
    """M-32, M-50."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   write 500
        +0   shutdown
        +.21 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 1000
        +0   > FP. 1001:1501(500) ack 1
        """
    )


def test_a_fin_alone_needs_no_window(play: Play) -> None:
    """M-32, as Linux sends it."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   shutdown
        +0   > F. 1001:1001(0) ack 1
        """
    )


SLOW_READER = """
    0    listen 8080 rcvbuf=5840
    +0   < S 0:0(0) win 30000 <mss 1460>
    +0   > S. 0:0(0) ack 1 win 5840
    +.01 < . 1:1(0) ack 1 win 30000
    +0   accept
    +0   < . 1:1461(1460) ack 1 win 30000
    +0   > . 1:1(0) ack 1461 win 5840
    +0   < . 1461:2921(1460) ack 1 win 30000
    +0   > . 1:1(0) ack 2921 win 4380
    +0   < . 2921:4381(1460) ack 1 win 30000
    +0   > . 1:1(0) ack 4381 win 2920
    +0   < . 4381:5841(1460) ack 1 win 30000
    +.04 > . 1:1(0) ack 5841 win 1460
    +0   < . 5841:7301(1460) ack 1 win 30000
    +.04 > . 1:1(0) ack 7301 win 0
"""


def test_a_slow_reader_closes_the_window_and_opens_it_by_useful_steps(play: Play) -> None:
    """M-31, M-32: the silly window of the receiver. All numbers are Linux 6.18's for the same events."""
    play(
        SLOW_READER
        + """
        +1   read 700
        +0   idle
        +0   read 759
        +0   idle
        +0   read 1
        +0   > . 1:1(0) ack 7301 win 1460
        +0   read 1460
        +0   > . 1:1(0) ack 7301 win 2920
        +0   read 1460
        +0   idle
        +0   < . 7301:8761(1460) ack 1 win 30000
        +0   > . 1:1(0) ack 8761 win 2920
        +0   read 4380
        +0   > . 1:1(0) ack 8761 win 5840
        +0   counter TCPToZeroWindowAdv=1 TCPFromZeroWindowAdv=1
        """
    )


def test_a_probe_into_our_closed_window_is_answered_and_its_octet_not_taken(play: Play) -> None:
    """M-32, RFC 9293 3.8.6.1."""
    play(
        SLOW_READER
        + """
        +1   < . 7301:7302(1) ack 1 win 30000
        +0   > . 1:1(0) ack 7301 win 0
        +0   counter BeyondWindow=1
        +1   < . 7300:7300(0) ack 1 win 30000
        +0   > . 1:1(0) ack 7301 win 0
        +0   read 7300
        +0   > . 1:1(0) ack 7301 win 5840
        """
    )


def test_acks_are_still_used_while_our_window_is_closed(play: Play) -> None:
    """M-32, RFC 9293 3.10.7.4: ACK and RST are processed at a zero window."""
    play(
        SLOW_READER
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 7301 win 0
        +.01 < . 7301:7301(0) ack 101 win 30000
        +0   expect unacked=0
        +0   < R. 7301:7301(0) ack 101
        +0   read 7300
        +0   closed ECONNRESET
        """
    )


def test_a_fin_is_taken_at_a_closed_window(play: Play) -> None:
    """M-32, M-50: it needs no buffer, and Linux takes it."""
    play(
        SLOW_READER
        + """
        +0   < F. 7301:7301(0) ack 1 win 30000
        +.04 > . 1:1(0) ack 7302
        +0   read 7300
        +0   eof
        """
    )


def fast_peer(rounds: int) -> str:
    """Return the script of a peer that sends 20 pairs of segments a round trip."""
    script = """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1460,nop,wscale 7>
        +0   > S. 0:0(0) ack 1 win 64240
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   resume
    """
    seq = 1
    for _ in range(20 * rounds):
        script += f"+.0005 < . {seq}:{seq + 2920}(2920) ack 1 win 30000 gso 1460\n"
        seq += 2920
        script += f"+0 > . 1:1(0) ack {seq}\n"
    return script


def test_the_receive_buffer_grows_with_a_fast_peer(play: Play) -> None:
    """M-41: the window that is advertised grows beyond where it began."""
    runner = play(fast_peer(6))
    socket = runner.sockets.current
    assert socket is not None
    assert socket.conn is not None
    assert socket.conn.info().rcv_wnd >= 2 * 65536


@pytest.mark.parametrize("is_behind", [False, True])
def test_the_receive_buffer_stays_small_while_the_device_waits_for_us(is_behind: bool) -> None:
    """M-41: the peer's data would only wait in the device's queue, and many connections' windows overflow it."""
    runner = Runner(fast_peer(6), sysctl=Sysctl(tcp_rmem=(4096, 131072, 6291456)))
    runner.stack.memory.is_behind = is_behind
    runner.run()
    (conn,) = runner.stack.connections
    assert conn.rx is not None
    receivewindow.grow_buffer(conn.rx, 1 << 20)
    if is_behind:
        assert conn.rx.rcvbuf == BEHIND_MAX
    else:
        assert conn.rx.rcvbuf > 1 << 20


SHUT = OPEN + "+0 write 1000\n+0 > P. 1:1001(1000) ack 1\n+.01 < . 1:1(0) ack 1001 win 0\n+0 write 1000\n"


def test_an_orphan_is_given_up_though_its_probes_are_answered(play: Play) -> None:
    """M-32: nobody would end it; a peer may not hold our memory by a window that stays shut (as Linux: once probes are RTO_MAX apart)."""
    script = SHUT + "+0 close\n"
    interval = 0.21
    for _ in range(10):
        script += f"+{interval:.6f} > . 1000:1000(0) ack 1\n+0 < . 1:1(0) ack 1001 win 0\n"
        interval *= 2
    play(script + f"+{120:.6f} closed ETIMEDOUT\n+0 gone")


def test_windows_too_small_for_a_segment_do_not_start_the_backoff_anew(play: Play) -> None:
    """M-32: else one that opens by an octet and shuts again holds an orphan for ever."""
    script = SHUT + "+0 close\n"
    interval = 0.21
    for _ in range(10):
        script += f"+{interval:.6f} > . 1000:1000(0) ack 1\n+0 < . 1:1(0) ack 1001 win 1\n+0 < . 1:1(0) ack 1001 win 0\n"
        interval *= 2
    play(script + f"+{120:.6f} closed ETIMEDOUT\n+0 gone")


def test_a_window_shut_on_data_in_flight_is_survived_while_the_peer_answers(play: Play) -> None:
    """M-31, RFC 9293 3.8.6.1: retransmissions into a window that was taken back are probes, and do not count as lost."""
    script = OPEN + "+0 write 1000\n+0 > P. 1:1001(1000) ack 1\n+0 < . 1:1(0) ack 1 win 0\n"
    interval = 0.21
    for _ in range(20):
        script += f"+{interval:.6f} > P. 1:1001(1000) ack 1\n+0 < . 1:1(0) ack 1 win 0\n"
        interval = min(interval * 2, 120)
    play(script + "+0 open\n+0 < . 1:1(0) ack 1001 win 1000\n+0 expect unacked=0 unsent=0")


def test_a_window_shut_on_data_in_flight_by_a_peer_that_is_gone_ends_in_a_timeout(play: Play) -> None:
    script = OPEN + "+0 write 1000\n+0 > P. 1:1001(1000) ack 1\n+0 < . 1:1(0) ack 1 win 0\n"
    interval = 0.21
    for _ in range(10):
        script += f"+{interval:.6f} > P. 1:1001(1000) ack 1\n"
        interval = min(interval * 2, 120)
    play(script + "+120 closed ETIMEDOUT\n+0 gone")


def test_holding_back_by_cork_does_not_slow_the_probes_of_a_closed_window(play: Play) -> None:
    """M-32, M-33: both go by the persist timer; each wait begins at the RTO."""
    script = OPEN + "+0 setsockopt cork True\n"
    for at in range(1, 501, 100):
        script += f"+0 write 100\n+.21 > P. {at}:{at + 100}(100) ack 1\n+.01 < . 1:1(0) ack {at + 100} win 30000\n"
    play(
        script
        + """
        +0   setsockopt cork False
        +0   write 100
        +0   > P. 501:601(100) ack 1
        +.01 < . 1:1(0) ack 601 win 0
        +0   write 10
        +.21 > . 600:600(0) ack 1
        +.42 > . 600:600(0) ack 1
        """
    )


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_reader_that_sleeps_is_not_drowned_by_octets(fast_path: bool) -> None:
    """M-31, M-32: scaled windows are rounded up, so each octet that is acknowledged may bring room for another; up to a bound."""
    opening = """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,nop,wscale 7>
        +0   > S. 0:0(0) ack 1 win 2920 <mss 1460,nop,wscale 7>
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
    """
    runner = Runner(opening, fast_path=fast_path, sysctl=Sysctl(tcp_rmem=(4096, 8192, 6291456))).run()
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    for _ in range(6_000):
        at = 1 + conn.rx.queued
        for seq in (at, at - 1):  # the second is old, and draws an ACK at once
            runner._receive(runner._packet_octets(Packet(ACK, seq, 1, 1, 30000))[0], 0, 0)
        while runner.stack.poll_transmit(runner.now) is not None:
            pass
    assert held(conn.rx) <= 8192 + 2 * 640
    assert len(conn.rx.queue) <= 3
    assert runner.stack.counters.TCPRcvQDrop
