"""The two ends of a connection's life in one go (expected.py). That it changes nothing all scripts tell, which run with it and without."""

from __future__ import annotations

import pytest
from engine.rawpeer import RawPeer

from tunstack.engine import input
from tunstack.engine.connection import Connection
from tunstack.engine.state import CLOSED, LAST_ACK
from tunstack.sim.script import Runner
from tunstack.wire.segment import ACK, FIN, Segment

LIFE = """
    0    listen 8080
    +0   < S 0:0(0) win 30000 <mss 1000,sackOK,TS val 100 ecr 0>
    +0   > S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 100 ecr 100>
    +.01 < . 1:1(0) ack 1 win 30000 <nop,nop,TS val 110 ecr 100>
    +0   accept
    +0   write 100
    +0   > P. 1:101(100) ack 1
    +.01 < {fin} 1:1(0) ack {ack} win {window} <nop,nop,TS val {stamp} ecr 110>
    +0   > . 101:101(0) ack 2
    +0   eof
    +0   close
    +0   > F. 101:101(0) ack 2
    +.01 < . 2:2(0) ack 102 win 30000 <nop,nop,TS val 130 ecr 120>
    +0   state CLOSED
    +0   closed
    +0   gone
"""
PLAIN = {"fin": "F.", "ack": "101", "window": "30000", "stamp": "120"}


@pytest.fixture
def full_way(monkeypatch: pytest.MonkeyPatch) -> list[Segment]:
    """Give a list of the segments that take it."""
    taken: list[Segment] = []
    arrives = input.arrives

    def noting(conn: Connection, seg: Segment, now: int) -> None:
        taken.append(seg)
        arrives(conn, seg, now)

    monkeypatch.setattr(input, "arrives", noting)
    return taken


def test_plain_life_never_takes_the_full_way(full_way: list[Segment]) -> None:
    """RFC 9293 3.10.7.4. Without the fast path all of the peer's segments behind its SYN do."""
    script = LIFE.format(**PLAIN)
    Runner(script).run()
    assert not full_way
    Runner(script, fast_path=False).run()
    assert len(full_way) == 3


@pytest.mark.parametrize(
    "change",
    [{"fin": "FE."}, {"window": "20000"}],
    ids=["ECE", "another window"],
)
def test_fin_with_something_else_about_it_takes_the_full_way(full_way: list[Segment], change: dict[str, str]) -> None:
    Runner(LIFE.format(**PLAIN | change)).run()
    assert len(full_way) == 1


@pytest.mark.parametrize("fast_path", [True, False])
def test_last_ack_of_a_connection_that_probes_its_path_counts_the_probe(fast_path: bool) -> None:
    """M-07, RFC 4821 7.6: what was larger than the MSS came through."""
    peer = RawPeer(tcp_mtu_probing=2)
    peer.stack.fast_path = fast_path
    conn = peer.open(1000)
    peer.bring(peer.segment(conn, flags=ACK | FIN))
    conn.send(bytes(100), peer.now)
    conn.close(peer.now)
    assert peer.poll() and conn.state is LAST_ACK and conn.mtu_probe is not None
    conn.mtu_probe.size, conn.mtu_probe.seq, conn.mtu_probe.end = 1400, conn.tx.snd_una, conn.tx.snd_una + 100
    peer.bring(peer.segment(conn))
    assert conn.state is CLOSED and peer.stack.counters.TCPMTUPSuccess == 1
