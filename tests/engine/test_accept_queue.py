"""The accept queue: full, overflowing, abandoned. listen(2), Linux."""

from __future__ import annotations

from engine.notation import Play

# Two connections that wait to be accepted, which is all that backlog 1 takes, and a third whose SYN-ACK is out.
FULL = """
    0    l = listen 8080 backlog 1
    +0   < 40001>8080 S 0:0(0) win 1000 <mss 1000>
    +0   > 8080>40001 S. 0:0(0) ack 1
    +0   < 40001>8080 . 1:1(0) ack 1 win 1000
    +0   < 40002>8080 S 0:0(0) win 1000 <mss 1000>
    +0   > 8080>40002 S. 0:0(0) ack 1
    +0   < 40003>8080 S 0:0(0) win 1000 <mss 1000>
    +0   > 8080>40003 S. 0:0(0) ack 1
    +0   < 40002>8080 . 1:1(0) ack 1 win 1000
"""


def test_a_full_accept_queue_ignores_the_last_ack_until_there_is_room(play: Play) -> None:
    """M-24. The queue holds one more than the backlog, as in Linux; the SYN-ACK goes again and draws another ACK."""
    play(f"""{FULL}
        +.1  < 40003>8080 . 1:1(0) ack 1 win 1000
        +0   counter ListenOverflows=1 ListenDrops=1 TcpPassiveOpens=2
        1    > 8080>40003 S. 0:0(0) ack 1
        +0   l.accept
        +.1  < 40003>8080 . 1:1(0) ack 1 win 1000
        +0   l.accept
        +0   l.accept
        +0   l.accept EAGAIN
        +0   counter ListenOverflows=1 TcpPassiveOpens=3
    """)


def test_a_full_accept_queue_takes_no_syn(play: Play) -> None:
    """M-24. Linux drops it; the peer sends it again."""
    play(f"""{FULL}
        +0   < 40004>8080 S 0:0(0) win 1000 <mss 1000>
        +0   counter ListenOverflows=1 ListenDrops=1
        +0   l.accept
        +.1  < 40004>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40004 S. 0:0(0) ack 1
    """)


def test_an_overflowing_accept_queue_resets_if_told_to(play: Play) -> None:
    """M-24."""
    play(
        f"""{FULL}
        +.1  < 40003>8080 . 1:1(0) ack 1 win 1000
        +0   > 8080>40003 R 1:1(0)
        +0   counter ListenOverflows=1 ListenDrops=1 EmbryonicRsts=1
        +10  idle
        """,
        tcp_abort_on_overflow=True,
    )


def test_the_accept_queue_is_no_longer_than_somaxconn(play: Play) -> None:
    """M-24. A negative backlog is a large one, as in Linux."""
    for backlog in ("128", "-1"):
        play(
            FULL.replace("backlog 1", f"backlog {backlog}")
            + """
            +.1  < 40003>8080 . 1:1(0) ack 1 win 1000
            +0   counter ListenOverflows=1
            """,
            somaxconn=1,
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
