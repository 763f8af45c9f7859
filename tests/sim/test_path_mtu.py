"""Paths that take smaller packets than the device, in virtual time: told by ICMP, and as black holes (RFC 1191, RFC 4821)."""

from __future__ import annotations

import pytest

from tunstack.congestion.base import INFINITE
from tunstack.device.impairment import Impairment
from tunstack.engine.connection import Connection
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.transfer import transfer
from tunstack.sim.world import World

DELAY = 5_000
MEGABYTE = 1 << 20


class Run:
    """A transfer over a path whose narrowest link has this MTU in the direction of the data."""

    def __init__(self, mtu: int, size: int, *, silent: bool, loss: float = 0.0, seed: int = 1, **knobs: int) -> None:
        world = World(seed)
        narrow = Impairment(delay=DELAY, mtu=mtu, mtu_silent=silent, loss=loss)
        a, b, _ = world.pair(narrow, Impairment(delay=DELAY, loss=loss), sysctl=Sysctl(**knobs))  # type: ignore[arg-type]
        self.connections: list[Connection] = []
        world.call_later(0, lambda: self.connections.extend(a.stack.connections))
        self.outcome = transfer(size, world=world, hosts=(a, b), time_limit=3600_000_000)
        self.counters = a.stack.counters

    @property
    def sender(self) -> Connection:
        return self.connections[0]


@pytest.mark.parametrize("mtu", [552, 576, 1006, 1400, 1499])
def test_a_router_s_word_costs_one_round_trip(mtu: int) -> None:
    """M-07: no timeout, and no smaller congestion window."""
    run = Run(mtu, MEGABYTE, silent=False)
    counters = run.counters
    assert run.outcome.complete
    assert counters.TCPTimeouts == 0
    assert counters.TcpRetransSegs <= 10 * (1460 // (mtu - 52) + 1)
    assert counters.IcmpInDestUnreachs


def test_without_probing_a_black_hole_swallows_the_connection() -> None:
    """M-07: tcp_mtu_probing = 0, the default, as in Linux."""
    run = Run(1400, MEGABYTE, silent=True)
    assert not run.outcome.complete
    assert isinstance(run.outcome.errors[0], TimeoutError)
    assert run.counters.TCPMTUPSuccess == 0


@pytest.mark.parametrize("mtu", [1200, 1300, 1400, 1492])
def test_a_black_hole_is_left_and_the_path_searched(mtu: int) -> None:
    """M-07, RFC 4821: tcp_mtu_probing = 1. The largest segment that passes is found to eight octets."""
    run = Run(mtu, 16 * MEGABYTE, silent=True, tcp_mtu_probing=1)
    counters = run.counters
    assert run.outcome.complete
    assert counters.TCPMTUPSuccess and counters.TCPMTUPFail
    assert mtu - 8 <= run.sender.mss + 52 <= mtu


@pytest.mark.parametrize("mtu", [120, 300, 552, 700])
def test_a_path_narrower_than_the_base_is_come_down_to(mtu: int) -> None:
    """M-07: each further timeout halves the segments, down to tcp_mtu_probe_floor."""
    run = Run(mtu, 100_000, silent=True, tcp_mtu_probing=1)
    assert run.outcome.complete
    assert (mtu >> 1) - 52 < run.sender.mss + 52 <= mtu


def test_from_the_start_the_search_goes_upward() -> None:
    """M-07: tcp_mtu_probing = 2 meets no black hole."""
    run = Run(1300, 16 * MEGABYTE, silent=True, tcp_mtu_probing=2)
    counters = run.counters
    assert run.outcome.complete
    assert counters.TCPTimeouts == 0
    assert counters.TCPMTUPSuccess and counters.TCPMTUPFail
    assert 1300 - 8 <= run.sender.mss + 52 <= 1300


def test_a_path_without_a_narrow_link_is_used_in_full() -> None:
    """M-07: the probes end at the device's MTU; none fails."""
    run = Run(1500, 16 * MEGABYTE, silent=True, tcp_mtu_probing=2)
    counters = run.counters
    assert run.outcome.complete
    assert counters.TCPMTUPFail == 0 and counters.TCPMTUPSuccess >= 3
    assert 1500 - 8 <= run.sender.mss + 52 <= 1500


def test_a_lost_probe_is_no_sign_of_congestion() -> None:
    """M-07, RFC 4821 7.6.2: the window grows as if there were no probes, and nothing but them is sent again."""
    run = Run(1300, 16 * MEGABYTE, silent=True, tcp_mtu_probing=2)
    assert run.sender.tx.cc.ssthresh == INFINITE
    assert run.counters.TCPMTUPFail <= run.counters.TcpRetransSegs <= 2 * run.counters.TCPMTUPFail


@pytest.mark.parametrize("silent", [True, False])
def test_probes_survive_a_lossy_path(silent: bool, world_seed: int) -> None:
    """M-07, M-30."""
    run = Run(1300, 4 * MEGABYTE, silent=silent, loss=0.01, seed=world_seed, tcp_mtu_probing=2)
    assert run.outcome.complete
