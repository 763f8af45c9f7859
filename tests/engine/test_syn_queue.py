"""The SYN queue without SYN cookies: its limits, what is kept free in it, and how it gets rid of old entries. listen(2), tcp(7), Linux."""

from __future__ import annotations

from engine.notation import Play


def syns(first: int, count: int, answered: bool = True, peer_window: int = 1000) -> str:
    """Return the script of `count` SYNs, from the port `first` on, answered at once or not at all."""
    lines = []
    for port in range(first, first + count):
        lines.append(f"+0 < {port}>8080 S 0:0(0) win {peer_window} <mss 1000>")
        if answered:
            lines.append(f"+0 > 8080>{port} S. 0:0(0) ack 1")
    return "\n".join(lines)


def resent(first: int, count: int) -> str:
    """Return the script of the SYN-ACKs of `count` ports, sent again one after another."""
    return "\n".join(f"+0 > 8080>{port} S. 0:0(0) ack 1" for port in range(first, first + count))


def test_the_syn_queue_holds_one_more_than_the_backlog(play: Play) -> None:
    """M-23. As Linux 6.18 was measured to; what is too much is dropped and counted."""
    for backlog in (0, 1, 4):
        play(
            f"""
            0    listen 8080 backlog {backlog}
            {syns(40000, backlog + 1)}
            {syns(41000, 2, answered=False)}
            +0   counter TCPReqQFullDrop=2 ListenDrops=2 ListenOverflows=0
            """,
            tcp_syncookies=0,
        )


def test_a_place_in_the_syn_queue_is_free_when_its_handshake_is_done_or_given_up(play: Play) -> None:
    """M-23."""
    play(
        """
        0    listen 8080 backlog 1
        +0   < 40000>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40000 S. 0:0(0) ack 1
        +0   < 40001>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40001 S. 0:0(0) ack 1
        +0   < 40002>8080 S 0:0(0) win 1000 <mss 1000>
        +0   counter TCPReqQFullDrop=1
        +.1  < 40000>8080 . 1:1(0) ack 1 win 1000
        +0   < 40002>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40002 S. 0:0(0) ack 1
        +0   < 40001>8080 R 1:1(0) win 0
        +0   counter EmbryonicRsts=1 TcpAttemptFails=1
        +0   < 40003>8080 S 0:0(0) win 1000 <mss 1000>
        +0   > 8080>40003 S. 0:0(0) ack 1
        +0   counter TCPReqQFullDrop=1
        """,
        tcp_syncookies=0,
    )


def test_the_last_quarter_of_the_syn_queue_is_kept_for_hosts_that_are_known(play: Play) -> None:
    """M-23. Without cookies. Of 16, Linux 6.18 gives 13 to anybody; after a handshake the same host gets the rest."""
    play(
        f"""
        0    listen 8080
        {syns(40000, 13)}
        {syns(41000, 2, answered=False)}
        +0   counter ListenDrops=2 TCPReqQFullDrop=0
        +.1  < 40000>8080 . 1:1(0) ack 1 win 1000
        {syns(42000, 4)}
        {syns(43000, 1, answered=False)}
        +0   counter ListenDrops=3 TCPReqQFullDrop=1
        """,
        tcp_syncookies=0,
        tcp_max_syn_backlog=16,
    )


def test_a_syn_ack_is_sent_again_five_times_and_then_forgotten(play: Play) -> None:
    """M-23."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        1    > S. 0:0(0) ack 1
        3    > S. 0:0(0) ack 1
        7    > S. 0:0(0) ack 1
        15   > S. 0:0(0) ack 1
        31   > S. 0:0(0) ack 1
        62.9 state SYN_RECEIVED
        +0   counter TCPTimeouts=5 TcpRetransSegs=5 TCPSynRetrans=5
        63.1 state LISTEN
        +0   counter TCPTimeouts=6 TcpRetransSegs=5
        +0   < . 1:1(0) ack 1 win 1000
        +0   > R 1:1(0)
    """)


def test_tcp_syncnt_of_a_listener_counts_for_its_syn_acks(play: Play) -> None:
    """M-23. As in Linux; tcp_synack_retries otherwise."""
    play("""
        0    listen 8080 syncnt=1
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        1    > S. 0:0(0) ack 1
        3.1  state LISTEN
    """)


def test_a_syn_queue_that_is_more_than_half_full_of_old_entries_gives_them_up_early(play: Play) -> None:
    """M-23. Linux's reserve for young entries: with six of ten places taken by the silent, one goes after two tries."""
    play(f"""
        0    listen 8080 backlog 10
        {syns(40000, 6)}
        1    counter TCPTimeouts=0
        {resent(40000, 6)}
        3    counter TCPTimeouts=6
        {resent(40000, 6)}
        7    counter TCPTimeouts=12
        {resent(40001, 5)}
        8    counter TCPTimeouts=18 TcpRetransSegs=17
    """)
    play(f"""
        0    listen 8080 backlog 12
        {syns(40000, 6)}
        1    counter TCPTimeouts=0
        {resent(40000, 6)}
        3    counter TCPTimeouts=6
        {resent(40000, 6)}
        7    counter TCPTimeouts=12
        {resent(40000, 6)}
    """)


def test_a_syn_that_time_wait_lets_pass_is_turned_away_by_no_limit_of_the_syn_queue(play: Play) -> None:
    """M-23. As in Linux: its peer is real."""
    play(
        f"""
        0    l = listen 8080 backlog 0
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +0   < . 1:1(0) ack 1 win 1000
        +0   c = accept
        +0   c.close
        +0   > F. 1:1(0) ack 1
        +0   < F. 1:1(0) ack 2 win 1000
        +0   > . 2:2(0) ack 2
        {syns(41000, 1)}
        {syns(42000, 1, answered=False)}
        +0   < S 5000:5000(0) win 1000 <mss 1000>
        +0   > S. 65539:65539(0) ack 5001
        +0   counter TCPReqQFullDrop=1
        """,
        tcp_syncookies=0,
    )
