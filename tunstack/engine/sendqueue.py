"""The octets between the application and the network: queued by reference, found again by position.

Positions are counts of octets since the start of the stream (not sequence numbers, they never wrap).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

PIECES_MAX = 16  # pieces of one segment before they are joined: a writev of many small ones costs more than the copy
SMALL = 2048  # a write below this is merged with its neighbours


# What a queue has while it is empty, as that of an idle connection is: the same for all of them, and never changed.
NO_PIECES: Final[list[bytes | memoryview]] = []
NO_ENDS: Final[list[int]] = []


class SendQueue:
    """What was written and is not acknowledged. Invariant: `start <= end`; the pieces cover [start, end) without gap."""

    __slots__ = ("_ends", "_head", "_pieces", "_small", "end", "start")

    def __init__(self) -> None:
        self._pieces = NO_PIECES
        self._ends = NO_ENDS  # position behind each piece
        self._head = 0  # index of the first piece that is still needed
        self._small = False  # the last piece is small enough to be merged with
        self.start = 0  # position of the first octet held
        self.end = 0  # position behind the last octet

    def append(self, data: bytes | memoryview) -> None:
        """Add octets at the end; they are held by reference and must not change."""
        size = len(data)
        if not size:
            return
        self.end = end = self.end + size
        if self._ends is NO_ENDS:
            self._pieces = [data]
            self._ends = [end]
            self._small = size < SMALL
            return
        if size < SMALL:
            if self._small:
                # Many small writes would cost more in bookkeeping than in octets: merge them, quadratic only up to SMALL.
                merged = b"".join((self._pieces[-1], data))
                self._pieces[-1] = merged
                self._ends[-1] = end
                self._small = len(merged) < SMALL
                return
            self._small = True
        else:
            self._small = False
        self._pieces.append(data)
        self._ends.append(end)

    def slice(self, position: int, length: int) -> tuple[bytes | memoryview, ...]:  # hot
        """Return `length` octets from `position` on as pieces, whole ones by reference and parts as views."""
        ends = self._ends
        pieces = self._pieces
        index = self._head
        piece = pieces[index]
        if ends[index] == position + length and len(piece) == length:  # a write that leaves as it is
            return (piece,)
        if ends[index] <= position:
            index = bisect_right(ends, position, index)
            piece = pieces[index]
        first = ends[index] - len(piece)
        offset = position - first
        if offset + length <= len(piece):
            if length == len(piece):
                return (piece,)
            return (memoryview(piece)[offset : offset + length],)
        parts: list[bytes | memoryview] = [memoryview(piece)[offset:] if offset else piece]
        length -= len(piece) - offset
        while length:
            index += 1
            piece = pieces[index]
            size = len(piece)
            if size > length:
                parts.append(memoryview(piece)[:length])
                break
            parts.append(piece)
            length -= size
        if len(parts) > PIECES_MAX:
            return (b"".join(parts),)
        return tuple(parts)

    def release(self, position: int) -> None:  # hot
        """Forget the octets before `position`: they are acknowledged."""
        self.start = position
        if position == self.end:
            self._pieces = NO_PIECES
            self._ends = NO_ENDS
            self._head = 0
            self._small = False
            return
        ends = self._ends
        head = self._head
        if ends[head] > position:
            return
        head = bisect_right(ends, position, head)
        if head > 32 and head * 2 > len(ends):
            del self._pieces[:head]
            del ends[:head]
            head = 0
        else:
            for index in range(self._head, head):
                self._pieces[index] = b""  # the reference goes now, the slot later
        self._head = head

    def clear(self) -> None:
        """Forget everything (reset)."""
        self.release(self.end)
