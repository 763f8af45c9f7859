"""The user timeout, TCP_USER_TIMEOUT and the UTO option. RFC 9293 3.8.3, RFC 5482; the times are Linux's, measured (interop)."""

from __future__ import annotations

import pytest
from engine.notation import Play
from engine.openings import OPEN, opening
from hypothesis import given, settings
from hypothesis import strategies as st

from tunstack.engine import SocketOptions, Sysctl, usertimeout

SECOND = 1_000_000


@pytest.mark.parametrize(("timeout", "ends"), [(500, 1.001), (1500, 1.5), (2500, 2.5), (4000, 4.0), (10_000, 10.0)])
def test_a_syn_is_given_up_at_the_timeout(play: Play, timeout: int, ends: float) -> None:
    """M-14, M-25: but not before it was sent twice, as in Linux."""
    resent = "".join(f"\n{at} > S 0:0(0) <...>" for at in (1, 3, 7) if at < ends)
    play(f"0 connect 80 user_timeout={timeout}\n+0 > S 0:0(0) <...>{resent}\n{ends} closed ETIMEDOUT\n+0 gone")


def test_without_one_the_syn_retries_decide(play: Play) -> None:
    """M-25."""
    resent = "".join(f"\n{at} > S 0:0(0) <...>" for at in (1, 3))
    play(f"0 connect 80 syncnt=2\n+0 > S 0:0(0) <...>{resent}\n7 closed ETIMEDOUT\n+0 gone")


@pytest.mark.parametrize(
    ("timeout", "sent_at", "ends"), [(100, (), 0.1), (300, (), 0.3), (1000, (0.42,), 1.0), (3000, (0.42, 1.26, 2.94), 3.0)]
)
def test_data_is_given_up_so_long_after_its_first_retransmission(play: Play, timeout: int, sent_at: tuple[float, ...], ends: float) -> None:
    """M-14: the timer is drawn in, so that it expires with the timeout and not at the next doubling."""
    resent = "".join(f"\n{0.22 + at:.3f} > P. 1:101(100) ack 1" for at in sent_at)
    play(
        OPEN.replace("listen 8080", f"listen 8080 user_timeout={timeout}")
        + "+0 write 100\n+0 > P. 1:101(100) ack 1\n0.22 > P. 1:101(100) ack 1"
        + resent
        + f"\n{0.22 + ends:.3f} closed ETIMEDOUT\n+0 gone"
    )


def test_a_fin_is_given_up_too(play: Play) -> None:
    """M-14."""
    play(
        OPEN
        + """
        +0   setsockopt user_timeout 1000
        +0   shutdown
        +0   > F. 1:1(0) ack 1
        +.21 > F. 1:1(0) ack 1
        +.42 > F. 1:1(0) ack 1
        +.58 closed ETIMEDOUT
        +0   gone
        """
    )


def test_an_acknowledgement_begins_it_anew(play: Play) -> None:
    """M-14: progress counts, not the age of the connection."""
    play(
        OPEN
        + """
        +0   setsockopt user_timeout 1000
        +0   write 100
        +0   > P. 1:101(100) ack 1
        +.21 > P. 1:101(100) ack 1
        +.42 > P. 1:101(100) ack 1
        +.3  < . 1:1(0) ack 101 win 30000
        +.4  write 100
        +0   > P. 101:201(100) ack 1
        +.84 > P. 101:201(100) ack 1
        +1   closed ETIMEDOUT
        """
    )


def test_a_closed_window_is_given_up_though_the_probes_are_answered(play: Play) -> None:
    """M-14, M-32: so long after the first probe; RFC 9293 3.8.6.1 alone would wait for ever."""
    play(
        opening(2000)
        + """
        +0   setsockopt user_timeout 1000
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   write 1000
        +.21 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +.41 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +.57 closed ETIMEDOUT
        """
    )


def test_a_window_that_opens_ends_the_count(play: Play) -> None:
    """M-14, M-32."""
    play(
        opening(2000)
        + """
        +0   setsockopt user_timeout 1000
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   write 1000
        +.21 > . 1000:1000(0) ack 1
        +.01 < . 1:1(0) ack 1001 win 2000
        +0   > P. 1001:2001(1000) ack 1
        +.01 < . 1:1(0) ack 2001 win 0
        +.8  write 1000
        +.21 > . 2000:2000(0) ack 1
        +.01 < . 1:1(0) ack 2001 win 0
        +.41 > . 2000:2000(0) ack 1
        +0   state ESTABLISHED
        """
    )


