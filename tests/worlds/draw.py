"""What a random world is, drawn from its seed: two hosts, two ways between them, pairs of applications.

Most worlds are tiny, since trouble needs only a few segments to show and many worlds are to be played; a few are large. A plan is plain
data: printed, it tells what is special about a seed. Times int microseconds, lengths octets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from tunstack.congestion import available
from tunstack.device.impairment import GilbertElliott, Impairment
from tunstack.engine.sysctl import Sysctl

T = TypeVar("T")

MS = 1000
SECOND = 1_000_000
WRITES_MAX = 25  # of one application
READS_MAX = 40  # of an application that reads in sips

# What a host's knobs are drawn from, each with the chance that it is not left alone. A knob that there is not is passed over.
KNOBS: dict[str, tuple[float, Sequence[object]]] = {
    "tcp_timestamps": (0.3, (False,)),
    "tcp_sack": (0.3, (False,)),
    "tcp_dsack": (0.2, (False,)),
    "tcp_window_scaling": (0.3, (False,)),
    "tcp_ecn": (0.6, (0, 1, 2)),
    "tcp_rmem": (0.6, ((4096, 4096, 8192), (4096, 8192, 16384), (4096, 16384, 65536), (4096, 131072, 16384), (4096, 30000, 262144))),
    "tcp_wmem": (0.3, ((4096, 4096, 4096), (4096, 16384, 16384), (4096, 16384, 65536))),
    "tcp_initial_cwnd": (0.4, (1, 2, 4, 40)),
    "tcp_min_tso_segs": (0.2, (1, 4)),
    "tcp_tso_rtt_log": (0.2, (0, 14)),
    "tcp_slow_start_after_idle": (0.3, (False,)),
    "tcp_fin_timeout": (0.3, (1, 5)),
    "tcp_invalid_ratelimit": (0.2, (1, 10)),
    "tcp_challenge_ack_limit": (0.1, (1, 20)),
    "tcp_rfc1337": (0.2, (False,)),
    "tcp_recovery": (0.2, (0,)),
    "tcp_early_retrans": (0.3, (0,)),
    "tcp_frto": (0.3, (0,)),
    "tcp_thin_linear_timeouts": (0.1, (True,)),
    "tcp_autocorking": (0.2, (False,)),
    "tcp_limit_output_bytes": (0.1, (4096,)),
    "tcp_moderate_rcvbuf": (0.2, (False,)),
    "tcp_shrink_window": (0.0, ()),
    "tcp_mtu_probing": (0.2, (1, 2)),
    "tcp_notsent_lowat": (0.1, (1, 4000)),
    "tcp_retries1": (0.1, (1, 8)),
    "tcp_user_timeout": (0.0, ()),
}
HAVE = frozenset(entry.name for entry in fields(Sysctl))

# Knobs with which a connection may give up although the network is not that bad.
IMPATIENT: dict[str, Sequence[object]] = {
    "tcp_retries2": (2, 4, 6),
    "tcp_syn_retries": (1, 2),
    "tcp_synack_retries": (0, 1),
    "tcp_orphan_retries": (1, 3),
    "tcp_max_tw_buckets": (0, 1, 262144),  # without TIME-WAIT, what comes late finds nobody and is answered with RST
}


# Knobs of a host that is short of places: in queues, of ports, of memory.
CROWDED: dict[str, tuple[float, Sequence[object]]] = {
    "tcp_syncookies": (0.8, (0, 1, 2)),
    "tcp_max_syn_backlog": (0.3, (1, 4)),
    "tcp_tw_reuse": (0.7, (1,)),
    "tcp_tw_reuse_delay": (0.3, (1, 5000)),
    "ip_local_port_range": (0.7, ((2000, 2000), (2000, 2001), (2000, 2004))),
    "tcp_max_orphans": (0.3, (0, 1, 2)),
    "tcp_mem": (0.3, ((0, 1, 2), (2, 4, 8), (8, 16, 32))),
    "tcp_max_tw_buckets": (0.3, (0, 1, 3)),
}


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host: its knobs and the moods of its device and clock."""

    sysctl: dict[str, object]
    mtu: int
    bursts: bool  # super-segments leave; else every segment by itself
    batch: int  # frames a read brings at most
    coalesce: bool  # those of a batch that follow each other become one segment
    isn: int | None  # what the sequence numbers of both directions begin near, None: anywhere
    ts_left: int | None  # ms until the timestamp clock passes zero, or half of its range; None: whenever
    refuses: float  # share of writes that the device has no room for at first
    backlog: int
    accept_delay: int
    defer_accept: int = 0  # of its listener, s


