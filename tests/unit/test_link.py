"""Link impairments: each by itself, to the microsecond or within the bounds of chance, and repeatable."""

from __future__ import annotations

import itertools
import random

import pytest

from tunstack.device import link
from tunstack.device.impairment import GilbertElliott, Impairment
from tunstack.device.link import HOLD_LIMIT, Direction, Way, flip_bit, join, mark_ce
from tunstack.device.memory import memory_pipe
from tunstack.sim.world import World
from tunstack.wire import icmp, ipv4


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
    [
        {"loss": 1.1},
        {"corrupt": -0.1},
        {"delay": -1},
        {"jitter": 5},
        {"queue": 0},
        {"reorder_depth": 0},
        {"rate": -5},
        {"ecn": 3},
        {"ecn": -1},
        {"ce": 1.5},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Impairment(**wrong)  # type: ignore[arg-type]


def burst_lengths(order: list[int], count: int) -> list[int]:
    """Return how many frames in a row are missing, at each place where some are."""
    edges = [-1, *order, count]
    return [after - before - 1 for before, after in itertools.pairwise(edges) if after - before > 1]


def test_gilbert_loses_in_bursts_of_the_length_and_share_that_the_model_says() -> None:
    count = 200_000
    model = GilbertElliott(0.01, 0.25)
    direction, out = passed(Impairment(gemodel=model), count)
    bursts = burst_lengths([number for _, number in out], count)
    assert model.loss == pytest.approx(0.01 / 0.26)
    assert direction.lost / count == pytest.approx(model.loss, rel=0.06)  # about 1900 bursts: over two standard deviations
    assert sum(bursts) / len(bursts) == pytest.approx(4, rel=0.06)
    # A stay of exactly n frames has the chance r (1 - r)^(n - 1).
    for length in (1, 2, 3):
        assert bursts.count(length) / len(bursts) == pytest.approx(0.25 * 0.75 ** (length - 1), rel=0.15)
    again, independent = passed(Impairment(loss=model.loss), count)
    assert again.lost / count == pytest.approx(model.loss, rel=0.06)
    alone = burst_lengths([number for _, number in independent], count)
    assert sum(alone) / len(alone) < 1.1


def test_gilbert_elliott_loses_in_both_states_with_their_own_probabilities() -> None:
    model = GilbertElliott(0.1, 0.3, loss_bad=0.5, loss_good=0.02)
    assert model.loss == pytest.approx(0.25 * 0.5 + 0.75 * 0.02)
    direction, _ = passed(Impairment(gemodel=model), 100_000)
    assert direction.lost / 100_000 == pytest.approx(model.loss, rel=0.04)
    stuck, _ = passed(Impairment(gemodel=GilbertElliott(0, 0, loss_good=0.1)), 20_000)
    assert stuck.lost == pytest.approx(2000, abs=170)
    never, _ = passed(Impairment(gemodel=GilbertElliott(1.0, 1.0, loss_bad=1.0)), 1000)
    assert never.lost == 500  # good and bad by turns


ECT1, ECT0, CE = 1, 2, 3
SRC, DST = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))


@pytest.mark.parametrize("tos", [ECT1, ECT0, 0xB8 | ECT0])
def test_a_packet_is_marked_with_its_checksum_put_right(tos: int) -> None:
    """M-18."""
    rng = random.Random(5)
    for _ in range(300):  # of many checksums, those at the ends of the range among them
        packet = ipv4.build(rng.randbytes(4), rng.randbytes(4), 17, rng.randbytes(8), tos=tos, ident=rng.randrange(1 << 16))
        marked = mark_ce(packet)
        parsed = ipv4.parse(marked)  # verifies the checksum
        assert parsed is not None
        assert parsed.tos == tos | CE
        assert (marked[2:10], marked[12:]) == (packet[2:10], packet[12:])


def test_what_cannot_be_marked_is_left_as_it_is() -> None:
    for tos in (0, CE, 0xB8):
        packet = ipv4.build(SRC, DST, 17, b"x", tos=tos)
        assert mark_ce(packet) is packet
    for odd in (b"", b"E", bytes(40)):
        assert mark_ce(odd) is odd
    damaged = bytearray(ipv4.build(SRC, DST, 17, b"x", tos=ECT0))
    damaged[10] ^= 1
    assert ipv4.parse(mark_ce(bytes(damaged))) is None  # wrong it was, and stays
    version6 = bytes((0x60, 0x20)) + bytes(38)
    assert mark_ce(version6) == bytes((0x60, 0x30)) + bytes(38)
    assert mark_ce(bytes((0x60, 0x00)) + bytes(38))[1] == 0