@pytest.mark.parametrize(("timeout", "probes"), [(500, 1), (2500, 2), (3500, 3)])
def test_keepalive_gives_up_by_it_and_not_by_the_count(play: Play, timeout: int, probes: int) -> None:
    """M-14, M-42: since the peer was last heard, and never before a probe."""
    play(
        OPEN
        + f"""
        +0   setsockopt user_timeout {timeout}
        +0   setsockopt keepidle 1
        +0   setsockopt keepintvl 1
        +0   setsockopt keepcnt 1
        +0   setsockopt keepalive True
        """
        + "+1 > . 0:0(0) ack 1\n" * probes
        + "+1 > R. 1:1(0) ack 1\n+0 closed ETIMEDOUT\n"
    )


# The option (RFC 5482).

FIVE_MINUTES = "raw 1c04012c"  # 300 s


def test_it_is_not_sent_unless_asked_for_and_ignored_when_it_comes(play: Play) -> None:
    """M-14: off by default; Linux has none."""
    runner = play(f"""
        0    listen 8080
        +0   < S 0:0(0) win 30000 <mss 1000,{FIVE_MINUTES}>
        +0   > S. 0:0(0) ack 1 <mss 1460>
        +.01 < . 1:1(0) ack 1 win 30000 <{FIVE_MINUTES}>
        +0   accept
        +0   < P. 1:101(100) ack 1 win 30000 <{FIVE_MINUTES}>
        +0   > . 1:1(0) ack 101 <>
    """)
    assert runner.sockets.all[-1].conn.user_timeout == 0  # type: ignore[union-attr]


def test_it_is_sent_on_the_syn_ack_and_on_the_first_segment_after_it(play: Play) -> None:
    """M-14, RFC 5482 3.1: so that it arrives where SYNs are forgotten (cookies)."""
    runner = play(f"""
        0    listen 8080 user_timeout_advertise=600
        +0   < S 0:0(0) win 30000 <mss 1000,{FIVE_MINUTES}>
        +0   > S. 0:0(0) ack 1 <mss 1460,raw 1c040258>
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   write 100
        +0   > P. 1:101(100) ack 1 <raw 1c040258>
        +0   write 100
        +.01 < . 1:1(0) ack 101 win 30000
        +0   > P. 101:201(100) ack 1 <>
    """)
    assert runner.sockets.all[-1].conn.user_timeout == 600 * SECOND  # type: ignore[union-attr]


def test_it_is_sent_on_the_syn_and_on_its_retransmission(play: Play) -> None:
    """M-14."""
    runner = play(
        """
        0    connect 80 user_timeout_advertise=120
        +0   > S 0:0(0) <mss 1460,nop,wscale 7,raw 1c040078>
        1    > S 0:0(0) <mss 1460,nop,wscale 7,raw 1c040078>
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000,raw 1c048005>
        +0   > . 1:1(0) ack 1 <raw 1c040078>
        """,
        tcp_timestamps=False,
        tcp_sack=False,
    )
    assert runner.sockets.all[-1].conn.user_timeout == 300 * SECOND  # type: ignore[union-attr]


def test_a_change_is_told_by_the_next_segment_with_room(play: Play) -> None:
    """M-14: a full segment has none."""
    play(
        OPEN
        + """
        +0   setsockopt user_timeout_advertise 90000
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1 <>
        +0   write 100
        +0   > P. 1001:1101(100) ack 1 <raw 1c0485dc>
        +0   setsockopt user_timeout_advertise 0
        +0   < P. 1:101(100) ack 1101 win 30000
        +0   > . 1101:1101(0) ack 101 <>
        """
    )


