"""TLS over our transports: asyncio's own TLS protocol, put between.

`asyncio.sslproto` is pure Python and asks nothing of the loop but callbacks and futures, so it serves under uvloop and in
virtual time as well. The module is not documented; its constructor has been the same since Python 3.11.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are to be secured; timeouts in s, None: asyncio's."""

    context: ssl.SSLContext
    server_hostname: str | None = None
    handshake_timeout: float | None = None
    shutdown_timeout: float | None = None

    @classmethod
    def for_client(
        cls,
        context: ssl.SSLContext | bool | None,
        host: str | None,
        server_hostname: str | None,
        handshake_timeout: float | None,
        shutdown_timeout: float | None,
    ) -> Tls | None:
        """Check a client's arguments as asyncio does; None if it asks for no TLS."""
        if not context:
            if server_hostname is not None:
                raise ValueError("server_hostname is only meaningful with ssl")
            _check_timeouts(handshake_timeout, shutdown_timeout)
            return None
        if server_hostname is None:
            if not host:
                raise ValueError("You must set server_hostname when using ssl without a host")
            server_hostname = host
        if isinstance(context, bool):
            context = ssl.create_default_context()
            if not server_hostname:
                context.check_hostname = False
        return cls(context, server_hostname, handshake_timeout, shutdown_timeout)

    @classmethod
    def for_server(cls, context: ssl.SSLContext | None, handshake_timeout: float | None, shutdown_timeout: float | None) -> Tls | None:
        """Check a server's arguments as asyncio does; None if it asks for no TLS."""
        if isinstance(context, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        if context is None:
            _check_timeouts(handshake_timeout, shutdown_timeout)
            return None
        return cls(context, None, handshake_timeout, shutdown_timeout)

    def wrap(
        self, protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None] | None, *, server_side: bool
    ) -> tuple[asyncio.BaseProtocol, asyncio.Transport]:
        """Return the protocol for our transport, and the transport for the application's protocol. `waiter`: the handshake."""
        tls = sslproto.SSLProtocol(
            asyncio.get_running_loop(),
            protocol,
            self.context,
            cast(asyncio.Future[None], waiter),  # may be None: the server waits for nobody
            server_side,
            self.server_hostname or None,
            ssl_handshake_timeout=cast(int | None, self.handshake_timeout),
            ssl_shutdown_timeout=self.shutdown_timeout,
        )
        return tls, tls._app_transport


def _check_timeouts(handshake_timeout: float | None, shutdown_timeout: float | None) -> None:
    if handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
