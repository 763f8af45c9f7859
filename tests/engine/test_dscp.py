"""The DSCP of what is sent: IP_TOS, tcp_reflect_tos, and answers that belong to no connection, as Linux 6.18 has them (measured)."""

from __future__ import annotations

from engine.notation import Play

from tunstack.engine.sysctl import Sysctl
from tunstack.sim.script import Runner
from tunstack.wire.segment import ACK, SYN, Batch, Segment

EXPEDITED = 0xB8  # EF, and no ECN
OPEN = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000>
    +0   > S. 0:0(0) ack 1
    +.01 < . 1:1(0) ack 1 win 30000
    +0   accept
"""


def answers(runner: Runner, segment: Segment) -> list[tuple[int, int]]:
    """Return (flags, TOS) of what the stack sends for a segment."""
    batch = Batch()
    batch.segments.append(segment)
    runner.stack.receive(batch, runner.now)
    sent = []
    while (item := runner.stack.poll_transmit(runner.now)) is not None:
        assert isinstance(item, Segment)
        sent.append((item.flags, item.tos))
    return sent


def test_a_reset_bears_the_dscp_of_what_it_answers() -> None:
    """M-59: without its ECN bits."""
    runner = Runner("0 listen 8080")
    runner.run()
    flow = runner.flow_in(99, 40000)
    assert [tos for _, tos in answers(runner, Segment(flow, 1, 1, ACK, 100, tos=EXPEDITED | 3))] == [EXPEDITED]
    assert [tos for _, tos in answers(runner, Segment(flow, 1, 0, SYN, 100, tos=EXPEDITED))] == [EXPEDITED]


def test_a_syn_ack_has_the_listeners_dscp_or_reflects_the_syns() -> None:
    """M-20: tcp_reflect_tos, off by default; the connection goes on with what its SYN-ACK had. An ACK of the half-open one reflects."""
    for reflect, expected in ((False, 0), (True, EXPEDITED)):
        runner = Runner("0 listen 8080", sysctl=Sysctl(tcp_reflect_tos=reflect))
        runner.run()
        flow = runner.flow_in(8080, 40000)
        assert answers(runner, Segment(flow, 1000, 0, SYN, 60000, mss=1000, tos=EXPEDITED)) == [(SYN | ACK, expected)]
        iss = runner.stack.isn.isn(flow, runner.now)
        runner.now += 1_000_000
        assert answers(runner, Segment(flow, 999, iss + 1, ACK, 60000, tos=0x23)) == [(ACK, 0x20)]
        assert answers(runner, Segment(flow, 1001, iss + 1, ACK, 60000)) == []
        (conn,) = runner.stack.connections
        assert conn.options.tos == expected
        conn.send(b"x", runner.now)
        segment = runner.stack.poll_transmit(runner.now)
        assert isinstance(segment, Segment) and segment.tos == expected


def test_everything_of_a_connection_bears_its_dscp(play: Play) -> None:
    """M-18: data, ACK, probe, FIN, and the ACKs that TIME-WAIT sends; with RST at the end of another."""
    for last, expected in (("+0 abort", 1), ("+0 close", 1)):
        runner = play(OPEN + "+0 setsockopt tos 184\n+0 write 1\n+0 > P. 1:2(1) ack 1\n+.01 < . 1:1(0) ack 2 win 30000")
        (conn,) = runner.stack.connections
        (conn.abort if "abort" in last else conn.close)(runner.now)
        sent = []
        while (item := runner.stack.poll_transmit(runner.now)) is not None:
            assert isinstance(item, Segment)
            sent.append(item.tos)
        assert sent == [EXPEDITED] * expected
        if "close" in last:
            flow = conn.flow_in
            fin = Segment(flow, (runner.remote_isn + 1) & 0xFFFFFFFF, conn.tx.snd_nxt, ACK | 1, 30000)
            assert [tos for _, tos in answers(runner, fin)] == [EXPEDITED]
            runner.now += 1_000_000
            assert [tos for _, tos in answers(runner, fin)] == [EXPEDITED]  # from TIME-WAIT
