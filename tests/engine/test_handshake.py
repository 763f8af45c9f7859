"""Opening: passive, active, simultaneous, and with segments lost. RFC 9293 3.5."""

from __future__ import annotations

from engine.notation import Play


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


def test_simultaneous_open_answers_the_syn_again_and_its_timer_goes_on(play: Play) -> None:
    """M-21, M-34: a peer that repeats its SYN for ever does not keep the attempt alive for ever; at most one answer each 500 ms."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <...>
        +.01 < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        .61  < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        .71  < S 0:0(0) win 1000 <mss 1000>
        +0   idle
        1.01 > S. 0:0(0) ack 1
        1.5  < S 0:0(0) win 1000 <mss 1000>
        +0   > S. 0:0(0) ack 1
        3.01 > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   state ESTABLISHED
        +0   counter TCPSynRetrans=4 TcpRetransSegs=4 TCPACKSkippedSynRecv=1
    """)


def test_what_the_syn_offered_holds_whatever_the_knobs_say_when_the_answer_comes(play: Play) -> None:
    """M-20: both ends scale windows, or neither; a SYN that is sent again offers the same."""
    play("""
        0    connect 80
        +0   > S 0:0(0) <mss 1460,sackOK,TS val * ecr 0,nop,wscale 7>
        +0   sysctl tcp_window_scaling=0
        +0   sysctl tcp_timestamps=0
        +0   sysctl tcp_sack=0
        1    > S 0:0(0) <mss 1460,sackOK,TS val * ecr 0,nop,wscale 7>
        +.01 < S. 0:0(0) ack 1 win 1000 <mss 1000,sackOK,TS val 5 ecr 0,nop,wscale 2>
        +0   > . 1:1(0) ack 1 <nop,nop,TS val * ecr 5>
        +0   < . 1:1(0) ack 1 win 1000 <nop,nop,TS val 6 ecr 0>
        +0   expect snd_wnd=4000 sack=True timestamps=True
    """)


def test_what_the_syn_did_not_offer_is_not_agreed_upon_when_the_knobs_change(play: Play) -> None:
    """M-20: in a simultaneous open the peer's SYN says all that it could do."""
    play(
        """
        0    connect 80
        +0   > S 0:0(0) <mss 1460>
        +0   sysctl tcp_window_scaling=1
        +0   sysctl tcp_timestamps=1
        +0   sysctl tcp_sack=1
        +.01 < S 0:0(0) win 1000 <mss 1000,sackOK,TS val 5 ecr 0,nop,wscale 2>
        +0   > S. 0:0(0) ack 1 <mss 1460>
        +.01 < . 1:1(0) ack 1 win 1000
        +0   expect snd_wnd=1000
    """,
        tcp_window_scaling=False,
        tcp_timestamps=False,
        tcp_sack=False,
    )


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
