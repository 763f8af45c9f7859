"""What CLOSED, LISTEN, SYN-SENT and SYN-RECEIVED do with what does not open a connection. RFC 9293 3.5.1, 3.10.7.1 to 3.10.7.4."""

from __future__ import annotations

import pytest
from engine.notation import Play


def test_an_old_duplicate_syn_is_answered_and_reset_by_its_owner(play: Play) -> None:
    """M-22, RFC 9293 figure 8: the listener is as before."""
    play("""
        0    listen 8080
        +0   < S 900000:900000(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 900001
        +.01 < R 900001:900001(0)
        +0   state LISTEN
        +0   gone
        +.01 < S 1000000:1000000(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1000001
        +.01 < . 1000001:1000001(0) ack 1 win 1000
        +0   accept
    """)


def test_a_stale_syn_ack_draws_a_reset_and_the_attempt_goes_on(play: Play) -> None:
    """M-22, RFC 9293 3.10.7.3 first step."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S. 5000:5000(0) ack 777 win 1000 <mss 1000>
        +0   > R 777:777(0)
        +0   state SYN_SENT
        +.01 < S. 0:0(0) ack 1 win 1000 <mss 1000>
        +0   > . 1:1(0) ack 1
        +0   state ESTABLISHED
    """)


def test_a_half_open_peer_is_found_out_and_reset(play: Play) -> None:
    """M-22, RFC 9293 figure 9: its ACK acknowledges nothing of ours; the SYN goes again and is answered."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < . 300:300(0) ack 100 win 1000
        +0   > R 100:100(0)
        +0   state SYN_SENT
        .99  idle
        1    > S 0:0(0) <...>
    """)


def test_a_connection_is_refused_by_a_reset_that_acknowledges_the_syn(play: Play) -> None:
    """M-25, M-59."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < R. 0:0(0) ack 1
        +0   closed ECONNREFUSED
        +0   state CLOSED
        +0   gone
    """)


@pytest.mark.parametrize("segment", ["R 0:0(0)", "R. 0:0(0) ack 2", "R. 0:0(0) ack 0"])
def test_a_reset_that_does_not_acknowledge_the_syn_is_ignored(play: Play, segment: str) -> None:
    """M-59, RFC 9293 3.10.7.3 second step."""
    play(f"0 connect 80\n+0 > S 0:0(0) <...>\n+0 < {segment}\n+0 state SYN_SENT\n1 > S 0:0(0) <...>")


@pytest.mark.parametrize("segment", [". 0:0(0) ack 1", "P. 0:10(10) ack 1", "F 0:0(0)", "P 0:10(10)", "- 0:0(0)"])
def test_what_has_neither_syn_nor_rst_leaves_syn_sent_as_it_is(play: Play, segment: str) -> None:
    """M-20, RFC 9293 3.10.7.3 fifth step."""
    play(f"0 connect 80\n+0 > S 0:0(0) <...>\n+0 < {segment}\n+0 state SYN_SENT\n1 > S 0:0(0) <...>")


def test_close_in_syn_sent_forgets_the_attempt(play: Play) -> None:
    """M-20, RFC 9293 3.10.4. A SYN-ACK that comes later is reset."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +0   close
        +0   closed
        +0   gone
        +.01 < S. 0:0(0) ack 1 win 1000 <mss 1000>
        +0   > R 1:1(0)
    """)


@pytest.mark.parametrize(
    ("segment", "answer"),
    [
        ("S 5:5(0) win 9", "R. 0:0(0) ack 6"),
        ("S 5:15(10) win 9", "R. 0:0(0) ack 16"),
        ("F 5:5(0)", "R. 0:0(0) ack 6"),
        ("- 5:5(0)", "R. 0:0(0) ack 5"),
        ("P 5:15(10)", "R. 0:0(0) ack 15"),
        (". 5:5(0) ack 77", "R 77:77(0)"),
        ("S. 5:5(0) ack 77", "R 77:77(0)"),
        ("FP. 5:15(10) ack 77", "R 77:77(0)"),
        ("R 5:5(0)", None),
        ("R. 5:5(0) ack 77", None),
    ],
)
def test_a_closed_port_answers_by_the_rules_of_closed(play: Play, segment: str, answer: str | None) -> None:
    """M-59, RFC 9293 3.10.7.1."""
    play(f"0 < 40000>50000 {segment}\n" + (f"+0 > 50000>40000 {answer}" if answer else "+1 idle") + "\n+0 gone")


