"""Runs a script in all the ways that must not make a difference."""

from __future__ import annotations

from typing import Protocol

from tunstack.engine.sysctl import Sysctl
from tunstack.sim.script import Runner

# Name, fast path, our ISN, the peer's: sequence numbers wrap after a few hundred octets, or at half the space, in both directions.
WAYS = (
    ("plain", True, 0x10000000, 0x20000000),
    ("slow path", False, 0x10000000, 0x20000000),
    ("wrapping", True, 0xFFFFFFFF - 700, 0xFFFFFFFF - 500),
    ("wrapping, slow path", False, 0xFFFFFFFF, 0xFFFFFFFF),
    ("at half", True, 0x7FFFFFFF - 300, 0x7FFFFFFF),
)


class Play(Protocol):
    """The fixture `play`: runs a script with the device's MTU and with sysctls; returns the last run."""

    def __call__(self, script: str, *, mtu: int = 1500, **sysctl: object) -> Runner: ...


def run_in_all_ways(script: str, *, mtu: int = 1500, **sysctl: object) -> Runner:
    """Run a script with and without the fast path, and with sequence numbers that wrap. Windows are Reno's: half of ten is five."""
    sysctl.setdefault("tcp_congestion_control", "reno")
    for title, fast_path, local_isn, remote_isn in WAYS:
        runner = Runner(
            script,
            mtu=mtu,
            fast_path=fast_path,
            local_isn=local_isn,
            remote_isn=remote_isn,
            sysctl=Sysctl(**sysctl),  # type: ignore[arg-type]
            title=title,
        )
        runner.run()
    return runner
