"""Data out of order, in duplicate and overlapping: held, trimmed, delivered once. RFC 9293 3.10.7.4, RFC 5681 4.2, RFC 2018 4."""

from __future__ import annotations

from engine.notation import Play
from engine.openings import OPEN

SACK = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000,nop,nop,sackOK>
    +0   > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
    +.01 < . 1:1(0) ack 1 win 30000
    +0   accept
"""


def test_a_hole_draws_duplicate_acks_at_once_and_its_filling_delivers_all(play: Play) -> None:
    """M-40."""
    play(
        OPEN
        + """
        +0   < P. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < P. 301:401(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   read 1 EAGAIN
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 201
        +0   read 200
        +0   < P. 201:301(100) ack 1 win 30000
        +0   > . 1:1(0) ack 401
        +0   read 200
        """
    )


def test_holes_may_be_filled_from_the_far_end(play: Play) -> None:
    """M-40."""
    play(
        OPEN
        + """
        +0   < . 401:501(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 301:401(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 101:301(200) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 501
        +0   read 500
        """
    )


def test_what_was_received_already_is_acknowledged_and_not_delivered_again(play: Play) -> None:
    """M-40."""
    play(
        OPEN
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   < P. 51:101(50) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   read 100
        +0   read 1 EAGAIN
        """
    )


def test_an_overlap_with_what_was_received_is_trimmed_at_the_left(play: Play) -> None:
    """M-40."""
    play(
        OPEN
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   < P. 51:151(100) ack 1 win 30000
        +0   > . 1:1(0) ack 151
        +0   read 150
        """
    )


def test_overlapping_pieces_count_once(play: Play) -> None:
    """M-40: to the left, to the right, inside, and over several."""
    play(
        OPEN
        + """
        +0   < . 201:301(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 151:251(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 251:351(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 210:220(10) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 501:601(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 101:701(600) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < . 1:121(120) ack 1 win 30000
        +0   > . 1:1(0) ack 701
        +0   read 700
        +0   read 1 EAGAIN
        """
    )


def test_data_that_reaches_beyond_the_window_is_cut_at_its_edge(play: Play) -> None:
    """M-31, M-40."""
    play("""
        0    listen 8080 rcvbuf=3000
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1 win 2920
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   < . 2001:4001(2000) ack 1 win 30000
        +0   > . 1:1(0) ack 1 win 2920
        +0   < . 1:2001(2000) ack 1 win 30000
        +0   > . 1:1(0) ack 2921 win 0
        +0   read 2920
        +0   > . 1:1(0) ack 2921 win 2920
    """)


def test_a_fin_beyond_a_hole_is_kept_with_its_data(play: Play) -> None:
    """M-40, M-50."""
    play(
        OPEN
        + """
        +0   < FP. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   < FP. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   state ESTABLISHED
        +0   < . 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 202
        +0   state CLOSE_WAIT
        +0   read 200
        +0   eof
        """
    )


def test_sack_blocks_tell_what_is_held_the_newest_first(play: Play) -> None:
    """M-13 (what is sent): RFC 2018 4; at most four blocks."""
    play(
        SACK
        + """
        +0   < . 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 101:201>
        +0   < . 301:401(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 301:401 101:201>
        +0   < . 501:601(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 501:601 301:401 101:201>
        +0   < . 701:801(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 701:801 501:601 301:401 101:201>
        +0   < . 901:1001(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 901:1001 701:801 501:601 301:401>
        +0   < . 401:501(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 301:601 901:1001 701:801>
        +0   < . 1:301(300) ack 1 win 30000
        +0   > . 1:1(0) ack 601 <nop,nop,sack 901:1001 701:801>
        +0   read 600
        """
    )


def test_no_sack_block_is_sent_to_who_did_not_ask_for_it(play: Play) -> None:
    """M-13."""
    play(OPEN + "+0 < . 101:201(100) ack 1 win 30000\n+0 > . 1:1(0) ack 1 <>")


def test_data_delivered_while_reading_comes_in_order_too(play: Play) -> None:
    """M-40: the same for an application that is told as data comes."""
    play(
        OPEN
        + """
        +0   resume
        +0   < . 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1
        +0   got 0
        +0   < . 1:151(150) ack 1 win 30000
        +0   > . 1:1(0) ack 201
        +0   got 200
        """
    )


def test_a_run_of_segments_is_taken_as_one(play: Play) -> None:
    """M-40: received with offload, overlapping what is there already."""
    play(
        OPEN
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   < . 1001:5001(4000) ack 1 win 30000 gso 1000
        +0   > . 1:1(0) ack 101
        +0   < . 51:3051(3000) ack 1 win 30000 gso 1000
        +0   > . 1:1(0) ack 5001
        +0   read 5000
        """
    )


def test_sack_blocks_ride_on_data_only_where_the_mtu_has_room_for_them(play: Play) -> None:
    """M-13, M-06: a full segment takes none; the fewest bytes of room, the fewest blocks, the newest first."""
    play(
        SACK
        + """
        +0   < . 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 101:201>
        +0   < . 301:401(100) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 301:401 101:201>
        +0   setsockopt nodelay True
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1 <>
        +0   write 989
        +0   > P. 1001:1990(989) ack 1 <>
        +0   write 988
        +0   > P. 1990:2978(988) ack 1 <nop,nop,sack 301:401>
        +0   write 980
        +0   > P. 2978:3958(980) ack 1 <nop,nop,sack 301:401 101:201>
        +0   write 3500
        +0   > . 3958:4958(1000) ack 1 <>
        +0   > P. 4958:5958(1000) ack 1 <>
        +0   > . 5958:6958(1000) ack 1 <>
        +0   > P. 6958:7458(500) ack 1 <...>
        """
    )


def test_with_timestamps_there_is_room_for_three_sack_blocks(play: Play) -> None:
    """M-13, M-11, RFC 2018 3: forty octets of options."""
    script = """
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 1 ecr 0>
        +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1>
        +0   < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 2 ecr 100>
        +0   accept
    """
    blocks: list[str] = []
    for i in range(1, 6):
        script += f"+0 < . {i}001:{i}501(500) ack 1 win 30000 <nop,nop,TS val 3 ecr 100>\n"
        blocks.insert(0, f"{i}001:{i}501")
        script += f"+0 > . 1:1(0) ack 1 <nop,nop,TS val 100 ecr 2,nop,nop,sack {' '.join(blocks[:3])}>\n"
    play(script)


def test_a_fin_beyond_a_hole_is_in_the_sack_block(play: Play) -> None:
    """RFC 2018 3: blocks are of sequence space, in which a FIN has its number (RFC 9293 3.4)."""
    play(
        SACK
        + """
        +0   < F. 101:101(0) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 101:102>
        +0   < . 51:101(50) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 51:102>
        +0   < F. 51:101(50) ack 1 win 30000
        +0   > . 1:1(0) ack 1 <nop,nop,sack 51:101 51:102>
        +0   < . 1:51(50) ack 1 win 30000
        +0   > . 1:1(0) ack 102 <>
        """
    )


def test_a_fin_that_is_repeated_beyond_a_hole_is_held_once(play: Play) -> None:
    runner = play(
        OPEN
        + "+0 < . 101:201(100) ack 1 win 30000\n+0 > . 1:1(0) ack 1\n"
        + 5 * "+0 < F. 101:201(100) ack 1 win 30000\n+0 > . 1:1(0) ack 1\n"
    )
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    assert [(piece.fin, len(piece.data)) for piece in conn.rx.pieces] == [(False, 100), (True, 0)]
