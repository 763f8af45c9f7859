"""What a link does to frames: `Impairment`, one direction's worth of trouble, checked.

Times int microseconds, rate bits a second, probabilities 0..1, lengths octets. How it is written on a command line: linkspec.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunstack.wire.ipv4 import MAX_PACKET, MIN_MTU


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a channel of two states, good and bad, which each frame finds as the one before left it.

    A frame is lost with the probability of the state that it finds; then the state changes, or not. The share of frames that find
    the bad state is `to_bad / (to_bad + to_good)`, and a stay in it lasts `1 / to_good` frames on average.
    """

    to_bad: float  # good to bad: p of the model
    to_good: float  # bad to good: r
    loss_bad: float = 1.0  # lost in the bad state: 1 - h
    loss_good: float = 0.0  # lost in the good state: 1 - k

    def __post_init__(self) -> None:
        for name in ("to_bad", "to_good", "loss_bad", "loss_good"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gemodel: {name} is a probability, 0 to 1, not {getattr(self, name)}")

    @property
    def loss(self) -> float:
        """The share of frames that are lost in the long run."""
        leaving = self.to_bad + self.to_good
        bad = self.to_bad / leaving if leaving else 0.0
        return bad * self.loss_bad + (1 - bad) * self.loss_good


@dataclass(frozen=True, slots=True)
class Impairment:
    """What one direction does to frames. The default does nothing: frames arrive at once, in order."""

    delay: int = 0  # µs, one way
    jitter: int = 0  # µs: the delay varies evenly between delay - jitter and delay + jitter; order is kept all the same
    loss: float = 0.0  # each frame by itself
    gemodel: GilbertElliott | None = None  # in bursts, beside `loss`
    duplicate: float = 0.0  # sent twice
    corrupt: float = 0.0  # one bit flipped, anywhere in the packet
    ce: float = 0.0  # marked CE where its sender can be told that way (ECT; RFC 3168)
    reorder: float = 0.0  # held back until `reorder_depth` later frames overtook it (or link.HOLD_LIMIT passed)
    reorder_depth: int = 3
    rate: int = 0  # bits a second; 0: no limit
    queue: int = 1000  # frames that wait for the rate at most; what comes beyond is dropped
    mtu: int = 0  # octets of the largest packet that passes: a router with a narrower link lies behind; 0: any
    mtu_silent: bool = False  # what is larger vanishes; else its sender is told (ICMP fragmentation needed)
    ecn: int = 0  # frames in the queue from which on an ECT frame is marked CE (RFC 3168); 0: never

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "corrupt", "ce", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("delay", "jitter", "rate", "ecn"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        if self.jitter > self.delay:
            late = f"jitter of {self.jitter} us is larger than the delay of {self.delay} us"
            raise ValueError(f"{late}: frames would arrive before they were sent")
        if self.queue < 1 or self.reorder_depth < 1:
            raise ValueError("queue and reorder_depth are at least 1")
        if self.mtu and not MIN_MTU <= self.mtu <= MAX_PACKET:
            raise ValueError(f"an MTU is {MIN_MTU} to {MAX_PACKET} octets: {self.mtu}")
        if self.ecn and not self.rate:
            raise ValueError("ecn marks frames that queue for the rate: give a rate too")
        if self.ecn > self.queue:
            raise ValueError(f"ecn of {self.ecn} frames is never reached: the queue holds {self.queue}")

    @property
    def takes_any_size(self) -> bool:
        """Tell whether a run of segments in one frame fares as its packets would: none is lost, changed or counted by itself."""
        return self == Impairment(delay=self.delay)
