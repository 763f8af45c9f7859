"""A peer that sends much of what costs it little."""

from __future__ import annotations

import random

from tunstack.engine.config import StackConfig
from tunstack.engine.stack import REPLIES_MAX, Stack
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, RST, SYN, Batch, Segment

LOCAL, REMOTE = pack_address("192.0.2.1"), pack_address("198.51.100.1")


def test_answers_do_not_pile_up_while_the_device_takes_none() -> None:
    """Each segment for a closed port draws a RST; a device that is busy leaves them in memory, up to a bound."""
    stack = Stack(StackConfig((LOCAL,)), random.Random(1), bytes(range(32)))
    batch = Batch()
    batch.segments = [Segment(pack_flow(REMOTE, 1024 + i, LOCAL, 9), i, 1, ACK, 0) for i in range(1000)]
    for _ in range(20):
        stack.receive(batch, 1_000_000)
    sent = 0
    while (item := stack.poll_transmit(1_000_000)) is not None:
        assert isinstance(item, Segment)
        assert item.flags == RST
        sent += 1
    assert sent == REPLIES_MAX
    assert stack.counters.IpOutDiscards == 20_000 - REPLIES_MAX
    batch.segments = [Segment(pack_flow(REMOTE, 1024, LOCAL, 9), 1, 0, SYN, 0)]
    stack.receive(batch, 1_000_000)
    assert stack.poll_transmit(1_000_000) is not None
