"""A shared bottleneck: whose round trip is how long, what queues and what does not, what is dropped, flows that come and go."""

from __future__ import annotations

import pytest

from tunstack.device.impairment import Impairment
from tunstack.sim.bottleneck import Dumbbell
from tunstack.sim.flows import Flow
from tunstack.sim.world import SECOND, World

RATE = 10_000_000
PAYLOAD = 1448 / 1500  # share of the octets of a full packet that the application sees


@pytest.mark.parametrize("rtt", [2_000, 20_001, 300_000])
def test_a_pair_is_as_far_apart_as_was_asked_for(rtt: int) -> None:
    world = World()
    dumbbell = Dumbbell(world, Impairment())
    pairs = [dumbbell.pair(7_000), dumbbell.pair(rtt)]
    flow = Flow(world, pairs[1])
    world.run(rtt + rtt - rtt // 2 - 1)  # SYN, SYN-ACK, and the data is still under way
    assert flow.received == 0
    world.run(rtt + rtt - rtt // 2)
    assert flow.received > 0
    world.run(2 * rtt)
    assert flow.conn is not None
    assert flow.conn.rtt.min_rtt == rtt


def test_delays_of_the_queue_and_of_the_way_back_are_added() -> None:
    world = World()
    flow = Flow(world, Dumbbell(world, Impairment(delay=3_000), Impairment(delay=500)).pair(10_000))
    world.run(SECOND // 10)
    assert flow.conn is not None
    assert flow.conn.rtt.min_rtt == 13_500


def test_all_data_shares_one_rate_and_one_queue() -> None:
    world = World(1)
    dumbbell = Dumbbell(world, Impairment(rate=RATE, queue=50))
    flows = [Flow(world, dumbbell.pair(20_000), start_at=number * 10_000) for number in range(4)]
    world.run(2 * SECOND)
    before = sum(flow.received for flow in flows)
    dumbbell.watch(1_000)
    world.run(8 * SECOND)
    goodput = (sum(flow.received for flow in flows) - before) * 8 / 6
    assert 0.95 * RATE * PAYLOAD < goodput < 1.01 * RATE * PAYLOAD
    assert dumbbell.forward.dropped > 10
    assert len(dumbbell.samples) == 6001
    assert max(sample.frames for sample in dumbbell.samples) == 50
    longest = max(sample.delay for sample in dumbbell.samples)
    assert 49 * 1200 < longest <= 50 * 1200  # a full packet takes 1.2 ms


def test_a_queue_that_is_empty_is_seen_to_be() -> None:
    world = World()
    dumbbell = Dumbbell(world, Impairment(rate=RATE))
    dumbbell.watch(1_000)
    world.run(3_000)
    assert [(sample.at, sample.frames, sample.delay) for sample in dumbbell.samples] == [(at, 0, 0) for at in (0, 1_000, 2_000, 3_000)]
    dumbbell.forward.offer(bytes(1250), world.now())  # 1 ms at this rate
    dumbbell.forward.offer(bytes(1250), world.now())
    world.run(6_000)
    assert [(sample.frames, sample.delay) for sample in dumbbell.samples[4:]] == [(1, 1_000), (0, 0), (0, 0)]


def test_acknowledgements_pass_beside_the_queue() -> None:
    world = World()
    dumbbell = Dumbbell(world, Impairment(rate=RATE, queue=50))
    pair = dumbbell.pair(20_000)
    flow = Flow(world, pair)
    world.run(2 * SECOND)
    assert flow.received > SECOND
    counters = pair.sender.stack.counters
    assert dumbbell.forward.offered == counters.TcpOutSegs + counters.TcpRetransSegs
    assert pair.receiver.stack.counters.TcpOutSegs > 100


def test_the_way_back_may_lose() -> None:
    """Half the ACKs are lost: those that come cover the rest, and nothing is sent again for it but now and then at a timeout."""
    world = World(3)
    dumbbell = Dumbbell(world, Impairment(rate=RATE, queue=500), Impairment(loss=0.5))
    pair = dumbbell.pair(20_000)
    flow = Flow(world, pair)
    world.run(5 * SECOND)
    assert flow.received * 8 / 5 > 0.8 * RATE
    assert pair.sender.stack.counters.TcpInSegs < 0.7 * pair.receiver.stack.counters.TcpOutSegs


def test_a_flow_that_stops_ends_in_good_order_and_leaves_the_rate_to_the_other() -> None:
    world = World(5)
    dumbbell = Dumbbell(world, Impairment(rate=RATE, queue=50))
    stays = Flow(world, dumbbell.pair(20_000), stop_at=10 * SECOND)
    leaves = Flow(world, dumbbell.pair(20_000), start_at=SECOND, stop_at=4 * SECOND)
    world.run(SECOND - 1)
    assert leaves.conn is None
    world.run(6 * SECOND)
    assert leaves.is_over and leaves.error is None
    had, stayed = leaves.received, stays.received
    assert had > RATE // 8 // 4
    world.run(9 * SECOND)
    assert leaves.received == had
    assert (stays.received - stayed) * 8 / 3 > 0.9 * RATE * PAYLOAD
    assert world.run()  # at rest: nothing is left to be done
    assert stays.is_over and stays.error is None


def test_a_flow_that_nobody_answers_says_why_it_ended() -> None:
    """M-25."""
    world = World()
    flow = Flow(world, Dumbbell(world, Impairment(loss=1.0)).pair(20_000))
    assert world.run()
    assert isinstance(flow.error, TimeoutError)
    assert flow.received == 0


def test_a_frame_whose_address_was_damaged_goes_nowhere() -> None:
    world = World()
    dumbbell = Dumbbell(world, Impairment(delay=1_000))
    pair = dumbbell.pair(20_000)
    frames: list[bytes] = []
    carry = pair.sender.device.carry

    def damage(frame: bytes) -> None:
        frames.append(frame)
        carry(frame if len(frames) > 1 else frame[:19] + bytes([frame[19] ^ 0x80]) + frame[20:])

    pair.sender.device.carry = damage
    flow = Flow(world, pair)
    world.run(SECOND // 2)
    assert (len(frames), pair.receiver.stack.counters.IpInReceives) == (1, 0)
    world.run(2 * SECOND)  # the SYN came again after a second
    assert flow.received > 0


def test_a_seed_gives_the_same_flows_every_time() -> None:
    def run(seed: int) -> list[object]:
        world = World(seed)
        dumbbell = Dumbbell(world, Impairment(rate=RATE, queue=30, loss=0.002))
        flows = [Flow(world, dumbbell.pair(10_000 + 7_000 * number)) for number in range(5)]
        dumbbell.watch(5_000)
        world.run(3 * SECOND)
        return [dumbbell.samples, dumbbell.forward.counts(), [(flow.received, flow.retransmitted) for flow in flows]]

    assert run(1) == run(1)
    assert run(1) != run(2)
