"""epoll(7): level-triggered, edge-triggered and one-shot."""

from __future__ import annotations

import errno
import select
from dataclasses import dataclass

from tunstack.sim.packetdrill.descriptors import Descriptors
from tunstack.sim.packetdrill.host import WouldBlock
from tunstack.sim.packetdrill.sockets import Socket, error_of

EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
EPOLL_CTL_MOD = 3
ALWAYS = select.EPOLLERR | select.EPOLLHUP  # reported whether asked for or not


@dataclass(slots=True)
class Interest:
    """What was asked about a descriptor."""

    events: int
    data: int  # 64 bits that come back with an event
    seen: int = 0  # what was there at the last look (edge triggered)
    received: int = -1  # how far the peer's data had come then
    is_spent: bool = False  # one-shot, and shot


class Epoll:
    """An instance; it stands behind a descriptor of its own."""

    def __init__(self, fd: int, files: Descriptors) -> None:
        self.fd = fd
        self.flags = 0
        self._files = files
        self._interests: dict[int, Interest] = {}

    def control(self, operation: int, fd: int, events: int, data: int) -> None:
        """epoll_ctl(2)."""
        if not isinstance(self._files.get(fd), (Socket, Epoll)):
            raise error_of(errno.EPERM)
        if fd == self.fd:
            raise error_of(errno.EINVAL)
        if operation == EPOLL_CTL_ADD:
            if fd in self._interests:
                raise error_of(errno.EEXIST)
            self._interests[fd] = Interest(events, data)
        elif fd not in self._interests:
            raise error_of(errno.ENOENT)
        elif operation == EPOLL_CTL_MOD:
            self._interests[fd] = Interest(events, data)
        elif operation == EPOLL_CTL_DEL:
            del self._interests[fd]
        else:
            raise error_of(errno.EINVAL)

    def forget(self, fd: int) -> None:
        """A descriptor was closed."""
        self._interests.pop(fd, None)

    def wait(self, most: int) -> list[tuple[int, int]]:
        """epoll_wait(2): at least one (events, data); WouldBlock where there is none."""
        if most <= 0:
            raise error_of(errno.EINVAL)
        ready: list[tuple[int, int]] = []
        for fd, interest in self._interests.items():
            events = self._events(fd, interest)
            if interest.events & select.EPOLLET and not self._is_edge(fd, interest, events):
                continue
            if not events or len(ready) == most:
                continue
            ready.append((events, interest.data))
            interest.is_spent = bool(interest.events & select.EPOLLONESHOT)
        if not ready:
            raise WouldBlock
        return ready

    def _events(self, fd: int, interest: Interest) -> int:
        return 0 if interest.is_spent else self._files.get(fd).poll() & (interest.events | ALWAYS)

    def _is_edge(self, fd: int, interest: Interest, events: int) -> bool:
        """Whether something is there that was not at the last look, more data among it."""
        file = self._files.get(fd)
        received = file.received if isinstance(file, Socket) else 0
        is_edge = bool(events & ~interest.seen) or (bool(interest.events & select.EPOLLIN) and received != interest.received)
        interest.seen = events
        interest.received = received
        return is_edge

    def poll(self) -> int:
        """Readable where anything is ready."""
        for fd, interest in self._interests.items():
            if self._events(fd, interest):
                return select.POLLIN | select.POLLRDNORM
        return 0

    def close(self) -> None: ...
