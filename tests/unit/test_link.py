"""Link impairments: each by itself, to the microsecond or within the bounds of chance, and repeatable."""

from __future__ import annotations

import random

import pytest

from tunstack.device.impairment import Impairment
from tunstack.device.link import HOLD_LIMIT, Direction, flip_bit, join
from tunstack.device.memory import memory_pipe
from tunstack.sim.world import World


def frames(count: int, size: int = 100) -> list[bytes]:
    return [i.to_bytes(4, "big") + bytes(size - 4) for i in range(count)]


def passed(impairment: Impairment, count: int, gap: int = 100, seed: int = 1) -> tuple[Direction, list[tuple[int, int]]]:
    """Offer frames `gap` µs apart, and return (deliver at, number) in the order of delivery."""
    direction = Direction(impairment, random.Random(seed))
    out: list[tuple[int, bytes]] = []
    for i, frame in enumerate(frames(count)):
        if (deadline := direction.next_deadline()) is not None and deadline <= i * gap:
            out += direction.release(i * gap)
        out += direction.offer(frame, i * gap)
    while (deadline := direction.next_deadline()) is not None:
        out += direction.release(deadline)
    return direction, sorted(((at, int.from_bytes(frame[:4], "big")) for at, frame in out), key=lambda each: each[0])


def test_no_impairment_delivers_at_once_in_order() -> None:
    assert passed(Impairment(), 5)[1] == [(i * 100, i) for i in range(5)]


def test_delay_is_exact() -> None:
    assert passed(Impairment(delay=20_000), 5)[1] == [(20_000 + i * 100, i) for i in range(5)]


def test_jitter_stays_in_its_bounds_and_keeps_the_order() -> None:
    out = passed(Impairment(delay=20_000, jitter=5_000), 3000, gap=20_000)[1]
    assert [number for _, number in out] == list(range(3000))
    delays = [at - number * 20_000 for at, number in out]
    assert 15_000 <= min(delays) < 15_100
    assert 24_900 < max(delays) <= 25_000
    assert sum(delays) / 3000 == pytest.approx(20_000, abs=200)
    assert [number for _, number in passed(Impairment(delay=20_000, jitter=20_000), 1000, gap=10)[1]] == list(range(1000))


@pytest.mark.parametrize("name", ["loss", "duplicate", "corrupt", "reorder"])
def test_probabilities_are_kept_and_counted(name: str) -> None:
    direction, out = passed(Impairment(**{name: 0.05}), 20_000)
    counter = {"loss": "lost", "duplicate": "duplicated", "corrupt": "corrupted", "reorder": "reordered"}[name]
    count = getattr(direction, counter)
    assert count == pytest.approx(1000, abs=130)  # four standard deviations
    expected = 20_000 + {"loss": -count, "duplicate": count}.get(name, 0)
    assert len(out) == expected
    assert direction.offered == 20_000


def test_a_reordered_frame_is_overtaken_by_exactly_its_depth() -> None:
    for depth in (1, 3, 7):
        _, out = passed(Impairment(delay=1000, reorder=0.01, reorder_depth=depth), 5000)
        order = [number for _, number in out]
        held = [number for place, number in enumerate(order) if place and order[place - 1] > number]
        assert len(held) > 20
        alone = [number for number in held if not any(abs(number - other) <= 2 * depth for other in held if other != number)]
        assert alone
        for number in alone:
            assert order.index(number) == number + depth


def test_a_held_frame_that_nobody_overtakes_is_let_go() -> None:
    direction = Direction(Impairment(delay=1000, reorder=1.0), random.Random(1))
    assert direction.offer(b"lonely", 0) == []
    assert direction.next_deadline() == 1000 + HOLD_LIMIT
    assert direction.release(1000 + HOLD_LIMIT) == [(1000 + HOLD_LIMIT, b"lonely")]
    assert direction.next_deadline() is None


def test_rate_spaces_the_frames_and_a_full_queue_drops() -> None:
    direction = Direction(Impairment(rate=8_000_000, queue=10), random.Random(1))  # an octet a µs
    out = [each for frame in frames(30, 100) for each in direction.offer(frame, 0)]
    assert [at for at, _ in out] == [100 * i for i in range(1, 11)]
    assert direction.dropped == 20
    assert [at for at, _ in direction.offer(bytes(100), 450)] == [1100]  # four have left, there is room again
    assert [at for at, _ in direction.offer(bytes(100), 5000)] == [5100]


def test_rate_does_not_drift_at_fractions_of_a_microsecond() -> None:
    direction = Direction(Impairment(rate=10_000_000_000, queue=100_000), random.Random(1))
    last = [direction.offer(bytes(1500), 0)[0][0] for _ in range(10_000)][-1]
    assert last == 12_000


def test_corruption_flips_one_bit_anywhere() -> None:
    direction = Direction(Impairment(corrupt=1.0), random.Random(3))
    places = set()
    for _ in range(2000):
        ((_, frame),) = direction.offer(bytes(20), 0)
        assert sum(octet.bit_count() for octet in frame) == 1
        places.add(frame)
    assert len(places) == 160
    assert flip_bit(bytes(2), 9) == b"\x00\x40"


def test_the_seed_decides_everything_and_impairments_may_change_on_the_way() -> None:
    everything = Impairment(delay=9_000, jitter=3_000, loss=0.1, duplicate=0.1, corrupt=0.1, reorder=0.1, rate=10_000_000, queue=20)
    assert passed(everything, 3000, seed=4)[1] == passed(everything, 3000, seed=4)[1]
    assert passed(everything, 3000, seed=4)[1] != passed(everything, 3000, seed=5)[1]
    direction = Direction(Impairment(loss=1.0), random.Random(1))
    assert direction.offer(b"x", 0) == []
    direction.impairment = Impairment()
    assert direction.offer(b"x", 0) == [(0, b"x")]


@pytest.mark.parametrize(
    "wrong",
    [{"loss": 1.1}, {"corrupt": -0.1}, {"delay": -1}, {"jitter": 5}, {"queue": 0}, {"reorder_depth": 0}, {"rate": -5}],
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Impairment(**wrong)  # type: ignore[arg-type]


def test_a_link_between_devices_delivers_at_its_time_in_each_direction() -> None:
    world = World()
    a, b = memory_pipe()
    link = join(a, b, world, Impairment(delay=3000), Impairment(delay=500))
    seen: list[tuple[str, int]] = []
    for name, device in (("a", a), ("b", b)):
        device.on_readable = lambda name=name: seen.append((name, world.elapsed))  # type: ignore[misc]
    packet = bytes.fromhex("45000014000040004006 26cf 0a000001 0a000002".replace(" ", ""))
    a.write(packet)
    b.write(packet)
    assert link.in_flight == 2
    assert world.run()
    assert seen == [("a", 500), ("b", 3000)]
    assert link.in_flight == 0


def test_heavy_reordering_on_a_link_loses_nothing_and_comes_to_rest() -> None:
    world = World()
    a, b = memory_pipe(queue=5000)
    link = join(a, b, world, Impairment(delay=3000, reorder=0.5, reorder_depth=2))
    packet = bytes.fromhex("45000014000040004006 26cf 0a000001 0a000002".replace(" ", ""))
    for i in range(2000):
        world.call_later(i * 1000, a.write, packet)
    assert world.run()
    assert b.waiting == 2000
    assert link.in_flight == 0
    assert world.pending == 0


def test_a_link_refuses_a_pipe_with_offload() -> None:
    with pytest.raises(ValueError, match="wire size"):
        join(*memory_pipe(offload=True), World(), Impairment())