@dataclass(frozen=True, slots=True)
class WayPlan:
    """One direction of the link: the everyday trouble, and the special."""

    impairment: Impairment
    first_lost: dict[str, int] = field(default_factory=dict)  # of a kind of frame ("syn", "fin", "data", "again", "ack"), how many
    lost: frozenset[int] = frozenset()  # frames by their number
    blackouts: tuple[tuple[int, int], ...] = ()  # from, until
    late: float = 0.0  # share of frames that are late by up to `late_by`, so that others overtake them
    late_by: int = 0
    soft_errors: float = 0.0  # share of frames in place of which a router's "host unreachable" comes back
    path_mtu: tuple[int, int] | None = None  # (from, largest packet that passes); larger ones draw "fragmentation needed"


@dataclass(frozen=True, slots=True)
class AppPlan:
    """How one end of a connection behaves."""

    size: int  # octets that it sends
    low_water: int
    writing: str  # "whole", "pieces", "octets", "bursts", "turns"
    piece: int
    gap: int  # between writes, at most
    more: float  # share of writes with MSG_MORE
    reading: str  # "eager", "pauses", "late", "sips"
    sip: int
    rest: int  # how long it does not read, at most
    ending: str  # "orderly", "rush", "close", "abort"
    end_at: int  # of "close" and "abort"
    options: dict[str, object]
    changes: tuple[tuple[int, str, object], ...] = ()  # (when, option, value)

    @property
    def is_abrupt(self) -> bool:
        """Whether it may leave before everything has arrived."""
        return self.ending != "orderly" or not self.options.keys().isdisjoint(("user_timeout", "linger"))


@dataclass(frozen=True, slots=True)
class PairPlan:
    """One connection: who opens it, when, and what its ends do."""

    client: AppPlan
    server: AppPlan
    at: int
    opener: int = 0  # index of the host
    simultaneous: bool = False
    again: int | None = None  # after how long the same ports are used once more
    may_fail: bool = False  # the ports may still be in TIME-WAIT
    chain: int = 0  # how many connections follow, each when the one before is over, from ports that the stack chooses


@dataclass(frozen=True, slots=True)
class WorldPlan:
    """A world."""

    seed: int
    hosts: tuple[HostPlan, HostPlan]
    ways: tuple[WayPlan, WayPlan]
    pairs: tuple[PairPlan, ...]
    offload: bool  # super-segments cross the link as one frame
    fast_path: bool
    is_harsh: bool  # a connection may die of the network
    twice: bool  # play it again with the fast path the other way: every frame must be the same
    is_crowded: bool = False  # places are few: in queues, of ports, of memory
    fastopen: str = ""  # clients open by a SYN with data: "cookie", mostly a good one, or "bare", without

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: offload {self.offload}, fast path {self.fast_path}, harsh {self.is_harsh}, Fast Open {self.fastopen!r}"
        ]
        lines += [f"  host {name}: {plan}" for name, plan in zip("ab", self.hosts, strict=True)]
        lines += [f"  way {name}: {plan}" for name, plan in zip(("a>b", "b>a"), self.ways, strict=True)]
        lines += [f"  pair {index}: {plan}" for index, plan in enumerate(self.pairs)]
        return "\n".join(lines)


