"""How many sockets there are in each state, and with which congestion control.

A hundred thousand are counted in a tenth of a second, so `count` goes through them in pieces, between which the stack may go on: what
is gone by then is not counted, what is new is not looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tunstack.engine.connection import Connection
from tunstack.engine.state import CLOSE_WAIT, CLOSED, ESTABLISHED, State

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

T = TypeVar("T")
Work = Generator[None, None, T]  # yields when a piece of it is done, and returns what it came to

PIECE = 128  # sockets


@dataclass(slots=True)
class Census:
    """The numbers. `connections` are those that are neither half open nor in TIME_WAIT, `others` the rest that has a four-tuple."""

    connections: Counter[State] = field(default_factory=Counter)
    others: Counter[State] = field(default_factory=Counter)
    algorithms: Counter[str] = field(default_factory=Counter)  # of the connections, by name

    @property
    def established(self) -> int:
        """TcpCurrEstab (RFC 4022)."""
        return self.connections[ESTABLISHED] + self.connections[CLOSE_WAIT]


def count(stack: Stack) -> Work[Census]:
    """Count what has a four-tuple now."""
    census = Census()
    connections, others, algorithms = census.connections, census.others, census.algorithms
    flows = list(stack.flows)
    for start in range(0, len(flows), PIECE):
        for flow in flows[start : start + PIECE]:
            entry = stack.flows.get(flow)
            if isinstance(entry, Connection):
                connections[entry.state] += 1
                cc = getattr(entry.tx, "cc", None)  # there is none before the handshake is done
                algorithms[cc.name if cc else ""] += 1
            elif entry is not None and entry.state is not CLOSED:
                others[entry.state] += 1
        yield
    return census


def finish(work: Work[T]) -> T:
    """Do it all at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
