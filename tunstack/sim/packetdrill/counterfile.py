"""The stack's counters in a file, in the form of /proc/net/netstat: what nstat(8) shows to a script's commands by PROC_NET_NETSTAT."""

from __future__ import annotations

from pathlib import Path

from tunstack.engine.counters import Counters

TABLES = ("IpExt", "Ip", "Icmp", "Udp", "Tcp")  # by how a counter's name begins, the longer one first; the others are TcpExt's


class CounterFile:
    """Written anew when a counter has changed."""

    def __init__(self, path: Path, counters: Counters) -> None:
        self._path = path
        self._counters = counters
        self._written: dict[str, int] = {}

    def update(self) -> None:
        """Write what is new."""
        values = self._counters.as_dict()
        if values == self._written:
            return
        self._written = values
        tables: dict[str, dict[str, int]] = {}
        for name, value in values.items():
            table = next((table for table in TABLES if name.startswith(table)), "TcpExt")
            tables.setdefault(table, {})[name.removeprefix(table)] = value
        self._path.write_text(
            "".join(f"{table}: {' '.join(row)}\n{table}: {' '.join(map(str, row.values()))}\n" for table, row in tables.items())
        )
