"""A connection of the engine as an asyncio transport.

Semantics are those of asyncio's own socket transport, to the order of callbacks, the exceptions and the texts; tests compare
the two. Deviates: `abort()`, and an exception from a callback, reset the connection (RST) where a socket is merely closed; and
an exception from `connection_made` does so too, where asyncio would go on feeding a protocol that never began.

Lengths are octets. What counts as buffered is what was never sent; what was sent and awaits its acknowledgement does not
count, as it does not for a socket, whose kernel holds it.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import constants, transports
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, ClassVar, Protocol, cast

from tunstack.aio.driver import Driver
from tunstack.aio.registry import Registry
from tunstack.aio.sockopt import SocketView
from tunstack.engine import format_address
from tunstack.engine.connection import Connection
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import SYN_SENT

logger = logging.getLogger("asyncio")  # asyncio's warnings are looked for under asyncio's name

# close() lets the FIN ride on the last data if no more than this is unsent, as if a socket's send buffer had taken it.
CLOSE_AT_ONCE = 256 * 1024
HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024  # write buffer limits to begin with, asyncio's
SEND_AT_ONCE = 64 * 1024  # octets of one write, with which segments are as large as they get
NO_EXTRA: dict[str, Any] = {}  # what asyncio's base class keeps for get_extra_info, which is ours here: one for all


class ClientSet(Protocol):
    """A server, as its transports see it."""

    def attach(self, transport: StreamTransport) -> None: ...
    def detach(self, transport: StreamTransport) -> None: ...


class StreamTransport(transports._FlowControlMixin):
    """Both a transport, to the protocol, and a Sink, to the engine's connection.

    Order of callbacks: `connection_made`; then data, `eof_received`, `pause_writing` and `resume_writing`; `connection_lost`
    once and last. The first and the last come from the loop, never from inside a call of the application's. A protocol that has a method
    `urgent_received` hears when urgent data is announced, and when it has come: `get_extra_info("socket").recv(1, MSG_OOB)` is the octet,
    until the data behind it is received.
    The connection must be paused when it is handed over; reading starts behind `connection_made`.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_conn",
        "_conn_lost",
        "_context",
        "_driver",
        "_eof",
        "_filler",
        "_is_over",
        "_lingers",
        "_paused",
        "_protocol",
        "_receiver",
        "_refused",
        "_registry",
        "_rest",
        "_resume_handle",
        "_server",
        "_socket",
        "_waiter",
    )

    _start_tls_compatible: ClassVar[bool] = True  # asyncio's loop.start_tls() takes us
    _sendfile_compatible: ClassVar[constants._SendfileMode] = constants._SendfileMode.FALLBACK  # read and write

    _loop: asyncio.AbstractEventLoop  # these are the mixin's
    _extra: dict[str, Any]
    _protocol_paused: bool
    _low_water: int
    _high_water: int
    _maybe_pause_protocol: Callable[[], None]
    _maybe_resume_protocol: Callable[[], None]

    def __init__(
        self,
        driver: Driver,
        registry: Registry[StreamTransport],
        conn: Connection,
        protocol: asyncio.BaseProtocol,
        context: Context,
        server: ClientSet | None = None,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        """Take over a connection: established, or by Fast Open about to be. `waiter` is done once `connection_made` was called."""
        self._conn = conn
        # What the constructors of our base classes do, three calls deep.
        self._extra = NO_EXTRA
        self._loop = driver.loop
        self._protocol_paused = False
        self._high_water = HIGH_WATER
        self._low_water = LOW_WATER
        self._driver = driver
        self._registry = registry
        self._context = context  # every callback runs in it
        self._server = server
        self._waiter = waiter
        self._closing = False  # close() or abort() was called, or the connection died
        self._conn_lost = False  # connection_lost is scheduled
        self._refused = 0  # writes since it closed
        self._eof = False  # write_eof() was called
        self._paused = False  # pause_reading() was called
        self._is_over = False  # the engine's connection is done with: no more calls to it
        self._lingers = False  # closed, and SO_LINGER has connection_lost wait
        self._resume_handle: asyncio.Handle | None = None
        self._rest = b""  # received, but the buffered protocol paused before it was given all of it
        self._socket: SocketView | None = None
        self._protocol: asyncio.BaseProtocol | None
        self._receiver: asyncio.Protocol | None  # the protocol, if it takes data ...
        self._filler: asyncio.BufferedProtocol | None  # ... or if it lends buffers
        self.set_protocol(protocol)
        conn.write_low_water = self._low_water
        conn.sink = self
        registry.add(self)
        if server is not None:
            server.attach(self)

    def __repr__(self) -> str:
        state = "closed" if self._protocol is None else "closing" if self._closing else "open"
        local, remote = self._conn.local, self._conn.remote
        return (
            f"<{type(self).__name__} {state} {format_address(local[0])}:{local[1]} - {format_address(remote[0])}:{remote[1]}"
            f" {self._conn.state.name} bufsize={self.get_write_buffer_size()}>"
        )

    def begin(self) -> None:
        """Start the protocol, then reading: for who is called by the loop, since no callback comes from inside an application's call.

        What follows the handshake in the same batch then finds a reader: it need not wait, and its ACK rides on the answer.
        """
        self._context.run(self._begin)
        self._resume()  # outside of our context, which every delivery enters

    def begin_soon(self) -> None:
        """Have the loop start the protocol, then reading, then whoever waits for it."""
        self._loop.call_soon(self._begin_and_wake, context=self._context)

    def _begin(self) -> None:
        protocol = self._protocol
        assert protocol is not None
        try:
            protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.connection_made() call failed.")
        else:
            self._listen_to_urgent()

    def _begin_and_wake(self) -> None:
        self._begin()
        if self._resume_handle is None and self.is_reading():
            self._resume_handle = self._loop.call_soon(self._resume)  # not here, as in `begin`
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    # Queries.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return 'peername', 'sockname', 'socket' (options: see sockopt.py), or ours: 'connection', 'tcp_info'."""
        conn = self._conn
        if name == "peername":
            return format_address(conn.remote[0]), conn.remote[1]
        if name == "sockname":
            return format_address(conn.local[0]), conn.local[1]
        if name == "socket":
            if self._socket is None:
                self._socket = SocketView(conn, self._driver.now)
            return self._socket
        if name == "connection":
            return conn
        if name == "tcp_info":
            return conn.info(self._driver.now())
        return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)  # None when closed, as asyncio has it

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            self._filler = protocol
            self._receiver = None
        else:
            self._filler = None
            self._receiver = cast(asyncio.Protocol, protocol)
        if self._conn.sink is self:
            self._listen_to_urgent()

    def is_closing(self) -> bool:
        return self._closing

    # Writing.

    def get_write_buffer_size(self) -> int:
        """Return the octets that were written and never sent."""
        return 0 if self._conn_lost else self._conn.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super().set_write_buffer_limits(high, low)
        if not self._closing:
            self._set_low_water(self._low_water)

    def _set_low_water(self, size: int) -> None:
        """Have `on_writable` called when no more than `size` is unsent, whatever was called before."""
        conn = self._conn
        conn.write_low_water = size
        conn.was_writable = conn.unsent <= size

    def write(self, data: bytes | bytearray | memoryview) -> None:  # hot
        if type(data) is not bytes:
            data = _frozen(data)
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._closing:
            self._refuse_write()
            return
        conn = self._conn
        try:
            conn.send(data, self._driver.now())
        except OSError as error:
            self._fatal_error(error, "Fatal write error on transport")
            return
        if len(data) >= SEND_AT_ONCE and not self._protocol_paused:
            self._send_at_once()
        if not conn.was_writable and conn.unsent > self._high_water:  # the first is cheaper to ask
            self._maybe_pause_protocol()

    def _send_at_once(self) -> None:
        """Send what was written, as far as it goes, as a socket would: the writer need not wait for room, and for two turns of the loop."""
        conn = self._conn
        conn.was_writable = True  # nobody waits: we look ourselves
        self._driver.flush_now()
        conn.was_writable = conn.unsent <= self._low_water

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write each piece by reference; the engine joins the small ones."""
        pieces = [piece if type(piece) is bytes else _frozen(piece) for piece in list_of_data]
        if self._eof:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if not any(pieces):
            return
        if self._closing:
            self._refuse_write()
            return
        conn = self._conn
        now = self._driver.now()
        try:
            for piece in pieces:
                if piece:
                    conn.send(piece, now)
        except OSError as error:
            self._fatal_error(error, "Fatal write error on transport")
            return
        self._maybe_pause_protocol()

    def _refuse_write(self) -> None:
        """Drop what is written to a closed transport; after some of it say so, in asyncio's words."""
        self._refused += 1
        if self._refused >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
            logger.warning("socket.send() raised exception.")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._is_over:
            self._conn.shutdown_write(self._driver.now())

    def on_writable(self) -> None:
        if self._conn_lost:
            return
        if self._protocol_paused:
            self._context.run(self._maybe_resume_protocol)
        if self._closing and not self._conn_lost and not self._conn.unsent:
            self._lose_cleanly()

    # Reading.

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        if self._closing or self._paused:
            return
        self._paused = True
        if not self._is_over:
            self._conn.pause(self._driver.now())
            self._driver.end_turn()

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused = False
        if self._resume_handle is None:
            self._resume_handle = self._loop.call_soon(self._resume)  # never inside the caller's call

    def _resume(self) -> None:
        self._resume_handle = None
        if self._rest and self.is_reading():
            rest, self._rest = self._rest, b""
            self.on_data(rest)
        if self.is_reading() and not self._is_over:
            self._conn.resume(self._driver.now())

    def on_data(self, data: memoryview | bytes) -> None:  # hot
        receiver = self._receiver
        if receiver is None:
            self._fill(data)
            return
        if self._closing:
            return
        try:
            self._context.run(receiver.data_received, bytes(data))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")

    def _fill(self, data: memoryview | bytes) -> None:  # hot
        """Copy into the protocol's own buffers, as many times as it takes; it may pause, close or hand over in between."""
        filler = self._filler
        assert filler is not None
        run = self._context.run
        while not self._closing:
            size = len(data)
            try:
                buffer = run(filler.get_buffer, size)
                if type(buffer) is bytearray and len(buffer) >= size:
                    memoryview(buffer)[:size] = data
                else:
                    size = _copy(data, buffer)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fatal_error(error, "Fatal error: protocol.get_buffer() call failed.")
                return
            try:
                run(filler.buffer_updated, size)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fatal_error(error, "Fatal error: protocol.buffer_updated() call failed.")
                return
            if size == len(data):
                return
            data = memoryview(data)[size:]
            if self._paused:
                self._rest = bytes(data)
                return
            if self._filler is not filler:
                self.on_data(data)
                return

    def on_eof(self) -> None:
        if self._closing:
            return
        protocol = self._receiver if self._receiver is not None else self._filler  # one may well be false: it may have a length
        assert protocol is not None
        try:
            keep_open = self._context.run(protocol.eof_received)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()

    def _listen_to_urgent(self) -> None:
        if not self._is_over and hasattr(self._protocol, "urgent_received"):
            self._conn.on_urgent = self._on_urgent

    def _on_urgent(self) -> None:
        """Call the protocol's `urgent_received`, if it has one (asyncio knows no such call)."""
        receive = getattr(self._protocol, "urgent_received", None)
        if receive is None or self._closing:
            return
        try:
            self._context.run(receive)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.urgent_received() call failed.")

    def on_established(self) -> None:
        """The handshake is done, of a connection that was handed over before (TCP_FASTOPEN_CONNECT)."""
        if self._closing and not self._conn_lost:
            self._closing = False
            self.close()

    # The end.

    def close(self) -> None:
        """Send what was written, then end the connection; `connection_lost` comes when all of it was sent.

        With SO_LINGER and a time, it comes when all of it was acknowledged or the time is up, as whoever awaits `wait_closed()` on a socket
        sees it: there close(2) holds up the whole loop so long.
        """
        if self._closing:
            return
        self._closing = True
        conn = self._conn
        if conn.state is SYN_SENT and conn.tx.queue.end:
            return  # Fast Open: what was written is on its way in a SYN, or waits for the answer (on_established)
        if self._is_over or not conn.unsent:
            self._lose_cleanly()
            return
        self._set_low_water(0)
        if not conn.readable and conn.unsent <= CLOSE_AT_ONCE and conn.options.linger != 0:
            self._close_connection()
        else:
            # The engine's close() would reset the connection over what is unread, or for the lack of patience (linger 0).
            conn.pause(self._driver.now())

    def abort(self) -> None:
        """Reset the connection; what was not sent is lost."""
        self._force_close(None)

    def _lose_cleanly(self) -> None:
        self._conn_lost = True
        self._close_connection()
        if self._is_over or not self._conn.options.linger:
            self._loop.call_soon(self._call_connection_lost, None, context=self._context)
        else:
            self._lingers = True  # on_closed will say when

    def _close_connection(self) -> None:
        if not self._is_over:
            self._conn.close(self._driver.now())

    def _fatal_error(self, error: BaseException, message: str) -> None:
        if isinstance(error, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=error)
        else:
            self._loop.call_exception_handler({"message": message, "exception": error, "transport": self, "protocol": self._protocol})
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        """Abort with `error` for the protocol. The name is asyncio's: its TLS protocol calls it."""
        if self._conn_lost and not self._lingers:
            return
        self._lingers = False
        self._closing = True
        self._conn_lost = True
        if not self._is_over:
            self._conn.abort(self._driver.now())
            self._conn.sink = NULL_SINK
            self._leave()
        self._loop.call_soon(self._call_connection_lost, error, context=self._context)

    def on_closed(self, error: OSError | None) -> None:
        self._leave()
        if self._lingers:
            self._lingers = False
            self._loop.call_soon(self._call_connection_lost, None, context=self._context)
        if self._conn_lost:
            return
        if error is not None:
            self._fatal_error(error, "Fatal read error on transport")
        elif self._closing:
            self._lose_cleanly()

    def _leave(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._conn.on_urgent = None  # as the sink: the connection may outlive us, and would keep us
            self._registry.discard(self)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        protocol = self._protocol
        assert protocol is not None
        try:
            protocol.connection_lost(cast(Exception | None, error))
        finally:
            self._protocol = self._receiver = self._filler = None
            if self._server is not None:
                self._server.detach(self)
                self._server = None


def _copy(data: memoryview | bytes, buffer: Any) -> int:
    """Copy as much as fits into a buffer of whatever kind; return how much."""
    with memoryview(buffer) as lent, lent.cast("B") as view:
        if not view:
            raise RuntimeError("get_buffer() returned an empty buffer")
        size = min(len(view), len(data))
        view[:size] = data[:size]
        return size


def _frozen(data: bytes | bytearray | memoryview) -> bytes | memoryview:
    """Return the data as octets that nobody changes: a copy unless they cannot change anyway."""
    if isinstance(data, memoryview):
        if data.readonly and type(data.obj) is bytes and data.contiguous:
            return data.cast("B")
        return data.tobytes()
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
