"""Which transports still have a connection in the engine: what closing an endpoint has to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """A set that one can wait for to be empty. Nothing polls it."""

    __slots__ = ("_members", "_waiters")

    def __init__(self) -> None:
        self._members: set[T] = set()
        self._waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[T]:
        """Go through the members as they are now; they may leave meanwhile."""
        return iter(tuple(self._members))

    def add(self, member: T) -> None:
        self._members.add(member)

    def discard(self, member: T) -> None:
        self._members.discard(member)
        if not self._members and self._waiters:
            self.wake()

    def wake(self) -> None:
        """End all the waiting."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_empty(self) -> None:
        """Wait until the last member has left."""
        if self._members:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
