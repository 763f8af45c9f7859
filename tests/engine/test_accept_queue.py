"""The accept queue: full, overflowing, abandoned. listen(2), Linux."""

from __future__ import annotations

from engine.notation import Play


def test_a_full_accept_queue_ignores_the_last_ack_until_there_is_room(play: Play) -> None:
    """M-24. The queue holds one more than the backlog, as in Linux; the SYN-ACK goes again and draws another ACK."""
    play("""
        0    listen 8080 backlog 0
        +0   < 40001>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40001 S. 0:0(0) ack 1
        +0   < 40002>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40002 S. 0:0(0) ack 1
        +.1  < 40001>8080 . 1:1(0) ack 1 win 1000
        +0   < 40002>8080 . 1:1(0) ack 1 win 1000
        +0   counter ListenOverflows=1 ListenDrops=1
        1    > 8080>40002 S. 0:0(0) ack 1
        +0   accept
        +.1  < 40002>8080 . 1:1(0) ack 1 win 1000
        +0   idle
    """)


def test_an_overflowing_accept_queue_resets_if_told_to(play: Play) -> None:
    """M-24."""
    play(
        """
        0    listen 8080 backlog 0
        +0   < 40001>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40001 S. 0:0(0) ack 1
        +0   < 40002>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40002 S. 0:0(0) ack 1
        +.1  < 40001>8080 . 1:1(0) ack 1 win 1000
        +0   < 40002>8080 . 1:1(0) ack 1 win 1000
        +0   > 8080>40002 R 1:1(0)
        """,
        tcp_abort_on_overflow=True,
    )


def test_a_listener_that_closes_resets_what_was_not_accepted(play: Play) -> None:
    """M-24."""
    play("""
        0    l = listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +0   < . 1:1(0) ack 1 win 1000
        +0   l.close
        +0   > R. 1:1(0) ack 1
        +0   gone
    """)
