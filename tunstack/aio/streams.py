"""A stream reader that hands received segments over as they came.

asyncio's own copies everything into one bytearray and out of it again. This one keeps the pieces that it is fed with, and `read`
returns a large one as it is. Whatever else a reader can do is left to asyncio's class, after the pieces were poured into its
bytearray: lines, separators, exact lengths, limits, exceptions and their texts are asyncio's because they are done by asyncio.

Deviates: `read(n)` may return less than n octets when more have come: a large piece comes alone, and so does what precedes it.
Lengths are octets.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from typing import TYPE_CHECKING, SupportsIndex

WHOLE = 4096  # a piece of this size is handed over as it is; smaller ones are joined
PIECES_MAX = 256  # kept as they came; more of them, which must be small, cost less in one bytearray


class SegmentReader(asyncio.StreamReader):
    """An `asyncio.StreamReader` for all that a program can see.

    Invariant: what was fed and not read is `_buffer` (asyncio's), then `_pieces` in their order, `_pieces_size` octets of them.
    Methods of the base class see `_buffer` alone, so each is preceded by `_pour`, and so is its going on after a wait.
    """

    _pieces: list[bytes]
    _pieces_size: int

    if TYPE_CHECKING:  # the base class's, which typeshed does not tell
        _buffer: bytearray
        _eof: bool
        _limit: int
        _paused: bool
        _transport: asyncio.Transport | None
        _waiter: asyncio.Future[None] | None

    def __init__(self, limit: int, loop: AbstractEventLoop | None = None) -> None:
        super().__init__(limit, loop)
        self._pieces = []
        self._pieces_size = 0

    def __repr__(self) -> str:
        self._pour()
        return super().__repr__()

    # What the protocol feeds.

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:  # hot
        assert not self._eof, "feed_data after feed_eof"
        if not data:
            return
        if type(data) is not bytes:
            data = bytes(data)
        self._pieces.append(data)
        self._pieces_size += len(data)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.cancelled():
                waiter.set_result(None)
        if self._pieces_size + len(self._buffer) > 2 * self._limit and not self._paused:
            self._pause_transport()
        if len(self._pieces) > PIECES_MAX:
            self._pour()

    def _pause_transport(self) -> None:
        transport = self._transport
        if transport is None:
            return
        try:
            transport.pause_reading()
        except NotImplementedError:
            self._transport = None  # not asked again: then all of it is kept
        else:
            self._paused = True

    def _maybe_resume_transport(self) -> None:
        if self._paused and self._pieces_size + len(self._buffer) <= self._limit:
            self._paused = False
            assert self._transport is not None
            self._transport.resume_reading()

    def _pour(self) -> None:
        """Move the pieces to where the base class looks."""
        if self._pieces:
            for piece in self._pieces:
                self._buffer += piece
            self._pieces.clear()
            self._pieces_size = 0

    async def _wait_for_data(self, func_name: str) -> None:
        await _wait(self, func_name)
        self._pour()

    # What the program calls.

    def at_eof(self) -> bool:
        return self._eof and not self._pieces and not self._buffer

    async def read(self, n: int = -1) -> bytes:  # hot
        if n <= 0 or self.exception() is not None:
            return await super().read(n)  # all of it comes back here, piece by piece
        pieces = self._pieces
        if not pieces and not self._buffer and not self._eof:
            await _wait(self, "read")
        if pieces and not self._buffer and len(pieces[0]) <= n and (len(pieces) == 1 or len(pieces[0]) >= WHOLE):
            data = pieces.pop(0)
            self._pieces_size -= len(data)
        else:
            data = self._gather(n)
        if self._paused:
            self._maybe_resume_transport()
        return data

    def _gather(self, n: int) -> bytes:
        """Take n octets, or all that there are, or what precedes a large piece."""
        buffer, pieces = self._buffer, self._pieces
        size = len(buffer)
        count = 0
        for piece in pieces:
            if size >= n or (size and len(piece) >= WHOLE):
                break
            size += len(piece)
            count += 1
        if size <= n:
            data = b"".join((buffer, *pieces[:count]))
            buffer.clear()
            self._pieces_size -= sum(map(len, pieces[:count]))
            del pieces[:count]
            return data
        # The last of them must be cut.
        for piece in pieces[:count]:
            buffer += piece
            self._pieces_size -= len(piece)
        del pieces[:count]
        with memoryview(buffer) as view:
            data = bytes(view[:n])
        del buffer[:n]
        return data

    async def readexactly(self, n: int) -> bytes:
        self._pour()
        return await super().readexactly(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:  # type: ignore[override]  # since 3.13 a tuple of them too
        self._pour()
        return await super().readuntil(separator)


_wait = asyncio.StreamReader._wait_for_data  # type: ignore[attr-defined]
