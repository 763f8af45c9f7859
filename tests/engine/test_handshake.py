"""Opening: passive, active, simultaneous; options of SYNs; what does not open a connection. RFC 9293 3.5, 3.10.7.1 to 3.10.7.3."""

from __future__ import annotations

import pytest
from engine.notation import Play


@pytest.mark.parametrize(
    ("offered", "answered", "window"),
    [
        ("<>", "<mss 1460>", 64240),
        ("<mss 1000>", "<mss 1460>", 64240),
        ("<mss 1460,nop,wscale 7>", "<mss 1460,nop,wscale 7>", 64240),
        ("<mss 1460,nop,nop,sackOK>", "<mss 1460,nop,nop,sackOK>", 64240),
        ("<mss 1460,nop,nop,TS val 5 ecr 0>", "<mss 1460,nop,nop,TS val 100 ecr 5>", 65160),
        ("<mss 1460,sackOK,TS val 5 ecr 0,nop,wscale 9>", "<mss 1460,sackOK,TS val 100 ecr 5,nop,wscale 7>", 65160),
        ("<wscale 0,sackOK,mss 1460,TS val 5 ecr 0,eol>", "<mss 1460,sackOK,TS val 100 ecr 5,nop,wscale 7>", 65160),
        ("<mss 1460,nop,nop,sackOK,nop,wscale 2>", "<mss 1460,nop,nop,sackOK,nop,wscale 7>", 64240),
    ],
)
def test_a_syn_ack_has_the_options_that_were_offered_in_the_order_of_linux(play: Play, offered: str, answered: str, window: int) -> None:
    """M-10, M-11, M-20. The window is a multiple of the segment size, timestamps counted (Linux: 65160 with, 64240 without)."""
    play(f"""
        0    listen 8080
        +0   < S 0:0(0) win 65535 {offered}
        +0   > S. 0:0(0) ack 1 win {window} {answered}
        +0   state SYN_RECEIVED
    """)


