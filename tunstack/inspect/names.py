"""The names that tools give to states, ports and addresses."""

from __future__ import annotations

import socket
from functools import cache

# RFC 9293's names, as we have them, to those that ss prints, ss takes in a filter, and netstat prints.
SS_STATES = {
    "ESTABLISHED": "ESTAB",
    "SYN_SENT": "SYN-SENT",
    "SYN_RECEIVED": "SYN-RECV",
    "FIN_WAIT_1": "FIN-WAIT-1",
    "FIN_WAIT_2": "FIN-WAIT-2",
    "TIME_WAIT": "TIME-WAIT",
    "CLOSED": "UNCONN",
    "CLOSE_WAIT": "CLOSE-WAIT",
    "LAST_ACK": "LAST-ACK",
    "LISTEN": "LISTEN",
    "CLOSING": "CLOSING",
}
FILTER_STATES = {
    "established": "ESTABLISHED",
    "syn-sent": "SYN_SENT",
    "syn-recv": "SYN_RECEIVED",
    "fin-wait-1": "FIN_WAIT_1",
    "fin-wait-2": "FIN_WAIT_2",
    "time-wait": "TIME_WAIT",
    "closed": "CLOSED",
    "close-wait": "CLOSE_WAIT",
    "last-ack": "LAST_ACK",
    "listening": "LISTEN",
    "closing": "CLOSING",
}
NETSTAT_STATES = {name: name for name in SS_STATES} | {
    "SYN_RECEIVED": "SYN_RECV",
    "FIN_WAIT_1": "FIN_WAIT1",
    "FIN_WAIT_2": "FIN_WAIT2",
    "CLOSED": "CLOSE",
}
EPHEMERAL_PORTS = range(32768, 61000)  # whose names ss does not look for


@cache
def service_name(port: int) -> str | None:
    """Return the name of a TCP port in /etc/services, None where it has none."""
    try:
        return socket.getservbyport(port, "tcp")
    except OSError:
        return None


def service_port(name: str) -> int | None:
    """Return the port that a service has in /etc/services, None where there is no such service."""
    try:
        return socket.getservbyname(name, "tcp")
    except OSError:
        return None


@cache
def host_name(address: str) -> str | None:
    """Return the name of an address, None where it has none. It may ask a name server, and wait for it."""
    try:
        return socket.gethostbyaddr(address)[0]
    except OSError:
        return None
