"""getsockopt(2) and setsockopt(2) by Linux's numbers, in Linux's encodings, with what it does to the values on the way.

socket(7), ip(7), tcp(7). Values, bounds and errors are those of Linux 6.18 (tests/aio/test_sockopt_table.py asks the kernel). For whatever
has options: a connection, a listener, a socket that is neither yet. Units are the options' own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tunstack.engine import control, deferaccept, signopt, tcpinfo
from tunstack.engine.errors import socket_error
from tunstack.engine.fastopencookie import CLIENT, KEY_LENGTH
from tunstack.engine.handshake import buffer_limits
from tunstack.engine.knob import parse_keys
from tunstack.engine.options import SNDBUF_MIN, SocketOptions
from tunstack.engine.receivewindow import RCVBUF_MIN
from tunstack.engine.state import SYN_RECEIVED, SYN_SENT

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.listener import Listener
    from tunstack.engine.sysctl import Sysctl

LEVELS = IPPROTO_IP, SOL_SOCKET, IPPROTO_TCP = 0, 1, 6
SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE = 2, 3, 4, 5, 6, 7, 8, 9
SO_OOBINLINE, SO_PRIORITY, SO_LINGER, SO_REUSEPORT, SO_RCVLOWAT, SO_SNDLOWAT, SO_ACCEPTCONN = 10, 12, 13, 15, 18, 19, 30
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK, SO_PROTOCOL, SO_DOMAIN, SO_MAX_PACING_RATE = 32, 33, 36, 38, 39, 47
TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_LINGER2 = 1, 2, 3, 4, 5, 6, 7, 8
TCP_DEFER_ACCEPT = 9
TCP_WINDOW_CLAMP, TCP_INFO, TCP_QUICKACK, TCP_CONGESTION, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, TCP_CC_INFO = 10, 11, 12, 13, 18, 25, 26
TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_KEY, TCP_FASTOPEN_NO_COOKIE = 23, 30, 33, 34
IP_TOS, IP_TTL, IP_MTU = 1, 2, 14
TCP_UTO = 0x1C00  # ours: the UTO option (RFC 5482), s to advertise, 0: off; Linux has none
AF_INET, SOCK_STREAM = 2, 1

INT = struct.Struct("=i")
UINT = struct.Struct("=I")
LINGER = struct.Struct("=ii")  # struct linger
RATE = struct.Struct("=Q")  # octets a second, in 4 octets or 8; all ones: no limit
RATE_UNLIMITED = (1 << 64) - 1
UINT_MAX = 0xFFFFFFFF
INT_MAX = 0x7FFFFFFF
CONGESTION_NAME_MAX = 16  # TCP_CA_NAME_MAX
LINGER2_MAX = 120  # s, TCP_FIN_TIMEOUT_MAX
MAXSEG_DEFAULT = 536  # what Linux says of a socket without a connection
CLAMP_MIN = RCVBUF_MIN // 2


class Target(Protocol):
    """What has options."""

    @property
    def options(self) -> SocketOptions: ...
    @property
    def sysctl(self) -> Sysctl: ...
    @property
    def conn(self) -> Connection | None: ...
    @property
    def listener(self) -> Listener | None: ...
    def now(self) -> int: ...
    def set_option(self, name: str, value: object) -> None:
        """Set a field of the options; OSError as setsockopt(2)."""


Get = Callable[[Target], int | bytes]
Set = Callable[[Target, bytes], None]


def getsockopt(target: Target, level: int, number: int, size: int = 0) -> bytes:
    """Return the value in full; `size` is what the caller has room for.

    OSError ENOPROTOOPT for an option that we do not have, EOPNOTSUPP for a level.
    """
    get, _ = TABLE.get((level, number), NONE)
    if level not in LEVELS:
        raise socket_error("EOPNOTSUPP")
    if get is None:
        raise socket_error("ENOPROTOOPT")
    value = get(target)
    if number == SO_MAX_PACING_RATE and level == SOL_SOCKET and size < RATE.size:
        rate = target.options.max_pacing_rate
        value = UINT_MAX if rate is None else min(rate, UINT_MAX)
    return value if isinstance(value, bytes) else UINT.pack(value & UINT_MAX)


def setsockopt(target: Target, level: int, number: int, value: bytes) -> None:
    """Set an option. OSError ENOPROTOOPT for one that we do not have, EINVAL for a value that is too short or out of range."""
    _, put = TABLE.get((level, number), NONE)
    if level in (SOL_SOCKET, IPPROTO_TCP) and number != TCP_CONGESTION and len(value) < INT.size:
        raise socket_error("EINVAL")
    if put is None:
        raise socket_error("ENOPROTOOPT")
    if level == IPPROTO_IP and 1 <= len(value) < INT.size:  # ip(7) takes an octet, too
        value = INT.pack(value[0])
    put(target, value)


def number_of(value: bytes) -> int:
    """Return the int in an option's value; OSError EINVAL where it is too short."""
    if len(value) < INT.size:
        raise socket_error("EINVAL")
    return int(INT.unpack_from(value)[0])


