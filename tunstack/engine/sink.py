"""The application's end of a connection, as the engine sees it.

The engine calls a sink only at the end of handling a segment, a timer or an application call ("mutate first,
deliver last, transmit later"), so a sink may call any method of its connection.
"""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """Receives what happens to a connection.

    Order of calls: `on_established` once; then `on_data` and `on_writable` any number of times; `on_eof` at most
    once, after all data; `on_closed` exactly once and last, unless the sink was detached before.
    """

    def on_established(self) -> None:
        """The handshake is done (only for connections that were opened by `Stack.connect`)."""

    def on_data(self, data: memoryview | bytes) -> None:
        """In-order data: bytes if it waited, else a view, borrowed for the call. Not called while the connection is paused."""

    def on_eof(self) -> None:
        """The peer's FIN: no more data will come. Not called while the connection is paused."""

    def on_writable(self) -> None:
        """The unsent octets fell to `Connection.write_low_water` or below, having been above."""

    def on_closed(self, error: OSError | None) -> None:
        """The connection is over for the application: None after an orderly close, else the errno a socket gives."""


class NullSink:
    """The sink of an orphan, or of a connection that waits to be accepted."""

    def on_established(self) -> None: ...
    def on_data(self, data: memoryview | bytes) -> None: ...
    def on_eof(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_closed(self, error: OSError | None) -> None: ...


NULL_SINK = NullSink()
