"""Worlds: stacks and links under one clock; the same packets every time; transfers that arrive whole."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from tunstack.device.impairment import Impairment
from tunstack.sim.transfer import Outcome, transfer
from tunstack.sim.world import START, World

MIB = 1 << 20
HOSTILE = Impairment(delay=10_000, jitter=3_000, loss=0.02, duplicate=0.02, corrupt=0.02, reorder=0.02)


def test_events_come_in_order_of_time_and_of_asking() -> None:
    world = World()
    seen: list[tuple[str, int]] = []
    for name, delay in (("c", 50), ("a", 10), ("d", 50), ("b", 20)):
        world.call_later(delay, lambda name=name: seen.append((name, world.elapsed)))  # type: ignore[misc]
    assert world.run()
    assert seen == [("a", 10), ("b", 20), ("c", 50), ("d", 50)]
    assert world.now() == START + 50


def test_a_time_limit_stops_the_clock_there_and_the_rest_follows() -> None:
    world = World()
    seen: list[int] = []
    world.call_later(1000, seen.append, 1)
    assert not world.run(until=999)
    assert (world.elapsed, seen) == (999, [])
    assert world.run()
    assert seen == [1]


def recorded(seed: int, impairment: Impairment, size: int) -> tuple[str, Outcome]:
    """Transfer, and return a digest of every frame with its time and direction."""
    world = World(seed)
    a, b, _ = world.pair(impairment)
    digest = blake2b()
    for host in (a, b):
        carry = host.device.carry

        def record(frame: bytes, carry=carry, name=host.name) -> None:  # type: ignore[no-untyped-def]
            digest.update(f"{world.now()} {name} {len(frame)} ".encode() + frame)
            carry(frame)

        host.device.carry = record
    outcome = transfer(size, seed=seed, world=world, hosts=(a, b))
    return digest.hexdigest(), outcome


def test_a_seed_gives_the_same_packets_every_time() -> None:
    first, outcome = recorded(7, HOSTILE, MIB)
    assert outcome.complete
    assert outcome.retransmitted > 10
    assert recorded(7, HOSTILE, MIB) == (first, outcome)
    assert recorded(8, HOSTILE, MIB)[0] != first


def test_64_mib_at_one_percent_and_50_ms_repeat_packet_by_packet() -> None:
    impairment = Impairment(delay=25_000, loss=0.01)
    first, outcome = recorded(11, impairment, 64 * MIB)
    assert outcome.complete and outcome.at_rest
    assert recorded(11, impairment, 64 * MIB) == (first, outcome)


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("size", [0, 1, 1460, 100_000, 8 * MIB])
def test_a_clean_pipe_delivers_without_a_retransmission(size: int, offload: bool) -> None:
    outcome = transfer(size, offload=offload)
    assert outcome.complete
    assert outcome.at_rest
    assert outcome.retransmitted == 0


def test_the_delay_and_the_rate_are_what_the_transfer_sees() -> None:
    short = transfer(1, Impairment(delay=25_000))
    assert short.transfer == 75_000  # SYN, SYN-ACK, then data with FIN
    long = transfer(4 * MIB, Impairment(delay=5_000, rate=100_000_000, queue=400))
    assert long.complete
    ideal = 4 * MIB / 1448 * 1500 * 8 / 100
    assert ideal < long.transfer < 1.25 * ideal


@pytest.mark.parametrize("seed", range(8))
def test_a_hostile_link_delivers_every_octet(seed: int) -> None:
    """M-30, M-02, M-40."""
    outcome = transfer(2 * MIB, HOSTILE, seed=seed)
    assert outcome.complete, f"seed {seed}: {outcome}"
    assert outcome.at_rest


def test_the_fast_path_changes_nothing() -> None:
    for seed in range(3):
        worlds = []
        for fast_path in (True, False):
            world = World(seed)
            a, b, _ = world.pair(HOSTILE, fast_path=fast_path)
            outcome = transfer(MIB, seed=seed, world=world, hosts=(a, b))
            counters = [
                {k: v for k, v in host.stack.counters.as_dict().items() if not k.startswith(("TCPHP", "TCPPureAcks"))} for host in (a, b)
            ]
            worlds.append((outcome, counters))
            assert bool(a.stack.counters.TCPHPAcks) == fast_path
        assert worlds[0] == worlds[1]


def test_a_link_that_carries_nothing_ends_with_the_errors_of_linux() -> None:
    """M-25: nobody answers, ETIMEDOUT after six retries."""
    outcome = transfer(1000, Impairment(loss=1.0))
    assert outcome.at_rest
    assert outcome.received == 0
    assert isinstance(outcome.errors[0], TimeoutError)
    assert outcome.duration == 127_000_000  # 1 + 2 + ... + 64 s