# Kinds of options: (how it is read, how it is set).


def _flag(name: str) -> tuple[Get, Set]:
    return (
        lambda target: int(getattr(target.options, name)),
        lambda target, value: target.set_option(name, number_of(value) != 0),
    )


def _number(name: str, sysctl: str = "") -> tuple[Get, Set]:
    """A field of the options; None in it means the sysctl."""

    def get(target: Target) -> int:
        value = getattr(target.options, name)
        return int(getattr(target.sysctl, sysctl) if value is None else value)

    return get, lambda target, value: target.set_option(name, number_of(value))


def _inert(number: int, is_flag: bool) -> tuple[Get, Set]:
    """An option that changes nothing of what TCP does here: it is kept and told."""

    def put(target: Target, value: bytes) -> None:
        given = number_of(value)
        target.set_option("inert", {**target.options.inert, number: int(given != 0) if is_flag else given})

    return lambda target: target.options.inert.get(number, 0), put


def _constant(value: int) -> tuple[Get, None]:
    return lambda target: value, None


# Options one by one.


def _get_error(target: Target) -> int:
    """The ICMP error that is kept for the connection's timeout, and no longer then; what ends a connection goes to the protocol."""
    conn = target.conn
    if conn is None or conn.soft_error is None:
        return 0
    number = conn.soft_error.errno or 0
    conn.soft_error = None
    return number


def _get_rcvbuf(target: Target) -> int:
    conn = target.conn
    if conn is not None and conn.rx is not None:
        return conn.rx.rcvbuf
    return buffer_limits(target.options, target.sysctl)[0]


def _set_rcvbuf(target: Target, value: bytes) -> None:
    target.set_option("rcvbuf", min(number_of(value) & UINT_MAX, target.sysctl.rmem_max))


def _force_rcvbuf(target: Target, value: bytes) -> None:
    target.set_option("rcvbuf", max(number_of(value), 0))


def _get_sndbuf(target: Target) -> int:
    if target.conn is not None:
        return target.conn.sndbuf
    sndbuf = target.options.sndbuf
    return target.sysctl.tcp_wmem[1] if sndbuf is None else max(2 * sndbuf, SNDBUF_MIN)


def _set_sndbuf(target: Target, value: bytes) -> None:
    target.set_option("sndbuf", min(number_of(value) & UINT_MAX, target.sysctl.wmem_max))


def _force_sndbuf(target: Target, value: bytes) -> None:
    target.set_option("sndbuf", max(number_of(value), 0))


def _set_rcvlowat(target: Target, value: bytes) -> None:
    number = number_of(value)
    largest = (_get_rcvbuf(target) if target.options.rcvbuf is not None else target.sysctl.tcp_rmem[2]) >> 1
    target.set_option("rcvlowat", min(INT_MAX if number < 0 else number, largest) or 1)


def _get_linger(target: Target) -> bytes:
    linger = target.options.linger
    return LINGER.pack(linger is not None, linger or 0)


def _set_linger(target: Target, value: bytes) -> None:
    if len(value) < LINGER.size:
        raise socket_error("EINVAL")
    is_on, seconds = LINGER.unpack_from(value)
    target.set_option("linger", seconds if is_on else None)


def _get_maxseg(target: Target) -> int:
    conn = target.conn
    if conn is not None and conn.state not in (SYN_SENT, SYN_RECEIVED) and not conn.is_over:
        return conn.mss
    return target.options.maxseg or MAXSEG_DEFAULT


def _set_maxseg(target: Target, value: bytes) -> None:
    target.set_option("maxseg", number_of(value) or None)


def _get_linger2(target: Target) -> int:
    linger2 = target.options.linger2
    return (linger2 or target.sysctl.tcp_fin_timeout) if linger2 >= 0 else -1


def _set_linger2(target: Target, value: bytes) -> None:
    target.set_option("linger2", max(min(number_of(value), LINGER2_MAX), -1))


def _set_defer_accept(target: Target, value: bytes) -> None:
    target.set_option("defer_accept", deferaccept.rounded(number_of(value)))


