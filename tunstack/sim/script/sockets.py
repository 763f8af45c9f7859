"""The socket calls of scripts, one method each.

Calls act on the current socket: the last that was made (`listen`, `connect`, `accept`) or named. A connection is paused, so that
data waits in the stack until `read`, as it does for a socket; `resume` has it delivered as it comes, and `got` counts it.

    listen PORT [backlog N] [option=value ...]      connect PORT [from PORT] [option=value ...]
    accept [EAGAIN]          established            state NAME            open (neither EOF nor end was told)
    read N [ERRNO]           write N [ERRNO]        eof                   closed [ERRNO]
    shutdown [ERRNO]         close                  abort                 pause, resume, got N
    urgent N [ERRNO]         oob POSITION|ERRNO     atmark 0|1            skip N (octets of the stream that are not read)
    setsockopt NAME VALUE [ERRNO]                   sysctl NAME=VALUE     counter NAME=VALUE ...
    expect NAME=VALUE ...    (ConnectionInfo)       idle (time passes)    gone (no connection, no timer is left)
"""

from __future__ import annotations

import ast
import errno
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tunstack.engine.connection import Connection
from tunstack.engine.finwait import FinWait2
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import TimeWait
from tunstack.sim.script.packet import pattern
from tunstack.sim.script.parser import CALLS, Call

if TYPE_CHECKING:
    from tunstack.sim.script.runner import Runner

LOCAL_PORT = 50000  # that `connect` takes if it is not told


class Failed(Exception):
    """A call did not do what the script says."""


