"""Several stacks on one interface: each flow has one owner, and what comes to another is handed over (engine/neighbours.py)."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tunstack.device.handover import Handovers
from tunstack.engine import Stack, StackConfig, pack_address
from tunstack.engine.listener import Listener
from tunstack.engine.neighbours import Neighbours
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.syncookie import AGE_MAX, PERIOD
from tunstack.wire import codec, icmp, ipv4
from tunstack.wire.flow import pack_flow, reverse_flow
from tunstack.wire.segment import ACK, PSH, RST, SYN, Batch, Segment
from tunstack.wire.steering import KEYS, Steering

US, HOST, ROUTER = pack_address("10.77.0.2"), pack_address("10.77.0.1"), pack_address("192.0.2.1")
PORT = 80
WORKERS = 3


class Bench:
    """Stacks that share addresses and a secret, each with a listener, and the sockets between them."""

    def __init__(self, workers: int = WORKERS) -> None:
        self.handovers = Handovers(workers)
        self.steering = self.handovers.steering
        self.ends = [self.handovers.of(index) for index in range(workers)]
        self.stacks = [self.stack(index) for index in range(workers)]

    def stack(self, index: int) -> Stack:
        stack = Stack(StackConfig((US,)), random.Random(index), bytes(16))
        stack.neighbours = Neighbours(self.steering, index, self.ends[index].send, stack.counters)
        stack.listen(US, PORT, on_acceptable=lambda listener: None)
        return stack

    def flow(self, owner: int) -> bytes:
        """Return a flow of segments to us that a worker has."""
        for port in range(40000, 41000):
            flow = pack_flow(HOST, port, US, PORT)
            if self.steering.owner(flow) == owner:
                return flow
        raise AssertionError("the rule leaves somebody out")

    def arrive(self, index: int, *items: Segment | bytes, now: int = 0) -> None:
        """Have things come by a worker's queue."""
        batch = Batch()
        batch.segments = [item for item in items if isinstance(item, Segment)]
        batch.has_options = any(seg.options for seg in batch.segments)
        batch.packets = [memoryview(item) for item in items if not isinstance(item, Segment)]
        self.stacks[index].receive(batch, now)

    def pass_on(self, index: int, now: int = 0) -> Batch:
        """Have a worker take what is in its inbox."""
        batch = self.ends[index].read_batch()
        self.stacks[index].receive(batch, now)
        return batch

    def output(self, index: int, now: int = 0) -> list[Segment]:
        """Return what a worker sends."""
        sent: list[Segment] = []
        while (item := self.stacks[index].poll_transmit(now)) is not None:
            assert isinstance(item, Segment)
            sent.append(item)
        return sent


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.handovers.close()


