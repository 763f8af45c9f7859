"""What a stack has counted and how many sockets it has, as plain values that can be sent and added: for metrics.

Several stacks of one program are added to one: counters and numbers of sockets are summed, what is a property of each stays what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from tunstack.engine.state import State
from tunstack.inspect import snmpvalues
from tunstack.inspect.census import Census
from tunstack.inspect.snmp import GAUGES
from tunstack.wire.flow import format_address

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

CONSTANT = GAUGES - {"TcpCurrEstab"}  # the same in every stack of a program
QueueKey = tuple[str, int, str]  # address, port, and the name of what listens there


@dataclass(frozen=True, slots=True)
class Queue:
    """The queues of a port that is listened on, in connections."""

    acceptable: int
    limit: int
    half_open: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The values: Linux's under nstat's names, sockets by the RFC's name of their state, queues."""

    values: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[QueueKey, Queue] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {"values": self.values, "states": self.states, "queues": [[*key, *astuple(queue)] for key, queue in self.queues.items()]}


def from_json(given: Mapping[str, Any]) -> Reading:
    """Return the reading of `to_json`."""
    queues = {(address, port, service): Queue(*numbers) for address, port, service, *numbers in given["queues"]}
    return Reading(given["values"], given["states"], queues)


def read(stack: Stack, labels: Mapping[int, str], census: Census) -> Reading:
    """Read a stack whose sockets were counted; `labels` are the names of what listens on a port."""
    states: Counter[str] = Counter()
    for state, number in (*census.connections.items(), *census.others.items()):
        states[state.name] += number
    queues: dict[QueueKey, Queue] = {}
    for listener in stack.listeners:
        states[State.LISTEN.name] += 1
        key = (format_address(listener.address), listener.port, labels.get(listener.port, ""))
        queues[key] = _plus(queues.get(key), Queue(listener.acceptable, listener.backlog_limit, listener.half_open))
    return Reading(snmpvalues.values(stack, census), states, queues)


def total(readings: Sequence[Reading]) -> Reading:
    """Add readings up."""
    states: Counter[str] = Counter()
    queues: dict[QueueKey, Queue] = {}
    for reading in readings:
        states.update(reading.states)
        for key, queue in reading.queues.items():
            queues[key] = _plus(queues.get(key), queue)
    return Reading(add_values([reading.values for reading in readings]), states, queues)


def add_values(several: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add values under nstat's names; a property, such as TcpRtoMin, stays what the first says."""
    result: dict[str, int] = {}
    for values in several:
        for name, value in values.items():
            result[name] = result.get(name, value) if name in CONSTANT else result.get(name, 0) + value
    return result


def _plus(queue: Queue | None, other: Queue) -> Queue:
    if queue is None:
        return other
    return Queue(queue.acceptable + other.acceptable, queue.limit + other.limit, queue.half_open + other.half_open)
