"""`tunstack bench`: the same program on the kernel's TCP and on tunstack, on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunstack.cli.parser import Parser
from tunstack.daemon.errors import UserError

if TYPE_CHECKING:
    from tunstack.daemon.bench import BenchConfig

DESCRIPTION = """\
Measure tunstack beside the kernel's TCP: the same asyncio program under uvloop, on a TUN interface and on kernel
sockets behind a veth pair, by turns. Throughput up (to the server) and down, round trips of one octet, connections a
second, and the processor time of both ends. Half a minute. Needs root; every measurement has network namespaces of its
own, so that nothing of this machine's network is touched, and nothing is left."""

EPILOG = """\
The client is a Python program, which takes its share of the time, more of it the faster the other end is: look at the
ratios. What others do on the machine shows in their spread. With two processors or more the ends run side by side.
scripts/bench in the source tree measures more, with a client in C, beside more peers, and takes longer.

examples:
  sudo tunstack bench
  sudo tunstack bench --runs 1 --json"""

RUNS_MAX, SECONDS_MAX = 100, 60.0


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    config = parse(arguments)
    if os.geteuid() != 0:
        raise UserError("bench: making network namespaces and interfaces needs root: run it with sudo")
    from tunstack.daemon.bench import run  # asyncio and more: not needed for help or a mistake

    run(config)
    return 0


def parse(arguments: Sequence[str]) -> BenchConfig:
    """Return what the command line says; UserError if it is wrong."""
    parser = Parser("bench", "[OPTION]...", DESCRIPTION, EPILOG)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often each is measured (default 3)")
    parser.add_argument("--seconds", type=float, default=0.7, metavar="S", help="length of a measurement (default 0.7)")
    parser.add_argument("--json", action="store_true", help="print the figures of every run as JSON")
    given = parser.parse_args(arguments)
    if not 1 <= given.runs <= RUNS_MAX:
        parser.error(f"--runs is 1 to {RUNS_MAX}")
    if not 0.05 <= given.seconds <= SECONDS_MAX:
        parser.error(f"--seconds is 0.05 to {SECONDS_MAX:g}")
    from tunstack.daemon.bench import BenchConfig

    return BenchConfig(given.runs, given.seconds, given.json)
