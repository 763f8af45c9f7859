#!/usr/bin/env python3
"""Short connections by the hundred thousand, from Linux over a TUN, closed by us first: what TIME-WAIT costs, and what it refuses.

Three runs, each with a server process of its own: as many entries as there are connections, with resident memory before and after;
tcp_max_tw_buckets below the number of connections; and a client with few ports (ip_local_port_range, tcp_tw_reuse), that uses each
again at once, long before the 60 s are over. Needs root: it makes a network namespace, in which everything happens.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from namespaces import Namespace
from processes import Process, ProcessError
from run import BenchError, compile_client

HERE = Path(__file__).parent
CLIENT, SERVER, PREFIX = "10.77.0.1", "10.77.0.2", 24
PORTS = range(5001, 5051)
PORT_RANGE = (10240, 65535)  # of the client
SHARE = 5000  # connections to each of PORTS: Linux goes through its ports in steps of 9 on average, so hardly a four-tuple comes twice
WARMUP = 2000  # connections before memory is looked at
LIMIT = 400  # octets an entry in TIME-WAIT
PARALLEL = 48  # connections at a time
TIMEOUT = 1200.0  # s that a run may take


class Bench:
    """A namespace with the server in it, and the client program."""

    def __init__(self, namespace: Namespace, server: Process, client: Path) -> None:
        self._namespace = namespace
        self._server = server
        self._client = client

    def facts(self) -> dict[str, int]:
        """Ask the server what it holds."""
        self._server.say("")
        record: dict[str, int] = self._server.record(60)
        return record

    def connect(self, port: int, count: int) -> float:
        """Make so many connections, PARALLEL at a time, each of which must be served, and leave the next alone; return how many a s."""
        arguments = ["-n", str(PARALLEL), "-w", "0", "-t", str(TIMEOUT), "-l", str(count), "connect", SERVER, str(port)]
        began = time.monotonic()
        done = subprocess.run(
            [os.fspath(self._client), *arguments], capture_output=True, text=True, preexec_fn=self._namespace.enter, timeout=TIMEOUT
        )
        if done.returncode:
            raise BenchError(done.stderr.strip())
        return count / (time.monotonic() - began)


@contextmanager
def bench(client: Path, buckets: int, port_range: tuple[int, int]) -> Iterator[Bench]:
    """Start a server; when the context is left, it and its namespace are gone."""
    with Namespace() as namespace:
        namespace.set_sysctl("ipv4/ip_local_port_range", f"{port_range[0]} {port_range[1]}")
        namespace.set_sysctl("ipv4/tcp_tw_reuse", "1")
        arguments = [os.fspath(HERE / "serve_short.py"), f"{CLIENT}/{PREFIX}", SERVER, str(buckets), *map(str, PORTS)]
        with Process([sys.executable, *arguments], namespace) as server:
            server.expect("ready", 30)
            yield Bench(namespace, server, client)


def say(facts: dict[str, int], rate: float, what: str) -> None:
    """Print a run."""
    counters = ", ".join(f"{name} {value}" for name, value in facts.items() if name[0].isupper() and value)
    print(f"{what} ({rate:.0f} a second)")
    print(f"  in TIME-WAIT {facts['time_wait']}, connections {facts['connections']}, resident {facts['resident'] / 1e6:.1f} MB; {counters}")


def measure_entries(client: Path, count: int) -> bool:
    """Have as many entries as can be before the first expires; return whether each is as small as it must be."""
    with bench(client, 262_144, PORT_RANGE) as on:
        on.connect(PORTS[0], WARMUP)
        before = on.facts()
        began = time.monotonic()
        left = count - WARMUP
        for port in PORTS:
            share = min(left, SHARE)
            if share:
                on.connect(port, share)
            left -= share
        rate = (count - WARMUP) / (time.monotonic() - began)
        after = on.facts()
    say(after, rate, f"{count} connections, tcp_max_tw_buckets 262144")
    octets = (after["resident"] - before["resident"]) / (after["time_wait"] - before["time_wait"])
    print(f"  {octets:.0f} octets an entry (at most {LIMIT})")
    return octets <= LIMIT and after["TW"] >= count and not after["TCPTimeWaitOverflow"]


def measure_limit(client: Path, count: int) -> bool:
    """Make four times as many connections as there are buckets; return whether the others were dropped and counted."""
    buckets = count // 4
    with bench(client, buckets, PORT_RANGE) as on:
        rate = on.connect(PORTS[0], count)
        facts = on.facts()
    say(facts, rate, f"{count} connections, tcp_max_tw_buckets {buckets}")
    return facts["time_wait"] <= buckets and facts["TW"] + facts["TCPTimeWaitOverflow"] >= count and facts["TCPTimeWaitOverflow"] > 0


def measure_reuse(client: Path, count: int) -> bool:
    """Let a client with few ports use them again and again; return whether there was never more than an entry a port."""
    ports = 4 * PARALLEL
    with bench(client, 262_144, (20_000, 20_000 + ports - 1)) as on:
        rate = on.connect(PORTS[0], count)
        facts = on.facts()
    say(facts, rate, f"{count} connections from {ports} ports")
    return facts["time_wait"] <= ports and facts["TW"] >= count


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=200_000, help="of the first run; the others have a tenth (default: %(default)s)")
    options = parser.parse_args(arguments)
    most = len(PORTS) * SHARE
    if not 10_000 <= options.connections <= most:
        parser.error(f"--connections is 10000 to {most}")
    try:
        client = compile_client()
        done = [
            measure_entries(client, options.connections),
            measure_limit(client, options.connections // 10),
            measure_reuse(client, options.connections // 10),
        ]
    except PermissionError:
        print("short_connections: it needs root, for a network namespace", file=sys.stderr)
        return 2
    except (BenchError, ProcessError) as error:
        print(f"short_connections: {error}", file=sys.stderr)
        return 1
    print("all as it must be" if all(done) else "NOT as it must be: see above")
    return not all(done)


if __name__ == "__main__":
    raise SystemExit(main())
