"""What a stack has counted, under the names of Linux's tables (snmp.py); one that nothing here counts is 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.connection import Connection
from tunstack.engine.rtt import RTO_MAX, RTO_MIN
from tunstack.engine.state import CLOSE_WAIT, ESTABLISHED
from tunstack.inspect.snmp import TABLES

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

NOT_FORWARDING = 2  # ipForwarding of a host
RTO_OTHER = 1  # tcpRtoAlgorithm as Linux gives it
MS = 1000  # us


def gauges(stack: Stack) -> dict[str, int]:
    """Return the values that are no counters, under nstat's names."""
    return {
        "IpForwarding": NOT_FORWARDING,
        "IpDefaultTTL": stack.sysctl.ip_default_ttl,
        "TcpRtoAlgorithm": RTO_OTHER,
        "TcpRtoMin": RTO_MIN // MS,
        "TcpRtoMax": RTO_MAX // MS,
        "TcpMaxConn": -1,
        "TcpCurrEstab": sum(
            1 for owner in stack.flows.values() if isinstance(owner, Connection) and owner.state in (ESTABLISHED, CLOSE_WAIT)
        ),
    }


def values(stack: Stack) -> dict[str, int]:
    """Return all values under nstat's names, the table before the field: `TcpExtTCPTimeouts`, which is TCPTimeouts in Counters."""
    known = stack.counters.as_dict() | gauges(stack)
    result = {table + field: known.pop(table + field, 0) or known.pop(field, 0) for table, fields in TABLES.items() for field in fields}
    # Each datagram once, or the fragments that it was cut into.
    result["IpOutTransmits"] = result["IpOutRequests"] - result["IpFragOKs"] + result["IpFragCreates"]
    return result | {"TcpExt" + name: value for name, value in known.items()}  # our own, which Linux has not