def test_ecn_marks_from_the_length_of_the_queue_on_and_drops_at_its_end() -> None:
    """M-18."""
    direction = Direction(Impairment(rate=8_000_000, queue=10, ecn=4), random.Random(1))
    packets = [ipv4.build(SRC, DST, 17, bytes(80), tos=ECT0 if i % 2 else 0, ident=i) for i in range(15)]
    out = [frame for packet in packets for _, frame in direction.offer(packet, 0)]
    assert [frame[1] & 3 for frame in out] == [0, ECT0, 0, ECT0, 0, CE, 0, CE, 0, CE]
    assert (direction.marked, direction.dropped) == (3, 5)
    ((_, later),) = direction.offer(packets[1], 720)  # seven have left, three are there
    assert later[1] & 3 == ECT0
    ((_, later),) = direction.offer(packets[1], 720)
    assert later[1] & 3 == CE


def test_ce_marks_by_chance_what_can_be_marked() -> None:
    """M-18: each frame by itself; who cannot be told loses nothing by it, and a repetition bears the same mark."""
    direction = Direction(Impairment(ce=0.25), random.Random(7))
    packets = [ipv4.build(SRC, DST, 17, bytes(80), tos=(0, ECT1, ECT0, CE)[i % 4], ident=i) for i in range(4000)]
    out = [frame for packet in packets for _, frame in direction.offer(packet, 0)]
    changed = [i for i, frame in enumerate(out) if frame != packets[i]]
    assert {i % 4 for i in changed} == {1, 2}
    assert all(out[i][1] & 3 == CE for i in changed)
    assert direction.marked == len(changed) and 420 < len(changed) < 580
    assert len(out) == 4000 and not direction.lost
    always = Direction(Impairment(ce=1, duplicate=1), random.Random(7))
    assert [frame[1] & 3 for _, frame in always.offer(packets[2], 0)] == [CE, CE]


def test_what_a_bottleneck_does_to_a_stream_is_known_to_the_microsecond() -> None:
    """1000 octets take 800 µs at 10 Mbit/s; sent every 500 µs into room for 5 they leave back to back, and the rest is dropped."""
    direction, out = passed_of_size(Impairment(delay=3000, rate=10_000_000, queue=5), 1000, gap=500, size=1000)
    assert [at for at, _ in out] == [3000 + 800 * (i + 1) for i in range(len(out))]
    waiting: list[int] = []
    expected = []
    for number in range(1000):
        now = number * 500
        waiting = [at for at in waiting if at > now]
        if len(waiting) < 5:
            waiting.append((waiting[-1] if waiting else now) + 800)
            expected.append(number)
    assert [number for _, number in out] == expected
    assert direction.dropped == 1000 - len(expected) > 300


def passed_of_size(impairment: Impairment, count: int, gap: int, size: int) -> tuple[Direction, list[tuple[int, int]]]:
    direction = Direction(impairment, random.Random(1))
    out = [each for i, frame in enumerate(frames(count, size)) for each in direction.offer(frame, i * gap)]
    return direction, [(at, int.from_bytes(frame[:4], "big")) for at, frame in out]


def test_the_same_seed_gives_the_same_octets_at_the_same_times() -> None:
    everything = Impairment(
        delay=9_000,
        jitter=3_000,
        loss=0.05,
        gemodel=GilbertElliott(0.02, 0.3),
        duplicate=0.1,
        corrupt=0.1,
        reorder=0.1,
        rate=10_000_000,
        queue=20,
        ecn=10,
    )

    def run(seed: int) -> list[tuple[int, bytes]]:
        direction = Direction(everything, random.Random(seed))
        return [each for i in range(3000) for each in direction.offer(ipv4.build(SRC, DST, 17, bytes(80), tos=ECT0, ident=i), i * 90)]

    assert run(4) == run(4)
    assert run(4) != run(5)


def test_what_is_on_the_way_when_a_way_ends_arrives_at_once_in_order() -> None:
    world = World()
    seen: list[bytes] = []
    way = Way(Direction(Impairment(delay=5000), random.Random(1)), seen.append, world)
    for frame in frames(3):
        way.carry(frame)
    assert (way.in_flight, way.octets, seen) == (3, 300, [])
    way.flush()
    assert (way.in_flight, way.octets, seen) == (0, 0, frames(3))
    assert world.run()
    assert seen == frames(3)


