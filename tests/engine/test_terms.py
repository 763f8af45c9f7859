"""What a listener offers follows its options, the knobs and the path, though it is not worked out for each SYN (terms.py)."""

from __future__ import annotations

import random

from tunstack.engine.config import StackConfig
from tunstack.engine.listener import Listener
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.wire.flow import pack_address, pack_flow, reverse_flow
from tunstack.wire.segment import SYN, Batch, Segment

US, PEER = pack_address("10.77.0.2"), pack_address("10.77.0.1")


class Host:
    def __init__(self) -> None:
        self.sysctl = Sysctl()
        self.stack = Stack(StackConfig((US,), 1500, sysctl=self.sysctl), random.Random(1), bytes(16))
        self.listener: Listener = self.stack.listen(US, 80, on_acceptable=lambda listener: None)
        self._port = 4000

    def next_flow(self) -> bytes:
        """The flow of the next peer's segments."""
        return pack_flow(PEER, self._port + 1, US, 80)

    def offered(self) -> tuple[int, int | None, int | None]:
        """Return window, window scale and MSS of the answer to another peer's SYN."""
        flow = self.next_flow()
        self._port += 1
        batch = Batch()
        batch.segments.append(Segment(flow, 1000, 0, SYN, 65535, ts_val=5, mss=1460, wscale=7, sack_ok=True))
        self.stack.receive(batch, 1_000_000)
        answer = self.stack.poll_transmit(1_000_000)
        assert isinstance(answer, Segment)
        return answer.window, answer.wscale, answer.mss


def test_answers_follow_a_knob_that_changes() -> None:
    """M-10."""
    host = Host()
    assert host.offered() == (65160, 7, 1460)
    host.sysctl.tcp_rmem = (4096, 16384, 65536)
    assert host.offered() == (7240, 1, 1460)
    host.sysctl.set("net.ipv4.tcp_window_scaling", "0")
    assert host.offered() == (7240, None, 1460)


def test_answers_follow_an_option_of_the_listener() -> None:
    """M-10."""
    host = Host()
    host.offered()
    host.listener.set_option("maxseg", 500)
    assert host.offered() == (65392, 7, 500)
    host.listener.set_option("rcvbuf", 8192)
    assert host.offered() == (7808, 0, 500)


def test_answers_follow_what_is_learned_of_a_path() -> None:
    """RFC 1191: and are what they were when that is forgotten."""
    host = Host()
    assert host.offered() == (65160, 7, 1460)
    host.stack.path_mtu.lower(reverse_flow(host.next_flow()), 1000, 1_000_000)
    assert host.offered() == (65412, 7, 960)
    host.stack.advance(1_000_000 + 601_000_000)
    while host.stack.poll_transmit(1_000_000) is not None:  # the answers of before, sent again
        pass
    assert host.offered() == (65160, 7, 1460)
