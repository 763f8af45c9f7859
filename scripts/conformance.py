"""Runs packetdrill scripts against the engine, through the plug-in, and against the kernel, and tells what passes.

    python scripts/conformance.py --packetdrill packetdrill --list scripts.tsv --suite google=gtests/net/tcp --suite gvisor=test/packetdrill

packetdrill and the suites are not part of this project; `make packetdrill-plugin` builds the library. The list has a line a script: suite,
script (its path in the folder of the suite), tier, topic, with tabs between and a heading. With --linux the kernel is asked too, which
tells whether a script agrees with this kernel at all.

Each script runs in a network namespace of its own, so that what it does with sysctl(8) and ip(8) stays there (needs root). The engine
has no interface in it: it reads the knobs that the script set. Its time is virtual, but packetdrill takes a tenth of a second of real time
to begin.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from freebsd_port import port

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "build" / "tunstack_packetdrill.so"
LOCAL, REMOTE = "192.168.0.1", "192.0.2.1"
ADDRESSES = ("--ip_version=ipv4", f"--local_ip={LOCAL}", f"--gateway_ip={LOCAL}", "--netmask_ip=255.255.0.0", f"--remote_ip={REMOTE}")
PORTED = ("freebsd-x",)  # suites that go through freebsd_port.py

# What a suite takes for granted of the machine that it was written on.
SYSCTLS: dict[str, dict[str, str]] = {
    "nplab-linux": {"net/ipv4/tcp_rmem": "4096 87380 4194303"},  # window scale 6
}

# Words that scripts leave to whoever runs them: the cookies of REMOTE under the suites' key and under one of zeros, a code of ICMP.
DEFINES = {"TFO_COOKIE": "3021b9d889017eeb", "TFO_COOKIE_ZERO": "b7c12350a90dc8f5", "CODE": "host_unreachable"}
# The error of times that a suite's own runner allows, us; packetdrill's default is 4000.
TOLERANCES: dict[str, int] = {"gvisor": 100_000}

# $1: an interface that commands of scripts may name, or none; the rest is what to run. A kernel module's parameters are the machine's.
NAMESPACE = """
ip link set lo up
if [ "$1" != none ]; then
    ip tuntap add dev "$1" mode tun && ip link set "$1" up
    for folder in /sys/module/tcp_*/parameters; do
        [ -d "$folder" ] && mount -t tmpfs none "$folder"
    done
fi
shift
exec "$@"
"""


@dataclass(frozen=True)
class Script:
    """A line of the list."""

    suite: str
    name: str
    tier: str
    topic: str

    @property
    def folder(self) -> str:
        """The suite, and the first folder in it."""
        first, slash, _ = self.name.partition("/")
        return f"{self.suite}/{first}" if slash else self.suite


@dataclass(frozen=True)
class Outcome:
    """What one run gave."""

    passed: bool
    line: str = ""  # the first that says what differs
    output: str = ""


@dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    packetdrill: Path
    plugin: Path
    folders: dict[str, Path]
    timeout: float
    flags: str
    sysctls: dict[str, dict[str, str]]


def read_list(path: Path) -> list[Script]:
    """Read the list of scripts."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        if not all(row.get(column) for column in ("suite", "script", "tier")):
            raise ValueError(f"{path}: a line is not suite, script, tier, topic: {row}")
    return [Script(row["suite"], row["script"], row["tier"], row.get("topic") or "") for row in rows]


def run(script: Script, setting: Setting, on_linux: bool) -> Outcome:
    """Run a script once."""
    path = setting.folders[script.suite] / script.name
    if not path.is_file():
        return Outcome(False, f"no file {path}")
    with tempfile.TemporaryDirectory() as work:
        folder = path.parent
        if script.suite in PORTED:
            folder = Path(work)
            ported = Path(work, path.name)
            ported.write_text(port(path.read_text()))
            path = ported
        return run_file(path, folder, script, setting, on_linux, work)


