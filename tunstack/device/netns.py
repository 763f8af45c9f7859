"""Network namespaces: going into one to open an interface there. setns(2), ip-netns(8)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunstack.device.errors import DeviceError

NETNS_DIRECTORY = Path("/run/netns")  # where `ip netns add` mounts them
_OWN = Path("/proc/thread-self/ns/net")
_CLONE_NEWNET = 0x40000000


def namespace_path(name: str) -> Path:
    """Return where a namespace is: a path stands for itself, a name for what `ip netns` calls so, nothing for the thread's own."""
    if not name:
        return _OWN
    return Path(name) if "/" in name else NETNS_DIRECTORY / name


def same_namespace(one: str, other: str) -> bool:
    """Tell whether two names mean one namespace; DeviceError if there is none of a name."""
    first, second = _stat(one), _stat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _stat(name: str) -> os.stat_result:
    try:
        return namespace_path(name).stat()
    except OSError as error:
        raise _missing(name, error) from None


def _missing(name: str, error: OSError) -> DeviceError:
    if error.errno == errno.ENOENT and "/" not in name:
        return DeviceError(errno.ENOENT, f"there is no network namespace {name!r}: make it with `ip netns add {name}`")
    return DeviceError(error.errno or errno.EIO, f"network namespace {name!r} cannot be opened: {error.strerror}")


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Put the calling thread into a network namespace, and back. DeviceError if it cannot be; it takes CAP_SYS_ADMIN."""
    if not name:
        yield
        return
    try:
        target = os.open(namespace_path(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _missing(name, error) from None
    try:
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(target, name)
            try:
                yield
            finally:
                _enter(home, "")
        finally:
            os.close(home)
    finally:
        os.close(target)


def _enter(fd: int, name: str) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):  # os.setns came with Python 3.12
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise DeviceError(number, f"entering network namespace {name!r} needs CAP_SYS_ADMIN: run as root")
        raise DeviceError(number, f"network namespace {name!r} cannot be entered: {os.strerror(number)}")


def enter_new_namespace() -> None:
    """Put the calling process, which has one thread, into a namespace of its own that ends with it. DeviceError if it cannot be."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise DeviceError(number, "making a network namespace needs CAP_SYS_ADMIN: run as root")
        raise DeviceError(number, f"no network namespace can be made: {os.strerror(number)}")
