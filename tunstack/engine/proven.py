"""Hosts that are known to be there, because a handshake with them was completed.

Linux's tcp_peer_is_proven: without SYN cookies the last quarter of a SYN queue is kept for them. Linux remembers whom it has measured
a round trip to, at the end of a connection; here it is from the third segment on, and the last HOSTS_MAX of them.
"""

from __future__ import annotations

HOSTS_MAX = 4096


class ProvenHosts:
    """The addresses (packed), the one that was heard of longest ago in front."""

    __slots__ = ("_hosts",)

    def __init__(self) -> None:
        self._hosts: dict[bytes, None] = {}

    def __contains__(self, address: bytes) -> bool:
        return address in self._hosts

    def __len__(self) -> int:
        return len(self._hosts)

    def add(self, address: bytes) -> None:
        """A host has completed a handshake."""
        hosts = self._hosts
        hosts.pop(address, None)
        hosts[address] = None
        if len(hosts) > HOSTS_MAX:
            del hosts[next(iter(hosts))]
