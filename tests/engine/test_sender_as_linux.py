"""What plays against the kernel with the same ACKs found (scripts/interop/differential.py): where Linux did otherwise, and was right."""

from __future__ import annotations

from engine.notation import Play

SACK = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1000,nop,nop,sackOK>
    +0   > S. 0:0(0) ack 1
    +.1  < . 1:1(0) ack 1 win 60000
    +0   accept
    +0   setsockopt nodelay true
"""
PLAIN = SACK.replace(",nop,nop,sackOK", "")
STAMPED = """
    0    listen 8080
    +0   < S 0:0(0) win 60000 <mss 1012,sackOK,TS val 1000 ecr 0>
    +0   > S. 0:0(0) ack 1 <...>
    +.1  < . 1:1(0) ack 1 win 60000 <nop,nop,TS val 1100 ecr 0>
    +0   accept
    +0   setsockopt nodelay true
"""


def segments(first: int, last: int, more: bool = False) -> str:
    """Return the lines of segments of 1000 octets from number `first` up to `last`, which leave two by two."""
    lines = []
    for i in range(first, last):
        push = (i - first) % 2 or (i == last - 1 and not more)
        lines.append(f"+0 > {'P.' if push else '.'} {i * 1000 + 1}:{(i + 1) * 1000 + 1}(1000) ack 1\n")
    return "".join(lines)


def test_a_round_trip_of_samples_does_not_forget_the_variance(play: Play) -> None:
    """M-34, RFC 7323 appendix G: many ACKs of one round trip count as one for RTTVAR's fall."""
    play(
        SACK.replace("+.1 ", "+.4 ")
        + "+0 expect rttvar=200000 rto=1200000\n+0 write 10000\n"
        + segments(0, 10)
        + "+.4 < . 1:1(0) ack 1001 win 60000\n"
        + "".join(f"+0 < . 1:1(0) ack {i}001 win 60000\n" for i in range(2, 11))
        + "+0 expect srtt=400000 rttvar=200000 rto=1200000\n"
    )


def test_the_least_round_trip_time_is_forgotten_when_the_path_is_longer(play: Play) -> None:
    """M-34, tcp_min_rtt_wlen: RACK's window and HyStart go by it."""
    rounds = [
        f"+1 write 1000\n+0 > P. {i}001:{i + 1}001(1000) ack 1\n+.2 < . 1:1(0) ack {i + 1}001 win 60000\n".replace(" 0001:", " 1:")
        for i in range(8)
    ]
    script = SACK + rounds[0] + "+0 expect min_rtt=100000\n" + "".join(rounds[1:]) + "+0 expect min_rtt=200000\n"
    play(script, tcp_min_rtt_wlen=4)
