"""Keys that sign segments, and chains of them: who shares which secret with whom, and when.

RFC 5925 3.1 (a Key is its Master Key Tuple), RFC 2385. A secret is in no repr and in no message of an error. Times are int microseconds
of the stack's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import NamedTuple

from tunstack.engine.mac import AES_128_CMAC_96, HMAC_SHA_1_96, check_available

MD5 = "md5"  # RFC 2385; the others are TCP-AO's (RFC 5926)
ALGORITHMS = (HMAC_SHA_1_96, AES_128_CMAC_96, MD5)
SECRET_MAX = 80  # octets: TCP_MD5SIG_MAXKEYLEN and TCP_AO_MAXKEYLEN in Linux


class Lifetime(NamedTuple):
    """From when, and until before when, a key is used."""

    begin: int
    end: int

    def has(self, now: int) -> bool:
        return self.begin <= now < self.end


ALWAYS = Lifetime(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Key:
    """One secret that is shared with some peers.

    `send_id` is what our segments name it by, `recv_id` what the peer's do; a peer has them the other way round. MD5 has neither, nor
    lifetimes. ValueError where something is out of range, or an algorithm's library is missing.
    """

    secret: bytes = field(repr=False)
    algorithm: str = HMAC_SHA_1_96
    peer: str = "0.0.0.0/0"  # network of the peers, or an address, which becomes one
    port: int = 0  # a port that one of the two ends has, 0: any
    send_id: int = 0  # SendID
    recv_id: int = 0  # RecvID
    covers_options: bool = True  # the MAC is over all options; False: only over TCP-AO's, for paths that rewrite the others
    send: Lifetime = ALWAYS  # when we sign with it
    accept: Lifetime = ALWAYS  # when the peer may
    network: bytes = field(init=False, repr=False)  # of `peer`, packed
    prefix: int = field(init=False, repr=False)  # bits of `network` that count

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"there is no signature algorithm {self.algorithm!r}; there is {', '.join(ALGORITHMS)}")
        if not isinstance(self.secret, bytes) or not 1 <= len(self.secret) <= SECRET_MAX:
            raise ValueError(f"a secret has 1 to {SECRET_MAX} octets") from None
        if not 0 <= self.port <= 65535:
            raise ValueError(f"a port is 0 to 65535: {self.port}")
        if not (0 <= self.send_id <= 255 and 0 <= self.recv_id <= 255):
            raise ValueError(f"a key's id is 0 to 255: {self.send_id}, {self.recv_id}")
        if self.algorithm == MD5 and (self.send_id or self.recv_id or self.send != ALWAYS or self.accept != ALWAYS):
            raise ValueError("MD5 keys have neither ids nor lifetimes: nothing in a segment says which key it was signed with")
        try:
            network = IPv4Network(self.peer)
        except ValueError:
            raise ValueError(f"not an IPv4 network or address (or bits beyond the prefix are set): {self.peer!r}") from None
        check_available(self.algorithm)
        object.__setattr__(self, "peer", str(network))
        object.__setattr__(self, "network", network.network_address.packed)
        object.__setattr__(self, "prefix", network.prefixlen)

    @property
    def is_ao(self) -> bool:
        return self.algorithm != MD5

    def covers(self, peer: bytes, ports: tuple[int, int]) -> bool:
        """Whether it is for connections with this peer, whose two ports are these."""
        if self.port and self.port not in ports:
            return False
        shift = 8 * len(peer) - self.prefix
        return len(peer) == len(self.network) and int.from_bytes(peer, "big") >> shift == int.from_bytes(self.network, "big") >> shift

    def overlaps(self, other: Key) -> bool:
        """Whether some connection would be covered by both."""
        if self.port and other.port and self.port != other.port:
            return False
        shift = 8 * len(self.network) - min(self.prefix, other.prefix)
        return int.from_bytes(self.network, "big") >> shift == int.from_bytes(other.network, "big") >> shift


class KeyChain:
    """Keys in the order in which they are preferred. Invariant: no peer has both kinds, or two keys of one prefix that share an id.

    The chain of a socket is copied when it is handed over (a later change is a new one, handed over again). That of a stack is live: what
    is added to it or removed from it counts at once, for connections that run too.
    """

    __slots__ = ("accept_icmps", "is_required", "keys", "version")

    def __init__(self, keys: Iterable[Key] = (), *, accept_icmps: bool = False, is_required: bool = False) -> None:
        self.keys: tuple[Key, ...] = ()
        self.accept_icmps = accept_icmps  # ICMP that could end or slow a signed connection is believed (RFC 5925 7.8)
        self.is_required = is_required  # a listener with it takes no peer for whom there is no key
        self.version = 0  # of `keys`
        for key in keys:
            self.add(key)

    def __repr__(self) -> str:
        return f"KeyChain({list(self.keys)!r})"

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def copy(self) -> KeyChain:
        """Return an independent chain of the same keys."""
        chain = KeyChain(accept_icmps=self.accept_icmps, is_required=self.is_required)
        chain.keys = self.keys
        return chain

    def add(self, key: Key) -> None:
        """Add a key behind the others; ValueError where it could not be told from another. An MD5 key takes the place of the peer's."""
        rest = []
        for other in self.keys:
            if key.is_ao != other.is_ao and key.overlaps(other):
                raise ValueError(f"a peer has keys of TCP-AO or of MD5, not of both: {key.peer} and {other.peer}")
            same_peers = (key.network, key.prefix, key.port) == (other.network, other.prefix, other.port)
            if key.is_ao and same_peers and (key.send_id == other.send_id or key.recv_id == other.recv_id):
                raise ValueError(f"the peers {key.peer} have a key with send_id {other.send_id} and recv_id {other.recv_id} already")
            if key.is_ao or not same_peers:
                rest.append(other)
        self.replace((*rest, key))

    def remove(self, key: Key) -> None:
        """Take a key out; ValueError if it is not there."""
        if key not in self.keys:
            raise ValueError("no such key in the chain")
        self.replace(tuple(other for other in self.keys if other != key))

    def replace(self, keys: tuple[Key, ...]) -> None:
        """Have these keys, known to go together, instead."""
        self.keys = keys
        self.version += 1

    def matching(self, peer: bytes, ports: tuple[int, int]) -> tuple[Key, ...]:
        """Return the keys for a connection: those with the longest prefix first, otherwise in the order of the chain."""
        found = [key for key in self.keys if key.covers(peer, ports)]
        found.sort(key=lambda key: -key.prefix)  # stable
        return tuple(found)
