"""The system calls, on Python values: octets in and out, numbers, OSError with the errno.

One method a call of packetdrill's interface; native/packetdrill/glue.py turns pointers into these values and back. Each takes the
host's lock, takes over the knobs that a script has set, acts, and lets the stack send what it will. Times are int microseconds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import termios
from collections.abc import Callable, Sequence
from typing import Any

from tunstack.sim.packetdrill import sockopt
from tunstack.sim.packetdrill.descriptors import Descriptors, Pipe
from tunstack.sim.packetdrill.epoll import Epoll
from tunstack.sim.packetdrill.flags import Flags
from tunstack.sim.packetdrill.host import Host, WouldBlock
from tunstack.sim.packetdrill.sockets import OPENING, Address, Socket, error_of

MSG_FASTOPEN = 0x20000000
SIOCINQ = termios.FIONREAD
SIOCOUTQ = termios.TIOCOUTQ
SIOCOUTQNSD = 0x894B
SIOCATMARK = 0x8905
SPLICE_F_NONBLOCK = 2
POLLNVAL = select.POLLNVAL
MS = 1000


class Calls:
    """A host and the calls of the processes on it."""

    def __init__(self, flags: Flags) -> None:
        self.host = Host(flags)
        self._files = Descriptors()
        self._epolls: list[Epoll] = []

    # The clock and the wire.

    def gettimeofday(self) -> int:
        """Return the time, us."""
        with self.host.lock:
            return self.host.look_at_clock()

    def usleep(self, microseconds: int) -> None:
        """Go forward in time."""
        with self.host.lock:
            self.host.read_knobs()
            self.host.run_until(self.host.now + microseconds)

    def netdev_send(self, frame: bytes) -> None:
        """The host receives a packet."""
        with self.host.lock:
            self.host.read_knobs()
            self.host.inject(frame)

    def netdev_receive(self) -> tuple[bytes, int] | None:
        """Return the next packet that the host sends, and when; None if there will be none."""
        with self.host.lock:
            self.host.read_knobs()
            return self.host.next_frame()

    # Sockets.

    def socket(self, domain: int, kind: int, protocol: int) -> int:
        """socket(2): AF_INET, SOCK_STREAM."""
        with self.host.lock:
            self.host.read_knobs()
            if domain != socket.AF_INET:
                raise error_of(errno.EAFNOSUPPORT)
            if kind & ~(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) != socket.SOCK_STREAM:
                raise error_of(errno.ESOCKTNOSUPPORT)
            if protocol not in (0, socket.IPPROTO_TCP):
                raise error_of(errno.EPROTONOSUPPORT)
            flags = os.O_RDWR | (os.O_NONBLOCK if kind & socket.SOCK_NONBLOCK else 0)
            return self._files.add(Socket(self.host, self._files.new(), flags))

    def bind(self, fd: int, address: Address) -> None:
        """bind(2)."""
        self._act(fd, lambda sock: sock.bind(address))

    def listen(self, fd: int, backlog: int) -> None:
        """listen(2)."""
        self._act(fd, lambda sock: sock.listen(backlog))

    def accept(self, fd: int) -> tuple[int, Address]:
        """accept(2): return the descriptor and the peer's address."""
        with self.host.lock:
            self.host.read_knobs()
            sock = self._socket(fd)
            accepted: Socket = self._wait(sock, lambda: sock.accept(-1), sock.extras.receive_timeout, 0)
            accepted.fd = self._files.new()
            assert accepted.conn is not None
            return self._files.add(accepted), accepted.conn.remote

    def connect(self, fd: int, address: Address | None) -> None:
        """connect(2); no address: AF_UNSPEC, which disconnects."""
        with self.host.lock:
            self.host.read_knobs()
            sock = self._socket(fd)
            if address is None:
                sock.disconnect()
                self.host.settle()
                return
            try:
                sock.connect(address)
            except OSError as error:
                self.host.settle()
                if error.errno not in (errno.EINPROGRESS, errno.EALREADY) or sock.flags & os.O_NONBLOCK:
                    raise
            if not sock.is_deferred:
                self._wait(sock, sock.connect_result, sock.extras.send_timeout, 0, errno.EINPROGRESS)

    def shutdown(self, fd: int, how: int) -> None:
        """shutdown(2)."""
        self._act(fd, lambda sock: sock.shutdown(how))

    def close(self, fd: int) -> None:
        """close(2); waits where SO_LINGER says so."""
        with self.host.lock:
            self.host.read_knobs()
            file = self._files.remove(fd)
            for epoll in self._epolls:
                epoll.forget(fd)
            lingers_until = file.lingers_until if isinstance(file, Socket) else None
            file.close()
            self.host.settle()
            if isinstance(file, Socket) and lingers_until is not None and not file.flags & os.O_NONBLOCK:
                self.host.block(file.linger, lingers_until, lambda: None)

    def receive(self, fd: int, length: int, flags: int) -> bytes:
        """read(2), recv(2) and their kin."""
        with self.host.lock:
            self.host.read_knobs()
            sock = self._socket(fd)
            data: bytes = self._wait(sock, lambda: sock.receive(length, flags), sock.extras.receive_timeout, flags)
            return data

    def send(self, fd: int, data: bytes, flags: int, address: Address | None = None) -> int:
        """write(2), send(2) and their kin: all of it, unless that would block where it must not."""
        with self.host.lock:
            self.host.read_knobs()
            sock = self._socket(fd)
            if address is not None and sock.conn is not None and not (flags & MSG_FASTOPEN or sock.is_deferred or sock.is_established):
                raise error_of(errno.EISCONN)
            sent = 0
            if flags & MSG_FASTOPEN or sock.is_deferred:
                sent = self._open_fast(sock, data, flags, address)
                if sock.flags & os.O_NONBLOCK or flags & socket.MSG_DONTWAIT or sent == len(data):
                    return sent
            has_waited = False

            def attempt() -> int:
                nonlocal sent, has_waited
                if has_waited and not sock.may_write and not sock.error and not sock.shut:
                    raise WouldBlock  # who waits for room is woken when there is much of it
                try:
                    sent += sock.send(data[sent:], flags)
                except WouldBlock:
                    has_waited = True
                    raise
                except OSError:
                    if sent:  # what went is told first
                        return sent
                    raise
                if sent < len(data):
                    has_waited = True
                    raise WouldBlock
                return sent

            try:
                self._wait(sock, attempt, sock.extras.send_timeout, flags)
            except OSError as error:
                self.host.settle()
                if error.errno != errno.EAGAIN or not sent:
                    raise
            return sent

    def _open_fast(self, sock: Socket, data: bytes, flags: int, address: Address | None) -> int:
        """send(2) with MSG_FASTOPEN, or the first after a connect(2) that was put off: return how many octets went.

        Who blocks waits for the connection, and what does not fit the SYN follows its answer; others are told what fits.
        """
        may_block = not (sock.flags & os.O_NONBLOCK or flags & socket.MSG_DONTWAIT)
        sent = sock.open_fast(data, address, may_block)
        self.host.settle()
        if may_block:
            self._wait(sock, sock.connect_result, sock.extras.send_timeout, 0, errno.EINPROGRESS)
        elif not sent:
            raise error_of(errno.EINPROGRESS)
        return sent

    def getsockopt(self, fd: int, level: int, name: int, length: int) -> bytes:
        """getsockopt(2)."""
        with self.host.lock:
            self.host.read_knobs()
            sock = self._socket(fd)
            sock.notice()
            return sockopt.getsockopt(sock, level, name, length)

    def setsockopt(self, fd: int, level: int, name: int, value: bytes) -> None:
        """setsockopt(2)."""
        self._act(fd, lambda sock: sockopt.setsockopt(sock, level, name, value))

    # Descriptors.

    def fcntl(self, fd: int, command: int, argument: int) -> int:
        """fcntl(2): the flags."""
        with self.host.lock:
            file = self._files.get(fd)
            if command == fcntl.F_GETFL:
                return file.flags
            if command == fcntl.F_SETFL:
                file.flags = file.flags & os.O_ACCMODE | argument & ~os.O_ACCMODE
                return 0
            if command in (fcntl.F_GETFD, fcntl.F_SETFD):
                return fcntl.fcntl(fd, command, argument)
            raise error_of(errno.EINVAL)

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """ioctl(2): return the number that goes to where the third argument points; FIONBIO takes it from there."""
        with self.host.lock:
            self.host.read_knobs()
            sock = self._socket(fd)
            if request == termios.FIONBIO:
                sock.flags = sock.flags | os.O_NONBLOCK if argument else sock.flags & ~os.O_NONBLOCK
                return argument
            if request not in (SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK):
                raise error_of(errno.ENOTTY)
            if sock.listener is not None:
                raise error_of(errno.EINVAL)
            conn = sock.conn
            if conn is None or conn.state in OPENING:
                return 0
            if request == SIOCATMARK:
                return conn.is_at_mark
            return conn.readable if request == SIOCINQ else conn.unsent if request == SIOCOUTQNSD else conn.unsent + conn.unacked

    def poll(self, asked: Sequence[tuple[int, int]], timeout: int) -> list[int]:
        """poll(2): for each (descriptor, events) what is there of them; waits `timeout` ms for any, for ever if negative."""

        def look() -> list[int]:
            found = []
            for fd, events in asked:
                try:
                    there = self._files.get(fd).poll() & (events | select.POLLERR | select.POLLHUP) if fd >= 0 else 0
                except OSError:
                    there = POLLNVAL
                found.append(there)
            return found

        def attempt() -> list[int]:
            found = look()
            if not any(found):
                raise WouldBlock
            return found

        with self.host.lock:
            self.host.read_knobs()
            deadline = None if timeout < 0 else self.host.now + timeout * MS
            found: list[int] = self.host.block(attempt, deadline, look)
            return found

    def epoll_create(self) -> int:
        """epoll_create(2)."""
        with self.host.lock:
            epoll = Epoll(self._files.new(), self._files)
            self._epolls.append(epoll)
            return self._files.add(epoll)

    def epoll_ctl(self, epfd: int, operation: int, fd: int, events: int, data: int) -> None:
        """epoll_ctl(2)."""
        with self.host.lock:
            self._epoll(epfd).control(operation, fd, events, data)

    def epoll_wait(self, epfd: int, most: int, timeout: int) -> list[tuple[int, int]]:
        """epoll_wait(2): return (events, data) of what is ready; waits `timeout` ms, for ever if negative."""
        with self.host.lock:
            self.host.read_knobs()
            epoll = self._epoll(epfd)
            deadline = None if timeout < 0 else self.host.now + timeout * MS
            ready: list[tuple[int, int]] = self.host.block(lambda: epoll.wait(most), deadline, list)
            return ready

    def pipe(self) -> tuple[int, int]:
        """pipe(2): the kernel's."""
        with self.host.lock:
            reader, writer = os.pipe()
            self._files.add(Pipe(reader, os.O_RDONLY))
            self._files.add(Pipe(writer, os.O_WRONLY))
            return reader, writer

    def splice(self, source: int, target: int, length: int, flags: int) -> int:
        """splice(2) between a socket and a pipe."""
        with self.host.lock:
            files = self._files.get(source), self._files.get(target)
        if isinstance(files[0], Socket) and isinstance(files[1], Pipe):
            return os.write(target, self.receive(source, length, socket.MSG_DONTWAIT if flags & SPLICE_F_NONBLOCK else 0))
        if isinstance(files[0], Pipe) and isinstance(files[1], Socket):
            return self.send(target, os.read(source, length), socket.MSG_DONTWAIT if flags & SPLICE_F_NONBLOCK else 0)
        raise error_of(errno.EINVAL)

    # Helpers.

    def _socket(self, fd: int) -> Socket:
        file = self._files.get(fd)
        if not isinstance(file, Socket):
            raise error_of(errno.ENOTSOCK)
        return file

    def _epoll(self, fd: int) -> Epoll:
        file = self._files.get(fd)
        if not isinstance(file, Epoll):
            raise error_of(errno.EINVAL)
        return file

    def _act(self, fd: int, action: Callable[[Socket], None]) -> None:
        with self.host.lock:
            self.host.read_knobs()
            try:
                action(self._socket(fd))
            finally:
                self.host.settle()

    def _wait(self, sock: Socket, attempt: Callable[[], Any], timeout: int | None, flags: int, number: int = errno.EAGAIN) -> Any:
        """Return what the attempt does, having waited if the socket blocks; `number` is the errno where time is up."""

        def give_up() -> Any:
            raise OSError(number, os.strerror(number))

        if sock.flags & os.O_NONBLOCK or flags & socket.MSG_DONTWAIT:
            try:
                result = attempt()
            except WouldBlock:
                give_up()
            self.host.settle()
            return result
        return self.host.block(attempt, None if timeout is None else self.host.now + timeout, give_up)
