"""ECN at work in virtual time: a bottleneck that marks instead of dropping."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunstack.device.impairment import Impairment
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.transfer import Outcome, transfer
from tunstack.sim.world import Host, World

SIZE = 8 << 20
MARKING = Impairment(delay=2_500, rate=20_000_000, queue=100, ecn=20)  # 20 Mbit/s, 5 ms: 8 packets fill the path
PATH = Impairment(delay=2_500, rate=1_000_000_000)


def run(ecn: int, forward: Impairment, *, seed: int = 1, fast_path: bool = True, size: int = SIZE) -> tuple[Outcome, Host, Host, int]:
    """Send SIZE octets from one host to another; return how it went, the hosts and how many frames were marked."""
    world = World(seed)
    a, b, link = world.pair(forward, replace(PATH), sysctl=Sysctl(tcp_ecn=ecn, tcp_rmem=(4096, 2 << 20, 6 << 20)), fast_path=fast_path)
    outcome = transfer(size, world=world, hosts=(a, b))
    assert link is not None
    assert outcome.complete and outcome.at_rest, outcome
    return outcome, a, b, link.forward.marked


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_marking_bottleneck_loses_nothing(fast_path: bool) -> None:
    """M-18, M-38: the window falls at each mark, the queue never fills, so nothing is dropped and nothing sent again."""
    outcome, sender, receiver, marked = run(1, MARKING, fast_path=fast_path)
    assert outcome.retransmitted == 0
    assert marked > 5
    assert receiver.stack.counters.IpExtInCEPkts == marked
    assert sender.stack.counters.TCPDeliveredCE >= 5
    assert SIZE * 8 / outcome.transfer > 0.85 * 20  # Mbit/s: bits a microsecond


def test_without_ecn_the_same_bottleneck_drops() -> None:
    """M-18: the counterpart, which says that the bottleneck would drop."""
    outcome, sender, receiver, marked = run(2, MARKING)
    assert marked == 0
    assert outcome.retransmitted > 0
    assert receiver.stack.counters.IpExtInCEPkts == sender.stack.counters.TCPDeliveredCE == 0


def test_marks_slow_a_flow_down_and_their_absence_does_not() -> None:
    """M-18: with one packet in fifty marked a flow has a small window, though nothing was lost."""
    path = Impairment(delay=10_000, rate=100_000_000)
    free, *_ = run(1, path)
    held, sender, _, marked = run(1, replace(path, ce=0.02))
    assert marked > 50
    assert held.retransmitted == free.retransmitted == 0
    assert held.transfer > 3 * free.transfer
    assert sender.stack.counters.TCPDeliveredCE >= marked


def test_every_frame_marked_is_the_least_window_and_still_progress() -> None:
    """M-18: the window falls once a round trip to its least, and the transfer goes on."""
    outcome, *_ = run(1, Impairment(delay=5_000, ce=1.0), size=1 << 19)
    assert outcome.retransmitted == 0


@pytest.mark.parametrize("seed", range(8))
def test_marks_and_losses_together(seed: int) -> None:
    """M-18, M-30, M-35: CE, CWR and ECE are lost, repeated and reordered like the rest; every octet arrives, with both paths alike."""
    trouble = Impairment(delay=5_000, jitter=2_000, loss=0.01, duplicate=0.01, reorder=0.01, ce=0.05)
    outcomes = [run(1, trouble, seed=seed, fast_path=fast_path, size=1 << 21)[0] for fast_path in (True, False)]
    assert outcomes[0] == outcomes[1]
