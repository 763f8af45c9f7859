"""SO_KEEPALIVE (RFC 1122 4.2.3.6) and SO_LINGER (POSIX, Linux)."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.openings import OPEN

KEEPALIVE = (
    OPEN
    + """
    +0   setsockopt keepidle 10
    +0   setsockopt keepintvl 2
    +0   setsockopt keepcnt 3
    +0   setsockopt keepalive True
"""
)


def test_a_silent_peer_is_probed_and_given_up(play: Play) -> None:
    """M-42: after the last probe has gone unanswered, RST and ETIMEDOUT."""
    play(
        KEEPALIVE
        + """
        +10  > . 0:0(0) ack 1
        +2   > . 0:0(0) ack 1
        +2   > . 0:0(0) ack 1
        +2   > R. 1:1(0) ack 1
        +0   closed ETIMEDOUT
        +0   gone
        """
    )


def test_a_peer_that_answers_is_left_alone_for_the_idle_time(play: Play) -> None:
    """M-42."""
    play(
        KEEPALIVE
        + """
        +10  > . 0:0(0) ack 1
        +2   > . 0:0(0) ack 1
        +.1  < . 1:1(0) ack 1 win 30000
        +10  > . 0:0(0) ack 1
        +.1  < . 1:1(0) ack 1 win 30000
        +5   < P. 1:11(10) ack 1 win 30000
        +0   > . 1:1(0) ack 11
        +10  > . 0:0(0) ack 11
        """
    )


def test_a_peer_that_rebooted_ends_it_with_its_reset(play: Play) -> None:
    """M-42."""
    play(KEEPALIVE + "+10 > . 0:0(0) ack 1\n+.01 < R 1:1(0)\n+0 closed ECONNRESET\n+0 gone")


def test_data_in_flight_needs_no_probe(play: Play) -> None:
    """M-42: the retransmission timer has it."""
    play(
        KEEPALIVE
        + """
        +9.9 write 100
        +0   > P. 1:101(100) ack 1
        +.05 < . 1:1(0) ack 101 win 30000
        +10~+10.01 > . 100:100(0) ack 1
        """
    )


def test_the_defaults_are_two_hours_75_seconds_and_nine_probes(play: Play) -> None:
    """M-42."""
    script = OPEN + "+0 setsockopt keepalive True\n+7200 > . 0:0(0) ack 1\n" + "+75 > . 0:0(0) ack 1\n" * 8
    play(script + "+75 > R. 1:1(0) ack 1\n+0 closed ETIMEDOUT")


def test_keepalive_switched_off_is_silent(play: Play) -> None:
    """M-42."""
    play(KEEPALIVE + "+5 setsockopt keepalive False\n+100000 open")


def test_a_listener_hands_its_keepalive_on(play: Play) -> None:
    """M-42."""
    play(OPEN.replace("listen 8080", "listen 8080 keepalive=True keepidle=5") + "+5 > . 0:0(0) ack 1")


def test_our_side_answers_a_probe(play: Play) -> None:
    """M-42: a probe of the peer's, with an old octet or none."""
    play(
        OPEN
        + """
        +.1  < P. 1:11(10) ack 1 win 30000
        +0   > . 1:1(0) ack 11
        +9   < . 10:10(0) ack 1 win 30000
        +0   > . 1:1(0) ack 11
        +9   < . 10:11(1) ack 1 win 30000
        +0   > . 1:1(0) ack 11
        +0   read 10
        +0   read 1 EAGAIN
        """
    )


@pytest.mark.parametrize(("name", "value"), [("keepidle", 0), ("keepidle", 32768), ("keepintvl", 0), ("keepcnt", 128)])
def test_values_out_of_range_are_refused(play: Play, name: str, value: int) -> None:
    """M-42."""
    play(OPEN + f"+0 setsockopt {name} {value} EINVAL")


# SO_LINGER


