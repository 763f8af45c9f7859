"""The text after `--so_flags`: `name=value` pairs, joined by commas.

- `local=192.168.0.1`: address of the stack, packetdrill's --local_ip
- `mtu=1500`: of the interface, packetdrill's --mtu
- `mss=1000`: of the super-segments that the interface hands over, packetdrill's --mss
- `sysctls=/proc/sys/net`: folder that the knobs are read from before each call, so that a script may set them with sysctl(8)
- `counters=/tmp/netstat`: file that the counters are written to, for nstat(8) with PROC_NET_NETSTAT
- `tcp_sack=0`: any knob of the engine by its name
- `fast_path=0`: every segment takes the full way
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunstack.engine import Sysctl, pack_address
from tunstack.sim.packetdrill.sysctls import set_sysctl

MTU_MIN = 68  # RFC 791
MTU_MAX = 65535


@dataclass(slots=True)
class Flags:
    """What `--so_flags` said."""

    local: bytes = b"\xc0\xa8\x00\x01"  # packed
    mtu: int = 1500
    mss: int = 0  # 0: packets come as they are
    fast_path: bool = True
    folder: Path | None = None  # where the knobs are read from
    counters: Path | None = None  # where the counters are written to
    sysctl: Sysctl = field(default_factory=Sysctl)


def parse_flags(text: str) -> Flags:
    """Return what the text says; ValueError, in one line, for what it cannot say."""
    flags = Flags()
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--so_flags: {pair!r} is not name=value")
        if name == "local":
            try:
                flags.local = pack_address(value)
            except ValueError as error:
                raise ValueError(f"--so_flags: {error}") from None
        elif name == "mtu":
            flags.mtu = _number(name, value, MTU_MIN, MTU_MAX)
        elif name == "mss":
            flags.mss = _number(name, value, 1, MTU_MAX)
        elif name == "fast_path":
            flags.fast_path = bool(_number(name, value, 0, 1))
        elif name == "counters":
            flags.counters = Path(value)
            if not flags.counters.parent.is_dir():
                raise ValueError(f"--so_flags: no folder {flags.counters.parent}")
        elif name == "sysctls":
            flags.folder = Path(value)
            if not flags.folder.is_dir():
                raise ValueError(f"--so_flags: no folder {value}")
        else:
            try:
                set_sysctl(flags.sysctl, name, value)
            except (AttributeError, ValueError) as error:
                raise ValueError(f"--so_flags: {error}") from None
    return flags


def _number(name: str, value: str, low: int, high: int) -> int:
    if not value.isdigit() or not low <= int(value) <= high:
        raise ValueError(f"--so_flags: {name} is a number from {low} to {high}, not {value!r}")
    return int(value)
