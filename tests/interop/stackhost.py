"""A stack of ours on a TUN device, driven by hand: no event loop, no threads. It lives while `run_until` runs."""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable

from tunstack.device.tun import TunDevice
from tunstack.engine import Connection, Listener, SocketOptions, Stack, StackConfig, Sysctl, pack_address
from tunstack.engine.sink import Sink
from tunstack.wire.segment import Segment

US = "10.77.0.2"


class StackHost:
    """A stack at US."""

    def __init__(self, device: TunDevice, sysctl: Sysctl | None = None) -> None:
        self.device = device
        config = StackConfig(
            (pack_address(US),), mtu=device.mtu, max_payload=device.max_payload, sysctl=sysctl if sysctl is not None else Sysctl()
        )
        self.stack = Stack(config, random.Random(1), bytes(16))
        self._held: Segment | bytes | None = None  # what the device did not take

    @staticmethod
    def now() -> int:
        return time.monotonic_ns() // 1000

    def listen(self, port: int, on_acceptable: Callable[[Listener], None], options: SocketOptions | None = None) -> Listener:
        return self.stack.listen(pack_address(US), port, on_acceptable=on_acceptable, options=options)

    def connect(self, address: str, port: int, sink: Sink, options: SocketOptions | None = None) -> Connection:
        """Connect, and wait until the connection is there."""
        conn = self.stack.connect(pack_address(address), port, sink, self.now(), options=options)
        self.run_until(lambda: conn.state.name == "ESTABLISHED")
        return conn

    def run_until(self, is_over: Callable[[], bool], timeout: float = 30) -> None:
        """Handle frames and timers until is_over(), looked at every 2 ms."""
        end = time.monotonic() + timeout
        while not is_over():
            assert time.monotonic() < end, "timed out"
            if select.select([self.device.fileno()], [], [], 0.002)[0]:
                self.stack.receive(self.device.read_batch(), self.now())
            self.stack.advance(self.now())
            while (item := self._held or self.stack.poll_transmit(self.now())) is not None:
                self._held = None
                if not self.device.write(item):
                    self._held = item
                    break
