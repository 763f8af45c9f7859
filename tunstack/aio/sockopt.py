"""What `get_extra_info('socket')` gives: names and options of a connection or a listener, in the calls of a socket.

socket(7), tcp(7), ip(7). Options go by Linux's numbers and in Linux's encodings, so that programs that tune their sockets
through asyncio find here what they look for. There is no descriptor behind it.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

from tunstack.engine import format_address
from tunstack.engine.connection import Connection
from tunstack.engine.errors import socket_error
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.sockopt import INT, getsockopt, setsockopt
from tunstack.engine.sysctl import Sysctl


def name_of(end: tuple[bytes, int]) -> tuple[str, int]:
    """Return an address and port as a socket names them."""
    return format_address(end[0]), end[1]


class _View(ABC):
    """What a connection's view and a listener's have in common: it answers as an `asyncio.trsock.TransportSocket` does."""

    __slots__ = ()
    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

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
        octets = getsockopt(self, level, optname, buflen)
        if buflen:
            return octets[:buflen]
        return int(INT.unpack_from(octets.ljust(INT.size, b"\0"))[0])

    def setsockopt(self, level: int, optname: int, value: int | bytes | bytearray | None, optlen: int = 0) -> None:
        """Set an option from an int or octets. OSError ENOPROTOOPT for one that we do not have, EINVAL for a value out of range."""
        octets = INT.pack(value) if isinstance(value, int) else bytes(value or b"")
        setsockopt(self, level, optname, octets)

    # What engine.sockopt asks for.

    @property
    @abstractmethod
    def options(self) -> SocketOptions: ...

    @property
    @abstractmethod
    def sysctl(self) -> Sysctl: ...

    @property
    def conn(self) -> Connection | None:
        return None

    @property
    def listener(self) -> Listener | None:
        return None

    @abstractmethod
    def now(self) -> int: ...

    @abstractmethod
    def set_option(self, name: str, value: object) -> None: ...


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

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Send with MSG_OOB: the last octet is urgent. All is taken, behind what the transport was given. OSError EPIPE at the end.

        Without the flag: OSError EOPNOTSUPP, the stream is the transport's.
        """
        if flags != socket.MSG_OOB:
            raise socket_error("EOPNOTSUPP")
        octets = bytes(data)
        self._conn.send(octets, self._now(), urgent=True)
        return len(octets)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Take the urgent octet: MSG_OOB, and MSG_PEEK if it is to stay. OSError EINVAL or EAGAIN if there is none.

        Without the flag: OSError EOPNOTSUPP, the stream is the protocol's.
        """
        if flags & ~socket.MSG_PEEK != socket.MSG_OOB:
            raise socket_error("EOPNOTSUPP")
        return self._conn.read_urgent(bool(flags & socket.MSG_PEEK))[:bufsize]

    def sockatmark(self) -> bool:
        """Tell whether the protocol was given all up to the urgent octet, and nothing behind it (sockatmark(3))."""
        return self._conn.is_at_mark

    @property
    def options(self) -> SocketOptions:
        return self._conn.options

    @property
    def sysctl(self) -> Sysctl:
        return self._conn.stack.sysctl

    @property
    def conn(self) -> Connection | None:
        return self._conn

    def now(self) -> int:
        return self._now()

    def set_option(self, name: str, value: object) -> None:
        self._conn.set_option(name, value, self._now())


class ListenerView(_View):
    """A listener's: what is set here is what later connections start with."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __repr__(self) -> str:
        return f"<tunstack.ListenerView laddr={self.getsockname()}>"

    def getsockname(self) -> tuple[str, int]:
        return name_of((self._listener.address, self._listener.port))

    def getpeername(self) -> tuple[str, int]:
        """Raise OSError ENOTCONN."""
        raise socket_error("ENOTCONN")

    @property
    def options(self) -> SocketOptions:
        return self._listener.options

    @property
    def sysctl(self) -> Sysctl:
        return self._listener.stack.sysctl

    @property
    def listener(self) -> Listener | None:
        return self._listener

    def now(self) -> int:
        return 0  # nothing of a listener's depends on it

    def set_option(self, name: str, value: object) -> None:
        self._listener.set_option(name, value)
