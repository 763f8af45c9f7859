"""Two stacks in virtual time, one of them behind a link: transfers arrive whole, and a seed gives the same packets every time."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from tunstack.device.impairment import GilbertElliott
from tunstack.device.linkdevice import LinkDevice
from tunstack.device.linkspec import parse
from tunstack.device.memory import memory_pipe
from tunstack.sim.transfer import Outcome, transfer
from tunstack.sim.world import Host, World

MIB = 1 << 20
HOSTILE = "delay=10ms,jitter=3ms,loss=1%,gemodel=0.5%/30%,dup=2%,corrupt=1%,reorder=2%,rate=100mbit,queue=200"


def behind_link(text: str, seed: int = 1, offload: bool = False) -> tuple[World, tuple[Host, Host], LinkDevice]:
    """Return a world of two hosts; the first one's device is behind the link."""
    world = World(seed)
    near, far = memory_pipe(offload=offload, queue=100_000)
    device = LinkDevice(near, *parse(text).directions(seed), world)
    return world, (world.host("a", "10.0.0.1", device), world.host("b", "10.0.0.2", far)), device


def recorded(text: str, seed: int, offload: bool) -> tuple[str, Outcome, LinkDevice]:
    """Transfer, and return a digest of every frame that meets the link or leaves it, with its time."""
    world, hosts, device = behind_link(text, seed, offload)
    digest = blake2b()
    for name, direction in (("up", device.forward), ("down", device.backward)):

        def record(frame: bytes, now: int, name: str = name, offer=direction.offer) -> list[tuple[int, bytes]]:  # type: ignore[no-untyped-def]
            assert len(frame) <= 1500
            out = offer(frame, now)
            digest.update(f"{name} {now} {len(frame)} {[at for at, _ in out]} ".encode() + frame + b"".join(each for _, each in out))
            return out

        direction.offer = record  # type: ignore[method-assign]
    outcome = transfer(MIB, seed=seed, world=world, hosts=hosts)
    return digest.hexdigest(), outcome, device


@pytest.mark.parametrize("offload", [False, True])
def test_a_hostile_link_delivers_every_octet_and_repeats_octet_for_octet(offload: bool) -> None:
    """M-30, M-02: with super-segments under the link and without."""
    first, outcome, device = recorded(HOSTILE, 3, offload)
    assert outcome.complete and outcome.at_rest, outcome
    assert outcome.retransmitted > 5
    for direction in (device.forward, device.backward):
        assert direction.lost and direction.corrupted and direction.duplicated and direction.reordered, direction.counts()
    second, again, _ = recorded(HOSTILE, 3, offload)
    assert (second, again) == (first, outcome)
    assert recorded(HOSTILE, 4, offload)[0] != first


@pytest.mark.parametrize("offload", [False, True])
def test_the_delay_of_each_direction_is_what_a_handshake_sees(offload: bool) -> None:
    world, hosts, _ = behind_link("up:delay=20ms;down:delay=5ms", offload=offload)
    outcome = transfer(1, world=world, hosts=hosts)
    assert outcome.complete and outcome.retransmitted == 0
    assert outcome.transfer == 45_000  # SYN up, SYN-ACK down, data with FIN up


def test_the_rate_is_what_a_transfer_sees() -> None:
    world, hosts, device = behind_link("delay=5ms;up:rate=50mbit,queue=400", offload=True)
    outcome = transfer(4 * MIB, world=world, hosts=hosts)
    assert outcome.complete
    ideal = 4 * MIB / 1448 * 1500 * 8 / 50
    assert ideal < outcome.transfer < 1.25 * ideal
    assert device.backward.dropped == 0


def test_a_link_may_get_worse_and_better_while_a_transfer_runs() -> None:
    world, hosts, device = behind_link("delay=5ms,rate=20mbit")
    for at, text in ((200_000, "delay=5ms,gemodel=30%/10%"), (900_000, "delay=1ms")):
        world.call_later(at, lambda text=text: parse(text).apply(device.forward, device.backward))  # type: ignore[misc]
    outcome = transfer(4 * MIB, world=world, hosts=hosts)
    assert outcome.complete and outcome.at_rest, outcome
    assert device.forward.lost > 3
    assert device.forward.impairment.delay == 1000
    assert parse("gemodel=30%/10%").up.gemodel == GilbertElliott(0.3, 0.1)