def test_it_goes_again_with_what_is_sent_again(play: Play) -> None:
    """M-14, RFC 5482 3.2."""
    play(
        OPEN.replace("8080", "8080 user_timeout_advertise=600")
        + """
        +0   write 100
        +0   > P. 1:101(100) ack 1 <raw 1c040258>
        +.21 > P. 1:101(100) ack 1 <raw 1c040258>
        +.01 < . 1:1(0) ack 101 win 30000
        """
    )


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("raw 1c04012c", 300),  # 300 s
        ("raw 1c048005", 300),  # 5 minutes
        ("raw 1c040001", 200),  # less than ours
        ("raw 1c04ffff", 1000),  # beyond U_LIMIT
        ("raw 1c040000", 0),  # reserved
        ("raw 1c03ff", 0),  # malformed
        ("raw fd04aabb", 0),  # another option
        ("nop,nop,raw 1c04012c", 300),
    ],
)
def test_what_comes_is_taken_over_within_limits(play: Play, option: str, expected: int) -> None:
    """M-14, RFC 5482 3.1: min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT))."""
    runner = play(
        OPEN
        + f"""
        +0   setsockopt user_timeout_advertise 200
        +0   < P. 1:101(100) ack 1 win 30000 <{option}>
        +0   > . 1:1(0) ack 101
        """,
        tcp_user_timeout_max=1000,
    )
    assert runner.sockets.all[-1].conn.user_timeout == expected * SECOND  # type: ignore[union-attr]


def test_the_lower_limit_holds(play: Play) -> None:
    """M-14: nobody makes us give up sooner than RFC 1122 wants."""
    runner = play(
        OPEN
        + """
        +0   setsockopt user_timeout_advertise 1
        +0   < P. 1:101(100) ack 1 win 30000 <raw 1c040001>
        +0   > . 1:1(0) ack 101
        """
    )
    assert runner.sockets.all[-1].conn.user_timeout == 100 * SECOND  # type: ignore[union-attr]


def test_a_timeout_that_the_application_has_set_is_not_changed(play: Play) -> None:
    """M-14: CHANGEABLE is false then; it is what is advertised."""
    runner = play(
        OPEN
        + """
        +0   setsockopt user_timeout 250000
        +0   < P. 1:101(100) ack 1 win 30000 <raw 1c04012c>
        +0   > . 1:1(0) ack 101 <raw 1c0400fa>
        """,
        tcp_user_timeout_option=True,
    )
    assert runner.sockets.all[-1].conn.user_timeout == 250 * SECOND  # type: ignore[union-attr]


def test_what_was_taken_over_ends_the_connection(play: Play) -> None:
    """M-14: later than tcp_retries2 would."""
    play(
        OPEN
        + """
        +0   setsockopt user_timeout_advertise 100
        +0   < P. 1:101(100) ack 1 win 30000 <raw 1c040064>
        +0   > . 1:1(0) ack 101
        +0   write 100
        +0   > P. 1:101(100) ack 101
        +.21 > P. 1:101(100) ack 101
        +.42 > P. 1:101(100) ack 101
        +.84 > P. 1:101(100) ack 101
        +1.68 > P. 1:101(100) ack 101
        +3.36 > P. 1:101(100) ack 101
        +6.72 > P. 1:101(100) ack 101
        +13.44 > P. 1:101(100) ack 101
        +26.88 > P. 1:101(100) ack 101
        +46.66 closed ETIMEDOUT
        """,
        tcp_retries2=3,
    )


@given(st.integers(1, 0x7FFF * 60))
@settings(derandomize=True, max_examples=300)
def test_a_value_survives_the_option_to_the_minute(seconds: int) -> None:
    """M-14, RFC 5482 3.3."""
    told = usertimeout.decode(usertimeout.encode(seconds))
    assert told == seconds if seconds <= 0x7FFF else seconds <= told < seconds + 60


@given(st.binary(max_size=40))
@settings(derandomize=True, max_examples=1000)
def test_no_options_raise(options: bytes) -> None:
    """M-14, M-01."""
    assert 0 <= usertimeout.decode(options) <= 0x7FFF * 60


def test_what_is_advertised_where_nothing_is_said() -> None:
    """M-14: what tcp_retries2 comes to, 924 s in Linux."""
    assert usertimeout.advertised(SocketOptions(), Sysctl()) == 924
    assert usertimeout.advertised(SocketOptions(user_timeout=1500), Sysctl()) == 2
