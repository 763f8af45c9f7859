"""Several workers seen as one program: each is asked, and their answers become one.

Records of sockets come one worker's after the other's; counters and numbers of sockets are summed; a knob is set in all. A worker that
dies, or does not answer in time, is left out. What it had counted, as far as it told, stays in the sums: counters only grow.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from tunstack.daemon.asking import Asked, SilentError
from tunstack.daemon.control import Piece
from tunstack.daemon.methods import Failure, Params, Peer
from tunstack.daemon.shares import SHARED, share
from tunstack.daemon.socketmethods import run
from tunstack.engine.knob import Value, to_text
from tunstack.engine.sysctl import KNOBS, dotted
from tunstack.inspect import reading
from tunstack.inspect.reading import Reading
from tunstack.inspect.snmp import GAUGES

log = logging.getLogger(__name__)

CHAINED = frozenset(("sockets", "kill"))  # all workers' records
SUMMED = frozenset(("counters", "metrics", "snmp", "status"))  # results that become one
SET = "sysctl.set"
FIRST = frozenset(("methods", "sysctl.get", "sysctl.list", "version"))  # what they have in common

Result = Mapping[str, Any]


class Totals:
    """Counters of workers that come and go, in sum."""

    def __init__(self) -> None:
        self._last: dict[int, Mapping[str, int]] = {}  # by process: what it said last
        self._gone: Counter[str] = Counter()  # of those that are no more

    def add(self, told: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
        """Return the sums of what the workers say now, by process; a worker that says nothing this time counts with what it said last."""
        self._last |= told
        return reading.add_values([*self._last.values(), self._gone])

    def forget(self, process: int) -> None:
        """A worker is no more."""
        for name, value in self._last.pop(process, {}).items():
            if name not in GAUGES:
                self._gone[name] += value


class Joined:
    """The answers of a program with several workers. `workers` gives those that serve now.

    `limits` are the knobs that the workers share out among themselves, whole; `changed` is what was set while the program runs, as each
    worker has it.
    """

    def __init__(
        self, count: int, sysctl: Mapping[str, Value], workers: Callable[[], Sequence[Asked]], uptime: Callable[[], float]
    ) -> None:
        self._count = count
        self._workers = workers
        self._uptime = uptime
        self._counters = Totals()
        self._values = Totals()
        self.limits: dict[str, Value] = {name: sysctl.get(name, KNOBS[name].default) for name in SHARED}
        self.changed: dict[str, str] = {}

    def call(self, name: str, params: Params, peer: Peer) -> AsyncIterator[Piece]:
        """Answer a method of the control socket."""
        if name in CHAINED:
            return self._chain(name, params, peer)
        if name in SUMMED:
            return self._sum(name, params, peer)
        if name == SET:
            return self._set(params, peer)
        assert name in FIRST
        return self._first(name, params, peer)

    async def read(self) -> Reading:
        """Return what Prometheus is to have."""
        told = await self._results("metrics", {}, Peer(0, 0))
        whole = reading.total([reading.from_json(result) for result in told.values()])
        return Reading(self._values.add({worker.pid: result["values"] for worker, result in told.items()}), whole.states, whole.queues)

    def forget(self, process: int) -> None:
        """A worker has ended."""
        self._counters.forget(process)
        self._values.forget(process)

    async def _chain(self, name: str, params: Params, peer: Peer) -> AsyncGenerator[Piece, None]:
        """Give the records of all workers."""
        failure: Failure | None = None
        answers = 0
        for worker in self._workers():
            try:
                async with aclosing(worker.ask(name, params, peer)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, list):
                            yield piece
                answers += 1
            except SilentError:
                _complain(worker, name)
            except Failure as error:
                failure = error
        if not answers:
            raise failure or _nobody()

    async def _first(self, name: str, params: Params, peer: Peer) -> AsyncGenerator[Piece, None]:
        """Give the answer of one worker: they would all say the same."""
        for worker in self._workers():
            try:
                async with aclosing(worker.ask(name, params, peer)) as pieces:
                    async for piece in pieces:
                        yield [self._whole(record) for record in piece] if isinstance(piece, list) else self._whole(piece)
                return
            except SilentError:
                _complain(worker, name)
        raise _nobody()

    def _whole(self, record: Any) -> Any:
        """Put the value of a whole limit into a knob's record that has a worker's share of it."""
        name = record.get("name")
        return {**record, "value": to_text(self.limits[name])} if name in self.limits else record

    async def _sum(self, name: str, params: Params, peer: Peer) -> AsyncGenerator[Piece, None]:
        told = await self._results(name, params, peer)
        if name == "counters":
            yield self._counters.add({worker.pid: result for worker, result in told.items()})
        elif name == "snmp":
            # One run of the program, whatever becomes of its workers: counters only grow.
            values = self._values.add({worker.pid: result["values"] for worker, result in told.items()})
            yield {"epoch": run(), "values": values}
        elif name == "metrics":
            yield reading.total([reading.from_json(result) for result in told.values()]).to_json()
        else:
            counters = self._counters.add({worker.pid: result["counters"] for worker, result in told.items()})
            yield join_status(told, counters, self._uptime())

    async def _set(self, params: Params, peer: Peer) -> AsyncGenerator[Piece, None]:
        """Set a knob in all workers, and in those to come."""
        name, text = dotted(params["name"]), params["value"]
        if name not in SHARED:
            told = await self._results(SET, params, peer)
            self.changed[name] = text
            yield next(iter(told.values()))
            return
        value, old = KNOBS[name].take(text), self.limits[name]
        text = to_text(share(value, self._count))
        await self._results(SET, {"name": name, "value": text}, peer)
        self.changed[name] = text
        self.limits[name] = value
        yield {"name": name, "value": to_text(value), "old": to_text(old)}

    async def _results(self, name: str, params: Params, peer: Peer) -> dict[Asked, Result]:
        """Return the results of all workers that have one; Failure if none has."""
        workers = self._workers()
        answers = await asyncio.gather(*(_result(worker, name, params, peer) for worker in workers), return_exceptions=True)
        told: dict[Asked, Result] = {}
        failure: Failure | None = None
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, SilentError):
                _complain(worker, name)
            elif isinstance(answer, Failure):
                failure = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                told[worker] = answer
        if not told:
            raise failure or _nobody()
        return told


async def _result(worker: Asked, name: str, params: Params, peer: Peer) -> Result:
    async with aclosing(worker.ask(name, params, peer)) as pieces:
        async for piece in pieces:
            if not isinstance(piece, list):
                return piece
    raise SilentError


def join_status(told: Mapping[Asked, Result], counters: Mapping[str, int], uptime: float) -> dict[str, object]:
    """Return the status of the program: what the workers have in common, sums, and a line for each."""
    results = list(told.values())
    connections: Counter[str] = Counter()
    algorithms: Counter[str] = Counter()
    for result in results:
        connections.update(result["connections"])
        algorithms.update(result["congestion"]["connections"])
    return {
        **results[0],
        "worker": None,
        "uptime_s": round(uptime, 3),
        "connections": {"total": connections.pop("total"), **dict(sorted(connections.items()))},
        "congestion": {**results[0]["congestion"], "connections": dict(sorted(algorithms.items()))},
        "counters": counters,
        "memory": {"resident_octets": sum(result["memory"]["resident_octets"] for result in results)},
        "workers": [
            {
                "worker": worker.index + 1,
                "pid": worker.pid,
                "uptime_s": result["uptime_s"],
                "connections": result["connections"]["total"],
                "resident_octets": result["memory"]["resident_octets"],
            }
            for worker, result in told.items()
        ],
    }


def _complain(worker: Asked, name: str) -> None:
    log.warning("worker %d (pid %d) does not answer %r; the others do", worker.index + 1, worker.pid, name)


def _nobody() -> Failure:
    return Failure("busy", "no worker answers now")
