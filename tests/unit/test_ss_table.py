# ruff: noqa: W291 (what ss prints ends in spaces)
"""Sockets as ss prints them, against what iproute2 6.1 printed of such sockets (M-60)."""

from __future__ import annotations

import pytest

from tunstack.inspect.quantities import bits, remaining
from tunstack.inspect.record import RCV_SHUTDOWN, Memory, Owner, SocketRecord, Timer, from_json
from tunstack.inspect.sstable import Style, lines

LO = "127.0.0.1"


def tcp(state: str, local_port: int, remote_port: int, recv_q: int = 0, send_q: int = 0, timer: Timer | None = None) -> SocketRecord:
    return SocketRecord(state, LO, local_port, LO, remote_port, recv_q, send_q, timer)


# The sockets of which iproute2 printed TABLE, on one machine, in this order.
SOCKETS = [
    SocketRecord("LISTEN", LO, 80, "0.0.0.0", 0, 2, 1),
    SocketRecord("LISTEN", "0.0.0.0", 8080, "0.0.0.0", 0, 0, 128),
    tcp("CLOSE_WAIT", 8080, 48914, 1),
    tcp("TIME_WAIT", 48906, 8080, timer=Timer("timewait", 58_200_000, 0, 0)),
    tcp("FIN_WAIT_2", 48914, 8080, timer=Timer("timewait", 58_900_000, 0, 0)),
    tcp("ESTABLISHED", 48916, 8080, 0, 3782144, Timer("persist", 200_000, 0, 1)),
    tcp("ESTABLISHED", 59238, 80, timer=Timer("keepalive", 58_500_000, 0, 0)),
    tcp("SYN_SENT", 59276, 80, 0, 1, Timer("on", 492_400, 1, 0)),
    tcp("ESTABLISHED", 8080, 48916, 128512),
]
TABLE = """\
State      Recv-Q Send-Q  Local Address:Port  Peer Address:Port Process
LISTEN     2      1           127.0.0.1:80         0.0.0.0:*           
LISTEN     0      128           0.0.0.0:8080       0.0.0.0:*           
CLOSE-WAIT 1      0           127.0.0.1:8080     127.0.0.1:48914       
TIME-WAIT  0      0           127.0.0.1:48906    127.0.0.1:8080        
FIN-WAIT-2 0      0           127.0.0.1:48914    127.0.0.1:8080        
ESTAB      0      3782144     127.0.0.1:48916    127.0.0.1:8080        
ESTAB      0      0           127.0.0.1:59238    127.0.0.1:80          
SYN-SENT   0      1           127.0.0.1:59276    127.0.0.1:80          
ESTAB      128512 0           127.0.0.1:8080     127.0.0.1:48916       """
TIMERS = """\
State      Recv-Q Send-Q  Local Address:Port  Peer Address:Port Process                   
LISTEN     2      1           127.0.0.1:80         0.0.0.0:*                              
LISTEN     0      128           0.0.0.0:8080       0.0.0.0:*                              
CLOSE-WAIT 1      0           127.0.0.1:8080     127.0.0.1:48914                          
TIME-WAIT  0      0           127.0.0.1:48906    127.0.0.1:8080  timer:(timewait,58sec,0) 
FIN-WAIT-2 0      0           127.0.0.1:48914    127.0.0.1:8080  timer:(timewait,58sec,0) 
ESTAB      0      3782144     127.0.0.1:48916    127.0.0.1:8080  timer:(persist,200ms,1)  
ESTAB      0      0           127.0.0.1:59238    127.0.0.1:80    timer:(keepalive,58sec,0)
SYN-SENT   0      1           127.0.0.1:59276    127.0.0.1:80    timer:(on,492ms,1)       
ESTAB      128512 0           127.0.0.1:8080     127.0.0.1:48916                          """
NO_TITLES = """\
LISTEN     2      1       127.0.0.1:80      0.0.0.0:*    
LISTEN     0      128       0.0.0.0:8080    0.0.0.0:*    
CLOSE-WAIT 1      0       127.0.0.1:8080  127.0.0.1:48914
TIME-WAIT  0      0       127.0.0.1:48906 127.0.0.1:8080 
FIN-WAIT-2 0      0       127.0.0.1:48914 127.0.0.1:8080 
ESTAB      0      3782144 127.0.0.1:48916 127.0.0.1:8080 
ESTAB      0      0       127.0.0.1:59238 127.0.0.1:80   
SYN-SENT   0      1       127.0.0.1:59276 127.0.0.1:80   
ESTAB      128512 0       127.0.0.1:8080  127.0.0.1:48916"""


def printed(records: list[SocketRecord], **style: object) -> str:
    return "\n".join(lines(records, Style(**style)))  # type: ignore[arg-type]


def test_columns_are_those_of_ss_tan() -> None:
    """M-60: ss -tan, not on a terminal."""
    assert printed(SOCKETS, numeric=True) == TABLE


