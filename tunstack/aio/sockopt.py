"""What `get_extra_info('socket')` gives: names and options of a connection or a listener, in the calls of a socket.

socket(7), tcp(7), ip(7). Options go by Linux's numbers and in Linux's encodings, so that programs that tune their sockets
through asyncio find here what they look for. There is no descriptor behind it.
"""

from __future__ import annotations

import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

from tunstack.engine import control, format_address
from tunstack.engine.connection import Connection
from tunstack.engine.errors import socket_error
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions, check_option
from tunstack.engine.sysctl import Sysctl

SOL, TCP, IP = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP
INT = struct.Struct("i")
LINGER = struct.Struct("ii")  # struct linger
RATE_UNLIMITED = (1 << 64) - 1
CONGESTION_NAME_MAX = 16  # TCP_CA_NAME_MAX
TCP_CONGESTION, TCP_USER_TIMEOUT = 13, 18  # not every build of Python names these two
SO_MAX_PACING_RATE, RATE = 47, struct.Struct("Q")  # octets a second, in 4 octets or 8; all ones: no limit
SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF = 2304, 4608

# (level, option) -> the field of SocketOptions.
INTEGERS: dict[tuple[int, int], str] = {
    (SOL, socket.SO_RCVBUF): "rcvbuf",
    (SOL, socket.SO_SNDBUF): "sndbuf",
    (TCP, socket.TCP_KEEPIDLE): "keepidle",
    (TCP, socket.TCP_KEEPINTVL): "keepintvl",
    (TCP, socket.TCP_KEEPCNT): "keepcnt",
    (TCP, socket.TCP_MAXSEG): "maxseg",
    (TCP, socket.TCP_SYNCNT): "syncnt",
    (TCP, TCP_USER_TIMEOUT): "user_timeout",
    (IP, socket.IP_TOS): "tos",
    (IP, socket.IP_TTL): "ttl",
}
BOOLEANS: dict[tuple[int, int], str] = {
    (SOL, socket.SO_KEEPALIVE): "keepalive",
    (TCP, socket.TCP_NODELAY): "nodelay",
    (TCP, socket.TCP_CORK): "cork",
    (TCP, socket.TCP_QUICKACK): "quickack",
}
CONSTANTS: dict[tuple[int, int], int] = {
    (SOL, socket.SO_TYPE): socket.SOCK_STREAM,
    (SOL, socket.SO_DOMAIN): socket.AF_INET,
    (SOL, socket.SO_PROTOCOL): socket.IPPROTO_TCP,
    (SOL, socket.SO_ERROR): 0,  # errors go to the protocol
}


def name_of(end: tuple[bytes, int]) -> tuple[str, int]:
    """Return an address and port as a socket names them."""
    return format_address(end[0]), end[1]


class _View(ABC):
    """What a connection's view and a listener's have in common: it answers as an `asyncio.trsock.TransportSocket` does."""

    __slots__ = ()
    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP
    accepts = 0  # SO_ACCEPTCONN

    def fileno(self) -> int:
        return -1

    def gettimeout(self) -> float:
        return 0.0

    def settimeout(self, value: float | None) -> None:
        if value != 0:
            raise ValueError("settimeout(): only 0 timeout is allowed on transport sockets")

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("setblocking(): transport sockets cannot be blocking")

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> int | bytes:
        """Return an option as an int or, given `buflen`, as octets. OSError ENOPROTOOPT for one that we do not have."""
        octets = self._read(level, optname)
        if (level, optname) == (SOL, SO_MAX_PACING_RATE) and buflen < RATE.size:
            octets = min(RATE.unpack(octets)[0], 0xFFFFFFFF).to_bytes(INT.size, sys.byteorder)
        if buflen:
            return octets[:buflen]
        return int(INT.unpack_from(octets)[0])

    def setsockopt(self, level: int, optname: int, value: int | bytes | bytearray | None, optlen: int = 0) -> None:
        """Set an option from an int or octets. OSError ENOPROTOOPT for one that we do not have, EINVAL for a value out of range."""
        option = (level, optname)
        if option == (SOL, socket.SO_LINGER):
            if not isinstance(value, (bytes, bytearray)) or len(value) < LINGER.size:
                raise socket_error("EINVAL")
            is_on, seconds = LINGER.unpack_from(value)
            self._set("linger", seconds if is_on else None)
        elif option == (TCP, TCP_CONGESTION):
            if not isinstance(value, (bytes, bytearray)):
                raise socket_error("EINVAL")
            self._set("congestion", bytes(value).partition(b"\0")[0][: CONGESTION_NAME_MAX - 1].decode("ascii", "replace"))
        elif option == (SOL, SO_MAX_PACING_RATE):
            self._set("max_pacing_rate", _rate(value))
        elif option in BOOLEANS:
            self._set(BOOLEANS[option], _integer(value) != 0)
        elif option in INTEGERS:
            self._set(INTEGERS[option], _integer(value))
        else:
            raise socket_error("ENOPROTOOPT")

    def _read(self, level: int, optname: int) -> bytes:
        option = (level, optname)
        options = self._options()
        sysctl = self._sysctl()
        if option == (SOL, socket.SO_LINGER):
            return LINGER.pack(options.linger is not None, options.linger or 0)
        if option == (TCP, TCP_CONGESTION):
            return self._congestion().encode().ljust(CONGESTION_NAME_MAX, b"\0")
        if option == (SOL, SO_MAX_PACING_RATE):
            return RATE.pack(RATE_UNLIMITED if options.max_pacing_rate is None else options.max_pacing_rate)
        if option == (SOL, socket.SO_ACCEPTCONN):
            return INT.pack(self.accepts)
        if option in CONSTANTS:
            return INT.pack(CONSTANTS[option])
        if option in BOOLEANS:
            value = getattr(options, BOOLEANS[option])
            return INT.pack(1 if value is None else value)  # TCP_QUICKACK begins as on
        if option in INTEGERS:
            return INT.pack(_effective(options, INTEGERS[option], sysctl, self._mss()))
        raise socket_error("ENOPROTOOPT")

    @abstractmethod
    def _options(self) -> SocketOptions: ...

    @abstractmethod
    def _sysctl(self) -> Sysctl: ...

    def _mss(self) -> int:
        return 536  # what Linux says of a socket without a connection

    def _congestion(self) -> str:
        return self._options().congestion or self._sysctl().tcp_congestion_control

    @abstractmethod
    def _set(self, name: str, value: object) -> None: ...


