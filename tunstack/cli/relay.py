"""Netcat's conversation: one connection to and from standard input and output, as OpenBSD's nc has it.

Times are seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tunstack.cli.pump import Input, Output


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """How a conversation ends."""

    is_server: bool = False  # it is over with the peer's EOF, once what stands in our input is sent
    shutdown_at_eof: bool = False  # -N: our FIN at the end of input
    quit_after: float | None = None  # -q: end so long after the end of input
    idle_timeout: float | None = None  # -w: end when nothing came or went for so long


class Relay(asyncio.Protocol):
    """One conversation. Over, it closes the transport; `finished` is then set, to the error that it ended with, or None."""

    def __init__(self, input_: Input | None, output: Output, options: RelayOptions, on_connected: Callable[[Relay], None]) -> None:
        """`input_` None: nothing is sent (-d). The conversation waits, after `on_connected`, for `begin`."""
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[OSError | None] = self._loop.create_future()
        self._input = input_
        self._output = output
        self._options = options
        self._on_connected = on_connected
        self._peer_eof = False
        self._input_eof = input_ is None or input_.is_over
        self._is_begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0  # when octets last came or went
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport reads and writes
        self.transport.pause_reading()  # data waits in the stack, and the window closes
        self._on_connected(self)

    def begin(self) -> None:
        """Relay from now on; nothing happens if the connection is gone already."""
        if self.finished.done():
            return
        self._is_begun = True
        self._output.on_full = self.transport.pause_reading
        self._output.on_drained = self._resume
        self._output.on_error = self._on_output_error
        if self._input_eof:
            self._on_input_eof()
        elif self._input is not None:
            self._input.on_data = self._on_input
            self._input.resume()
        self._touch()
        if self._options.idle_timeout is not None:
            self._timer = self._loop.call_later(self._options.idle_timeout, self._on_timer)
        self._resume()

    # From the peer.

    def data_received(self, data: bytes) -> None:
        self._touch()
        self._output.write(data)

    def eof_received(self) -> bool:
        self._peer_eof = True
        return not self._is_over()  # False: the transport closes when it has sent everything

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_begun and self._input is not None:
            self._input.pause()
            self._input.on_data = None
        if self._timer is not None:
            self._timer.cancel()
        self._output.on_full = self._output.on_drained = self._output.on_error = None
        if not self.finished.done():
            self.finished.set_result(exc if isinstance(exc, OSError) else None)

    def pause_writing(self) -> None:
        if self._input is not None:
            self._input.pause()

    def resume_writing(self) -> None:
        self._touch()
        if self._is_over():
            self.transport.close()
        elif self._input is not None and not self._input_eof and not self.transport.is_closing():
            self._input.resume()

    # From us.

    def _on_input(self, data: bytes) -> None:
        self._touch()
        if not data:
            self._on_input_eof()
            return
        self.transport.write(data)
        if self._is_over():
            self.transport.close()

    def _on_input_eof(self) -> None:
        self._input_eof = True
        if self._peer_eof:
            self.transport.close()
            return
        if self._options.shutdown_at_eof:
            self.transport.write_eof()
        if self._options.quit_after is not None:
            self._loop.call_later(self._options.quit_after, self.transport.close)

    def _is_over(self) -> bool:
        """Tell whether neither end has more to say. A server does not wait for more input: nobody may be there to give it."""
        if not self._peer_eof or self._input_eof or self._input is None:
            return self._peer_eof
        return self._options.is_server and not self._input.is_ready()

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _on_output_error(self, error: OSError) -> None:
        if not self.finished.done():
            self.finished.set_result(error)
        self.transport.abort()

    def _touch(self) -> None:
        self._last = self._loop.time()

    def _on_timer(self) -> None:
        """Idle for long enough? Else look again when that may be."""
        assert self._options.idle_timeout is not None
        left = self._last + self._options.idle_timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._on_timer)
        else:
            self.transport.close()
