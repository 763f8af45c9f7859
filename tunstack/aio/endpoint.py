"""The endpoint: a stack on a device within an event loop, with the calls of asyncio.

What a program holds. `create_server` and `create_connection` have the signatures and semantics of the event loop's methods of
that name, `start_server` and `open_connection` those of asyncio's functions. Not taken over: `sock` (there are no sockets here)
and `happy_eyeballs_delay`, `interleave` (there is one address family).
"""

from __future__ import annotations

import asyncio
import errno
import random
import secrets
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from tunstack.aio.driver import Driver
from tunstack.aio.registry import Registry
from tunstack.aio.resolve import bind_error, connect_error, resolve, resolve_listening
from tunstack.aio.server import Server
from tunstack.aio.streams import SegmentReader
from tunstack.aio.tls import Tls
from tunstack.aio.transport import StreamTransport
from tunstack.device.base import Device
from tunstack.device.handover import Handover
from tunstack.engine import ANY_IPV4, CongestionControl, fastopenclient, format_address, pack_address
from tunstack.engine.config import Random, StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.errors import socket_error
from tunstack.engine.keys import Key, KeyChain
from tunstack.engine.options import SocketOptions
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl

P = TypeVar("P", bound=asyncio.BaseProtocol)
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

STREAM_LIMIT = 64 * 1024  # asyncio's limit of a StreamReader
DRAIN_TIMEOUT = 5.0  # s that leaving `async with` waits for what was written to be acknowledged


