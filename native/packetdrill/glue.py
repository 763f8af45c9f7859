"""Runs inside the shared library, when the interpreter starts: cffi's functions of plugin.c, on top of tunstack.sim.packetdrill.

Turns pointers into octets and back, and OSError into -1 and errno. Anything else that is raised is a fault of ours: it is shown, and
the call fails with EIO. `ffi` and `lib` come from the library itself.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from _tunstack_packetdrill import ffi, lib

from tunstack.sim.packetdrill import Calls, parse_flags

calls: Calls
SOCKADDR_IN = 16  # octets


def export(function: Callable[..., int]) -> Callable[..., int]:
    """Make a function the one of its name in plugin.c."""

    def guarded(*arguments: Any) -> int:
        try:
            return function(*arguments)
        except OSError as error:
            ffi.errno = error.errno or errno.EIO
        except Exception:
            traceback.print_exc()
            ffi.errno = errno.EIO
        return -1

    return ffi.def_extern(name=function.__name__)(guarded)  # type: ignore[no-any-return]


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def address_from(address: Any, length: int) -> tuple[bytes, int] | None:
    """Read a struct sockaddr; None for AF_UNSPEC."""
    if length < 2 or address == ffi.NULL:
        raise fault(errno.EINVAL)
    octets = bytes(ffi.buffer(address, min(length, SOCKADDR_IN)))
    family = int.from_bytes(octets[:2], sys.byteorder)
    if family == socket.AF_UNSPEC:
        return None
    if family != socket.AF_INET:
        raise fault(errno.EAFNOSUPPORT)
    if length < SOCKADDR_IN:
        raise fault(errno.EINVAL)
    return octets[4:8], int.from_bytes(octets[2:4], "big")


def mark(fd: int, is_ours: bool) -> int:
    """Tell plugin.c whose a descriptor is."""
    if 0 <= fd < lib.OWNED_MAX:
        lib.ts_owned[fd] = is_ours
    return fd


@export
def ts_init(flags: Any) -> int:
    global calls
    try:
        calls = Calls(parse_flags(ffi.string(flags).decode()))
    except ValueError as error:
        print(f"tunstack: {error}", file=sys.stderr)
        return -1
    return 0


@export
def ts_now() -> int:
    now = calls.gettimeofday()
    if calls.host.returning:
        lib.ts_returning, calls.host.returning = calls.host.returning, 0
    return now


@export
def ts_usleep(microseconds: int) -> int:
    calls.usleep(microseconds)
    return 0


@export
def ts_netdev_send(packet: Any, size: int) -> int:
    calls.netdev_send(bytes(ffi.buffer(packet, size)))
    return 0


@export
def ts_netdev_receive(buffer: Any, size: Any, time: Any) -> int:
    """Where nothing will ever leave: success with no octets, which packetdrill takes for a bad packet. After -1 it would ask for ever."""
    found = calls.netdev_receive()
    if found is None:
        print("tunstack: no packet leaves, now or later", file=sys.stderr)
        size[0] = 0
        time[0] = calls.gettimeofday()
        return 0
    frame, at = found
    frame = frame[: size[0]]
    ffi.memmove(buffer, frame, len(frame))
    size[0] = len(frame)
    time[0] = at
    return 0


@export
def ts_socket(domain: int, kind: int, protocol: int) -> int:
    return mark(calls.socket(domain, kind, protocol), True)


@export
def ts_bind(fd: int, address: Any, length: int) -> int:
    where = address_from(address, length)
    if where is None:
        raise fault(errno.EAFNOSUPPORT)
    calls.bind(fd, where)
    return 0


@export
def ts_listen(fd: int, backlog: int) -> int:
    calls.listen(fd, backlog)
    return 0


@export
def ts_accept(fd: int, address: Any, length: Any) -> int:
    accepted, (host, port) = calls.accept(fd)
    if address != ffi.NULL and length != ffi.NULL:
        octets = int(socket.AF_INET).to_bytes(2, sys.byteorder) + port.to_bytes(2, "big") + host + bytes(8)
        ffi.memmove(address, octets, min(len(octets), length[0]))
        length[0] = len(octets)
    return mark(accepted, True)


@export
def ts_connect(fd: int, address: Any, length: int) -> int:
    calls.connect(fd, address_from(address, length))
    return 0


@export
def ts_receive(fd: int, buffer: Any, size: int, flags: int) -> int:
    data = calls.receive(fd, size, flags)
    ffi.memmove(buffer, data, len(data))
    return len(data)


@export
def ts_send(fd: int, data: Any, size: int, flags: int, address: Any, length: int) -> int:
    octets = bytes(ffi.buffer(data, size)) if size else b""
    return calls.send(fd, octets, flags, address_from(address, length) if address != ffi.NULL and length else None)


@export
def ts_fcntl(fd: int, command: int, argument: int) -> int:
    return calls.fcntl(fd, command, argument)


@export
def ts_ioctl(fd: int, request: int, argument: Any) -> int:
    argument[0] = calls.ioctl(fd, request, argument[0])
    return 0


@export
def ts_close(fd: int) -> int:
    mark(fd, False)
    calls.close(fd)
    return 0


@export
def ts_shutdown(fd: int, how: int) -> int:
    calls.shutdown(fd, how)
    return 0


@export
def ts_getsockopt(fd: int, level: int, name: int, value: Any, length: Any) -> int:
    octets = calls.getsockopt(fd, level, name, length[0])
    ffi.memmove(value, octets, len(octets))
    length[0] = len(octets)
    return 0


@export
def ts_setsockopt(fd: int, level: int, name: int, value: Any, length: int) -> int:
    calls.setsockopt(fd, level, name, bytes(ffi.buffer(value, length)) if length else b"")
    return 0


@export
def ts_poll(asked: Any, count: int, timeout: int) -> int:
    found = calls.poll([(asked[i].fd, asked[i].events) for i in range(count)], timeout)
    for i, events in enumerate(found):
        asked[i].revents = events
    return sum(map(bool, found))


@export
def ts_epoll_create() -> int:
    return calls.epoll_create()


@export
def ts_epoll_ctl(epfd: int, operation: int, fd: int, events: int, data: int) -> int:
    calls.epoll_ctl(epfd, operation, fd, events, data)
    return 0


@export
def ts_epoll_wait(epfd: int, bits: Any, data: Any, most: int, timeout: int) -> int:
    ready = calls.epoll_wait(epfd, most, timeout)
    for i, (events, value) in enumerate(ready):
        bits[i] = events
        data[i] = value
    return len(ready)


@export
def ts_pipe(fds: Any) -> int:
    fds[0], fds[1] = calls.pipe()
    return 0


@export
def ts_splice(source: int, target: int, size: int, flags: int) -> int:
    return calls.splice(source, target, size, flags)
