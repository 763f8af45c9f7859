"""Options of SYNs, and what they settle: MSS, window scale, timestamps, SACK. RFC 9293 3.7.1, RFC 7323, RFC 2018, RFC 6691."""

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