def _get_window_clamp(target: Target) -> int:
    conn = target.conn
    return conn.rx.window_clamp if conn is not None and conn.rx is not None else target.options.window_clamp


def _set_window_clamp(target: Target, value: bytes) -> None:
    number = number_of(value)
    if not number and (target.conn is not None or target.listener is not None):
        raise socket_error("EINVAL")
    target.set_option("window_clamp", max(number, CLAMP_MIN) if number else 0)


def _get_quickack(target: Target) -> int:
    conn = target.conn
    if conn is not None and conn.rx is not None:
        return int(not conn.rx.pingpong)
    return int(target.options.quickack != 0)


def _get_congestion(target: Target) -> bytes:
    conn = target.conn
    name = control.name_of(conn) if conn is not None else target.options.congestion or target.sysctl.tcp_congestion_control
    return name.encode().ljust(CONGESTION_NAME_MAX, b"\0")


def _set_congestion(target: Target, value: bytes) -> None:
    if not value:
        raise socket_error("EINVAL")
    target.set_option("congestion", value[: CONGESTION_NAME_MAX - 1].partition(b"\0")[0].decode("ascii", "replace"))


def _set_notsent_lowat(target: Target, value: bytes) -> None:
    target.set_option("notsent_lowat", number_of(value) & UINT_MAX)


def _get_info(target: Target) -> bytes:
    return tcpinfo.pack(target.conn, target.listener, target.now())


def _get_rate(target: Target) -> bytes:
    rate = target.options.max_pacing_rate
    return RATE.pack(RATE_UNLIMITED if rate is None else rate)


def _set_rate(target: Target, value: bytes) -> None:
    rate: int
    if len(value) >= RATE.size:
        (rate,) = RATE.unpack_from(value)
        unlimited = RATE_UNLIMITED
    else:
        rate, unlimited = number_of(value) & UINT_MAX, UINT_MAX
    target.set_option("max_pacing_rate", None if rate == unlimited else rate)


def _set_fastopen(target: Target, value: bytes) -> None:
    number = number_of(value)
    if number < 0 or target.conn is not None:
        raise socket_error("EINVAL")
    target.set_option("fastopen", min(number, target.sysctl.somaxconn))


def _set_fastopen_connect(target: Target, value: bytes) -> None:
    number = number_of(value)
    if number not in (0, 1):
        raise socket_error("EINVAL")
    if not target.sysctl.tcp_fastopen & CLIENT:
        raise socket_error("EOPNOTSUPP")
    if target.conn is not None or target.listener is not None:
        raise socket_error("EINVAL")
    target.set_option("fastopen_connect", number == 1)


def _set_fastopen_no_cookie(target: Target, value: bytes) -> None:
    number = number_of(value)
    if number not in (0, 1) or target.conn is not None:
        raise socket_error("EINVAL")
    target.set_option("fastopen_no_cookie", number == 1)


def _get_fastopen_key(target: Target) -> bytes:
    return target.options.fastopen_key or parse_keys(target.sysctl.tcp_fastopen_key)


def _set_fastopen_key(target: Target, value: bytes) -> None:
    if len(value) not in (KEY_LENGTH, 2 * KEY_LENGTH):
        raise socket_error("EINVAL")
    target.set_option("fastopen_key", bytes(value))


def _set_tos(target: Target, value: bytes) -> None:
    target.set_option("tos", number_of(value) & 0xFF if value else 0)


def _set_ttl(target: Target, value: bytes) -> None:
    number = number_of(value)
    target.set_option("ttl", None if number == -1 else number)


def _get_mtu(target: Target) -> int:
    if target.conn is None:
        raise socket_error("ENOTCONN")
    return target.conn.mtu