class Endpoint:
    """An endpoint of TCP: addresses of its own, reached through a device.

    Use it as an async context manager, or `start`, then `shutdown` or `close`. It belongs to the loop that it was started in and
    is not thread-safe. It owns the device. `stack` is the engine, for whoever wants to look inside.
    """

    def __init__(
        self,
        device: Device,
        addresses: Iterable[str | bytes] | str,
        *,
        sysctl: Sysctl | None = None,
        congestion: str | type[CongestionControl] | None = None,
        random: Random | None = None,
        secret: bytes | None = None,
        keys: Iterable[Key] = (),
        fast_path: bool = True,
    ) -> None:
        """Make an endpoint that answers to `addresses` (dotted or packed). `random` and `secret` are given where runs must repeat.

        `congestion` is what connections use: an algorithm's name, or a class of your own (else `sysctl.tcp_congestion_control`).
        `keys` sign the connections with the peers that they name, TCP-AO or MD5; see also `keys` below, and `SocketOptions.keys`.
        Without `fast_path` every segment takes the full way; the results are the same.
        """
        several = [addresses] if isinstance(addresses, str) else list(addresses)
        packed = tuple(pack_address(address) if isinstance(address, str) else address for address in several)
        if not packed:
            raise ValueError("an endpoint needs at least one address")
        config = StackConfig(packed, device.mtu, device.max_payload, sysctl or Sysctl(), fast_path, congestion)
        self.device = device
        self.stack = Stack(config, random or _system_random(), secrets.token_bytes(16) if secret is None else secret)
        for key in keys:
            self.keys.add(key)
        self.error: OSError | None = None  # why the device went away
        self.labels: dict[int, str] = {}  # what listens on a port, by name: for ss -p
        self._addresses = packed
        self._driver: Driver | None = None
        self._is_closed = False
        self._closed: list[asyncio.Future[None]] = []  # who waits for it
        self._is_gone = False  # closed, and every callback was made
        self._transports: Registry[StreamTransport] = Registry()
        self._servers: set[Server] = set()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "running" if self._driver else "not started"
        return f"<{type(self).__name__} {', '.join(self.addresses)} {state}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, dotted."""
        return tuple(format_address(address) for address in self._addresses)

    @property
    def sysctl(self) -> Sysctl:
        """Its knobs; `sysctl.set(name, value)` checks what it is given."""
        return self.stack.sysctl

    @property
    def keys(self) -> KeyChain:
        """The keys of all sockets that have none of their own for a peer. It is live: added to or removed from at any time."""
        return self.stack.use_keys().keys

    def now(self) -> int:
        """Return the engine's time, us, for a call of the engine's own methods; within a turn of the loop it stands still."""
        return self._running().now()

    def take_over(self, handover: Handover) -> bool:
        """Handle what other workers have handed over (neighbours.py); tell whether there may be more."""
        return self._driver is not None and self._driver.take_over(handover)

    # Its life.

    async def start(self) -> None:
        """Begin to serve the device, in the running loop."""
        if self._driver is not None or self._is_closed:
            raise RuntimeError(f"{self!r} was started before")
        self._driver = Driver(self.stack, self.device, asyncio.get_running_loop(), self._on_down)
        self._driver.start()
        if self.stack.on_algorithm_failure is None:
            self.stack.on_algorithm_failure = self._on_algorithm_failure

    def _on_algorithm_failure(self, name: str, error: Exception) -> None:
        assert self._driver is not None
        message = f"congestion control {name} failed, and reno took its place"
        self._driver.loop.call_exception_handler({"message": message, "exception": error})

    async def shutdown(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Close in peace: listen no more, close every connection, wait up to `timeout` s until the peers have all of it, then `close`."""
        try:
            if self._driver is not None and not self._is_closed:
                for server in tuple(self._servers):
                    server.close()
                for transport in self._transports:
                    transport.close()
                async with asyncio.timeout(timeout):
                    await self._transports.wait_empty()
        except TimeoutError:
            pass  # what is left is reset
        finally:
            self.close()
        await self.wait_closed()

    def close(self) -> None:
        """Close now: listen no more, reset every connection, give the device back. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        driver = self._driver
        if driver is None:
            self.device.close()
            self._is_gone = True
            return
        for server in tuple(self._servers):
            server.close()
        for transport in self._transports:
            transport.abort()
        driver.close()
        self._end(driver.loop)

    async def wait_closed(self) -> None:
        """Wait until the endpoint is closed, or its device went away (see `error`), and the last callback was made."""
        if not self._is_gone:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._closed.append(waiter)
            await waiter

    async def __aenter__(self) -> Endpoint:
        await self.start()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc_type is not None:
            self.close()
        await self.shutdown()

    def _on_down(self, error: OSError) -> None:
        self.error = error
        self._is_closed = True
        for server in tuple(self._servers):
            server.fail(error)
        self._transports.wake()
        assert self._driver is not None
        self._end(self._driver.loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self._wake)  # behind every connection_lost

    def _wake(self) -> None:
        self._is_gone = True
        waiters, self._closed = self._closed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _running(self) -> Driver:
        driver = self._driver
        if driver is None:
            raise RuntimeError(f"{self!r} is not started: use `async with`, or await start()")
        if self.error is not None:
            raise socket_error("ENETDOWN")
        if self._is_closed:
            raise RuntimeError(f"{self!r} is closed")
        return driver

    # Servers.

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Iterable[str | None] | None = None,
        port: int | str | None = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        backlog: int = 100,
        ssl: ssl_module.SSLContext | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        options: SocketOptions | None = None,
    ) -> Server:
        """Listen, and make a protocol for each connection (`loop.create_server`). `host` None or "": every address.

        `options` are what connections start with, TCP_NODELAY set unless it says otherwise. `reuse_address` is
        SO_REUSEADDR, set unless it is False; a port with connections in TIME-WAIT can be listened on either way. OSError EADDRINUSE,
        EADDRNOTAVAIL.
        """
        tls = Tls.for_server(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        self._running()
        ends = await resolve_listening(host, port, family=family, flags=flags)
        driver = self._running()
        options = replace(_options(options), reuseaddr=reuse_address is not False)
        if keep_alive is not None:
            options = replace(options, keepalive=keep_alive)
        server = Server(
            driver,
            self._transports,
            ends,
            protocol_factory,
            backlog=backlog,
            tls=tls,
            reuse_port=bool(reuse_port),
            options=options,
            on_closed=self._servers.discard,
        )
        self._servers.add(server)
        if not start_serving:
            server.hold()
        return server

    async def start_server(
        self,
        client_connected_cb: ClientConnected,
        host: str | Iterable[str | None] | None = None,
        port: int | str | None = None,
        *,
        limit: int = STREAM_LIMIT,
        **kwds: Any,
    ) -> Server:
        """Call `client_connected_cb(reader, writer)` for each connection (`asyncio.start_server`); `kwds` as for `create_server`."""

        def factory() -> asyncio.StreamReaderProtocol:
            reader = SegmentReader(limit)
            return asyncio.StreamReaderProtocol(reader, client_connected_cb)

        return await self.create_server(factory, host, port, **kwds)

    # Clients.

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: str | None = None,
        port: int | str | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        family: int = 0,
        flags: int = 0,
        local_addr: tuple[str | None, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        all_errors: bool = False,
        options: SocketOptions | None = None,
        fastopen: bytes | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Connect, and return the transport and the protocol made for it (`loop.create_connection`).

        `fastopen` is written first, in the SYN if the server's cookie is known (RFC 7413); it may arrive twice. With
        `options.fastopen_connect` this returns at once, if it is known, and the first write, TLS's too, goes in the SYN.

        The addresses of a name are tried in turn. ConnectionRefusedError, TimeoutError (ETIMEDOUT), or OSError with the errno that
        connect(2) would give; with `all_errors` an ExceptionGroup of all of them. Cancelled, it leaves nothing behind.
        """
        tls = Tls.for_client(ssl, host, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        if not host or port is None:
            raise ValueError("host and port must be given: there are no sockets to take over, and no loopback interface")
        self._running()
        remotes = await resolve(host, port, family=family, flags=flags)
        locals_ = [(ANY_IPV4, 0)]
        if local_addr is not None:
            locals_ = await resolve(local_addr[0] or "0.0.0.0", local_addr[1], family=family, flags=flags)
        if fastopen is not None and tls is not None:
            raise ValueError("fastopen goes without ssl: with it, set options.fastopen_connect")
        conn, opening = await self._connect_any(remotes, locals_, options, all_errors, fastopen)
        return await self._attach(conn, opening, protocol_factory, tls)

    async def open_connection(
        self, host: str | None = None, port: int | str | None = None, *, limit: int = STREAM_LIMIT, **kwds: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and return a reader and a writer (`asyncio.open_connection`); `kwds` as for `create_connection`."""
        loop = asyncio.get_running_loop()
        reader = SegmentReader(limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self.create_connection(lambda: protocol, host, port, **kwds)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _connect_any(
        self,
        remotes: list[tuple[bytes, int]],
        locals_: list[tuple[bytes, int]],
        options: SocketOptions | None,
        all_errors: bool,
        data: bytes | None,
    ) -> tuple[Connection, _Opening]:
        errors: list[OSError] = []
        for remote in remotes:
            for local in locals_:
                try:
                    return await self._connect(remote, local, _options(options), data)
                except OSError as error:
                    errors.append(error)
        try:
            if all_errors:
                raise ExceptionGroup("create_connection failed", errors)
            if len({str(error) for error in errors}) == 1:
                raise errors[0]
            raise OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")
        finally:
            errors = []  # they hold this frame

    async def _connect(
        self, remote: tuple[bytes, int], local: tuple[bytes, int], options: SocketOptions, data: bytes | None
    ) -> tuple[Connection, _Opening]:
        """Open a connection; it is paused, and established unless its SYN waits for the first write, when this returns."""
        driver = self._running()
        opening = _Opening(driver.loop)
        try:
            conn = self.stack.connect(
                *remote,
                opening,
                local=local[0],
                local_port=local[1],
                options=options,
                now=driver.now(),
                data=data,
            )
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise bind_error(error, *local) from None
            raise connect_error(error, *remote) from None
        conn.pause(driver.now())
        if fastopenclient.is_deferred(conn):
            return conn, opening
        try:
            await opening.done
        except OSError as error:
            raise connect_error(error, *remote) from None
        except BaseException:
            conn.abort(driver.now())
            raise
        return conn, opening

    async def _attach(
        self, conn: Connection, opening: _Opening, protocol_factory: Callable[[], P], tls: Tls | None
    ) -> tuple[asyncio.Transport, P]:
        driver = self._driver
        assert driver is not None
        waiter: asyncio.Future[None] = driver.loop.create_future()
        try:
            protocol = protocol_factory()
            lower: asyncio.BaseProtocol = protocol
            app_transport: asyncio.Transport | None = None
            if tls is not None:
                lower, app_transport = tls.wrap(protocol, waiter, server_side=False)
        except BaseException:
            conn.abort(driver.now())
            raise
        transport = StreamTransport(driver, self._transports, conn, lower, copy_context(), waiter=waiter if tls is None else None)
        transport.begin_soon()
        if opening.is_over:
            transport.on_closed(opening.error)
        try:
            await waiter
        except BaseException:
            transport.abort()
            raise
        return app_transport or transport, protocol


class _Opening:
    """The sink of a connection that is being opened."""

    __slots__ = ("done", "error", "is_over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.is_over = False
        self.error: OSError | None = None

    def on_established(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def on_closed(self, error: OSError | None) -> None:
        self.is_over = True
        self.error = error
        if not self.done.done():
            self.done.set_exception(error or socket_error("ECONNABORTED"))

    def on_data(self, data: memoryview | bytes) -> None:
        raise AssertionError("data for a connection that is paused")

    def on_eof(self) -> None:
        raise AssertionError("end of data for a connection that is paused")

    def on_writable(self) -> None: ...


def _system_random() -> Random:
    return random.SystemRandom()


def _options(options: SocketOptions | None) -> SocketOptions:
    """Return the options to use; as with asyncio, TCP_NODELAY is set unless the caller gave his."""
    return SocketOptions(nodelay=True) if options is None else options