def test_options_that_are_switched_off_are_neither_offered_nor_answered(play: Play) -> None:
    """M-10, M-11."""
    off = {"tcp_timestamps": False, "tcp_sack": False, "tcp_window_scaling": False}
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 5 ecr 0,nop,wscale 9>
        +0   > S. 0:0(0) ack 1 win 64240 <mss 1460>
        """,
        **off,
    )
    play(
        """
        0    connect 80
        +0   > S 0:0(0) win 64240 <mss 1460>
        +0   < S. 0:0(0) ack 1 win 1000 <mss 1460,sackOK,TS val 5 ecr 0,nop,wscale 9>
        +0   > . 1:1(0) ack 1 win 64240 <>
        +0   established
        +0   expect timestamps=False sack=False snd_wscale=0 rcv_wscale=0
        """,
        **off,
    )


def test_a_passive_open_ends_with_accept_at_the_third_segment(play: Play) -> None:
    """M-20."""
    play("""
        0    listen 8080
        +0   state LISTEN
        +0   < S 0:0(0) win 65535 <mss 1460>
        +0   > S. 0:0(0) ack 1
        +0   state SYN_RECEIVED
        +0   accept EAGAIN
        +.01 < . 1:1(0) ack 1 win 1000
        +0   accept
        +0   state ESTABLISHED
        +0   expect srtt=10000 rto=210000 snd_wnd=1000
    """)


def test_an_active_open_sends_a_syn_as_linux_does_and_is_done_with_the_syn_ack(play: Play) -> None:
    """M-20, M-10, M-11."""
    play("""
        0    connect 80
        +0   > S 0:0(0) win 64240 <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
        +0   state SYN_SENT
        +.02 < S. 0:0(0) ack 1 win 8000 <mss 1400,sackOK,TS val 7 ecr 100,nop,wscale 3>
        +0   > . 1:1(0) ack 1 win 502 <nop,nop,TS val 120 ecr 7>
        +0   established
        +0   state ESTABLISHED
        +0   expect srtt=20000 snd_wscale=3 rcv_wscale=7 timestamps=True sack=True snd_mss=1388
    """)


@pytest.mark.parametrize(("mtu", "mss"), [(576, 536), (1500, 1460), (9000, 8960)])
def test_the_mss_is_announced_from_the_mtu(play: Play, mtu: int, mss: int) -> None:
    """M-06."""
    play(f"0 connect 80\n+0 > S 0:0(0) <mss {mss},sackOK,TS val 100 ecr 0,nop,wscale 7>", mtu=mtu)
    play(f"0 listen 80\n+0 < S 0:0(0) win 100 <mss 1000>\n+0 > S. 0:0(0) ack 1 <mss {mss}>", mtu=mtu)


@pytest.mark.parametrize(
    ("option", "ts", "size"),
    [
        ("<>", "", 536),
        ("<mss 1000>", "", 1000),
        ("<mss 9000>", "", 1460),
        ("<mss 1000,nop,nop,TS val 1 ecr 0>", " <nop,nop,TS val 2 ecr 100>", 988),
    ],
)
def test_the_peers_mss_is_obeyed_and_is_536_where_absent(play: Play, option: str, ts: str, size: int) -> None:
    """M-06. Options count against it (RFC 6691)."""
    play(f"""
        0    listen 8080
        +0   < S 0:0(0) win 65535 {option}
        +0   > S. 0:0(0) ack 1{" <mss 1460,nop,nop,TS val 100 ecr 1>" if ts else ""}
        +0   < . 1:1(0) ack 1 win 65535{ts}
        +0   accept
        +0   write {2 * size}
        +0   > . 1:{1 + size}({size}) ack 1
        +0   > P. {1 + size}:{1 + 2 * size}({size}) ack 1
    """)


def test_windows_are_scaled_but_never_in_a_syn(play: Play) -> None:
    """M-10."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +0   < S. 0:0(0) ack 1 win 1000 <mss 1000,nop,wscale 7>
        +0   > . 1:1(0) ack 1
        +0   expect snd_wnd=1000
        +0   < . 1:1(0) ack 1 win 1000
        +0   expect snd_wnd=128000
    """)


def test_a_window_scale_above_14_is_taken_for_14(play: Play) -> None:
    """M-10, RFC 7323 2.3."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000,nop,wscale 15>
        +0   > S. 0:0(0) ack 1
        +0   < . 1:1(0) ack 1 win 2
        +0   accept
        +0   expect snd_wscale=14 snd_wnd=32768
    """)


def test_the_third_segment_may_carry_data_and_fin(play: Play) -> None:
    """M-20."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +0   < FP. 1:101(100) ack 1 win 1000
        +.04 > . 1:1(0) ack 102
        +0   accept
        +0   state CLOSE_WAIT
        +0   read 100
        +0   eof
    """)


def test_data_before_the_third_segment_is_not_taken(play: Play) -> None:
    """M-20: data in a SYN is not acknowledged; the peer sends it again."""
    play("""
        0    listen 8080
        +0   < S 0:100(100) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +0   < P. 1:101(100) ack 1 win 1000
        +0   > . 1:1(0) ack 101
        +0   accept
        +0   read 100
    """)


def test_a_lost_third_segment_is_made_good_by_data(play: Play) -> None:
    """M-20: the ACK was lost; data with an ACK does as well."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.1  < P. 1:11(10) ack 1 win 1000
        +0   > . 1:1(0) ack 11
        +0   accept
        +0   read 10
    """)


def test_simultaneous_open_with_syn_acks(play: Play) -> None:
    """M-21."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1 <mss 1460>
        +0   state SYN_RECEIVED
        +.01 < S. 0:0(0) ack 1 win 1000 <mss 1000>
        +0   established
        +0   state ESTABLISHED
        +0   write 10
        +0   > P. 1:11(10) ack 1
    """)


def test_simultaneous_open_with_a_bare_ack(play: Play) -> None:
    """M-21."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S 0:0(0) win 1000 <mss 1000,sackOK,TS val 5 ecr 0,nop,wscale 2>
        +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val * ecr 5,nop,wscale 7>
        +.01 < . 1:1(0) ack 1 win 1000 <nop,nop,TS val 6 ecr 0>
        +0   established
        +0   state ESTABLISHED
        +0   expect snd_wnd=4000
    """)


def test_simultaneous_open_acknowledges_what_is_outside_the_window(play: Play) -> None:
    """M-21, RFC 9293 3.10.7.4 first step, at once and not when the connection is made."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.01 < . 99999:99999(0) ack 1 win 1000
        +0   > . 1:1(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   state ESTABLISHED
        +1   idle
    """)


def test_simultaneous_open_repeats_its_syn_ack(play: Play) -> None:
    """M-21, M-34."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +1   > S. 0:0(0) ack 1
        +2   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   state ESTABLISHED
    """)


def test_a_syn_is_repeated_at_1_3_7_15_31_63_seconds_and_given_up_at_127(play: Play) -> None:
    """M-25."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
        1    > S 0:0(0) <mss 1460,sackOK,TS val 1100 ecr 0,nop,wscale 7>
        3    > S 0:0(0) <mss 1460,sackOK,TS val 3100 ecr 0,nop,wscale 7>
        7    > S 0:0(0) <...>
        15   > S 0:0(0) <...>
        31   > S 0:0(0) <...>
        63   > S 0:0(0) <...>
        126  open
        127~127 closed ETIMEDOUT
        +0   gone
    """)


def test_syn_retries_are_a_sysctl_and_a_socket_option(play: Play) -> None:
    """M-25."""
    play("0 connect 80\n+0 > S 0:0(0) <...>\n1 > S 0:0(0) <...>\n3~3 closed ETIMEDOUT\n+0 gone", tcp_syn_retries=1)
    play("0 connect 80 syncnt=1\n+0 > S 0:0(0) <...>\n1 > S 0:0(0) <...>\n3~3 closed ETIMEDOUT\n+0 gone")


def test_a_syn_ack_is_repeated_five_times_and_then_forgotten(play: Play) -> None:
    """M-23."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        0    > S. 0:0(0) ack 1 <mss 1460>
        1    > S. 0:0(0) ack 1 <mss 1460>
        3    > S. 0:0(0) ack 1 <mss 1460>
        7    > S. 0:0(0) ack 1
        15   > S. 0:0(0) ack 1
        31   > S. 0:0(0) ack 1
        62.9 state SYN_RECEIVED
        63~63 gone
        +0   accept EAGAIN
    """)


def test_a_repeated_syn_draws_the_syn_ack_again(play: Play) -> None:
    """M-20, M-22."""
    play("""
        0    listen 8080
        +0   < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.5  < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        +.1  < . 1:1(0) ack 1 win 1000
        +0   accept
    """)


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


def test_what_is_written_and_shut_down_in_syn_sent_follows_the_handshake(play: Play) -> None:
    """M-20, RFC 9293 3.10.2 and 3.10.4."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +0   write 100
        +0   shutdown
        +.01 < S. 0:0(0) ack 1 win 1000 <mss 1000>
        +0   > FP. 1:101(100) ack 1
        +0   state FIN_WAIT_1
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