def run_file(path: Path, folder: Path, script: Script, setting: Setting, on_linux: bool, work: str) -> Outcome:
    """Run packetdrill on a file, in a fresh network namespace, from the script's own folder: their commands are relative to it.

    What their nstat(8) shows are the counters of the TCP that is tested, by a file in the folder `work`.
    """
    assignments = [f"{name.replace('/', '.')}={value}" for name, value in setting.sysctls.get(script.suite, {}).items()]
    command = ["unshare", "--net", "--mount", "sh", "-c", NAMESPACE, "sh", "none" if on_linux else "tun0"]
    if assignments:
        command += ["sh", "-c", 'n=$1; shift; while [ "$n" -gt 0 ]; do sysctl -qw "$1" || exit 2; n=$((n-1)); shift; done; exec "$@"', "sh"]
        command += [str(len(assignments)), *assignments]
    if not on_linux:
        mtu = number_of(path, "mtu", 1500)
        own = (f"local={LOCAL}", f"mtu={mtu}", mss_of(path), "sysctls=/proc/sys/net", f"counters={work}/netstat", setting.flags)
        flags = ",".join(filter(None, own))
        command += ["env", f"LD_PRELOAD={setting.plugin}"]
        command += [f"PROC_NET_NETSTAT={work}/netstat", "PROC_NET_SNMP=/dev/null", f"NSTAT_HISTORY={work}/history"]
        command += [str(setting.packetdrill), *ADDRESSES, f"--so_filename={setting.plugin}", f"--so_flags={flags}"]
    else:
        command += [str(setting.packetdrill), *ADDRESSES]
    command += [f"--define={name}={value}" for name, value in DEFINES.items()]
    if script.suite in TOLERANCES:
        command.append(f"--tolerance_usecs={TOLERANCES[script.suite]}")
    command.append(path.name)
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output = process.communicate(timeout=setting.timeout)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0].decode(errors="replace")
        return Outcome(False, f"not done after {setting.timeout:g} s", output)
    if process.returncode == 0:
        return Outcome(True, output=output)
    return Outcome(False, difference(output, path.name) or f"exit status {process.returncode}", output)


def number_of(path: Path, option: str, default: int) -> int:
    """Return a number that a script gives packetdrill by an option of its command line."""
    found = re.search(rf"^\s*--{option}=(\d+)", path.read_text(errors="replace"), re.MULTILINE)
    return int(found[1]) if found else default


def mss_of(path: Path) -> str:
    """Return the flag for what packetdrill's --mss does to its own device: larger packets are super-segments of so many octets."""
    mss = number_of(path, "mss", 0)
    return f"mss={mss}" if mss else ""


def difference(output: str, name: str) -> str:
    """Return of what packetdrill printed the line that says what differs, with the two packets if there are."""
    lines = [line for line in output.splitlines() if line.strip()]
    first = next((index for index, line in enumerate(lines) if line.startswith(f"{name}:")), None)
    if first is None:
        return lines[-1] if lines else ""
    text = lines[first].removeprefix(f"{name}:")
    if "error in Python code" in text:
        return f"{text} {lines[-1]}"
    packets = [line.strip() for line in lines[first + 1 :] if line.lstrip().startswith(("script packet:", "actual packet:"))]
    raised = [line for line in lines[:first] if re.match(r"\w*(Error|Exception)\b", line)]
    return " | ".join([text, *packets[:2], *raised[-1:]])


def table(scripts: Iterable[Script], outcomes: dict[tuple[Script, bool], Outcome], systems: list[bool]) -> list[str]:
    """Return the lines of the table: a folder a line, then the suites, the tiers and the sum."""
    ran: Counter[str] = Counter()
    passed: Counter[tuple[str, bool]] = Counter()
    keys: dict[str, None] = {}
    groups = [lambda s: s.folder, lambda s: f"= {s.suite} {s.tier}", lambda s: f"= all {s.tier}", lambda s: "= all"]
    for group in groups:
        for script in scripts:
            key = group(script)
            keys[key] = None
            ran[key] += 1
            for system in systems:
                passed[key, system] += outcomes[script, system].passed
    width = max(map(len, keys), default=0)
    heads = ["linux" if system else "tunstack" for system in systems]
    lines = [f"{'':{width}}  scripts  " + "  ".join(f"{head:>8}" for head in heads)]
    lines += [f"{key:{width}}  {ran[key]:7}  " + "  ".join(f"{passed[key, system]:8}" for system in systems) for key in keys]
    return lines