def test_a_way_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "IN_FLIGHT_LIMIT", 1000)
    world = World()
    seen: list[bytes] = []
    way = Way(Direction(Impairment(delay=5000), random.Random(1)), seen.append, world)
    for frame in frames(15):
        way.carry(frame)
    assert world.run()
    assert seen == frames(15)[:10]
    assert way.overflowed == 5
    way.carry(b"again")
    assert world.run()
    assert (seen[-1], way.octets) == (b"again", 0)


def test_a_frame_without_delay_does_not_overtake_one_on_the_way() -> None:
    world = World()
    seen: list[tuple[bytes, int]] = []
    direction = Direction(Impairment(delay=1000), random.Random(1))
    way = Way(direction, lambda frame: seen.append((frame, world.elapsed)), world)
    world.call_later(1000, way.carry, b"at once")  # asked for first, so that it comes when the other is due but not delivered
    way.carry(b"slow")
    direction.impairment = Impairment()
    way.carry(b"fast")
    assert world.run()
    assert seen == [(b"slow", 1000), (b"fast", 1000), (b"at once", 1000)]
    way.carry(b"free")
    assert seen[-1] == (b"free", 1000)


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


@pytest.mark.parametrize("name", ["to_bad", "to_good", "loss_bad", "loss_good"])
def test_nonsense_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        GilbertElliott(**({"to_bad": 0.1, "to_good": 0.1} | {name: 1.5}))


def test_a_link_refuses_a_pipe_with_offload() -> None:
    with pytest.raises(ValueError, match="wire size"):
        join(*memory_pipe(offload=True), World(), Impairment())


SENDER, RECEIVER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))


def test_a_packet_larger_than_the_mtu_is_dropped_and_its_sender_told() -> None:
    """M-07: as by a router with a narrower link behind it (RFC 1191 4); the answer goes through the other direction."""
    world = World(1)
    a, b = memory_pipe(1500)
    joined = join(a, b, world, Impairment(delay=10, mtu=600), Impairment(delay=7))
    fits = ipv4.build(SENDER, RECEIVER, ipv4.UDP, bytes(580), dont_fragment=True)
    large = ipv4.build(SENDER, RECEIVER, ipv4.UDP, bytes(581), dont_fragment=True)
    a.write(fits)
    a.write(large)
    world.run()
    assert [bytes(packet) for packet in b.read_batch().packets] == [fits]
    (answer,) = a.read_batch().packets
    parsed = ipv4.parse(answer)
    assert parsed is not None and parsed.dst == SENDER
    message = icmp.parse(parsed.payload)
    assert message is not None
    error = icmp.parse_error(message)
    assert error is not None and (error.next_hop_mtu, error.total_length, error.dst) == (600, 601, RECEIVER)
    assert (joined.forward.counts()["oversize"], joined.backward.counts()["offered"]) == (1, 1)


def test_a_silent_mtu_is_a_black_hole() -> None:
    """M-07."""
    direction = Direction(Impairment(mtu=600, mtu_silent=True), random.Random(1))
    assert direction.offer(ipv4.build(SENDER, RECEIVER, ipv4.UDP, bytes(581), dont_fragment=True), 0) == []
    assert not direction.answers
    assert direction.oversize == 1


def test_without_df_a_packet_passes_in_fragments() -> None:
    direction = Direction(Impairment(mtu=600), random.Random(1))
    packet = ipv4.build(SENDER, RECEIVER, ipv4.UDP, bytes(1000), dont_fragment=False)
    arrivals = [frame for _, frame in direction.offer(packet, 0)]
    assert arrivals == ipv4.fragment(packet, 600)
    assert len(arrivals) == 2 and not direction.answers


def test_an_error_that_is_too_large_draws_no_error() -> None:
    """RFC 1122 3.2.2: two narrow links do not answer each other for ever."""
    direction = Direction(Impairment(mtu=100), random.Random(1))
    error = icmp.destination_unreachable(icmp.PORT_UNREACHABLE, bytes((0x45,)) + bytes(200))
    assert direction.offer(ipv4.build(SENDER, RECEIVER, ipv4.ICMP, error, dont_fragment=True), 0) == []
    assert not direction.answers
    assert direction.offer(b"no packet at all" * 10, 0) == []
