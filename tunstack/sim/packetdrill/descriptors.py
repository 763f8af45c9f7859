"""File descriptors: each is a real one of the process, so that whoever closes it with close(2) closes something of its own."""

from __future__ import annotations

import errno
import os
from typing import Protocol


class File(Protocol):
    """What a descriptor stands for."""

    fd: int
    flags: int  # O_NONBLOCK and the like, for fcntl(2)

    def poll(self) -> int:
        """Return the events that poll(2) would report, whoever asks."""

    def close(self) -> None:
        """The descriptor was closed."""


class Pipe:
    """One end of a pipe of the kernel's, for splice(2)."""

    def __init__(self, fd: int, flags: int) -> None:
        self.fd = fd
        self.flags = flags

    def poll(self) -> int:
        """A pipe is here for splicing only."""
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def close(self) -> None: ...


class Descriptors:
    """The table of descriptors that are ours."""

    def __init__(self) -> None:
        self._files: dict[int, File] = {}

    def new(self) -> int:
        """Return a fresh descriptor, of nothing."""
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def add(self, file: File) -> int:
        """Have a descriptor stand for a file; return it."""
        self._files[file.fd] = file
        return file.fd

    def get(self, fd: int) -> File:
        """Return what a descriptor stands for; OSError EBADF if it is none of ours."""
        try:
            return self._files[fd]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def remove(self, fd: int) -> File:
        """Close a descriptor and return what it stood for."""
        file = self.get(fd)
        del self._files[fd]
        os.close(fd)
        return file
