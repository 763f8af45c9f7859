"""How a link is written in one line: `delay=20ms,loss=1%;down:rate=50mbit,queue=100`.

Items are joined by commas and hold for both directions. After a semicolon, `up:` or `down:` begins items for one direction alone, which
go before the common ones; up is away from the side that names it (from tunstack to the network, from A to B), down the other way.

    delay=TIME            one way                              TIME: 250us, 20ms, 1.5s
    jitter=TIME           delay varies evenly by +- so much; order is kept
    loss=P                each frame by itself                 P: 1%, 0.05%
    gemodel=P/R[/B[/G]]   Gilbert-Elliott: good to bad P, bad to good R, lost in bad B (100%), in good G (0%)
    dup=P                 sent twice
    corrupt=P             one bit flipped
    ce=P                  marked CE if its sender is ECN-capable (ECT), each frame by itself
    reorder=P[/DEPTH]     held back until DEPTH (3) later frames have overtaken it
    rate=RATE             of IPv4 octets                       RATE: 800kbit, 50mbit, 1.5gbit
    queue=FRAMES          that wait for the rate at most (1000); beyond it the tail is dropped
    mtu=OCTETS[/silent]   of a router's link: larger packets are dropped and their sender told (silent: not told)
    ecn=FRAMES            in the queue from which on ECT frames are marked CE
    seed=N                repeats the same choices; for the whole link

`none`, or nothing, is a link without impairment.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal

from tunstack.device.impairment import GilbertElliott, Impairment
from tunstack.device.link import Direction

_TIME_UNITS = {"us": 1, "ms": 1000, "s": 1_000_000}
_RATE_UNITS = {"bit": 1, "kbit": 1000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([a-z%]*)")
_DIRECTIONS = ("up", "down")
_LONGEST = 3_600_000_000  # µs: no network keeps a frame for more than an hour


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A link as it was written, and what that means. `seed` is None where none was given."""

    text: str
    up: Impairment
    down: Impairment
    seed: int | None = None

    def __str__(self) -> str:
        return self.text

    def directions(self, seed: int) -> tuple[Direction, Direction]:
        """Make the two directions, up and down; `seed` is for where the text names none."""
        up, down = (Direction(Impairment(), random.Random()) for _ in _DIRECTIONS)
        replace(self, seed=seed if self.seed is None else self.seed).apply(up, down)
        return up, down

    def apply(self, up: Direction, down: Direction) -> None:
        """Change directions that are at work; they draw on as before, unless the text names a seed."""
        up.impairment, down.impairment = self.up, self.down
        if self.seed is not None:
            source = random.Random(self.seed)
            up.rng, down.rng = (random.Random(source.getrandbits(64)) for _ in _DIRECTIONS)


def parse(text: str) -> LinkSpec:
    """Return what the text says; ValueError, in one line, where it says nothing that can be."""
    if text.strip() == "none":
        text = ""
    common: dict[str, object] = {}
    own: dict[str, dict[str, object]] = {name: {} for name in _DIRECTIONS}
    for section in text.split(";"):
        name, colon, items = section.partition(":")
        if colon and name.strip() not in own:
            raise ValueError(f"{name.strip()!r} is no direction: up or down")
        values = own[name.strip()] if colon else common
        for item in (items if colon else section).split(","):
            if item.strip():
                _take(item.strip(), values, bool(colon))
    seed = common.pop("seed", None)
    assert seed is None or isinstance(seed, int)
    up, down = (_impairment(name, common, own[name]) for name in _DIRECTIONS)
    return LinkSpec(text, up, down, seed)


def _impairment(direction: str, common: dict[str, object], own: dict[str, object]) -> Impairment:
    try:
        return Impairment(**common | own)  # type: ignore[arg-type]  # each was made by its own reader
    except ValueError as error:
        raise ValueError(f"{direction}: {error}" if own else str(error)) from error