class Socket:
    """A listener or a connection, and as a sink what was told about it."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self.conn: Connection | None = None
        self.established = False
        self.eof = False
        self.closed = False
        self.error: OSError | None = None
        self.received = 0  # octets taken so far, all compared with the pattern
        self.written = 0
        self.got = 0  # octets delivered by on_data since the script asked last
        self.mismatch: int | None = None  # first octet that was not the pattern's
        self.calls: list[str] = []  # sink calls, in order

    def take(self, data: bytes) -> None:
        """Compare received octets with the stream."""
        if self.mismatch is None and data != pattern(self.received, len(data)):
            self.mismatch = self.received
        self.received += len(data)

    def on_established(self) -> None:
        self.established = True
        self.calls.append("established")

    def on_data(self, data: memoryview | bytes) -> None:
        self.take(bytes(data))
        self.got += len(data)
        self.calls.append("data")

    def on_eof(self) -> None:
        self.eof = True
        self.calls.append("eof")

    def on_writable(self) -> None:
        self.calls.append("writable")

    def on_closed(self, error: OSError | None) -> None:
        self.closed = True
        self.error = error
        self.calls.append("closed")


class Sockets:
    """The sockets of one run."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.named: dict[str, Socket] = {}
        self.all: list[Socket] = []
        self.current: Socket | None = None

    def call(self, call: Call) -> None:
        """Make a call, or check an expectation. Failed where it does not come out as the script says."""
        if call.socket is not None:
            if call.socket not in self.named:
                raise Failed(f"no socket is called {call.socket!r}")
            self.current = self.named[call.socket]
        getattr(self, f"_call_{call.name}")(*call.words)
        if call.result is not None:
            assert self.current is not None
            self.named[call.result] = self.current
        for socket in self.all:
            if socket.mismatch is not None:
                raise Failed(f"octet {socket.mismatch} that was received is not the stream's")
            if socket.calls.count("closed") > 1 or "closed" in socket.calls[:-1]:
                raise Failed(f"on_closed was not the last: {socket.calls}")

    def local_port(self) -> int:
        """Return the local port that packets are for if they do not say."""
        socket = self.current
        if socket is None:
            return LOCAL_PORT
        if socket.conn is not None:
            return socket.conn.local[1]
        assert socket.listener is not None
        return socket.listener.port

    def remote_port(self, default: int) -> int:
        """Return the remote port that packets come from if they do not say."""
        conn = self.current.conn if self.current is not None else None
        return conn.remote[1] if conn is not None else default

    # Making sockets.

    def _call_listen(self, port: str, *words: str) -> None:
        backlog = 128
        if words[:1] == ("backlog",) and len(words) > 1:
            backlog = int(words[1])
            words = words[2:]
        stack = self.runner.stack
        listener = stack.listen(
            self.runner.local, int(port), backlog=backlog, options=_socket_options(words), on_acceptable=lambda listener: None
        )
        self._add(Socket(listener))

    def _call_connect(self, port: str, *words: str) -> None:
        local_port = LOCAL_PORT
        if words[:1] == ("from",) and len(words) > 1:
            local_port = int(words[1])
            words = words[2:]
        socket = Socket()
        runner = self.runner
        options = _socket_options(words)
        try:
            socket.conn = runner.stack.connect(
                runner.remote, int(port), socket, local=runner.local, local_port=local_port, options=options, now=runner.now
            )
        except OSError as error:
            raise Failed(f"connect failed: {errno_name(error)}") from error
        socket.conn.pause(runner.now)
        self._add(socket)

    def _call_accept(self, expected: str = "") -> None:
        listener = next((socket.listener for socket in reversed(self.all) if socket.listener is not None), None)
        if self.current is not None and self.current.listener is not None:
            listener = self.current.listener
        if listener is None:
            raise Failed("nothing listens")
        conn = listener.accept()
        if (conn is None) != (expected == "EAGAIN"):
            raise Failed("there is no connection to accept" if conn is None else "a connection was there to accept")
        if conn is not None:
            socket = Socket()
            socket.conn = conn
            conn.sink = socket
            self._add(socket)

    def _add(self, socket: Socket) -> None:
        self.all.append(socket)
        self.current = socket

    def _conn(self) -> tuple[Socket, Connection]:
        if self.current is None or self.current.conn is None:
            raise Failed("the current socket is no connection")
        return self.current, self.current.conn

    # Data.

    def _call_read(self, count: str, expected: str = "") -> None:
        socket, conn = self._conn()
        size = int(count)
        if expected:
            if conn.readable:
                raise Failed(f"{conn.readable} octets can be read")
            self._check_error(socket, expected)
            return
        if conn.readable < size and not conn.is_at_mark:
            raise Failed(f"{conn.readable} octets can be read, not {size}")
        data = conn.read(size, self.runner.now)
        if len(data) != size:
            raise Failed(f"read returned {len(data)} octets")
        socket.take(data)

    def _check_error(self, socket: Socket, expected: str) -> None:
        if expected == "EAGAIN":
            if socket.eof or socket.closed:
                raise Failed(f"it is over: {errno_name(socket.error)}")
        elif not socket.closed or errno_name(socket.error) != expected:
            raise Failed(f"closed with {errno_name(socket.error)}" if socket.closed else "not closed")

    def _call_write(self, count: str, expected: str = "", urgent: bool = False) -> None:
        socket, conn = self._conn()
        data = pattern(socket.written, int(count))

        def write() -> None:
            conn.send(data, self.runner.now, urgent=urgent)
            socket.written += len(data)

        self._try(write, expected)

    def _call_urgent(self, count: str, expected: str = "") -> None:
        self._call_write(count, expected, urgent=True)

    def _call_oob(self, expected: str) -> None:
        _, conn = self._conn()
        if not expected.isdigit():
            self._try(conn.read_urgent, expected)
        elif (octet := conn.read_urgent()) != pattern(int(expected), 1):
            raise Failed(f"the urgent octet is {octet!r}")

    def _call_atmark(self, expected: str) -> None:
        _, conn = self._conn()
        if conn.is_at_mark != bool(int(expected)):
            raise Failed(f"atmark is {conn.is_at_mark:d}")

    def _call_skip(self, count: str) -> None:
        self._conn()[0].received += int(count)

    def _try(self, function: object, expected: str) -> None:
        assert callable(function)
        try:
            function()
        except OSError as error:
            if errno_name(error) != expected:
                raise Failed(f"failed: {errno_name(error)}") from error
        else:
            if expected:
                raise Failed(f"succeeded, not {expected}")

    def _call_got(self, count: str) -> None:
        socket, _ = self._conn()
        if socket.got != int(count):
            raise Failed(f"{socket.got} octets were delivered")
        socket.got = 0

    def _call_pause(self) -> None:
        self._conn()[1].pause(self.runner.now)

    def _call_resume(self) -> None:
        self._conn()[1].resume(self.runner.now)

    def _call_eof(self) -> None:
        socket, conn = self._conn()
        if conn.readable:
            raise Failed(f"{conn.readable} octets can be read before the end")
        self._poke(conn)
        if not socket.eof:
            raise Failed("no end of file")

    def _poke(self, conn: Connection) -> None:
        """Let a paused connection say what it holds back behind the data, as a recv() would find it."""
        if conn.paused and not conn.readable:
            conn.resume(self.runner.now)
            conn.pause(self.runner.now)

    def _call_open(self) -> None:
        socket, conn = self._conn()
        self._poke(conn)
        if socket.eof or socket.closed:
            raise Failed("closed" if socket.closed else "end of file")

    # Closing.

    def _call_shutdown(self, expected: str = "") -> None:
        _, conn = self._conn()
        self._try(lambda: conn.shutdown_write(self.runner.now), expected)

    def _call_close(self) -> None:
        socket = self.current
        if socket is not None and socket.listener is not None:
            socket.listener.close(self.runner.now)
        else:
            self._conn()[1].close(self.runner.now)

    def _call_abort(self) -> None:
        self._conn()[1].abort(self.runner.now)

    def _call_closed(self, expected: str = "") -> None:
        socket, conn = self._conn()
        self._poke(conn)
        if not socket.closed:
            raise Failed(f"not closed, {conn.state.name}")
        if errno_name(socket.error) != (expected or "no error"):
            raise Failed(f"closed with {errno_name(socket.error)}")

    # Looking.

    def _call_established(self) -> None:
        socket, conn = self._conn()
        if not socket.established:
            raise Failed(f"not established, {conn.state.name}")

    def _call_state(self, name: str) -> None:
        stack = self.runner.stack
        socket = self.current
        if socket is not None and socket.conn is not None:
            state = socket.conn.state.name
            owner = stack.flows.get(socket.conn.flow_in)
            if isinstance(owner, TimeWait | FinWait2):  # what is left of it
                state = owner.state.name
        else:
            owner = stack.flows.get(self.runner.flow_in(self.local_port(), self.remote_port(40000)))
            state = "LISTEN" if owner is None else owner.state.name if isinstance(owner, Connection) else "SYN_RECEIVED"
        if state != name:
            raise Failed(f"the state is {state}")

    def _call_expect(self, *words: str) -> None:
        _, conn = self._conn()
        info = conn.info()
        for name, value in map(_name_and_value, words):
            if not hasattr(info, name):
                raise Failed(f"ConnectionInfo has no {name}")
            if (actual := getattr(info, name)) != value:
                raise Failed(f"{name} is {actual}")

    def _call_counter(self, *words: str) -> None:
        counters = self.runner.stack.counters
        for name, value in map(_name_and_value, words):
            if not hasattr(counters, name):
                raise Failed(f"no counter is called {name}")
            if (actual := getattr(counters, name)) != value:
                raise Failed(f"{name} is {actual}")

    def _call_gone(self) -> None:
        stack = self.runner.stack
        if stack.flows:
            raise Failed(f"still there: {list(stack.flows.values())}")
        for owner in stack.timers.owners():  # their deadlines, not next_deadline(), which may be a look in vain
            if owner.next_deadline() != NEVER:
                raise Failed(f"a timer is left, in {owner.next_deadline() - self.runner.now} us: {owner}")

    def _call_idle(self) -> None: ...

    # Setting.

    def _call_setsockopt(self, name: str, value: str, expected: str = "") -> None:
        _, conn = self._conn()
        self._try(lambda: conn.set_option(name, _value(value), self.runner.now), expected)

    def _call_sysctl(self, word: str) -> None:
        name, value = _name_and_value(word)
        if not hasattr(self.runner.sysctl, name):
            raise Failed(f"no sysctl is called {name}")
        setattr(self.runner.sysctl, name, value)


def _value(text: str) -> object:
    """Return a number, a truth value, None or a tuple of numbers; anything else is text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _name_and_value(word: str) -> tuple[str, object]:
    name, equals, value = word.partition("=")
    if not equals:
        raise Failed(f"not name=value: {word}")
    return name, _value(value)


def _socket_options(words: tuple[str, ...]) -> SocketOptions | None:
    """Return the options of a listener or of connect."""
    if not words:
        return None
    options: dict[str, Any] = {}
    known = {field.name for field in fields(SocketOptions) if field.init}
    for name, value in map(_name_and_value, words):
        if name not in known:
            raise Failed(f"no socket option is called {name}")
        options[name] = value
    return SocketOptions(**options)


def errno_name(error: OSError | None) -> str:
    """Return an error as scripts write it."""
    return "no error" if error is None else errno.errorcode.get(error.errno or 0, str(error))


assert all(hasattr(Sockets, f"_call_{name}") for name in CALLS)
