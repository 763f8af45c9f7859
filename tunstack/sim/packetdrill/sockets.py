"""A stream socket as POSIX and Linux know it, over the engine's listeners and connections.

socket(2), accept(2), connect(2), recv(2), send(2), shutdown(2), close(2), poll(2), tcp(7). Nothing here waits: what would block raises
WouldBlock, and calls.py waits. Lengths are octets, times int microseconds.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from dataclasses import dataclass, field

from tunstack.engine import ANY_IPV4, NULL_SINK, Connection, Listener, SocketOptions, State, Sysctl, fastopenclient, sendbuffer
from tunstack.engine.fastopencookie import CLIENT
from tunstack.engine.fastopenrequest import is_writable
from tunstack.engine.handshake import buffer_limits
from tunstack.engine.options import check_option
from tunstack.sim.packetdrill import sendspace
from tunstack.sim.packetdrill.host import Host, WouldBlock
from tunstack.wire.flow import pack_flow

POLLRDHUP = 0x2000
RCV_SHUTDOWN = 1
SEND_SHUTDOWN = 2
OPENING = (State.SYN_SENT, State.SYN_RECEIVED)

Address = tuple[bytes, int]


def error_of(number: int) -> OSError:
    """Return the OSError of an errno."""
    return OSError(number, os.strerror(number))


@dataclass(slots=True)
class Extras:
    """Options of a socket that the engine knows nothing of. Times in microseconds, None: for ever."""

    reuse_port: bool = False
    receive_timeout: int | None = None
    send_timeout: int | None = None
    stored: dict[tuple[int, int], int] = field(default_factory=dict)  # options without effect on TCP, by level and name


class Socket:
    """A stream socket. In order: new, perhaps bound; then listening, or connecting and connected; then disconnected.

    It is the sink of its connection, which stays paused: data waits in the engine until it is read.
    """

    def __init__(self, host: Host, fd: int, flags: int) -> None:
        self.host = host
        self.fd = fd
        self.flags = flags
        self.options = SocketOptions()
        self.extras = Extras()
        self.local: Address | None = None  # bind(2)
        self.listener: Listener | None = None
        self.conn: Connection | None = None
        self.error: OSError | None = None  # so_error, told once
        self.shut = 0  # what was shut down, by us or because it is over
        self._has_noticed = False  # that the connection is over
        self.is_established = False
        self._sndbuf = host.stack.sysctl.tcp_wmem[1]

    # Options.

    @property
    def sysctl(self) -> Sysctl:
        """The knobs of the stack."""
        return self.host.stack.sysctl

    @property
    def rcvbuf(self) -> int:
        """The size of the receive buffer in memory, as far as it has grown."""
        if self.conn is not None and self.conn.rx is not None:
            return self.conn.rx.rcvbuf
        return buffer_limits(self.options, self.sysctl)[0]

    @property
    def sndbuf(self) -> int:
        """The size of the send buffer in memory; it is never less than it was while nobody sets it."""
        size = self.conn.sndbuf if self.conn is not None else sendbuffer.size(self.options.sndbuf, None, self.sysctl)
        if self.options.sndbuf is not None:
            return size
        self._sndbuf = max(self._sndbuf, size)
        return self._sndbuf

    def now(self) -> int:
        """The host's time."""
        return self.host.now

    def set_option(self, name: str, value: object) -> None:
        """Set an option of the engine's, OSError if it does not fit; connections to come take it from here."""
        if self.conn is not None:
            self.conn.set_option(name, value, self.host.now)
            self.options = self.conn.options
        elif self.listener is not None:
            self.listener.set_option(name, value)
            self.options = self.listener.options
        else:
            self.options = self.options.having(name, check_option(name, value))

    @property
    def _notsent_lowat(self) -> int | None:
        return self.options.notsent_lowat or None

    # The sink.

    def on_established(self) -> None:
        self.is_established = True

    def on_data(self, data: memoryview | bytes) -> None:
        raise AssertionError("the connection of a socket is paused")

    def on_eof(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None: ...

    def notice(self) -> None:
        """See whether the connection is over: its error is told once, then reading gives what is left and writing EPIPE.

        on_closed would come only after all that can still be read.
        """
        if not self._has_noticed and self.conn is not None and self.conn.is_ending:
            self._has_noticed = True
            self.error = self.conn.error
            self.shut = RCV_SHUTDOWN | SEND_SHUTDOWN

    # Opening.

    def bind(self, address: Address) -> None:
        """bind(2)."""
        if self.local is not None or self.listener is not None or self.conn is not None:
            raise error_of(errno.EINVAL)
        if address[0] not in (ANY_IPV4, *self.host.stack.config.addresses):
            raise error_of(errno.EADDRNOTAVAIL)
        self.local = address

    def listen(self, backlog: int) -> None:
        """listen(2); again, it sets the backlog."""
        if self.conn is not None:
            raise error_of(errno.EINVAL)
        if self.listener is not None:
            self.listener.backlog = backlog
            return
        address, port = self.local or (ANY_IPV4, 0)
        self.listener = self.host.stack.listen(
            address,
            port,
            on_acceptable=lambda listener: None,
            backlog=backlog,
            options=self.options,
            reuse_port=self.extras.reuse_port,
        )

    def accept(self, fd: int) -> Socket:
        """accept(2), onto the descriptor `fd`."""
        if self.listener is None:
            raise error_of(errno.EINVAL)
        conn = self.listener.accept()
        if conn is None:
            raise WouldBlock
        accepted = Socket(self.host, fd, os.O_RDWR)
        accepted.options = conn.options
        accepted.local = conn.local
        accepted.conn = conn
        accepted.is_established = True
        conn.sink = accepted
        return accepted

    def connect(self, address: Address) -> None:
        """connect(2): the first call begins, as EINPROGRESS says; later ones tell how it went."""
        if self.listener is not None:
            raise error_of(errno.EISCONN)
        if self.conn is None:
            local, port = self.local or (None, 0)
            self.conn = self.host.stack.connect(
                address[0], address[1], self, self.host.now, local=local, local_port=port, options=self.options
            )
            self.conn.pause(self.host.now)
            if self.is_deferred:
                return
            raise error_of(errno.EINPROGRESS)
        self.notice()
        if self.error is not None:
            raise self.take_error()
        if self.conn.state in OPENING:
            raise error_of(errno.EALREADY)
        raise error_of(errno.EISCONN if self.is_established else errno.ECONNABORTED)

    @property
    def is_deferred(self) -> bool:
        """Whether the first write is to open the connection (TCP_FASTOPEN_CONNECT)."""
        return self.conn is not None and fastopenclient.is_deferred(self.conn)

    @property
    def _is_opening(self) -> bool:
        """Whether there is nothing yet to be read from or written to."""
        return self.conn is not None and self.conn.state in OPENING and not is_writable(self.conn)

    def open_fast(self, data: bytes, address: Address | None, may_block: bool) -> int:
        """Open the connection with data in its SYN; return how many octets were taken: without `may_block` what the SYN holds."""
        stack, now = self.host.stack, self.host.now
        if self.is_deferred and self.conn is not None:
            if not may_block:
                data = data[: fastopenclient.room(stack, self.conn.flow, self.options, now)]
            self.conn.send(data, now)
            return len(data)
        if not stack.sysctl.tcp_fastopen & CLIENT or address is None:
            raise error_of(errno.EOPNOTSUPP)
        if self.conn is not None or self.listener is not None:
            raise error_of(errno.EALREADY if self._is_opening else errno.EISCONN)
        local, port = self.local or (ANY_IPV4, 0)
        source = stack.config.addresses[0] if local == ANY_IPV4 else local
        if not may_block:
            data = data[: fastopenclient.room(stack, pack_flow(source, port, *address), self.options, now)]
        self.conn = stack.connect(*address, self, now, local=local, local_port=port, options=self.options, data=data)
        self.conn.pause(now)
        return len(data)

    def connect_result(self) -> None:
        """Return once the connection that connect(2) began is there; raise the reason if it failed."""
        self.notice()
        if self.error is not None:
            raise self.take_error()
        if self.conn is None or self.conn.state in OPENING:
            raise WouldBlock

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC: give the connection, or the port, up."""
        now = self.host.now
        if self.listener is not None:
            self.listener.close(now)
            self.listener = None
        elif self.conn is not None:
            conn, self.conn = self.conn, None
            conn.sink = NULL_SINK
            conn.abort(now)
        self.error = None
        self.shut = 0
        self._has_noticed = False
        self.is_established = False

    def take_error(self) -> OSError:
        """Return the pending error (or none: errno 0) and clear it."""
        self.notice()
        error, self.error = self.error, None
        return error or OSError(0, "")

    # Data.

    @property
    def received(self) -> int:
        """A number that changes whenever the peer's data, or its FIN, comes in order."""
        return self.conn.rx.rcv_nxt if self.conn is not None and self.conn.rx is not None else -1

    @property
    def is_at_end(self) -> bool:
        """Whether reading gives end of file."""
        return bool(self.shut & RCV_SHUTDOWN) or (self.conn is not None and self.conn.eof_due)

    def receive(self, length: int, flags: int) -> bytes:
        """recv(2): at least an octet, b"" at the end."""
        self.notice()
        conn = self.conn
        if conn is None or self._is_opening:
            if self.error is not None:
                raise self.take_error()
            if conn is None:
                raise error_of(errno.ENOTCONN)
            raise WouldBlock
        if flags & socket.MSG_OOB:
            return conn.read_urgent(bool(flags & socket.MSG_PEEK))[:length]
        wanted = length if flags & socket.MSG_WAITALL else min(length, self.options.rcvlowat)
        if conn.is_readable and (conn.is_at_mark or conn.readable >= wanted or self.is_at_end):
            if flags & socket.MSG_PEEK:
                return conn.peek(length)
            return conn.read(length, self.host.now)
        if conn.is_at_mark and not flags & socket.MSG_PEEK:
            conn.read(length, self.host.now)  # goes beyond the urgent octet, and finds nothing there
        if self.error is not None:
            raise self.take_error()
        if self.is_at_end or not length:
            return b""
        raise WouldBlock

    def send(self, data: bytes, flags: int) -> int:
        """send(2): as much as the send buffer takes, which may be less than all; return how many octets."""
        self.notice()
        conn = self.conn
        if self.error is not None:
            raise self.take_error()
        if conn is None or self.shut & SEND_SHUTDOWN:
            raise error_of(errno.EPIPE)
        if self._is_opening:
            raise WouldBlock
        more = bool(flags & socket.MSG_MORE)
        size = sendspace.buffer_size(conn)
        sent = 0
        while sent < len(data):
            room = sendspace.room_in_last(conn, size)
            if not room:
                if not sendspace.is_room_for_another(conn, size, self.sndbuf, self._notsent_lowat):
                    break
                room = size
            part = data[sent : sent + room]
            sent += len(part)
            is_forced = sendspace.must_push(conn, len(part))
            is_urgent = bool(flags & socket.MSG_OOB) and sent == len(data)
            conn.send(part, self.host.now, more=(more or sent < len(data)) and not is_forced, urgent=is_urgent)
            if len(part) == room and (is_forced or conn.unsent <= size):
                self.host.transmit()
        if not sent and data:
            raise WouldBlock
        return sent

    # Closing.

    def shutdown(self, how: int) -> None:
        """shutdown(2)."""
        self.notice()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise error_of(errno.EINVAL)
        how += 1  # now RCV_SHUTDOWN, SEND_SHUTDOWN or both
        if self.listener is not None:
            if how & RCV_SHUTDOWN:
                self.disconnect()
            return
        conn = self.conn
        if conn is None or (conn.is_over and conn.state is State.CLOSED):
            raise error_of(errno.ENOTCONN)
        if conn.state is State.SYN_SENT:
            self.disconnect()
            return
        self.shut |= how
        if how & SEND_SHUTDOWN and not conn.is_over:
            conn.shutdown_write(self.host.now)

    def close(self) -> None:
        """close(2), but for the waiting of SO_LINGER."""
        if self.listener is not None:
            self.listener.close(self.host.now)
        elif self.conn is not None:
            self.conn.close(self.host.now)

    @property
    def lingers_until(self) -> int | None:
        """Until when close(2) has to wait for what was written, None if it has not."""
        if self.conn is None or not self.options.linger:
            return None
        return self.host.now + self.options.linger * 1_000_000

    def linger(self) -> None:
        """Return once all that was written is acknowledged."""
        if self.conn is not None and self.conn.state in (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK):
            raise WouldBlock

    # Readiness.

    def poll(self) -> int:
        """Return the events of poll(2) (Linux's tcp_poll)."""
        self.notice()
        if self.listener is not None:
            return select.POLLIN | select.POLLRDNORM if self.listener.acceptable else 0
        events = select.POLLERR if self.error is not None else 0
        conn = self.conn
        if conn is None:
            return events | select.POLLHUP | select.POLLOUT | select.POLLWRNORM
        if conn.state is State.CLOSED or (self.is_at_end and self.shut & SEND_SHUTDOWN):
            events |= select.POLLHUP
        if self.is_at_end:
            events |= select.POLLIN | select.POLLRDNORM | POLLRDHUP
        if self.is_deferred:
            return events | select.POLLOUT | select.POLLWRNORM
        if self._is_opening:
            return events
        if conn.readable >= self.options.rcvlowat or (conn.is_at_mark and conn.is_readable):
            events |= select.POLLIN | select.POLLRDNORM
        if conn.has_urgent:
            events |= select.POLLPRI
        if self.shut & SEND_SHUTDOWN or self.may_write:
            events |= select.POLLOUT | select.POLLWRNORM
        return events

    @property
    def may_write(self) -> bool:
        """Whether poll(2) says so: a third of the send buffer is free, and less than half of TCP_NOTSENT_LOWAT waits to be sent."""
        conn = self.conn
        if conn is None:
            return False
        limit = self._notsent_lowat
        if limit is not None and 2 * conn.unsent >= limit:
            return False
        return 3 * sendspace.memory(conn, sendspace.buffer_size(conn)) <= 2 * self.sndbuf
