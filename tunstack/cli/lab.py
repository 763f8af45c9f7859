"""`tunstack lab`: congestion controls at a bottleneck, in virtual time."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunstack.cli.parser import Parser
from tunstack.cli.settingflags import add_settings, add_sysctl, overrides
from tunstack.daemon import algorithm, settings, sysctls
from tunstack.daemon.algorithm import Algorithm, Choice
from tunstack.daemon.config import Values
from tunstack.daemon.kinds import Integer, Seconds, Several, Time
from tunstack.daemon.settings import Setting

if TYPE_CHECKING:
    from tunstack.sim import Impairment, Result

DESCRIPTION = """\
Let flows share a bottleneck in virtual time and print what each of them gets: goodput, segments sent again, Jain's
fairness index, the length of the queue. Every run gives the same figures; no interface, no root, no waiting."""

EPILOG = """\
Each flow has hosts of its own on both sides. Data passes the link's direction `up`, acknowledgements its direction
`down` (each flow's its own); both take half of the flow's --rtt beside the link's own delay. `tunstack help link` has
the items of a SPEC. The queue's length is in frames, the one that is being sent among them.
Where --congestion or --rtt is repeated, the flows take turns at them.

examples:
  tunstack lab --congestion reno --congestion cubic --flows 4 --rtt 100ms --link rate=40mbit,queue=200
  tunstack lab --congestion mycc.py:MyCC --link rate=20mbit,queue=100,loss=1%
  tunstack lab --flows 10 --rtt 10ms --rtt 100ms --link 'rate=20mbit;up:queue=50,ecn=20;down:loss=5%'"""

SECOND = 1_000_000

CONGESTION: Setting[tuple[Choice, ...]] = Setting(
    ("congestion",), Several(Algorithm()), None, "algorithm: a name, or a class of your own, FILE.py:CLASS (default cubic); may be repeated"
)
FLOWS = Setting(("flows",), Integer(1, 1000), None, "how many flows (default: as many as algorithms)")
RTT = Setting(("rtt",), Several(Time()), None, "round-trip time while the queue is empty (default 20ms); may be repeated")
LINK = Setting(settings.LINK.key, settings.LINK.kind, None, "the bottleneck (default rate=20mbit,queue=100)")
DURATION = Setting(("duration",), Seconds(86400), 30.0, "length of the run, in virtual time")
WARM_UP = Setting(("warm-up",), Seconds(86400), 5.0, "from when on is measured; flows start within the first second")
SETTINGS = (CONGESTION, FLOWS, RTT, LINK, DURATION, WARM_UP)


@dataclass(frozen=True, slots=True)
class LabConfig:
    """What `tunstack lab` runs with. Times are µs."""

    congestion: tuple[Choice, ...]
    flows: int
    rtts: tuple[int, ...]
    up: Impairment  # of the data
    down: Impairment  # of the acknowledgements
    seed: int
    duration: int
    warm_up: int
    sysctl: dict[str, sysctls.Value]


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    config = parse(arguments)
    started = time.perf_counter()
    result = run(config)
    print(describe(result), flush=True)
    print(f"{config.duration / SECOND:g} s of virtual time in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return 0


def parse(arguments: Sequence[str]) -> LabConfig:
    """Return what the command line says; UserError if it is wrong."""
    parser = Parser("lab", "[OPTION]...", DESCRIPTION, EPILOG)
    group = parser.add_argument_group("flows and link")
    add_settings(group, SETTINGS)
    add_sysctl(group)
    given = parser.parse_args(arguments)
    values = Values(overrides(given, SETTINGS))
    sysctl = dict(given.sysctl)
    congestion = values.find(CONGESTION) or (Choice(str(sysctl.get("net.ipv4.tcp_congestion_control", "cubic"))),)
    duration, warm_up = (round(values.get(setting) * SECOND) for setting in (DURATION, WARM_UP))
    if warm_up >= duration:
        parser.error(f"--warm-up: nothing of the run is left to be measured: its --duration is {duration / SECOND:g} s")
    link = values.find(LINK) or LINK.kind.from_text("rate=20mbit,queue=100")
    if not link.up.rate:
        parser.error("--link: it is no bottleneck without a rate, such as rate=20mbit")
    return LabConfig(
        congestion=congestion,
        flows=values.find(FLOWS) or len(congestion),
        rtts=values.find(RTT) or (20_000,),
        up=link.up,
        down=link.down,
        seed=link.seed or 0,
        duration=duration,
        warm_up=warm_up,
        sysctl=sysctl,
    )


def run(config: LabConfig) -> Result:
    """Run the flows; UserError for an algorithm that there is not, or that is no good. What one raises is told once."""
    from tunstack.sim.measure import FlowPlan, measure, roomy  # the engine: not needed for help or a mistake

    algorithms = [prepared for choice in config.congestion if (prepared := algorithm.prepare(choice)) is not None]
    chosen = [number % len(algorithms) for number in range(config.flows)]
    knobs = sysctls.build(config.sysctl)
    result = measure(
        [
            FlowPlan(str(config.congestion[index]), config.rtts[number % len(config.rtts)], choose=algorithms[index].use)
            for number, index in enumerate(chosen)
        ],
        config.up,
        config.down,
        duration=config.duration,
        warm_up=config.warm_up,
        spread=SECOND,
        seed=config.seed,
        sysctl=knobs if "net.ipv4.tcp_rmem" in config.sysctl else roomy(knobs),
    )
    told = set()
    for index, flow in zip(chosen, result.flows, strict=True):
        if flow.failure is not None and index not in told:
            told.add(index)
            name, what = config.congestion[index].name, algorithms[index].explain(flow.failure)
            print(f"tunstack: lab: congestion control {name} failed, and reno took its place: {what}", file=sys.stderr)
    return result


def describe(result: Result) -> str:
    """Return the figures as lines of text."""
    width = max(10, *(len(flow.plan.congestion) for flow in result.flows))
    lines = [f"flow  {'congestion':{width}}  {'rtt':>9}  {'Mbit/s':>8}  sent again"]
    lines += [
        f"{number:4}  {flow.plan.congestion:{width}}  {flow.plan.rtt / 1000:6g} ms  {flow.goodput / 1e6:8.2f}  {flow.retransmitted:10}"
        for number, flow in enumerate(result.flows, 1)
    ]
    names = list(dict.fromkeys(flow.plan.congestion for flow in result.flows))
    if len(names) > 1:
        lines += ["", *(f"{name:{width + 6}}  {result.share(name) / 10:.1f} % of the goodput" for name in names)]
    queue = result.queue
    lines += [
        "",
        f"together  {result.goodput / 1e6:.2f} Mbit/s, fairness {result.fairness / 1000:.3f} (Jain), {result.retransmitted} sent again",
        f"queue     mean {queue.mean}, 95 % {queue.p95}, most {queue.most} frames; mean delay {queue.mean_delay / 1000:.1f} ms",
        f"frames    {queue.dropped} dropped, {queue.lost} lost, {queue.marked} marked",
    ]
    return "\n".join(lines)
