"""Socket options of one connection or listener.

Names are those of POSIX and Linux in lower case without prefix; units are theirs. socket(7), tcp(7).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tunstack.congestion import available
from tunstack.engine import ecn
from tunstack.engine.errors import socket_error
from tunstack.engine.keys import KeyChain

SCALARS = frozenset((bool, int, str, type(None)))
DEPTH_MAX = 3  # settings after each other whose outcome is kept ...
MADE_MAX = 16  # ... so many of each


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What setsockopt(2) sets. None: the stack's sysctl decides.

    Never changed: who sets an option makes another object (`having`). So the connections of a listener share its own until
    one of them sets something.
    """

    nodelay: bool = False  # TCP_NODELAY
    cork: bool = False  # TCP_CORK
    linger2: int = 0  # TCP_LINGER2, s; 0: the sysctl, below: no FIN_WAIT_2 for an orphan
    notsent_lowat: int = 0  # TCP_NOTSENT_LOWAT, octets; 0: none
    rcvlowat: int = 1  # SO_RCVLOWAT, octets
    reuseaddr: bool = False  # SO_REUSEADDR
    quickack: int | None = None  # TCP_QUICKACK; None: never set
    keepalive: bool = False  # SO_KEEPALIVE
    keepidle: int | None = None  # TCP_KEEPIDLE, s
    keepintvl: int | None = None  # TCP_KEEPINTVL, s
    keepcnt: int | None = None  # TCP_KEEPCNT
    linger: int | None = None  # SO_LINGER, s; None: off
    oobinline: bool = False  # SO_OOBINLINE: an urgent octet stays in the stream
    rcvbuf: int | None = None  # SO_RCVBUF, octets
    window_clamp: int = 0  # TCP_WINDOW_CLAMP, octets; 0: none
    sndbuf: int | None = None  # SO_SNDBUF, octets
    maxseg: int | None = None  # TCP_MAXSEG, octets
    user_timeout: int = 0  # TCP_USER_TIMEOUT, ms; 0: the retries decide
    user_timeout_advertise: int = 0  # UTO option (RFC 5482), s: told to the peer, and its own is taken over; 0: off. Not in Linux
    syncnt: int | None = None  # TCP_SYNCNT
    defer_accept: int = 0  # TCP_DEFER_ACCEPT, s for which a listener waits for data; 0: it does not
    congestion: str | None = None  # TCP_CONGESTION
    max_pacing_rate: int | None = None  # SO_MAX_PACING_RATE, octets a second; None, or 0: no limit
    fastopen: int = 0  # TCP_FASTOPEN: connections that wait for their handshake's end at most; 0: a listener without
    fastopen_connect: bool = False  # TCP_FASTOPEN_CONNECT: the SYN waits for the first write, and carries it
    fastopen_no_cookie: bool = False  # TCP_FASTOPEN_NO_COOKIE
    fastopen_key: bytes = field(default=b"", repr=False)  # TCP_FASTOPEN_KEY, one or two; empty: the stack's
    tos: int = 0  # IP_TOS
    ttl: int | None = None  # IP_TTL
    keys: KeyChain | None = None  # TCP_MD5SIG, TCP_AO_ADD_KEY; None: the stack's. Handed over by copy
    inert: Mapping[int, int] = field(default_factory=dict)  # SOL_SOCKET's that change nothing of what TCP does here, by number

    # What `having` made of this, by name and value: connections that set the same share one object, and take no time to make it.
    _made: dict[tuple[str, type, object], SocketOptions] | None = field(default=None, init=False, repr=False, compare=False)
    _depth: int = field(default=0, init=False, repr=False, compare=False)  # of settings from what was made anew

    def having(self, name: str, value: Any) -> SocketOptions:
        """Return the same with one option set, to a value that `check_option` returned."""
        kind = type(value)
        if kind not in SCALARS:
            return replace(self, **{name: value})
        made = self._made
        key = (name, kind, value)
        other = made.get(key) if made is not None else None
        if other is None:
            other = replace(self, **{name: value})
            if self._depth < DEPTH_MAX:  # who sets options to and fro gets objects of his own
                object.__setattr__(other, "_depth", self._depth + 1)
                if made is None:
                    object.__setattr__(self, "_made", {key: other})
                elif len(made) < MADE_MAX:
                    made[key] = other
        return other


# Lower and upper bound of the options that Linux bounds: EINVAL outside (tcp(7), net/ipv4 behaviour).
BOUNDS: dict[str, tuple[int, int]] = {
    "keepidle": (1, 32767),
    "keepintvl": (1, 32767),
    "keepcnt": (1, 127),
    "linger": (0, 0x7FFFFFFF),
    "rcvbuf": (0, 0x7FFFFFFF),
    "sndbuf": (0, 0x7FFFFFFF),
    "maxseg": (88, 32767),
    "user_timeout": (0, 0x7FFFFFFF),
    "user_timeout_advertise": (0, 0x7FFF * 60),
    "syncnt": (1, 127),
    "max_pacing_rate": (0, 0xFFFFFFFFFFFFFFFF),
    "fastopen": (0, 0x7FFFFFFF),
    "tos": (0, 255),
    "ttl": (1, 255),
}
NAMES = frozenset(each.name for each in fields(SocketOptions) if each.init)
SNDBUF_MIN = 4608  # SOCK_MIN_SNDBUF, of the doubled value


def check_option(name: str, value: object, algorithms: Container[object] | None = None) -> object:
    """Return a value as it is to be stored: the ECN bits of IP_TOS are TCP's own, as in Linux.

    Raise the OSError of setsockopt(2): ENOPROTOOPT for an unknown name, EINVAL for a value out of range, ENOENT for congestion.
    `algorithms` are the stack's, None: only ours.
    """
    if name not in NAMES:
        raise socket_error("ENOPROTOOPT")
    bounds = BOUNDS.get(name)
    if bounds is not None and value is not None and not (isinstance(value, int) and bounds[0] <= value <= bounds[1]):
        raise socket_error("EINVAL")
    if name == "keys" and value is not None:
        if not isinstance(value, KeyChain):
            raise socket_error("EINVAL")
        return value.copy()
    if name == "congestion" and value is not None and value not in (available() if algorithms is None else algorithms):
        raise socket_error("ENOENT")
    return value & ~ecn.MASK if name == "tos" and isinstance(value, int) else value


def check_options(options: SocketOptions, algorithms: Container[object]) -> SocketOptions:
    """Return the options as they are to be stored; raise what `check_option` has against any of them."""
    values: dict[str, Any] = {name: getattr(options, name) for name in NAMES}
    checked: dict[str, Any] = {name: check_option(name, value, algorithms) for name, value in values.items()}
    return options if checked == values else SocketOptions(**checked)
