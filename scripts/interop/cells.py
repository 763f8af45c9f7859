"""The cells of the matrix: what is combined, what each combination must negotiate, which ones are chosen.

{SACK on, off} x {timestamps on, off} x {window scaling on, off} x {ECN 0, 1, 2} x {MTU 576, 1500, 9000} are 72 option sets; each is run
over two links, in two roles, with five loads: 1440 cells.

Whose options they are. An option is on for a connection when both ends have it, so "off" has three ways to come about: ours is off,
Linux's is off, both are. Each of the 72 sets takes one of them for each option that it has off, by its ECN value and MTU, so that all
three occur for every option, in both roles, and in all mixtures. `ecn` is our tcp_ecn; Linux's takes all of 0, 1, 2 for each of them.
Without a link, segments pass with offload in one half of the sets and without in the other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

ON, OFF = "on", "off"
FACTORS: dict[str, tuple[str, ...]] = {
    "sack": (ON, OFF),
    "ts": (ON, OFF),
    "ws": (ON, OFF),
    "ecn": ("0", "1", "2"),
    "mtu": ("576", "1500", "9000"),
    "link": ("clean", "lossy"),
    "role": ("client", "server"),
    "load": ("up", "down", "echo", "half-close", "small"),
}
SETTING_FACTORS = ("sack", "ts", "ws", "ecn", "mtu", "link")
OFF_SIDES = ("ours", "Linux's", "both")
CLIENT_ECN, SERVER_ECN = frozenset({1}), frozenset({1, 2})  # values of tcp_ecn with which a client asks, and a server agrees


@dataclass(frozen=True, slots=True)
class Knobs:
    """The options of one end, as its sysctls have them."""

    sack: bool
    timestamps: bool
    window_scaling: bool
    ecn: int


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends must have agreed on."""

    sack: bool
    timestamps: bool
    window_scaling: bool
    ecn: bool

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {ON if getattr(self, field.name) else OFF}" for field in fields(self))


@dataclass(frozen=True, slots=True)
class Setting:
    """One option set over one link: what one namespace is made for."""

    sack: str
    ts: str
    ws: str
    ecn: str
    mtu: str
    link: str

    def __str__(self) -> str:
        return ",".join(f"{name}={getattr(self, name)}" for name in SETTING_FACTORS)

    @property
    def number(self) -> int:
        """A number of its own, 0 to 143, for its seeds."""
        number = 0
        for name in SETTING_FACTORS:
            number = number * len(FACTORS[name]) + FACTORS[name].index(getattr(self, name))
        return number

    @property
    def is_lossy(self) -> bool:
        return self.link == "lossy"

    @property
    def offload(self) -> bool:
        """Whether segments of up to 64 KB pass between us and the kernel where no link is in between."""
        return (sum(self._place) + self._count_off) % 2 == 0

    @property
    def off_sides(self) -> dict[str, str]:
        """Whose side has an option off, for each that is off."""
        ecn, mtu = self._place
        turn = {"sack": ecn + mtu, "ts": ecn + 2 * mtu, "ws": mtu}
        return {name: OFF_SIDES[turn[name] % 3] for name in turn if getattr(self, name) == OFF}

    @property
    def ours(self) -> Knobs:
        return self._knobs("Linux's", int(self.ecn))

    @property
    def linux(self) -> Knobs:
        return self._knobs("ours", (FACTORS["mtu"].index(self.mtu) + self._count_off) % 3)

    def negotiated(self, role: str) -> Negotiated:
        """Return what must come of it when we are client or server."""
        ours, linux = self.ours, self.linux
        client, server = (ours, linux) if role == "client" else (linux, ours)
        return Negotiated(
            ours.sack and linux.sack,
            ours.timestamps and linux.timestamps,
            ours.window_scaling and linux.window_scaling,
            client.ecn in CLIENT_ECN and server.ecn in SERVER_ECN,
        )

    @property
    def _place(self) -> tuple[int, int]:
        return FACTORS["ecn"].index(self.ecn), FACTORS["mtu"].index(self.mtu)

    @property
    def _count_off(self) -> int:
        return (self.sack, self.ts, self.ws).count(OFF)

    def _knobs(self, other: str, ecn: int) -> Knobs:
        """Return the options of the side that has all on but what is not the other's alone to have off."""
        sides = self.off_sides
        sack, ts, ws = (sides.get(name, other) == other for name in ("sack", "ts", "ws"))
        return Knobs(sack, ts, ws, ecn)


@dataclass(frozen=True, slots=True)
class Cell:
    """One load in one role over one setting."""

    setting: Setting
    role: str  # ours
    load: str

    def __str__(self) -> str:
        return f"{self.setting},role={self.role},load={self.load}"

    def value(self, factor: str) -> str:
        return str(getattr(self if factor in ("role", "load") else self.setting, factor))


def all_settings() -> list[Setting]:
    """Return all 144."""
    return [Setting(*values) for values in itertools.product(*(FACTORS[name] for name in SETTING_FACTORS))]


def cells_of(setting: Setting) -> list[Cell]:
    """Return its ten cells."""
    return [Cell(setting, role, load) for role in FACTORS["role"] for load in FACTORS["load"]]


class Filter:
    """What `--only` says: `mtu=576,load=up+down` is every cell with that MTU and one of these loads."""

    def __init__(self, text: str) -> None:
        """Read it; ValueError, in one line, where it says nothing that can be."""
        self._wanted: dict[str, frozenset[str]] = {}
        for item in text.split(","):
            name, equals, values = item.strip().partition("=")
            if name not in FACTORS or not equals:
                raise ValueError(f"{item.strip()!r} is not NAME=VALUE with a name of {', '.join(FACTORS)}")
            wanted = frozenset(values.split("+"))
            if unknown := wanted - set(FACTORS[name]):
                raise ValueError(f"{name} is one of {', '.join(FACTORS[name])}, not {', '.join(sorted(unknown))}")
            self._wanted[name] = wanted

    def takes(self, cell: Cell) -> bool:
        return all(cell.value(name) in wanted for name, wanted in self._wanted.items())


def share() -> list[Setting]:
    """Choose settings in which any two values of two factors come together, and what `_meets` adds; greedily, always the same."""
    candidates = all_settings()
    missing = {meeting for setting in candidates for meeting in _meets(setting)}
    chosen = []
    while missing:
        best = max(candidates, key=lambda setting: len(missing & _meets(setting)))
        chosen.append(best)
        missing -= _meets(best)
    return chosen


def _meets(setting: Setting) -> set[tuple[str, ...]]:
    """Return what comes together in a setting: values in pairs, both ends' ECN, whose side has what off."""
    values = [f"{name}={getattr(setting, name)}" for name in SETTING_FACTORS]
    found: set[tuple[str, ...]] = set(itertools.combinations(values, 2))
    found.add((f"ecn={setting.ecn}", f"Linux's ecn={setting.linux.ecn}"))
    found |= set(setting.off_sides.items())
    return found