class Dice:
    """A seeded source with the few forms of drawing that plans need."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.choice = self.random.choice

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def weighted(self, table: dict[T, float]) -> T:
        return self.random.choices(list(table), list(table.values()))[0]

    def between(self, low: int, high: int) -> int:
        """Evenly in the logarithm: small numbers are as likely as large ones."""
        return min(int(low * (high / low) ** self.random.random()), high)


def draw_world(seed: int) -> WorldPlan:
    """Return the world of a seed."""
    dice = Dice(seed)
    offload = dice.chance(0.15)
    fast_path = dice.chance(0.75)
    trouble = dice.weighted({"none": 0.12, "some": 0.7, "much": 0.18})
    common_mtu = _draw_mtu(dice)
    impatient = dice.chance(0.04)
    hosts = tuple(_draw_host(dice, common_mtu, impatient) for _ in range(2))
    delay = dice.choice((0, 50, 500, 2 * MS, 20 * MS, 20 * MS, 150 * MS, 400 * MS))
    ways = [_draw_way(dice, delay, trouble, offload, common_mtu) for _ in range(2)]
    if dice.chance(0.15):  # only one direction is bad
        index = dice.random.randrange(2)
        ways[index] = WayPlan(Impairment(delay=delay))
    aimed = sum(sum(way.first_lost.values()) + len(way.lost) for way in ways)  # so many in a row may be too much for a handshake
    harsh = impatient or trouble == "much" or aimed > 5
    abrupt = dice.chance(0.25)
    count = dice.weighted({1: 0.8, 2: 0.14, 3: 0.04, 5: 0.02})
    pairs = tuple(_draw_pair(dice, abrupt, count, min(host.mtu for host in hosts)) for _ in range(count))
    if any(pair.again is not None for pair in pairs):
        # A four-tuple that is used again lives by sequence numbers that move on (RFC 9293 3.4.1): ours then, and none that are forced.
        hosts = [replace(host, isn=None) for host in hosts]
    twice = dice.chance(0.02)
    fastopen = dice.weighted({"": 0.85, "cookie": 0.1, "bare": 0.05})  # last: worlds without it are what they were
    if fastopen:  # a SYN that waits for a write does not tell the watch that the ports are in use again
        pairs = tuple(replace(pair, again=None) for pair in pairs)
    plan = WorldPlan(seed, (hosts[0], hosts[1]), (ways[0], ways[1]), pairs, offload, fast_path, harsh, twice, fastopen=fastopen)
    return _crowd(dice, plan) if dice.chance(0.15) else plan


def _crowd(dice: Dice, plan: WorldPlan) -> WorldPlan:
    """Have a world where places are few, and connections come one after another; some of them will not live."""
    hosts = []
    for host in plan.hosts:
        sysctl = dict(host.sysctl)
        sysctl |= {name: dice.choice(values) for name, (share, values) in CROWDED.items() if dice.chance(share)}
        backlog = dice.choice((0, 1, 128))
        defer_accept = dice.choice((1, 3, 30)) if dice.chance(0.3) else 0
        hosts.append(replace(host, sysctl=sysctl, isn=None, backlog=backlog, defer_accept=defer_accept))
    pairs = []
    for pair in plan.pairs:
        is_alone = pair.simultaneous or pair.again is not None or plan.fastopen
        pairs.append(replace(pair, chain=0 if is_alone else dice.choice((0, 2, 5)), may_fail=True))
    if len(pairs) == 1 and not is_alone:  # others at the same time
        pairs += [replace(pairs[0], at=pairs[0].at + dice.choice((0, 1, 1 * MS))) for _ in range(dice.choice((0, 0, 1, 4)))]
    return replace(plan, hosts=(hosts[0], hosts[1]), pairs=tuple(pairs), is_harsh=True, is_crowded=True)


def _draw_mtu(dice: Dice) -> int:
    return dice.weighted({576: 0.3, 1500: 0.4, 9000: 0.08, dice.random.randrange(300, 2500): 0.22})


def _draw_host(dice: Dice, common_mtu: int, impatient: bool) -> HostPlan:
    sysctl: dict[str, object] = {}
    for name, (share, values) in KNOBS.items():
        if dice.chance(share) and name in HAVE:
            sysctl[name] = dice.choice(values)
    if impatient:
        sysctl |= {name: dice.choice(values) for name, values in IMPATIENT.items()}
    if dice.chance(0.8):
        sysctl["tcp_congestion_control"] = dice.choice(available())
    return HostPlan(
        sysctl,
        mtu=common_mtu if dice.chance(0.85) else _draw_mtu(dice),
        bursts=dice.chance(0.7),
        batch=dice.choice((1, 4, 64)),
        coalesce=dice.chance(0.7),
        isn=dice.choice((0, 0x80000000)) if dice.chance(0.5) else None,
        ts_left=dice.between(1, 100_000) if dice.chance(0.5) else None,
        refuses=dice.choice((0.02, 0.3)) if dice.chance(0.1) else 0.0,
        backlog=dice.weighted({128: 0.9, 1: 0.05, 0: 0.05}),
        accept_delay=dice.between(100, 5 * SECOND) if dice.chance(0.15) else 0,
    )


def _draw_way(dice: Dice, delay: int, trouble: str, offload: bool, mtu: int) -> WayPlan:
    imp = Impairment(delay=delay)
    if trouble == "none":
        return WayPlan(imp)
    much = trouble == "much"
    for name in ("loss", "duplicate", "reorder", "corrupt"):
        if dice.chance(0.4) and not (offload and name == "corrupt"):
            imp = replace(imp, **{name: dice.choice((0.01, 0.03, 0.2, 0.3) if much else (0.003, 0.01, 0.025))})
    if imp.reorder:
        imp = replace(imp, reorder=dice.choice((0.01, 0.1, 0.3)), reorder_depth=dice.choice((1, 2, 3, 5, 10, 30)))
    if dice.chance(0.2):
        imp = replace(imp, duplicate=dice.choice((0.1, 0.5)))
    if dice.chance(0.4):
        imp = replace(imp, jitter=delay // dice.choice((1, 4, 20)))
    if dice.chance(0.25):
        queue = dice.choice((2, 4, 10, 50))
        imp = replace(imp, rate=dice.choice((100_000, 1_000_000, 10_000_000, 100_000_000)), queue=queue)
        if dice.chance(0.5):
            imp = replace(imp, ecn=dice.random.randrange(1, min(queue, 4) + 1))
    if much and dice.chance(0.3):
        imp = replace(imp, gemodel=GilbertElliott(dice.choice((0.005, 0.03)), dice.choice((0.1, 0.3))))
    plan = WayPlan(imp)
    if dice.chance(0.3):
        kinds = dice.random.sample(("syn", "fin", "data", "again", "ack"), dice.choice((1, 1, 2, 3)))
        plan = replace(plan, first_lost={kind: dice.choice((1, 1, 2, 3)) for kind in kinds})
    if dice.chance(0.3):
        plan = replace(plan, lost=frozenset(dice.random.randrange(40) for _ in range(dice.choice((1, 1, 2, 4)))))
    if dice.chance(0.2):
        blackouts = []
        for _ in range(dice.choice((1, 1, 3))):
            start = dice.between(10 * MS, 60 * SECOND)
            lengths = (100 * MS, 5 * SECOND) if not much else (1 * SECOND, 2000 * SECOND)
            blackouts.append((start, start + dice.between(*lengths)))
        plan = replace(plan, blackouts=tuple(blackouts))
    if dice.chance(0.25):
        plan = replace(plan, late=dice.choice((0.01, 0.05, 0.3)), late_by=dice.between(100, 2 * SECOND))
    if dice.chance(0.1):
        plan = replace(plan, soft_errors=dice.choice((0.005, 0.02)))
    if dice.chance(0.1) and not offload and mtu > 700:
        plan = replace(plan, path_mtu=(dice.between(1 * MS, 20 * SECOND), dice.random.randrange(576, mtu)))
    return plan


def _draw_pair(dice: Dice, abrupt: bool, count: int, mtu: int) -> PairPlan:
    turns = dice.chance(0.15)
    sizes = [_draw_size(dice, count, mtu) for _ in range(2)]
    client, server = (_draw_app(dice, abrupt and dice.chance(0.6), size, peer_size) for size, peer_size in (sizes, reversed(sizes)))
    if turns:  # a conversation: both write in turns, the same number of them
        rounds = dice.choice((1, 3, 6, 20))
        pieces = [dice.weighted({1: 0.4, dice.random.randrange(1, 400): 0.4, 3000: 0.2}) for _ in range(2)]
        client, server = (
            replace(app, writing="turns", piece=piece, size=piece * rounds, low_water=piece * rounds, sip=max(app.sip, 1000))
            for app, piece in zip((client, server), pieces, strict=True)
        )
    return PairPlan(
        client,
        server,
        at=0 if dice.chance(0.6) else dice.between(1, 3 * SECOND),
        opener=dice.random.randrange(2),
        simultaneous=dice.chance(0.03),
        again=dice.between(1, 70 * SECOND) if dice.chance(0.06) else None,
    )


def _draw_size(dice: Dice, count: int, mtu: int) -> int:
    kind = dice.weighted({"none": 0.14, "few": 0.26, "segments": 0.45, "many": 0.14, "lots": 0.01})
    if kind == "none":
        return 0
    if kind == "few":
        return dice.random.randrange(1, 200)
    if kind == "segments":
        return dice.random.randrange(1, 10 * mtu // count)
    if kind == "many":
        return dice.between(5_000, max(40 * mtu // count, 6_000))
    return dice.between(40_000, 300_000 // count)


def _draw_app(dice: Dice, abrupt: bool, size: int, peer_size: int) -> AppPlan:
    writing = dice.weighted({"whole": 0.35, "pieces": 0.4, "bursts": 0.15, "octets": 0.1})
    if writing == "octets":
        size = min(size, 40)
    options: dict[str, object] = {"keepidle": dice.choice((1, 5, 120)), "keepalive": True}
    if dice.chance(0.3):
        options["nodelay"] = True
    if dice.chance(0.15):
        options["cork"] = True
    if dice.chance(0.2):
        options["quickack"] = dice.chance(0.5)
    if dice.chance(0.15):
        options["keepintvl"] = dice.choice((10, 30))
    if dice.chance(0.15):
        options["rcvbuf"] = dice.choice((0, 3000, 5000, 20_000, 200_000))
    if dice.chance(0.1):
        options["sndbuf"] = dice.choice((0, 5000, 100_000))
    if dice.chance(0.15):
        options["maxseg"] = dice.choice((88, 536, 1000))
    if dice.chance(0.2):
        options["congestion"] = dice.choice(available())
    ending = dice.weighted({"rush": 0.25, "close": 0.35, "abort": 0.4}) if abrupt else "orderly"
    if abrupt and dice.chance(0.15):
        options["user_timeout"] = dice.choice((500, 5000))
    if dice.chance(0.15):
        options["linger"] = dice.choice((0, 1, 30)) if abrupt else dice.choice((1, 30))
    changes = [_draw_change(dice) for _ in range(dice.choice((1, 2, 4)))] if dice.chance(0.2) else []
    return AppPlan(
        size,
        low_water=dice.choice((0, 500, 50_000)),
        writing=writing,
        piece=1 if writing == "octets" else dice.between(max(size // WRITES_MAX, 1), 8000),
        gap=dice.choice((0, 1 * MS, 30 * MS, 300 * MS)) if writing != "bursts" else dice.choice((1 * SECOND, 10 * SECOND)),
        more=dice.choice((0.2, 1.0)) if dice.chance(0.15) else 0.0,
        reading=dice.weighted({"eager": 0.5, "pauses": 0.2, "late": 0.15, "sips": 0.15}),
        sip=dice.between(max(peer_size // READS_MAX, 1), 5000),
        rest=dice.choice((5 * MS, 100 * MS, 1 * SECOND, 20 * SECOND)),
        ending=ending,
        end_at=dice.between(1 * MS, 20 * SECOND),
        options=options,
        changes=tuple(sorted(changes, key=lambda change: change[0])),
    )


def _draw_change(dice: Dice) -> tuple[int, str, object]:
    at = dice.between(1 * MS, 10 * SECOND)
    name = dice.choice(("nodelay", "cork", "quickack", "rcvbuf", "sndbuf", "congestion", "max_pacing_rate", "keepidle", "tos"))
    values: dict[str, Sequence[object]] = {
        "rcvbuf": (0, 4000, 50_000),
        "sndbuf": (0, 4000, 50_000),
        "congestion": available(),
        "max_pacing_rate": (None, 50_000, 5_000_000),
        "keepidle": (1, 60),
        "tos": (0, 0x10, 0xB8),
    }
    return at, name, dice.choice(values.get(name, (True, False)))