def _take(item: str, values: dict[str, object], one_direction: bool) -> None:
    """Read one item into the arguments of an Impairment."""
    key, equals, value = (part.strip() for part in item.partition("="))
    if key not in _ITEMS:
        near = difflib.get_close_matches(key, _ITEMS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_ITEMS)}"
        raise ValueError(f"{key!r} is nothing that a link does ({hint})")
    if key == "seed" and one_direction:
        raise ValueError("seed is for the whole link: give it before up: and down:")
    if not equals:
        raise ValueError(f"{key} has no value: {key}={_EXAMPLES[key]}")
    try:
        fresh = _ITEMS[key](value)
    except ValueError as error:
        raise ValueError(f"{key}={value}: {error}, such as {key}={_EXAMPLES[key]}") from error
    if not values.keys().isdisjoint(fresh):
        raise ValueError(f"{key} is given twice")
    values |= fresh


def _quantity(text: str, units: dict[str, int], what: str) -> int:
    found = _QUANTITY.fullmatch(text.lower())
    if found is None or (found[2] not in units and Decimal(found[1])):
        raise ValueError(f"not a {what} with a unit ({', '.join(units)})")
    return int((Decimal(found[1]) * units.get(found[2], 1)).to_integral_value(ROUND_HALF_UP))


def parse_time(text: str) -> int:
    """Read a TIME; µs."""
    micros = _quantity(text, _TIME_UNITS, "time")
    if micros > _LONGEST:
        raise ValueError("longer than an hour")
    return micros


def _rate(text: str) -> int:
    return _quantity(text, _RATE_UNITS, "rate")


def _share(text: str) -> float:
    found = _QUANTITY.fullmatch(text)
    if found is None or (found[2] != "%" and Decimal(found[1])) or Decimal(found[1]) > 100:
        raise ValueError("not a percentage from 0% to 100%")
    return float(Decimal(found[1]) / 100)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not int(text):
        raise ValueError("not a whole number from 1 on")
    return int(text)


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text):
        raise ValueError("not a whole number")
    return int(text)


def _reorder(text: str) -> dict[str, object]:
    share, slash, depth = text.partition("/")
    values: dict[str, object] = {"reorder": _share(share)}
    if slash:
        values["reorder_depth"] = _count(depth)
    return values


def _gemodel(text: str) -> dict[str, object]:
    shares = [_share(share) for share in text.split("/")]
    if not 2 <= len(shares) <= 4:
        raise ValueError("not two to four percentages")
    return {"gemodel": GilbertElliott(*shares)}


def _one(name: str, read: Callable[[str], object]) -> Callable[[str], dict[str, object]]:
    return lambda text: {name: read(text)}


def _mtu(text: str) -> dict[str, object]:
    octets, slash, silent = text.partition("/")
    if slash and silent != "silent":
        raise ValueError("behind the slash stands nothing but silent")
    return {"mtu": _count(octets), "mtu_silent": bool(slash)}


# What can be said, with what reads it into the arguments of an Impairment.
_ITEMS: dict[str, Callable[[str], dict[str, object]]] = {
    "delay": _one("delay", parse_time),
    "jitter": _one("jitter", parse_time),
    "loss": _one("loss", _share),
    "gemodel": _gemodel,
    "dup": _one("duplicate", _share),
    "corrupt": _one("corrupt", _share),
    "ce": _one("ce", _share),
    "reorder": _reorder,
    "rate": _one("rate", _rate),
    "queue": _one("queue", _count),
    "mtu": _mtu,
    "ecn": _one("ecn", _count),
    "seed": _one("seed", _seed),
}
_EXAMPLES = {
    "delay": "20ms",
    "jitter": "5ms",
    "loss": "1%",
    "gemodel": "1%/25%",
    "dup": "0.1%",
    "corrupt": "0.05%",
    "ce": "2%",
    "reorder": "1%/3",
    "rate": "50mbit",
    "queue": "100",
    "mtu": "1280",
    "ecn": "20",
    "seed": "7",
}
