"""What a stack has counted, under the names of Linux's tables (snmp.py); one that nothing here counts is 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.rtt import RTO_MAX, RTO_MIN
from tunstack.inspect.census import Census, count, finish
from tunstack.inspect.snmp import TABLES

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

NOT_FORWARDING = 2  # ipForwarding of a host
RTO_OTHER = 1  # tcpRtoAlgorithm as Linux gives it
MS = 1000  # us


def gauges(stack: Stack, census: Census | None = None) -> dict[str, int]:
    """Return the values that are no counters, under nstat's names; all sockets are counted at once where that is not done before."""
    census = census or finish(count(stack))
    return {
        "IpForwarding": NOT_FORWARDING,
        "IpDefaultTTL": stack.sysctl.ip_default_ttl,
        "TcpRtoAlgorithm": RTO_OTHER,
        "TcpRtoMin": RTO_MIN // MS,
        "TcpRtoMax": RTO_MAX // MS,
        "TcpMaxConn": -1,
        "TcpCurrEstab": census.established,
    }


def values(stack: Stack, census: Census | None = None) -> dict[str, int]:
    """Return all values under nstat's names, the table before the field: `TcpExtTCPTimeouts`, which is TCPTimeouts in Counters."""
    known = stack.read_counters() | gauges(stack, census)
    result = {table + field: known.pop(table + field, 0) or known.pop(field, 0) for table, fields in TABLES.items() for field in fields}
    # Each datagram once, or the fragments that it was cut into.
    result["IpOutTransmits"] = result["IpOutRequests"] - result["IpFragOKs"] + result["IpFragCreates"]
    return result | {"TcpExt" + name: value for name, value in known.items()}  # our own, which Linux has not