@pytest.mark.parametrize(
    ("segment", "answer"),
    [
        ("R 5:5(0)", None),
        ("R. 5:5(0) ack 77", None),
        (". 5:5(0) ack 77", "R 77:77(0)"),
        ("S. 5:5(0) ack 77", "R 77:77(0)"),
        ("F. 5:5(0) ack 77", "R 77:77(0)"),
        ("FP 5:15(10)", None),
        ("- 5:5(0)", None),
        ("SF 5:5(0)", None),
    ],
)
def test_a_listener_answers_by_the_rules_of_listen(play: Play, segment: str, answer: str | None) -> None:
    """M-20, M-59, RFC 9293 3.10.7.2. SYN with FIN is dropped, as Linux does."""
    play(f"0 listen 8080\n+0 < {segment}\n" + (f"+0 > {answer}" if answer else "+1 idle") + "\n+0 state LISTEN\n+0 gone")


HALF_OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 1000 <mss 1000>
    +0   > S. 0:0(0) ack 1
"""


@pytest.mark.parametrize(
    ("segment", "answer", "state"),
    [
        ("R 1:1(0)", None, "LISTEN"),
        ("R. 1:1(0) ack 1", None, "LISTEN"),
        ("R 2:2(0)", "> . 1:1(0) ack 1", "SYN_RECEIVED"),  # in the window, not exact: challenge ACK, RFC 5961 3.2
        ("R 90000:90000(0)", None, "SYN_RECEIVED"),
        (". 1:1(0) ack 2", "> R 2:2(0)", "SYN_RECEIVED"),
        (". 1:1(0) ack 0", "> R 0:0(0)", "SYN_RECEIVED"),
        ("- 1:1(0)", None, "SYN_RECEIVED"),
        ("F 1:1(0)", None, "SYN_RECEIVED"),
        (". 90000:90000(0) ack 1", "> . 1:1(0) ack 1", "SYN_RECEIVED"),
        (". 0:0(0) ack 1", "> . 1:1(0) ack 1", "SYN_RECEIVED"),
    ],
)
def test_syn_received_answers_by_its_rules(play: Play, segment: str, answer: str | None, state: str) -> None:
    """M-22, M-59, RFC 9293 3.10.7.4."""
    play(HALF_OPEN + f"+.01 < {segment}\n" + (f"+0 {answer}\n" if answer else "") + f"+0 state {state}")


def test_half_open_an_acknowledgment_that_is_wrong_is_answered_by_a_reset_wherever_it_lies(play: Play) -> None:
    """M-22: before the window is looked at, as in Linux (measured by the same script)."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.1  < . 100000:100000(0) ack 999 win 1000
        +0   > R 999:999(0)
        +.1  < . 100000:100000(0) ack 1 win 1000
        +0   > . 1:1(0) ack 1
        +.1  < . 1:1(0) ack 1 win 1000
        +0   accept
    """)


def test_an_acknowledgment_of_what_was_before_the_connection_is_not_believed(play: Play) -> None:
    """M-59, RFC 5961 5.2: old data of the same ports fits the window, its acknowledgment is older than our SYN."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   accept
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.01 < . 1:1(0) ack 101 win 1000
        +0   < P. 1:11(10) ack 4294966996 win 1000
        +0   > . 101:101(0) ack 1
        +0   counter TCPChallengeACK=1
        +1   < P. 1:11(10) ack 0 win 1000
        +0   > . 101:101(0) ack 1
        +0   counter TCPChallengeACK=2
        +0   < P. 1:11(10) ack 1 win 1000
        +0   > . 101:101(0) ack 11
        +0   read 10
    """)