NONE: tuple[None, None] = (None, None)
TABLE: dict[tuple[int, int], tuple[Get | None, Set | None]] = {
    (SOL_SOCKET, SO_TYPE): _constant(SOCK_STREAM),
    (SOL_SOCKET, SO_DOMAIN): _constant(AF_INET),
    (SOL_SOCKET, SO_PROTOCOL): _constant(IPPROTO_TCP),
    (SOL_SOCKET, SO_ERROR): (_get_error, None),
    (SOL_SOCKET, SO_SNDLOWAT): _constant(1),
    (SOL_SOCKET, SO_ACCEPTCONN): (lambda target: int(target.listener is not None), None),
    (SOL_SOCKET, SO_REUSEADDR): _flag("reuseaddr"),
    (SOL_SOCKET, SO_REUSEPORT): _inert(SO_REUSEPORT, True),
    (SOL_SOCKET, SO_DONTROUTE): _inert(SO_DONTROUTE, True),
    (SOL_SOCKET, SO_BROADCAST): _inert(SO_BROADCAST, True),
    (SOL_SOCKET, SO_PRIORITY): _inert(SO_PRIORITY, False),
    (SOL_SOCKET, SO_MARK): _inert(SO_MARK, False),
    (SOL_SOCKET, SO_KEEPALIVE): _flag("keepalive"),
    (SOL_SOCKET, SO_OOBINLINE): _flag("oobinline"),
    (SOL_SOCKET, SO_MAX_PACING_RATE): (_get_rate, _set_rate),
    (SOL_SOCKET, SO_RCVBUF): (_get_rcvbuf, _set_rcvbuf),
    (SOL_SOCKET, SO_SNDBUF): (_get_sndbuf, _set_sndbuf),
    (SOL_SOCKET, SO_RCVBUFFORCE): (None, _force_rcvbuf),
    (SOL_SOCKET, SO_SNDBUFFORCE): (None, _force_sndbuf),
    (SOL_SOCKET, SO_RCVLOWAT): (_number("rcvlowat")[0], _set_rcvlowat),
    (SOL_SOCKET, SO_LINGER): (_get_linger, _set_linger),
    (IPPROTO_TCP, TCP_NODELAY): _flag("nodelay"),
    (IPPROTO_TCP, TCP_CORK): _flag("cork"),
    (IPPROTO_TCP, TCP_MAXSEG): (_get_maxseg, _set_maxseg),
    (IPPROTO_TCP, TCP_KEEPIDLE): _number("keepidle", "tcp_keepalive_time"),
    (IPPROTO_TCP, TCP_KEEPINTVL): _number("keepintvl", "tcp_keepalive_intvl"),
    (IPPROTO_TCP, TCP_KEEPCNT): _number("keepcnt", "tcp_keepalive_probes"),
    (IPPROTO_TCP, TCP_SYNCNT): _number("syncnt", "tcp_syn_retries"),
    (IPPROTO_TCP, TCP_LINGER2): (_get_linger2, _set_linger2),
    (IPPROTO_TCP, TCP_DEFER_ACCEPT): (_number("defer_accept")[0], _set_defer_accept),
    (IPPROTO_TCP, TCP_WINDOW_CLAMP): (_get_window_clamp, _set_window_clamp),
    (IPPROTO_TCP, TCP_INFO): (_get_info, None),
    (IPPROTO_TCP, TCP_CC_INFO): (lambda target: b"", None),
    (IPPROTO_TCP, TCP_QUICKACK): (_get_quickack, _number("quickack")[1]),
    (IPPROTO_TCP, TCP_CONGESTION): (_get_congestion, _set_congestion),
    (IPPROTO_TCP, TCP_USER_TIMEOUT): _number("user_timeout"),
    (IPPROTO_TCP, TCP_UTO): _number("user_timeout_advertise"),
    (IPPROTO_TCP, signopt.TCP_MD5SIG): (None, signopt.set_md5),
    (IPPROTO_TCP, signopt.TCP_MD5SIG_EXT): (None, signopt.set_md5_ext),
    (IPPROTO_TCP, signopt.TCP_AO_ADD_KEY): (None, signopt.add_ao),
    (IPPROTO_TCP, signopt.TCP_AO_DEL_KEY): (None, signopt.delete_ao),
    (IPPROTO_TCP, signopt.TCP_AO_INFO): (signopt.get_ao_info, signopt.set_ao_info),
    (IPPROTO_TCP, TCP_NOTSENT_LOWAT): (_number("notsent_lowat")[0], _set_notsent_lowat),
    (IPPROTO_TCP, TCP_FASTOPEN): (_number("fastopen")[0], _set_fastopen),
    (IPPROTO_TCP, TCP_FASTOPEN_CONNECT): (_flag("fastopen_connect")[0], _set_fastopen_connect),
    (IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE): (_flag("fastopen_no_cookie")[0], _set_fastopen_no_cookie),
    (IPPROTO_TCP, TCP_FASTOPEN_KEY): (_get_fastopen_key, _set_fastopen_key),
    (IPPROTO_IP, IP_TOS): (_number("tos")[0], _set_tos),
    (IPPROTO_IP, IP_TTL): (_number("ttl", "ip_default_ttl")[0], _set_ttl),
    (IPPROTO_IP, IP_MTU): (_get_mtu, None),
}
