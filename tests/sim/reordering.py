"""A bulk transfer in virtual time over a link that reorders and loses nothing, and what the sender made of it.

Every retransmission is needless then. The receive buffer keeps what is in flight within the link's queue, so that nothing is dropped
there either. Times int microseconds, rates bits a second, lengths octets.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunstack.device.impairment import Impairment
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.transfer import transfer
from tunstack.sim.world import SECOND, World

RMEM = (4096, 131072, 262144)  # tcp_rmem: in flight at most are three times what 20 ms and 20 Mbit/s hold
QUEUE = 1000  # frames
ENDLESS = 1 << 40  # octets


@dataclass(frozen=True, slots=True)
class Reordering:
    """What the link does, both directions alike: of the frames a share is overtaken by `depth` later ones. 0: none is."""

    congestion: str
    depth: int
    share: float = 0.02
    rtt: int = 20_000
    rate: int = 20_000_000

    @property
    def impairment(self) -> Impairment:
        """Return it as the link takes it."""
        share = self.share if self.depth else 0.0
        return Impairment(delay=self.rtt // 2, reorder=share, reorder_depth=self.depth or 1, rate=self.rate, queue=QUEUE)


@dataclass(frozen=True, slots=True)
class Course:
    """What a run came to: segments and events at the sender, octets at the receiver."""

    sent: int  # data segments, each once
    resent: int
    recoveries: int
    reordered: int  # times that reordering was seen
    undone: int  # reductions of the window
    timeouts: int
    received: int  # octets

    @property
    def spurious(self) -> float:
        """The share of needless retransmissions, percent."""
        return 100 * self.resent / max(self.sent, 1)


def run(conditions: Reordering, seconds: float, seed: int) -> Course:
    """Send for so long."""
    world = World(seed)
    sysctl = Sysctl(tcp_rmem=RMEM)
    link = conditions.impairment
    a, b, direction = world.pair(link, sysctl=sysctl, congestion=conditions.congestion)
    assert direction is not None
    limit = round(seconds * SECOND)
    outcome = transfer(ENDLESS, seed=seed, time_limit=limit, world=world, hosts=(a, b))
    counters = a.stack.counters
    return Course(
        sent=counters.TCPOrigDataSent,
        resent=counters.TcpRetransSegs,
        recoveries=counters.TCPSackRecovery,
        reordered=counters.TCPSACKReorder + counters.TCPTSReorder,
        undone=counters.TCPFullUndo + counters.TCPPartialUndo + counters.TCPDSACKUndo + counters.TCPLossUndo,
        timeouts=counters.TCPTimeouts,
        received=outcome.received,
    )