def test_without_linger_close_returns_and_the_data_is_still_sent(play: Play) -> None:
    """M-57."""
    play(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +0   close
        +0   > F. 1001:1001(0) ack 1
        +.01 < . 1:1(0) ack 1002 win 30000
        +0   closed
        +.01 < F. 1:1(0) ack 1002 win 30000
        +0   > . 1002:1002(0) ack 2
        +60  gone
        """
    )


def test_linger_with_time_tells_the_end_when_all_is_acknowledged(play: Play) -> None:
    """M-57."""
    play(
        OPEN
        + """
        +0   setsockopt linger 5
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +0   close
        +0   > F. 1001:1001(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 30000
        +.01 < . 1:1(0) ack 1002 win 30000
        +0   closed
        """
    )


def test_linger_with_time_tells_the_end_when_the_time_is_up_and_goes_on_sending(play: Play) -> None:
    """M-57: as in Linux the data is sent on in the background."""
    play(
        OPEN
        + """
        +0   setsockopt linger 1
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +0   close
        +0   > F. 1001:1001(0) ack 1
        +.21 > . 1:1001(1000) ack 1
        +.42 > . 1:1001(1000) ack 1
        1.01 closed
        +.01 < . 1:1(0) ack 1001 win 30000
        +0   > F. 1001:1001(0) ack 1
        +.01 < . 1:1(0) ack 1002 win 30000
        +0   state FIN_WAIT_2
        """
    )


def test_linger_zero_resets_and_drops_what_was_not_sent(play: Play) -> None:
    """M-57: no FIN, no TIME-WAIT."""
    play(
        OPEN
        + """
        +0   setsockopt linger 0
        +0   write 20000
        +0   > . 1:1001(1000) ack 1
        """
        + "".join(f"+0 > {'P.' if i % 2 else '.'} {i}001:{i + 1}001(1000) ack 1\n" for i in range(1, 10))
        + """
        +0   close
        +0   > R. 10001:10001(0) ack 1
        +0   gone
        """
    )


def test_linger_zero_resets_in_close_wait_too(play: Play) -> None:
    """M-57."""
    play(
        OPEN
        + """
        +0   setsockopt linger 0
        +0   < F. 1:1(0) ack 1 win 30000
        +0   > . 1:1(0) ack 2
        +0   close
        +0   > R. 1:1(0) ack 2
        +0   gone
        """
    )


def test_keepalive_set_again_does_not_begin_anew(play: Play) -> None:
    """M-42, Linux: only off and on again do."""
    play(
        OPEN
        + """
        +0   setsockopt keepidle 10
        +0   setsockopt keepalive True
        +5   setsockopt keepalive True
        +5   > . 0:0(0) ack 1
        +0   < . 1:1(0) ack 1 win 30000
        +5   setsockopt keepalive False
        +0   setsockopt keepalive True
        +10  > . 0:0(0) ack 1
        """
    )


def test_a_shorter_idle_time_counts_from_when_the_peer_was_last_heard(play: Play) -> None:
    """M-42: set while the connection has been silent for longer already: the probe leaves at once."""
    play(
        OPEN
        + """
        +0   setsockopt keepidle 100
        +0   setsockopt keepalive True
        +20  setsockopt keepidle 30
        +10  > . 0:0(0) ack 1
        +0   < . 1:1(0) ack 1 win 30000
        +20  setsockopt keepidle 5
        +0~+.001 > . 0:0(0) ack 1
        """
    )


def test_the_end_of_fin_wait_2_is_the_sockets_own(play: Play) -> None:
    """M-53, TCP_LINGER2: a second, not the sysctl's minute; then the peer is a stranger."""
    play(
        OPEN
        + """
        +0   setsockopt linger2 1
        +0   close
        +0   > F. 1:1(0) ack 1
        +0   < . 1:1(0) ack 2 win 30000
        +0   state FIN_WAIT_2
        +1.1 gone
        +0   < . 1:1(0) ack 2 win 30000
        +0   > R 2:2(0) win 0
        """
    )


def test_without_a_fin_wait_2_the_peer_is_reset(play: Play) -> None:
    """M-53, TCP_LINGER2 below zero."""
    play(
        OPEN
        + """
        +0   setsockopt linger2 -1
        +0   close
        +0   > F. 1:1(0) ack 1
        +.1  < . 1:1(0) ack 2 win 30000
        +0   > R. 2:2(0) ack 1 win 0
        +0   counter TCPAbortOnLinger=1
        +0   gone
        """
    )