def test_timers_are_those_of_ss_tano() -> None:
    """M-60: ss -tano."""
    assert printed(SOCKETS, numeric=True, timer=True) == TIMERS


def test_without_titles_columns_are_as_wide_as_what_is_in_them() -> None:
    """M-60: ss -tanH."""
    assert printed(SOCKETS, numeric=True, has_header=False) == NO_TITLES


# What iproute2 made of the titles of TABLE, by the width of the terminal.
TITLES = {
    40: "State      Recv-Q Send-Q  Local Address:Port      Peer Address:Port   Process   ",
    60: "State      Recv-Q Send-Q  Local Address:Port   Peer Address:Port                         Process                        ",
    71: "State      Recv-Q Send-Q  Local Address:Port  Peer Address:Port Process",
    73: "State      Recv-Q Send-Q  Local Address:Port  Peer Address:Port  Process ",
    80: "State       Recv-Q  Send-Q    Local Address:Port    Peer Address:Port  Process  ",
    90: "State        Recv-Q   Send-Q      Local Address:Port       Peer Address:Port    Process   ",
    140: "State              Recv-Q         Send-Q                   Local Address:Port                    Peer Address:Port"
    "          Process         ",
}


@pytest.mark.parametrize("width", TITLES)
def test_a_terminal_is_filled_as_ss_fills_it(width: int) -> None:
    """M-60: what is left of a line is shared among its columns, the rest among the last of them."""
    assert printed(SOCKETS, numeric=True, terminal=width).splitlines()[0] == TITLES[width]


def test_one_state_leaves_its_column_out() -> None:
    """M-60: ss -tn state time-wait; the title of Process stands close by."""
    record = tcp("TIME_WAIT", 48906, 8080)
    assert printed([record], numeric=True, has_state=False) == (
        "Recv-Q Send-Q Local Address:Port  Peer Address:PortProcess\n0      0          127.0.0.1:48906    127.0.0.1:8080       "
    )


def test_no_socket_is_a_line_of_titles() -> None:
    """M-60."""
    assert printed([], numeric=True, has_state=False) == "Recv-Q Send-Q Local Address:Port Peer Address:PortProcess"
    assert printed([], numeric=True, has_header=False) == ""


def test_owner_stands_where_ss_tlnp_has_it() -> None:
    """M-60."""
    record = SocketRecord("LISTEN", LO, 80, "0.0.0.0", 0, 2, 1, owner=Owner("python3", 31619, 3))
    assert printed([record], numeric=True, processes=True) == (
        "State  Recv-Q Send-Q Local Address:Port Peer Address:PortProcess                            \n"
        'LISTEN 2      1          127.0.0.1:80        0.0.0.0:*    users:(("python3",pid=31619,fd=3))'
    )


def test_services_have_names_but_for_ephemeral_ports() -> None:
    """M-60: ss -t."""
    assert printed([tcp("ESTABLISHED", 59238, 80)]).splitlines()[1] == "ESTAB 0      0          127.0.0.1:59238    127.0.0.1:http       "


def test_memory_and_info_go_on_in_a_second_line() -> None:
    """M-60: ss -tenmo of a connection whose peer has closed; ss has uid, inode and cookie before the arrow."""
    record = SocketRecord(
        *("CLOSE_WAIT", LO, 8080, LO, 48914, 1, 0, None, 1000, 6320955, 0x10C2, RCV_SHUTDOWN, Owner("python3", 31619, 11)),
        memory=Memory(832, 131072, 3939840, 0),
        info={"congestion": "bbr", "rto": 200_000, "snd_cwnd": 10},
    )
    head, more = printed([record], numeric=True, extended=True, processes=True, memory=True, info=True).splitlines()[1:]
    assert head.endswith(' users:(("python3",pid=31619,fd=11)) uid:1000 ino:6320955 sk:10c2 -->')
    assert more == "\t skmem:(r832,rb131072,t0,tb3939840,f0,w0,o0,bl0,d0) bbr rto:200 cwnd:10"
    (line,) = printed([record], numeric=True, memory=True, info=True, oneline=True, has_header=False).splitlines()
    assert line.endswith(":48914 skmem:(r832,rb131072,t0,tb3939840,f0,w0,o0,bl0,d0) bbr rto:200 cwnd:10")


