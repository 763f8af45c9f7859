#!/usr/bin/env python3
"""How much do two Linux kernels move through `tunstack link`, and does its memory stay flat?

    sudo .venv/bin/python scripts/bench/link_rate.py [--seconds 5] [--link SPEC]...

iperf3 over TCP from A to B and back, in two network namespaces that are made and removed. Prints a line for each run: Gbit/s, frames a
second at the link, the link's processor time and its resident memory before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPECS = ("none", "delay=1ms", "delay=1ms,jitter=0.5ms", "rate=1gbit,queue=500", "delay=1ms,loss=0.01%")


def resident(pid: int) -> int:
    """Return the resident memory of a process, KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


def processor_time(pid: int) -> float:
    """Return the processor time of a process, s."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def frames(link: subprocess.Popen[str]) -> int:
    """Return the frames that the link was offered, both directions together."""
    assert link.stdin is not None and link.stdout is not None
    print(file=link.stdin, flush=True)
    return sum(int(link.stdout.readline().split(": ")[2].split()[0]) for _ in range(2))


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description="Measure what two kernels move through `tunstack link`.")
    parser.add_argument("--seconds", type=int, default=5, help="length of each run (default 5)")
    parser.add_argument("--link", action="append", metavar="SPEC", help=f"links to measure (default {'; '.join(SPECS).replace('%', '%%')})")
    given = parser.parse_args()
    names = [f"link-rate-{os.getpid()}-{end}" for end in "ab"]
    with ExitStack() as cleanup:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            cleanup.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        command = [sys.executable, "-m", "tunstack", "link", "--a", names[0], "--b", names[1]]
        link = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cleanup.callback(link.wait)
        cleanup.callback(link.terminate)
        assert link.stdin is not None and link.stdout is not None
        if not link.stdout.readline():
            return 1
        server = subprocess.Popen(["ip", "netns", "exec", names[1], "iperf3", "-s"], stdout=subprocess.DEVNULL)
        cleanup.callback(server.wait)
        cleanup.callback(server.terminate)
        time.sleep(0.5)
        print(f"{'link':26} {'':7} {'Gbit/s':>8} {'frames/s':>9} {'resent':>7} {'CPU':>5} {'KiB before':>11} {'after':>7}")
        for spec in given.link or SPECS:
            print(spec, file=link.stdin, flush=True)
            link.stdout.readline()
            for title, flags in (("A to B", []), ("B to A", ["-R"])):
                before, count, used = resident(link.pid), frames(link), processor_time(link.pid)
                client = ["ip", "netns", "exec", names[0], "iperf3", "-c", "10.79.0.2", "-J", "-t", str(given.seconds), *flags]
                report = json.loads(subprocess.run(client, capture_output=True, text=True, check=True).stdout)["end"]
                rate = report["sum_received"]["bits_per_second"] / 1e9
                share = (processor_time(link.pid) - used) / given.seconds
                passed = (frames(link) - count) / given.seconds
                resent = report["sum_sent"].get("retransmits", 0)
                print(
                    f"{spec:26} {title:7} {rate:8.2f} {passed:9.0f} {resent:7d} {share:5.0%} {before:11d} {resident(link.pid):7d}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
