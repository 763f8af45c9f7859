"""Recovery with SACK: the scoreboard, PRR, limited transmit, reneging, D-SACK. RFC 2018, 2883, 6675, 6937."""

from __future__ import annotations

from engine.notation import Play

from tunstack.engine.scoreboard import EVER_RESENT, LOST, RESENT, SACKED, Flight, Heard, Scoreboard

RTT = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1000,nop,nop,sackOK>
    +0   > S. 0:0(0) ack 1
    +.1  < . 1:1(0) ack 1 win 60000
    +0   accept
    +0   setsockopt congestion reno
"""


def bursts(first: int, count: int, more: bool = False) -> str:
    """Return the lines of `count` segments of 1000 octets that leave two by two; `more` follows the last."""
    lines = []
    for i in range(count):
        push = i % 2 or (i == count - 1 and not more)
        lines.append(f"+0 > {'P.' if push else '.'} {(first + i) * 1000 + 1}:{(first + i + 1) * 1000 + 1}(1000) ack 1\n")
    return "".join(lines)


TEN = RTT + "+0 write 10000\n" + bursts(0, 10)
TWELVE = RTT + "+0 write 12000\n" + bursts(0, 10)


def test_three_sacked_segments_have_the_hole_filled_at_once(play: Play) -> None:
    """M-35, M-13."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:2001,nop,nop>
        +0   expect ca_state=1 sacked=1000
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:3001,nop,nop>
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:4001,nop,nop>
        +0   > . 1:1001(1000) ack 1
        +0   expect ca_state=3 sacked=3000 lost=1000 retrans=1 ssthresh=5000
        +0   counter TCPSackRecovery=1 TCPFastRetrans=1 TcpRetransSegs=1 TCPTimeouts=0
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:10001,nop,nop>
        +.1  < . 1:1(0) ack 10001 win 60000
        +0   expect ca_state=0 sacked=0 lost=0 retrans=0 cwnd=5000 unacked=0
        +10  idle
        """
    )


def test_holes_between_blocks_are_filled_and_nothing_else(play: Play) -> None:
    """M-35, M-13: four blocks tell of three holes."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 2001 win 60000 <sack 9001:10001 7001:8001 3001:5001>
        +0   > . 2001:3001(1000) ack 1
        +0   > . 5001:6001(1000) ack 1
        +0   > . 6001:7001(1000) ack 1
        +0   > . 8001:9001(1000) ack 1
        +0   counter TcpRetransSegs=4
        +.1  < . 1:1(0) ack 10001 win 60000
        +10  idle
        """
    )


def test_what_is_sacked_lets_new_data_go(play: Play) -> None:
    """M-35, RFC 3042 limited transmit."""
    play(
        TWELVE
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:2001,nop,nop>
        +0   > . 10001:11001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:3001,nop,nop>
        +0   > P. 11001:12001(1000) ack 1
        +0   counter TcpRetransSegs=0
        """
    )


