"""getsockopt(2) and setsockopt(2): socket(7), ip(7), tcp(7), and what Linux does to the values on the way.

An option of the engine's SocketOptions works as soon as the engine has the field of its name; until then it is ENOPROTOOPT, as on a
kernel without it. Times of options are in their own units.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tunstack.engine import State
from tunstack.sim.packetdrill import tcpinfo
from tunstack.sim.packetdrill.sockets import Socket, error_of

SO_MEMINFO = 55
SO_PRIORITY = 12
SO_MARK = 36
SO_ZEROCOPY = 60
TCP_CC_INFO = 26
TCP_NOTSENT_LOWAT = 25
TCP_FASTOPEN = 23
TCP_FASTOPEN_CONNECT = 30
IP_MTU_DISCOVER = 10
CONGESTION_NAME_MAX = 16

RCVBUF_MIN = 2304  # of the doubled value (SOCK_MIN_RCVBUF)
SNDBUF_MIN = 4608
RMEM_MAX = 212992  # net.core.rmem_max and wmem_max, of the value before it is doubled
TIMEVAL = struct.Struct("=qq")
LINGER = struct.Struct("=ii")
SECOND = 1_000_000

# TCP-level and IP-level options that are a field of SocketOptions: name, and what stands for "the sysctl decides".
FIELDS: dict[tuple[int, int], tuple[str, Callable[[Socket], int]]] = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): ("nodelay", lambda sock: 0),
    (socket.IPPROTO_TCP, socket.TCP_CORK): ("cork", lambda sock: 0),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): ("keepidle", lambda sock: sock.sysctl.tcp_keepalive_time),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): ("keepintvl", lambda sock: sock.sysctl.tcp_keepalive_intvl),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): ("keepcnt", lambda sock: sock.sysctl.tcp_keepalive_probes),
    (socket.IPPROTO_TCP, socket.TCP_SYNCNT): ("syncnt", lambda sock: sock.sysctl.tcp_syn_retries),
    (socket.IPPROTO_TCP, socket.TCP_LINGER2): ("linger2", lambda sock: sock.sysctl.tcp_fin_timeout),
    (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT): ("defer_accept", lambda sock: 0),
    (socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP): ("window_clamp", lambda sock: 0),
    (socket.IPPROTO_TCP, socket.TCP_QUICKACK): ("quickack", lambda sock: 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): ("user_timeout", lambda sock: 0),
    (socket.IPPROTO_TCP, TCP_FASTOPEN): ("fastopen", lambda sock: 0),
    (socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT): ("fastopen_connect", lambda sock: 0),
    (socket.IPPROTO_IP, socket.IP_TOS): ("tos", lambda sock: 0),
    (socket.IPPROTO_IP, socket.IP_TTL): ("ttl", lambda sock: sock.sysctl.ip_default_ttl),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): ("keepalive", lambda sock: 0),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE): ("oobinline", lambda sock: 0),
}
FLAGS = frozenset(("nodelay", "cork", "keepalive", "oobinline", "quickack", "fastopen_connect"))  # any value but zero is one

# Options that a script may set and that change nothing that TCP does here.
STORED = frozenset(
    (
        (socket.SOL_SOCKET, SO_PRIORITY),
        (socket.SOL_SOCKET, SO_MARK),
        (socket.SOL_SOCKET, SO_ZEROCOPY),
        (socket.SOL_SOCKET, socket.SO_BROADCAST),
        (socket.SOL_SOCKET, socket.SO_DONTROUTE),
        (socket.IPPROTO_IP, IP_MTU_DISCOVER),
    )
)


@dataclass(frozen=True, slots=True)
class Special:
    """An option that is more than a number of its own: how it is read and how it is set; None where it cannot be."""

    get: Callable[[Socket], bytes] | None
    set: Callable[[Socket, bytes], None] | None


def getsockopt(sock: Socket, level: int, name: int, length: int) -> bytes:
    """Return the value, at most `length` octets of it."""
    special = SPECIAL.get((level, name))
    if special is not None:
        if special.get is None:
            raise error_of(errno.ENOPROTOOPT)
        return special.get(sock)[:length]
    if (level, name) in STORED:
        return _pack(sock.extras.stored.get((level, name), 0))[:length]
    field, default = _field(sock, level, name)
    value = getattr(sock.options, field)
    return _pack(default(sock) if value is None else int(value))[:length]


def setsockopt(sock: Socket, level: int, name: int, value: bytes) -> None:
    """Set an option."""
    special = SPECIAL.get((level, name))
    if special is not None:
        if special.set is None:
            raise error_of(errno.ENOPROTOOPT)
        special.set(sock, value)
        return
    number = value[0] if level == socket.IPPROTO_IP and 1 <= len(value) < 4 else _unpack(value)  # ip(7) takes an octet, too
    if (level, name) in STORED:
        sock.extras.stored[level, name] = number
        return
    field, _ = _field(sock, level, name)
    if field == "ttl" and number == -1:
        sock.set_option(field, None)
    else:
        sock.set_option(field, bool(number) if field in FLAGS else number)


def _field(sock: Socket, level: int, name: int) -> tuple[str, Callable[[Socket], int]]:
    entry = FIELDS.get((level, name))
    if entry is None or not hasattr(sock.options, entry[0]):
        raise error_of(errno.ENOPROTOOPT)
    return entry


def _pack(number: int) -> bytes:
    return struct.pack("=i", number) if number < 1 << 31 else struct.pack("=I", number)


def _unpack(value: bytes) -> int:
    if len(value) < 4:
        raise error_of(errno.EINVAL)
    return int(struct.unpack_from("=i", value)[0])


# Options one by one.


def _get_error(sock: Socket) -> bytes:
    return _pack(sock.take_error().errno or 0)


def _set_rcvbuf(sock: Socket, value: bytes) -> None:
    """The engine's buffer is the window, Linux's is twice that: half of it is for overhead (tcp_adv_win_scale)."""
    sock.set_option("rcvbuf", max(min(_unpack(value), RMEM_MAX), RCVBUF_MIN // 2))


def _set_sndbuf(sock: Socket, value: bytes) -> None:
    sock.sndbuf = max(2 * min(_unpack(value), RMEM_MAX), SNDBUF_MIN)
    sock.set_option("sndbuf", sock.sndbuf // 2)


def _get_linger(sock: Socket) -> bytes:
    linger = sock.options.linger
    return LINGER.pack(linger is not None, linger or 0)


def _set_linger(sock: Socket, value: bytes) -> None:
    if len(value) < LINGER.size:
        raise error_of(errno.EINVAL)
    is_on, seconds = LINGER.unpack_from(value)
    sock.set_option("linger", seconds if is_on else None)


def _get_timeout(name: str) -> Callable[[Socket], bytes]:
    def get(sock: Socket) -> bytes:
        return TIMEVAL.pack(*divmod(getattr(sock.extras, name) or 0, SECOND))

    return get


def _set_timeout(name: str) -> Callable[[Socket, bytes], None]:
    def put(sock: Socket, value: bytes) -> None:
        if len(value) < TIMEVAL.size:
            raise error_of(errno.EINVAL)
        seconds, microseconds = TIMEVAL.unpack_from(value)
        if not 0 <= microseconds < SECOND:
            raise error_of(errno.EDOM)
        setattr(sock.extras, name, seconds * SECOND + microseconds or None)

    return put


def _get_extra(name: str) -> Callable[[Socket], bytes]:
    return lambda sock: _pack(int(getattr(sock.extras, name) or 0))


def _set_extra(name: str) -> Callable[[Socket, bytes], None]:
    return lambda sock, value: setattr(sock.extras, name, _unpack(value))


def _set_low_water(sock: Socket, value: bytes) -> None:
    sock.extras.receive_low_water = max(_unpack(value), 1)


def _set_notsent(sock: Socket, value: bytes) -> None:
    sock.extras.notsent_lowat = _unpack(value) & 0xFFFFFFFF or None


def _get_maxseg(sock: Socket) -> bytes:
    """Before there is a connection what was asked for, or the RFC's default; then what a segment takes."""
    conn = sock.conn
    if conn is not None and conn.state not in (State.SYN_SENT, State.SYN_RECEIVED) and not conn.is_over:
        return _pack(conn.mss)
    return _pack(sock.options.maxseg or 536)


