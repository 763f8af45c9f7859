"""What a stack is given when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tunstack.congestion import CongestionControl
from tunstack.engine.sysctl import Sysctl

IPV4_HEADER = 20
TCP_HEADER = 20
TIMESTAMP_OPTION = 12  # with its two NOPs


class Random(Protocol):
    """The source of random numbers that a stack is given; `random.Random` fits."""

    def getrandbits(self, k: int, /) -> int: ...
    def randrange(self, start: int, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Fixed properties of a stack. `addresses` are packed (wire/flow.py); `mtu` and `max_payload` are the device's."""

    addresses: tuple[bytes, ...]
    mtu: int = 1500
    max_payload: int = 65536 - 16 - 120  # room for headers in a 64 KiB super-segment
    sysctl: Sysctl = field(default_factory=Sysctl)
    fast_path: bool = True  # False: every segment takes the full way; the results must be equal (tests)
    congestion: str | type[CongestionControl] | None = None  # of new connections; None: sysctl.tcp_congestion_control