class SocketView(_View):
    """A connection's."""

    __slots__ = ("_conn", "_now")

    def __init__(self, conn: Connection, now: Callable[[], int]) -> None:
        self._conn = conn
        self._now = now

    def __repr__(self) -> str:
        return f"<tunstack.SocketView laddr={name_of(self._conn.local)} raddr={name_of(self._conn.remote)}>"

    def getsockname(self) -> tuple[str, int]:
        return name_of(self._conn.local)

    def getpeername(self) -> tuple[str, int]:
        """Return the peer's name; OSError ENOTCONN when the connection is over."""
        if self._conn.is_over:
            raise socket_error("ENOTCONN")
        return name_of(self._conn.remote)

    def _options(self) -> SocketOptions:
        return self._conn.options

    def _sysctl(self) -> Sysctl:
        return self._conn.stack.sysctl

    def _mss(self) -> int:
        return self._conn.mss

    def _congestion(self) -> str:
        return control.name_of(self._conn)

    def _set(self, name: str, value: object) -> None:
        self._conn.set_option(name, value, self._now())


class ListenerView(_View):
    """A listener's: what is set here is what later connections start with."""

    __slots__ = ("_listener",)
    accepts = 1

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __repr__(self) -> str:
        return f"<tunstack.ListenerView laddr={self.getsockname()}>"

    def getsockname(self) -> tuple[str, int]:
        return name_of((self._listener.address, self._listener.port))

    def getpeername(self) -> tuple[str, int]:
        """Raise OSError ENOTCONN."""
        raise socket_error("ENOTCONN")

    def _options(self) -> SocketOptions:
        return self._listener.options

    def _sysctl(self) -> Sysctl:
        return self._listener.stack.sysctl

    def _set(self, name: str, value: object) -> None:
        setattr(self._listener.options, name, check_option(name, value, self._listener.stack.algorithms))


def _effective(options: SocketOptions, field: str, sysctl: Sysctl, mss: int) -> int:
    """Return an option's value in force: as set or, where it never was, as the stack has it."""
    value = getattr(options, field)
    if field == "maxseg":
        return mss
    if field == "rcvbuf":  # Linux tells twice what was asked for: half of it is room for its bookkeeping
        return sysctl.tcp_rmem[1] if value is None else max(2 * int(value), SOCK_MIN_RCVBUF)
    if field == "sndbuf":
        return sysctl.tcp_wmem[1] if value is None else max(2 * int(value), SOCK_MIN_SNDBUF)
    if value is not None:
        return int(value)
    defaults = {
        "keepidle": sysctl.tcp_keepalive_time,
        "keepintvl": sysctl.tcp_keepalive_intvl,
        "keepcnt": sysctl.tcp_keepalive_probes,
        "syncnt": sysctl.tcp_syn_retries,
        "ttl": sysctl.ip_default_ttl,
    }
    return defaults[field]


def _integer(value: int | bytes | bytearray | None) -> int:
    if isinstance(value, int):
        return value
    if value is None or len(value) < INT.size:
        raise socket_error("EINVAL")
    return int(INT.unpack_from(value)[0])


def _rate(value: int | bytes | bytearray | None) -> int | None:
    """Return the rate that SO_MAX_PACING_RATE sets, None for no limit."""
    if value is not None and not isinstance(value, int) and len(value) >= RATE.size:
        rate = int(RATE.unpack_from(value)[0])
        return None if rate == RATE_UNLIMITED else rate
    rate = _integer(value) & 0xFFFFFFFF
    return None if rate == 0xFFFFFFFF else rate