def _set_maxseg(sock: Socket, value: bytes) -> None:
    number = _unpack(value)
    sock.set_option("maxseg", number or None)


def _get_congestion(sock: Socket) -> bytes:
    name = sock.conn.info().congestion if sock.conn is not None else ""
    name = name or sock.options.congestion or sock.sysctl.tcp_congestion_control
    return name.encode().ljust(CONGESTION_NAME_MAX, b"\0")


def _set_congestion(sock: Socket, value: bytes) -> None:
    sock.set_option("congestion", value.split(b"\0")[0].decode(errors="replace"))


SPECIAL: dict[tuple[int, int], Special] = {
    (socket.SOL_SOCKET, socket.SO_ERROR): Special(_get_error, None),
    (socket.SOL_SOCKET, socket.SO_TYPE): Special(lambda sock: _pack(socket.SOCK_STREAM), None),
    (socket.SOL_SOCKET, socket.SO_DOMAIN): Special(lambda sock: _pack(socket.AF_INET), None),
    (socket.SOL_SOCKET, socket.SO_PROTOCOL): Special(lambda sock: _pack(socket.IPPROTO_TCP), None),
    (socket.SOL_SOCKET, socket.SO_ACCEPTCONN): Special(lambda sock: _pack(sock.listener is not None), None),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR): Special(_get_extra("reuse_address"), _set_extra("reuse_address")),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT): Special(_get_extra("reuse_port"), _set_extra("reuse_port")),
    (socket.SOL_SOCKET, socket.SO_RCVBUF): Special(lambda sock: _pack(2 * sock.rcvbuf), _set_rcvbuf),
    (socket.SOL_SOCKET, socket.SO_SNDBUF): Special(lambda sock: _pack(sock.sndbuf), _set_sndbuf),
    (socket.SOL_SOCKET, socket.SO_LINGER): Special(_get_linger, _set_linger),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO): Special(_get_timeout("receive_timeout"), _set_timeout("receive_timeout")),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO): Special(_get_timeout("send_timeout"), _set_timeout("send_timeout")),
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT): Special(_get_extra("receive_low_water"), _set_low_water),
    (socket.SOL_SOCKET, SO_MEMINFO): Special(tcpinfo.pack_meminfo, None),
    (socket.IPPROTO_TCP, socket.TCP_INFO): Special(tcpinfo.pack_tcp_info, None),
    (socket.IPPROTO_TCP, TCP_CC_INFO): Special(lambda sock: b"", None),  # none of the algorithms has any
    (socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT): Special(_get_extra("notsent_lowat"), _set_notsent),
    (socket.IPPROTO_TCP, socket.TCP_MAXSEG): Special(_get_maxseg, _set_maxseg),
    (socket.IPPROTO_TCP, socket.TCP_CONGESTION): Special(_get_congestion, _set_congestion),
}
