"""The notation of scripts: what is read, what is refused with its line, what a failure shows."""

from __future__ import annotations

import pytest

from tunstack.sim.script import Runner, ScriptFailure, ScriptSyntaxError, parse, run
from tunstack.sim.script.packet import Packet, decode, encode, pattern
from tunstack.sim.script.parser import CALLS, Call

OPEN = """
0    listen 8080 backlog 1
+0   < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>
+0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1,nop,wscale 7>
+.01 < . 1:1(0) ack 1 win 512 <nop,nop,TS val 11 ecr 100>
+0   accept
"""


def test_a_whole_connection_reads_as_packetdrill_writes_it() -> None:
    runner = run(
        OPEN
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1 <nop,nop,TS val 110 ecr 11>
        +.01 < . 1:1(0) ack 1001 win 512 <nop,nop,TS val 21 ecr 110>
        +0   < P. 1:101(100) ack 1001 win 512 <nop,nop,TS val 21 ecr 110>
        +0   > . 1001:1001(0) ack 101 <nop,nop,TS val 120 ecr 21>
        +0   read 100
        +0   < R. 101:101(0) ack 1001
        +0   closed ECONNRESET
        """
    )
    assert runner.sockets.current is not None
    assert runner.sockets.current.received == 100


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("+0 > P. 1:1000(999) ack 1", "length differs"),
        ("+0 > . 1:1001(1000) ack 1", "flags differs"),
        ("+0 > P. 1:1001(1000) ack 2", "ack differs"),
        ("+0 > P. 2:1002(1000) ack 1", "seq differs"),
        ("+0 > P. 1:1001(1000) ack 1 win 1", "win differs"),
        ("+0 > P. 1:1001(1000) ack 1 <nop,nop,TS val 111 ecr 11>", "options differ"),
        ("+0 > P. 1:1001(1000) ack 1 <>", "options differ"),
        ("+0 > [ce] P. 1:1001(1000) ack 1", "ECN mark is noecn"),
        ("+.1 > P. 1:1001(1000) ack 1", "sent before its time"),
        ("+.2 < . 1:1(0) ack 1001 win 512", "sent, and not expected"),
        ("+0 closed", "not closed, ESTABLISHED"),
        ("+0 closed ECONNRESET", "not closed, ESTABLISHED"),
        ("+0 read 1", "0 octets can be read, not 1"),
        ("+0 accept", "there is no connection to accept"),
        ("+0 write 1 EPIPE", "succeeded, not EPIPE"),
        ("+0 eof", "no end of file"),
        ("+0 state CLOSE_WAIT", "the state is ESTABLISHED"),
        ("+0 expect unacked=5", "unacked is 1000"),
        ("+0 counter TcpInSegs=7", "TcpInSegs is 2"),
        ("+0 gone", "still there"),
    ],
)
def test_every_departure_from_the_script_fails_with_its_reason(line: str, reason: str) -> None:
    with pytest.raises(ScriptFailure) as caught:
        run(OPEN + "+0 write 1000\n" + ("" if "<" in line or ">" in line else "+0 > P. 1:1001(1000) ack 1\n") + line)
    assert reason in str(caught.value).splitlines()[0]


def test_a_packet_that_is_not_sent_fails_at_the_end_of_its_time() -> None:
    with pytest.raises(ScriptFailure, match=r"line 7, 0\.310000 s: nothing was sent"):
        run(OPEN + "+.1~+.3 > . 1:1(0) ack 1")


def test_a_packet_too_many_at_the_end_fails() -> None:
    with pytest.raises(ScriptFailure, match=r"the end of the script.*sent, and not expected"):
        run(OPEN + "+0 write 10")


def test_a_failure_shows_the_ladder_with_expected_and_actual_and_the_rest() -> None:
    with pytest.raises(ScriptFailure) as caught:
        run(OPEN + "+0 write 2000\n+.01 > . 1:1448(1447) ack 1")
    assert str(caught.value) == (
        "line 8, 0.010000 s: length differs\n"
        "     2      0.000000  listen 8080 backlog 1\n"
        "     3      0.000000  < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>\n"
        "     4      0.000000  > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 1,nop,wscale 7>\n"
        "     5      0.010000  < . 1:1(0) ack 1 win 512 <nop,nop,TS val 11 ecr 100>\n"
        "     6      0.010000  accept\n"
        "     7      0.010000  write 2000\n"
        "-    8      expected  > . 1:1448(1447) ack 1\n"
        "+           0.010000  > . 1:1449(1448) ack 1 win 510 <nop,nop,TS val 110 ecr 11>\n"
        "+           0.010000  > P. 1449:2001(552) ack 1 win 510 <nop,nop,TS val 110 ecr 11>"
    )


def test_ranges_and_the_star_bound_the_time() -> None:
    run(OPEN + "+0 write 10\n+0~+.04 > P. 1:11(10) ack 1\n* > P. 1:11(10) ack 1\n+0 < . 1:1(0) ack 11 win 512")
    with pytest.raises(ScriptFailure, match="nothing was sent"):
        run(OPEN + "+0 write 10\n+0 > P. 1:11(10) ack 1\n+0~+.1 > P. 1:11(10) ack 1")


def test_absolute_times_count_from_the_start_and_cannot_go_back() -> None:
    run(OPEN + ".5 write 10\n.5 > P. 1:11(10) ack 1\n.6 < . 1:1(0) ack 11 win 512")
    with pytest.raises(ScriptFailure, match="before that of the line above"):
        run(OPEN + ".005 write 10")


def test_sockets_have_names_and_connections_ports() -> None:
    run("""
    0    listen 8080
    +0   < 40001>8080 S 0:0(0) win 65535 <mss 1000>
    +0   > 8080>40001 S. 0:0(0) ack 1 <mss 1460>
    +0   < 40002>8080 S 0:0(0) win 65535 <mss 1000>
    +0   > 8080>40002 S. 0:0(0) ack 1 <mss 1460>
    +0   < 40002>8080 . 1:1(0) ack 1 win 65535
    +0   b = accept
    +0   < 40001>8080 . 1:1(0) ack 1 win 65535
    +0   a = accept
    +0   b.write 10
    +0   > P. 1:11(10) ack 1
    +0   a.write 20
    +0   > P. 1:21(20) ack 1
    +0   < . 1:1(0) ack 21 win 65535
    +0   b.state ESTABLISHED
    +0   < . 1:1(0) ack 11 win 65535
    """)


def test_sequence_numbers_are_relative_wherever_the_isns_are() -> None:
    for isn in (0, 5, 0x7FFFFFF0, 0xFFFFFFFF, 0xFFFFFC00):
        script = (
            OPEN
            + "+0 write 1448\n+0 > P. 1:1449(1448) ack 1\n+0 < P. 1:1001(1000) ack 1449 win 512\n"
            + "+0 > . 1449:1449(0) ack 1001\n+0 read 1000"
        )
        runner = run(script, local_isn=isn, remote_isn=isn ^ 0xFFFF)
        assert runner.sockets.current is not None
        conn = runner.sockets.current.conn
        assert conn is not None
        assert conn.tx.snd_una == (isn + 1449) % 2**32


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("+0 < S 0:0(1) win 5", "0:0 is not 1 octets"),
        ("+0 < S. 0:0(0) win 5", "'.' and 'ack N' go together"),
        ("+0 < SS 0:0(0)", "flag S twice"),
        ("+0 < X 0:0(0)", "not a packet"),
        ("+0 < S 0:0(0) <mss>", "no such TCP option: mss"),
        ("+0 < S 0:0(0) <foo 1>", "no such TCP option: foo 1"),
        ("+0 < S 0:0(0) win 65536", "at most 65535"),
        ("+0~+1 < S 0:0(0)", "one exact time"),
        ("* < S 0:0(0)", "one exact time"),
        ("+1~+.5 > S 0:0(0)", "ends before it begins"),
        ("1~+2 > S 0:0(0)", "both relative"),
        ("+0 lisssten 80", "no such call: lisssten"),
        ("+0 listen", "listen takes 1 to 20 words, not 0"),
        ("+0", "a time and no event"),
        ("+0 ???", "neither a packet nor a call"),
        ("+0 > icmp unreachable port [1:1(0)]", "can be sent to the stack"),
        ("+0 < icmp nonsense port [1:1(0)]", "no such ICMP type: nonsense"),
        ("+0 < icmp unreachable prot [1:1(0)]", "no such code of icmp unreachable: prot"),
        ("+0 < icmp unreachable frag_needed mtu [1:1(0)]", "not an ICMP error"),
        ("+0 < [ect7] . 1:1(0) ack 1", "no such ECN mark: ect7"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_number(line: str, complaint: str) -> None:
    with pytest.raises(ScriptSyntaxError) as caught:
        parse("# a comment\n\n0 listen 8080  // another\n" + line)
    assert str(caught.value).startswith("line 4: ")
    assert complaint in str(caught.value)


def test_packets_print_as_they_are_read() -> None:
    for text in (
        "SEW 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>",
        "P. 1:1001(1000) ack 1 win 512",
        "[ce] FP. 1:2(1) ack 7 win 0 <nop,nop,sack 1:2 5:9>",
        "1>65535 [ect0] P.U 1:11(10) ack 3 win 9 urg 5",
        "R 5:5(0) <>",
        "- 0:0(0) win 0 <raw fe0412ab,eol>",
        ". 1:4381(4380) ack 1 win 100 gso 1460",
    ):
        (event,) = parse(f"+0 < {text}")
        assert str(event.what) == text


def test_octets_and_packets_are_the_same_thing_both_ways() -> None:
    (event,) = parse("0 < 1>2 [ect1] SP.UEWA 7:12(5) ack 9 win 77 urg 3 <mss 9,wscale 3,sackOK,sack 1:2,TS val 4 ecr 5,raw fd03aa>")
    assert isinstance(event.what, Packet)
    octets = encode(event.what, b"\1\2\3\4", b"\5\6\7\x08", pattern(0, 5))
    packet, payload, src, dst = decode(octets)
    assert (packet, payload, src, dst) == (event.what, pattern(0, 5), b"\1\2\3\4", b"\5\6\7\x08")
    for bit in range(len(octets) * 8):
        damaged = bytearray(octets)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            assert decode(bytes(damaged))[0] != packet
            raise ValueError


def test_every_call_is_known_to_both_sides() -> None:
    for name, (least, _) in CALLS.items():
        (event,) = parse(f"+0 {name} " + "x " * least)
        assert isinstance(event.what, Call)
        assert event.what.name == name


def test_damage_to_the_stream_is_seen_in_both_directions() -> None:
    received = Runner(OPEN + "+0 < P. 1:101(100) ack 1 win 512\n+0 > . 1:1(0) ack 101\n+0 idle\n+0 read 100")
    received.sockets._call_idle = lambda: setattr(received.sockets.current, "received", 1)  # type: ignore[method-assign]
    with pytest.raises(ScriptFailure, match="octet 1 that was received is not the stream's"):
        received.run()
    sent = Runner(OPEN + "+0 idle\n+0 write 100\n+0 > P. 1:101(100) ack 1")
    sent.sockets._call_idle = lambda: setattr(sent.sockets.current, "written", 1)  # type: ignore[method-assign]
    with pytest.raises(ScriptFailure, match="payload is not the stream's"):
        sent.run()