# One line of ss -tin (its titles left out), and the struct tcp_info that it is of.
INFO = {
    **{"congestion": "bbr", "wscale": True, "snd_wscale": 10, "rcv_wscale": 10, "rto": 208_000, "backoff": 2, "rtt": 5267, "rttvar": 10477},
    **{"snd_mss": 47616, "pmtu": 65535, "rcv_mss": 536, "advmss": 65483, "snd_cwnd": 16, "bytes_sent": 176128, "bytes_retrans": 47616},
    **{"bytes_acked": 128513, "segs_out": 10, "segs_in": 5, "data_segs_out": 6, "last_data_sent": 1340, "last_data_recv": 1600},
    **{"last_ack_recv": 1124, "pacing_rate": 1247585543688 // 8, "delivery_rate": 3809280000 // 8, "delivered": 7, "busy_time": 1_600_000},
    **{"rwnd_limited": 1_600_000, "total_retrans": 1, "dsack_dups": 1, "rcv_space": 65495, "rcv_ssthresh": 65495, "notsent_bytes": 3782144},
    **{"min_rtt": 6, "reordering": 3, "snd_ssthresh": 0x7FFFFFFF, "timestamps": True, "sack": True},
    "algorithm": {"bw": 29302152096, "mrtt": 6, "pacing_gain": 739 / 256, "cwnd_gain": 739 / 256},
}
INFO_LINE = (
    " bbr wscale:10,10 rto:208 backoff:2 rtt:5.267/10.477 mss:47616 pmtu:65535 rcvmss:536 advmss:65483 cwnd:16 bytes_sent:176128"
    " bytes_retrans:47616 bytes_acked:128513 segs_out:10 segs_in:5 data_segs_out:6"
    " bbr:(bw:29302152096bps,mrtt:0.006,pacing_gain:2.88672,cwnd_gain:2.88672) send 1157176381bps lastsnd:1340 lastrcv:1600 lastack:1124"
    " pacing_rate 1247585543688bps delivery_rate 3809280000bps delivered:7 busy:1600ms rwnd_limited:1600ms(100.0%) retrans:0/1 dsack_dups:1"
    " rcv_space:65495 rcv_ssthresh:65495 notsent:3782144 minrtt:0.006"
)


def test_info_has_the_words_of_ss_tin_in_their_order() -> None:
    """M-60: ss -tin of a connection with a closed window."""
    record = SocketRecord("ESTABLISHED", LO, 48916, LO, 8080, info=INFO)
    assert printed([record], numeric=True, info=True, oneline=True, has_header=False).partition(":8080")[2] == INFO_LINE
    with_options = printed([record], numeric=True, info=True, timer=True, oneline=True, has_header=False)
    assert with_options.partition(":8080")[2] == " ts sack" + INFO_LINE


def test_a_listeners_info_is_its_queue() -> None:
    """M-60: ss -tin of a listener with two connections to be accepted."""
    record = SocketRecord("LISTEN", LO, 80, "0.0.0.0", 0, info={"congestion": "bbr", "snd_cwnd": 10, "unacked": 2, "sacked": 1})
    assert printed([record], numeric=True, info=True, oneline=True, has_header=False).endswith(" bbr cwnd:10 unacked:2")


@pytest.mark.parametrize(
    ("us", "text"),
    [
        *((204_000, "204ms"), (32_500, "032ms"), (1_204_000, "1.204ms"), (9_000_000, "9sec"), (58_700_000, "58sec"), (0, "")),
        *((86_000_000, "1min26sec"), (60_000_000, "1min"), (7_199_000_000, "119min"), (61_500_000, "1min1sec")),
    ],
)
def test_what_is_left_of_a_timer(us: int, text: str) -> None:
    """M-60: timer:(on,204ms,0)."""
    assert remaining(us) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0bps"), (6_350_000_000, "6.35Gbps"), (97_100_000_000, "97.1Gbps"), (936e9, "936Gbps"), (12_340, "12.3Kbps")]
)
def test_rates_have_three_digits_unless_numbers_are_asked_for(rate: float, text: str) -> None:
    """M-60."""
    assert bits(rate, False) == text
    assert bits(rate, True) == f"{rate:.0f}bps"


def test_a_hundred_thousand_sockets_are_laid_out_in_pieces() -> None:
    """M-60: later rows are no narrower, and the titles come once."""
    many = [tcp("ESTABLISHED", 80, 1024)] * 20_000
    many[10_000] = tcp("ESTABLISHED", 80, 50000, 1_234_567_890)
    table = printed(many, numeric=True).splitlines()
    assert len(table) == 20_001
    assert sum(line.startswith("State") for line in table) == 1
    assert len(table[-1]) > len(table[1])
    assert len(table[-1]) == len(table[10_001])


def test_records_survive_the_control_socket() -> None:
    """M-60: JSON and back; what a newer daemon adds is ignored."""
    record = SocketRecord(
        *("ESTABLISHED", LO, 1, LO, 2, 3, 4, Timer("on", 5, 6, 7), 8, 9, 10, 1, Owner("a", 1, 2)), memory=Memory(1, 2, 3, 4), info=INFO
    )
    for each in (record, *SOCKETS):
        assert from_json(each.to_json()) == each
    assert from_json(record.to_json() | {"new": 1}) == record
    for wrong in (None, [], {}, {"state": "LISTEN"}, record.to_json() | {"timer": 5}, record.to_json() | {"owner": {"name": "x"}}):
        with pytest.raises(ValueError, match="socket"):
            from_json(wrong)
