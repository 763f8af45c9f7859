"""The small services of old: echo, discard, daytime, chargen.

RFC 862, 863, 867, 864. Each holds back for a peer that does not read: what waits to be sent is bounded by the
transport's write limits, whatever the peer does.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache

_LINE_LENGTH = 72  # RFC 864: characters of a line, beside CR LF
_PRINTABLE = bytes(range(0x20, 0x7F))  # RFC 864: the 95 characters, in a ring

# Not strftime's %A and %B: these follow the locale.
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class Simple(asyncio.Protocol):
    """What the services share: the transport, and a place in the set of the connections that are open."""

    transport: asyncio.Transport

    def __init__(self, connections: set[Simple]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream server's transports read and write
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def drain(self) -> None:
        """The daemon is to end: come to an end, where the peer would not."""


class Echo(Simple):
    """Sends back what comes; reads no more while the peer does not take it. After the peer's EOF it sends the rest and closes."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Discard(Simple):
    """Throws away what comes."""


class Daytime(Simple):
    """Sends the date and time once and closes; throws away what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(daytime(time.localtime()))
        self.transport.close()


class Chargen(Simple):
    """Sends lines of characters as fast as the peer takes them, until it closes; throws away what comes."""

    def __init__(self, connections: set[Simple]) -> None:
        super().__init__(connections)
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None  # the coming call of _send; None while writing is paused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._next = self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Send one block; the next one in another turn of the loop, for a peer that is quick must not take the loop for itself."""
        self._next = self._loop.call_soon(self._send)
        self.transport.write(character_block())  # may call pause_writing

    def pause_writing(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._next = self._loop.call_soon(self._send)

    def eof_received(self) -> bool:
        return True  # a half-closed peer still reads

    def drain(self) -> None:
        self.pause_writing()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pause_writing()


class SimpleService:
    """One of the services; called, it makes the protocol for one connection."""

    def __init__(self, protocol: type[Simple]) -> None:
        self._protocol = protocol
        self._connections: set[Simple] = set()

    def __call__(self) -> Simple:
        return self._protocol(self._connections)

    def drain(self) -> None:
        """Let connections come to an end, where nothing is lost by it."""
        for connection in list(self._connections):
            connection.drain()


SIMPLE_SERVICES: dict[str, type[Simple]] = {"echo": Echo, "discard": Discard, "daytime": Daytime, "chargen": Chargen}


def daytime(now: time.struct_time) -> bytes:
    """Return the second form that RFC 867 recommends, `dd mmm yyyy hh:mm:ss zzz`, as xinetd writes it, with CR LF."""
    return f"{now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {now.tm_year} {time.strftime('%H:%M:%S', now)} {now.tm_zone}\r\n".encode()


@cache
def character_block() -> bytes:
    """Return nine times the whole pattern of RFC 864, 63 270 octets: a block after a block goes on with the pattern."""
    ring = _PRINTABLE * 2
    return b"".join(ring[start : start + _LINE_LENGTH] + b"\r\n" for start in range(len(_PRINTABLE))) * 9