def parse_pairs(pairs: list[str], what: str) -> dict[str, str]:
    """Return a dict of name=value; ValueError for what is none."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or not value:
            raise ValueError(f"{what} {pair}: it is name=value")
        found[name] = value
    return found


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run packetdrill scripts against tunstack's engine and against the kernel.")
    parser.add_argument("--packetdrill", type=Path, required=True, metavar="FILE", help="the packetdrill binary")
    parser.add_argument("--list", type=Path, required=True, metavar="TSV", help="the scripts: suite, script, tier, topic")
    parser.add_argument("--suite", action="append", default=[], metavar="NAME=FOLDER", help="where the scripts of a suite are; repeat")
    parser.add_argument("--plugin", type=Path, default=PLUGIN, metavar="FILE", help=f"the library (default: {PLUGIN.relative_to(ROOT)})")
    parser.add_argument("--linux", action="store_true", help="ask the kernel too, in real time")
    parser.add_argument("--only-linux", action="store_true", help="ask the kernel alone")
    parser.add_argument("--tier", action="append", metavar="TIER", help="only scripts of this tier; repeat")
    parser.add_argument("--match", metavar="REGEX", help="only scripts of which suite/script matches")
    parser.add_argument("--flags", default="", metavar="FLAGS", help="more for --so_flags, for example fast_path=0")
    parser.add_argument("--sysctl", action="append", default=[], metavar="SUITE:NAME=VALUE", help="what a suite takes for granted; repeat")
    parser.add_argument("--timeout", type=float, default=30, metavar="S", help="for each script, in real time (default: 30)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scripts at a time (default: 1)")
    parser.add_argument("--output", action="store_true", help="show all that packetdrill prints for scripts that fail")
    return parser.parse_args()


def prepare(given: argparse.Namespace) -> tuple[Setting, list[Script], list[bool]]:
    """Check what the command line says; OSError or ValueError, in one line, where it cannot be done."""
    systems = [True] if given.only_linux else [False, True] if given.linux else [False]
    if os.geteuid():
        raise PermissionError("needs root, for a network namespace a script and for packetdrill, which locks its memory")
    if not os.access(given.packetdrill, os.X_OK) or given.packetdrill.is_dir():
        raise FileNotFoundError(f"no program {given.packetdrill}")
    if False in systems and not given.plugin.is_file():
        raise FileNotFoundError(f"no library {given.plugin}; make packetdrill-plugin builds it")
    folders = {name: Path(folder).resolve() for name, folder in parse_pairs(given.suite, "--suite").items()}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"--suite {name}: no folder {folder}")
    sysctls = {suite: dict(values) for suite, values in SYSCTLS.items()}
    for text in given.sysctl:
        suite, colon, pair = text.partition(":")
        if not colon:
            raise ValueError(f"--sysctl {text}: it is suite:name=value")
        sysctls.setdefault(suite, {}).update({name.replace(".", "/"): value for name, value in parse_pairs([pair], "--sysctl").items()})
    scripts = read_list(given.list)
    scripts = [script for script in scripts if not given.tier or script.tier in given.tier]
    scripts = [script for script in scripts if not given.match or re.search(given.match, f"{script.suite}/{script.name}")]
    missing = sorted({script.suite for script in scripts} - set(folders))
    if missing:
        print(f"conformance: left out for want of --suite: {', '.join(missing)}", file=sys.stderr)
        scripts = [script for script in scripts if script.suite in folders]
    setting = Setting(given.packetdrill.resolve(), given.plugin.resolve(), folders, given.timeout, given.flags, sysctls)
    return setting, scripts, systems


def main() -> int:
    """Run the scripts and print what came of it; status 1 where the engine failed one."""
    given = arguments()
    try:
        setting, scripts, systems = prepare(given)
    except (OSError, ValueError, re.error) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    began = time.monotonic()
    work = [(script, system) for script in scripts for system in systems]
    with ThreadPoolExecutor(max(given.jobs, 1)) as pool:
        outcomes = dict(zip(work, pool.map(lambda item: run(item[0], setting, item[1]), work), strict=True))
    for script in scripts:
        for system in systems:
            outcome = outcomes[script, system]
            if outcome.passed:
                continue
            print(f"FAIL {'linux' if system else 'tunstack'} {script.tier} {script.suite}/{script.name}: {outcome.line}")
            if given.output:
                print("    " + outcome.output.replace("\n", "\n    "))
    print("\n".join(table(scripts, outcomes, systems)))
    print(f"{time.monotonic() - began:.0f} s")
    return int(any(not outcome.passed for (_, system), outcome in outcomes.items() if not system))


if __name__ == "__main__":
    sys.exit(main())
