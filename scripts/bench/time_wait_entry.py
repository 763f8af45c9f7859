#!/usr/bin/env python3
"""What an entry in TIME-WAIT costs.

Resident memory is measured around the entries alone: they are put into the table of a stack as a connection that ends would put them,
nothing else is. Prints octets an entry, key and dict slots and all. Needs no privileges.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
from collections.abc import Sequence

from tunstack.engine import Stack, StackConfig, Sysctl, pack_address
from tunstack.engine.timewait import Remembered
from tunstack.wire.flow import pack_flow

SERVER = pack_address("192.0.2.1")
LIMIT = 400  # octets an entry


def resident() -> int:
    """Return the resident memory of this process, octets."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    count = parser.parse_args(arguments).entries
    stack = Stack(StackConfig((SERVER,), sysctl=Sysctl(tcp_max_tw_buckets=count)), random.Random(1), bytes(16))
    gc.collect()
    before = resident()
    rng = random.Random(2)
    for number in range(count):
        client = (10 << 24 | number >> 12).to_bytes(4, "big")
        flow_in = pack_flow(client, 1024 + (number & 0xFFF), SERVER, 80)
        now = 1_000_000_000 + 10 * number
        remembered = Remembered(rng.getrandbits(32), rng.getrandbits(32), 502, 7, 1, 0, rng.getrandbits(32), now, now, 0)
        assert stack.time_wait.take_bucket()
        stack.time_wait.insert(flow_in, remembered, now)
    gc.collect()
    octets = (resident() - before) / count
    print(f"{len(stack.time_wait)} entries in TIME-WAIT: {octets:.0f} octets each (at most {LIMIT})")
    for turn in range(count):  # some go in each
        stack.advance(now + 60_000_000 + turn)
        if not stack.flows:
            break
    assert not stack.flows, "an entry has outlived its 60 s"
    return octets > LIMIT


if __name__ == "__main__":
    raise SystemExit(main())