def test_the_window_falls_at_the_pace_of_the_acks(play: Play) -> None:
    """M-35, RFC 6937: while more than ssthresh is in the pipe one segment leaves for every two that arrived."""
    play(
        RTT
        + "+0 write 20000\n"
        + bursts(0, 10, more=True)
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:2001,nop,nop>
        +0   > . 10001:11001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:3001,nop,nop>
        +0   > . 11001:12001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:4001,nop,nop>
        +0   > . 1:1001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:5001,nop,nop>
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:6001,nop,nop>
        +0   > . 12001:13001(1000) ack 1
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:7001,nop,nop>
        +0   < . 1:1(0) ack 1 win 60000 <sack 1001:8001,nop,nop>
        +0   > . 13001:14001(1000) ack 1
        +0   expect ssthresh=5000
        """
    )


def test_a_sack_on_an_ack_that_came_late_is_used(play: Play) -> None:
    """M-13: the ACKs changed places."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 4001 win 60000
        +0   < . 1:1(0) ack 2001 win 60000 <sack 5001:6001,nop,nop>
        +0   expect sacked=1000 ca_state=1
        """
    )


def test_a_peer_may_take_its_sacks_back(play: Play) -> None:
    """M-13, RFC 2018 8: what it acknowledges up to it had SACKed; the timeout then resends all of it."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 1001:3001,nop,nop>
        +0   < . 1:1(0) ack 1001 win 60000
        +0~+.1 > . 1001:2001(1000) ack 1
        +0   expect ca_state=4 sacked=0
        +0   counter TCPSACKReneging=1
        +.1  < . 1:1(0) ack 10001 win 60000
        +10  idle
        """
    )


def test_blocks_of_what_was_never_sent_are_ignored(play: Play) -> None:
    """M-13, RFC 2018 and what a liar may write."""
    play(
        TEN
        + """
        +.1  < . 1:1(0) ack 1 win 60000 <sack 20001:30001,nop,nop>
        +0   < . 1:1(0) ack 1 win 60000 <sack 9001:11001,nop,nop>
        +0   < . 1:1(0) ack 1 win 60000 <sack 3001:2001,nop,nop>
        +0   expect sacked=0
        +0   counter TCPSACKDiscard=3
        """
    )


def test_duplicates_are_reported(play: Play) -> None:
    """M-13, RFC 2883 4: what lies below the ACK, and what is held already; once each."""
    play(
        RTT
        + """
        +0   < . 1:1001(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1001
        +0   < . 1:1001(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1001 <nop,nop,sack 1:1001>
        +0   < . 2001:3001(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1001 <nop,nop,sack 2001:3001>
        +0   < . 2001:3001(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1001 <nop,nop,sack 2001:3001 2001:3001>
        +0   < . 501:1501(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1501 <nop,nop,sack 501:1001 2001:3001>
        +0   counter TCPDSACKOldSent=2 TCPDSACKOfoSent=1
        """
    )


def test_no_duplicates_are_reported_where_that_is_off(play: Play) -> None:
    """M-13: tcp_dsack = 0."""
    play(
        RTT
        + """
        +0   < . 1:1001(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1001
        +0   < . 1:1001(1000) ack 1 win 60000
        +0   > . 1:1(0) ack 1001 <>
        """,
        tcp_dsack=False,
    )


def board_of(*sizes: int) -> Scoreboard:
    """Return a scoreboard with flights of these sizes, sent at 1, 2, 3 ..., from sequence number 0."""
    board = Scoreboard()
    at = 0
    for index, size in enumerate(sizes):
        board.flights.append(Flight(at, at + size, index + 1, False))
        at += size
    return board


def shape(board: Scoreboard) -> list[tuple[int, int, int]]:
    return [(flight.seq, flight.end, flight.marks) for flight in board.flights]


def test_a_block_may_cover_part_of_a_burst() -> None:
    """M-13: a flight of 64 KiB is cut where the blocks end, and runs of SACKed octets are joined again."""
    board = board_of(10_000, 10_000)
    heard = Heard(0, None, 0, 100)
    board.sack([(2000, 3000), (5000, 12_000)], 0, 0, 1000, heard)
    assert shape(board) == [(0, 2000, 0), (2000, 3000, SACKED), (3000, 5000, 0), (5000, 12_000, SACKED), (12_000, 20_000, 0)]
    assert (board.sacked_out, board.sacked_segments, board.highest_sacked) == (8000, 8, 12_000)
    assert (heard.delivered, heard.sacked, heard.reordered) == (8000, True, None)
    heard = Heard(0, board.highest_sacked, 0, 100)
    board.sack([(2000, 12_000)], 0, 0, 1000, heard)
    assert shape(board) == [(0, 2000, 0), (2000, 12_000, SACKED), (12_000, 20_000, 0)]
    assert (heard.delivered, heard.reordered) == (2000, 3000)


def test_sums_follow_every_mark() -> None:
    """M-35: lost, resent, lost again, SACKed, acknowledged."""
    board = board_of(1000, 1000, 1000)
    first, second, _ = board.flights
    board.mark_lost(first)
    board.mark_lost(second)
    assert (board.lost_out, board.retrans_out) == (2000, 0)
    board.resend(first, 10)
    assert (board.lost_out, board.retrans_out, first.marks) == (1000, 1000, LOST | RESENT | EVER_RESENT)
    board.mark_lost(first)
    assert (board.lost_out, board.retrans_out, board.lost_ever) == (2000, 0, 3000)
    board.resend(first, 20)
    heard = Heard(0, None, 0, 100)
    board.sack([(1000, 2000)], 0, 0, 1000, heard)
    assert (board.lost_out, board.retrans_out, board.sacked_out) == (0, 1000, 1000)
    board.acknowledge_marked(1500, 0, heard)
    assert (board.lost_out, board.retrans_out, board.sacked_out) == (0, 0, 500)
    assert heard.has_resent


def test_the_arithmetic_holds_where_sequence_numbers_wrap() -> None:
    """M-13."""
    top = 1 << 32
    board = Scoreboard()
    for seq in range(top - 2000, top + 2000, 1000):
        board.flights.append(Flight(seq % top, (seq + 1000) % top, 1, False))
    heard = Heard(top - 2000, None, 0, 100)
    board.sack([(top - 1000, 500)], top - 2000, top - 2000, 1000, heard)
    assert shape(board) == [(top - 2000, top - 1000, 0), (top - 1000, 500, SACKED), (500, 1000, 0), (1000, 2000, 0)]
    assert board.highest_sacked == 500
