"""A server: listeners of the stack, and the protocols that they feed.

Semantics of `asyncio.Server` as of Python 3.13: `wait_closed` waits until the server is closed and its last connection gone;
`close_clients` and `abort_clients` see to the latter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context

from tunstack.aio.driver import Driver
from tunstack.aio.registry import Registry
from tunstack.aio.resolve import bind_error
from tunstack.aio.sockopt import ListenerView
from tunstack.aio.tls import Tls
from tunstack.aio.transport import StreamTransport
from tunstack.engine.connection import Connection
from tunstack.engine.errors import errno_error
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Server(asyncio.AbstractServer):
    """Made by `Endpoint.create_server`.

    A server that was made with `start_serving=False` holds no port until it starts (a socket would be bound, but not listen: its
    connections are refused all the same). The port that was chosen for port 0 is kept.
    """

    def __init__(
        self,
        driver: Driver,
        registry: Registry[StreamTransport],
        ends: Sequence[tuple[bytes, int]],
        protocol_factory: ProtocolFactory,
        *,
        backlog: int,
        tls: Tls | None,
        reuse_port: bool,
        options: SocketOptions,
        on_closed: Callable[[Server], None],
    ) -> None:
        """Listen, to see whether and where one can; OSError EADDRINUSE or EADDRNOTAVAIL names the address."""
        self._driver = driver
        self._registry = registry
        self._ends = list(ends)
        self._factory = protocol_factory
        self._backlog = backlog
        self._tls = tls
        self._reuse_port = reuse_port
        self._options = options
        self._on_closed = on_closed
        self._listeners: list[Listener] | None = []  # None: closed
        self._views: tuple[ListenerView, ...] = ()
        self._clients: set[StreamTransport] = set()
        self._waiters: list[asyncio.Future[None]] | None = []  # None: closed, and the last client gone
        self._forever: asyncio.Future[None] | None = None
        self._context = copy_context()
        self._listen()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    def _listen(self) -> None:
        listeners: list[Listener] = []
        try:
            for index, (address, port) in enumerate(self._ends):
                try:
                    listener = self._driver.stack.listen(
                        address,
                        port,
                        backlog=self._backlog,
                        options=self._options,
                        reuse_port=self._reuse_port,
                        on_acceptable=self._on_acceptable,
                    )
                except OSError as error:
                    raise bind_error(error, address, port) from None
                listeners.append(listener)
                self._ends[index] = (address, listener.port)
        except BaseException:
            for listener in listeners:
                listener.close(self._driver.now())
            raise
        self._listeners = listeners
        self._views = tuple(ListenerView(listener) for listener in listeners)

    def hold(self) -> None:
        """Stop listening, before the first connection, until `start_serving`."""
        for listener in self._listeners or ():
            listener.close(self._driver.now())
        self._listeners = []

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._driver.loop

    def is_serving(self) -> bool:
        return bool(self._listeners)

    @property
    def sockets(self) -> tuple[ListenerView, ...]:
        """Where it listens, one for each address; empty when closed."""
        return () if self._listeners is None else self._views

    async def start_serving(self) -> None:
        self._start_serving()

    def _start_serving(self) -> None:
        if self._listeners is None:
            raise RuntimeError(f"server {self!r} is closed")
        if not self._listeners:
            self._listen()

    async def serve_forever(self) -> None:
        """Serve until cancelled, or until the server is closed; OSError if the device goes away."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self._start_serving()
        forever = self._forever = self._driver.loop.create_future()
        try:
            await forever
        except asyncio.CancelledError:
            self.close()
            self.close_clients()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Stop listening; what was not accepted yet is reset. Connections live on."""
        self._close(None)

    def _close(self, error: OSError | None) -> None:
        listeners, self._listeners = self._listeners, None
        if listeners is None:
            return
        for listener in listeners:
            listener.close(self._driver.now())
        self._on_closed(self)
        if self._forever is not None and not self._forever.done():
            if error is None:
                self._forever.cancel()
            else:
                self._forever.set_exception(error)
        if not self._clients:
            self._wake()

    def fail(self, error: OSError) -> None:
        """The device is gone: close, and tell `serve_forever` why."""
        self._close(errno_error(error.errno) if error.errno else error)

    async def wait_closed(self) -> None:
        """Wait until `close` was called and the last connection is gone."""
        if self._waiters is None:
            return
        waiter: asyncio.Future[None] = self._driver.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def close_clients(self) -> None:
        """Close every connection, once what was written is sent."""
        for transport in tuple(self._clients):
            transport.close()

    def abort_clients(self) -> None:
        """Reset every connection."""
        for transport in tuple(self._clients):
            transport.abort()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def attach(self, transport: StreamTransport) -> None:
        """Count a connection in; its transport calls this."""
        self._clients.add(transport)

    def detach(self, transport: StreamTransport) -> None:
        """Count a connection out, behind its `connection_lost`."""
        self._clients.discard(transport)
        if not self._clients and self._listeners is None:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _on_acceptable(self, listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            self._accept(conn)

    def _accept(self, conn: Connection) -> None:
        context = self._context.copy()
        try:
            protocol = context.run(self._factory)
            if self._tls is not None:
                protocol, _ = self._tls.wrap(protocol, None, server_side=True)
            transport = StreamTransport(self._driver, self._registry, conn, protocol, context, self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            conn.abort(self._driver.now())
            self._driver.loop.call_exception_handler({"message": "Error on transport creation for incoming connection", "exception": error})
        else:
            transport.begin()