def syn(flow: bytes, **fields: object) -> Segment:
    return Segment(flow, 1000, 0, SYN, 65535, mss=1460, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_the_rule_gives_each_worker_its_part(workers: int) -> None:
    source = random.Random(workers)
    steering = Steering([source.getrandbits(64) for _ in range(KEYS)], workers)
    owners = Counter(steering.owner(pack_flow(HOST, port, US, PORT)) for port in range(1024, 1024 + 400 * workers))
    assert set(owners) == set(range(workers))
    assert all(250 < number < 550 for number in owners.values())


def test_a_rule_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Steering([1] * KEYS, 0)


def test_a_syn_that_comes_to_the_wrong_worker_is_answered_by_its_owner_alone(bench: Bench) -> None:
    """No RST, and counted where it is handled; what follows goes the same way."""
    flow = bench.flow(owner=1)
    bench.arrive(0, syn(flow))
    assert bench.output(0) == []
    assert (bench.stacks[0].counters.TCPHandedOver, bench.stacks[0].counters.TcpInSegs) == (1, 0)
    bench.pass_on(1)
    (answer,) = bench.output(1)
    assert answer.flow == reverse_flow(flow) and answer.flags == SYN | ACK
    bench.arrive(2, Segment(flow, 1001, answer.seq + 1, ACK, 65535))
    bench.pass_on(1)
    assert bench.stacks[1].counters.TcpPassiveOpens == 1
    assert bench.output(1) == bench.output(2) == []
    assert sum(stack.counters.TcpInSegs for stack in bench.stacks) == 2 == sum(stack.counters.IpInReceives for stack in bench.stacks)


def test_what_nobody_has_is_answered_with_rst_by_its_owner(bench: Bench) -> None:
    flow = bench.flow(owner=2)
    bench.arrive(0, Segment(flow, 5000, 7000, ACK, 100))
    assert bench.output(0) == []
    bench.pass_on(2)
    (answer,) = bench.output(2)
    assert (answer.flags, answer.seq) == (RST, 7000)
    assert [stack.counters.TcpOutRsts for stack in bench.stacks] == [0, 0, 1]


def test_a_segment_is_handed_over_as_it_came(bench: Bench) -> None:
    """Every field, further options (here TCP-AO's kind) and the packets of a run that the interface gave as one."""
    flow = bench.flow(owner=1)
    payload = random.Random(1).randbytes(4 * 1400 + 17)
    run = Segment(flow, 4_294_967_000, 77, ACK | PSH, 4711, (payload,), len(payload), ts_val=5, ts_ecr=6, gso_size=1400, tos=0x2E << 2)
    odd = Segment(flow, 1, 2, ACK, 3, options=bytes((1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 29, 4, 7, 7)), ident=99)
    blocks = Segment(flow, 1, 2, ACK, 3, sack=((10, 20), (30, 40)), urgent=0)
    bench.arrive(0, run, odd, blocks)
    got_run, got_odd, got_blocks = bench.ends[1].read_batch().segments
    assert b"".join(bytes(piece) for piece in got_run.payload) == payload
    for name in ("flow", "seq", "ack", "flags", "window", "length", "ts_val", "ts_ecr", "gso_size", "tos"):
        assert getattr(got_run, name) == getattr(run, name), name
    assert got_run.packets == 5
    assert (got_odd.options, got_odd.ts_val, got_odd.ident) == (odd.options, 9, 99)
    assert got_blocks.sack == blocks.sack


@pytest.mark.parametrize("owner", range(WORKERS))
def test_fragments_come_whole_to_the_owner_of_the_segment(bench: Bench, owner: int) -> None:
    """M-21: the kernel steers them without ports."""
    flow = bench.flow(owner)
    (packet,) = codec.encode(Segment(flow, 1000, 0, SYN, 65535, (bytes(64),), 64, mss=1460))
    head, body = packet[:20], packet[20:]
    for start, more in ((0, 0x2000), (32, 0)):
        part = body[start : start + 32] if more else body[start:]
        header = bytearray(head)
        header[2:4] = (20 + len(part)).to_bytes(2, "big")
        header[6:8] = (more | start >> 3).to_bytes(2, "big")
        header[10:12] = bytes(2)
        header[10:12] = codec.checksum(header).to_bytes(2, "big")
        bench.arrive(0, bytes(header) + part)
    if owner:
        bench.pass_on(owner)
    assert [len(bench.output(index)) for index in range(WORKERS)] == [int(index == owner) for index in range(WORKERS)]
    assert bench.stacks[0].counters.IpReasmOKs == 1
    assert sum(stack.counters.TcpInSegs for stack in bench.stacks) == 1


def test_an_icmp_error_comes_to_the_owner_of_what_it_quotes(bench: Bench) -> None:
    """RFC 1191: here the path's MTU, which counts for a connection out."""
    stack = bench.stacks[1]
    conn = stack.connect(HOST, 7, NULL_SINK, 0)
    (sent,) = bench.output(1)
    quoted = codec.encode(sent)[0]
    message = icmp.build(icmp.DESTINATION_UNREACHABLE, icmp.FRAGMENTATION_NEEDED, 0, 1000, quoted[:28])
    packet = ipv4.build(ROUTER, US, ipv4.ICMP, message)
    bench.arrive(0, packet)
    assert bench.stacks[0].counters.IcmpInMsgs == 0 == bench.stacks[0].counters.IpInReceives
    bench.pass_on(1)
    assert stack.counters.IcmpInDestUnreachs == 1
    assert stack.path_mtu.get(conn.flow) == 1000


def test_a_ping_is_answered_where_it_comes(bench: Bench) -> None:
    bench.arrive(2, ipv4.build(HOST, US, ipv4.ICMP, icmp.build(icmp.ECHO_REQUEST, 0, 1, 1, b"abc")))
    assert bench.stacks[2].counters.IcmpOutEchoReps == 1


def test_connections_out_have_ports_whose_answers_come_to_us(bench: Bench) -> None:
    """M-58: so no two workers can ever have the same four-tuple."""
    flows: set[bytes] = set()
    for index, stack in enumerate(bench.stacks):
        for _ in range(50):
            conn = stack.connect(HOST, 7, NULL_SINK, 0)
            assert bench.steering.owner(conn.flow_in) == index
            flows.add(conn.flow_in)
    assert len(flows) == 50 * WORKERS


def test_a_port_of_ones_own_must_be_one_whose_answers_come_to_us(bench: Bench) -> None:
    ports = {bench.steering.owner(pack_flow(HOST, 7, US, port)): port for port in range(5000, 5100)}
    bench.stacks[1].connect(HOST, 7, NULL_SINK, 0, local_port=ports[1])
    with pytest.raises(OSError) as caught:
        bench.stacks[1].connect(HOST, 7, NULL_SINK, 0, local_port=ports[2])
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_inbox_that_is_full_loses_what_is_more(bench: Bench) -> None:
    """As a full link does; nobody waits, and nothing of what was taken is lost."""
    flow = bench.flow(owner=1)
    payload = bytes(60_000)
    for number in range(200):
        bench.arrive(0, Segment(flow, number, 0, ACK, 1, (payload,), len(payload), gso_size=1460))
    counters = bench.stacks[0].counters
    assert counters.TCPHandedOver + counters.IpInDiscards == 200 and counters.TCPHandedOver and counters.IpInDiscards
    got: list[int] = []
    while segments := bench.ends[1].read_batch().segments:
        got += [seg.seq for seg in segments]
    assert got == list(range(counters.TCPHandedOver))


def test_a_cookie_of_a_worker_that_died_is_good_for_the_next(bench: Bench) -> None:
    """M-26: the secret is theirs together, and so is the clock."""
    flow = bench.flow(owner=1)
    bench.stacks[1].sysctl.tcp_syncookies = 2
    bench.arrive(1, syn(flow))
    (answer,) = bench.output(1)
    assert bench.stacks[1].flows == {}
    third = Segment(flow, 1001, answer.seq + 1, ACK, 65535)
    successor = bench.stacks[1] = bench.stack(1)
    for listener in successor.listeners:
        expect_cookies(listener)
    bench.arrive(1, third, now=1_000_000)
    assert successor.counters.SyncookiesRecv == 1 == successor.counters.TcpPassiveOpens
    assert successor.isn.isn(flow, 8) == bench.stacks[0].isn.isn(flow, 8)
    assert successor.isn.ts_offset(flow) == bench.stacks[0].isn.ts_offset(flow)


def expect_cookies(listener: Listener) -> None:
    listener.group.cookies_until = AGE_MAX * PERIOD
