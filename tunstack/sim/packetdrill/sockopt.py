"""getsockopt(2) and setsockopt(2) of a socket: the engine's options (tunstack.engine.sockopt), and those that belong to a process's calls.

Times of options are in their own units.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tunstack.engine.sockopt import getsockopt as engine_getsockopt
from tunstack.engine.sockopt import number_of
from tunstack.engine.sockopt import setsockopt as engine_setsockopt
from tunstack.sim.packetdrill.sockets import Socket, error_of

SO_MEMINFO = 55
SO_ZEROCOPY = 60
IP_MTU_DISCOVER = 10

TIMEVAL = struct.Struct("=qq")
SECOND = 1_000_000

# Options that a script may set and that change nothing that TCP does here.
STORED = frozenset(
    (
        (socket.SOL_SOCKET, SO_ZEROCOPY),
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
    return engine_getsockopt(sock, level, name, length)[:length]


def setsockopt(sock: Socket, level: int, name: int, value: bytes) -> None:
    """Set an option."""
    special = SPECIAL.get((level, name))
    if special is not None:
        if special.set is None:
            raise error_of(errno.ENOPROTOOPT)
        special.set(sock, value)
    elif (level, name) in STORED:
        is_octet = level == socket.IPPROTO_IP and 1 <= len(value) < 4  # ip(7)
        sock.extras.stored[level, name] = value[0] if is_octet else number_of(value)
    else:
        engine_setsockopt(sock, level, name, value)


def _pack(number: int) -> bytes:
    return struct.pack("=i", number) if number < 1 << 31 else struct.pack("=I", number)


# Options one by one.


def _get_error(sock: Socket) -> bytes:
    return _pack(sock.take_error().errno or 0)


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


def _set_reuse_port(sock: Socket, value: bytes) -> None:
    sock.extras.reuse_port = bool(number_of(value))


def _get_meminfo(sock: Socket) -> bytes:
    """SO_MEMINFO: octets of memory, as far as they are known here (linux/sock_diag.h)."""
    conn = sock.conn
    queued = conn.tx.queue.end - conn.tx.queue.start if conn is not None else 0
    received = conn.readable if conn is not None else 0
    return struct.pack("=9I", received, sock.rcvbuf, 0, sock.sndbuf, 0, queued, 0, 0, 0)


SPECIAL: dict[tuple[int, int], Special] = {
    (socket.SOL_SOCKET, socket.SO_ERROR): Special(_get_error, None),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT): Special(lambda sock: _pack(sock.extras.reuse_port), _set_reuse_port),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO): Special(_get_timeout("receive_timeout"), _set_timeout("receive_timeout")),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO): Special(_get_timeout("send_timeout"), _set_timeout("send_timeout")),
    (socket.SOL_SOCKET, SO_MEMINFO): Special(_get_meminfo, None),
}
