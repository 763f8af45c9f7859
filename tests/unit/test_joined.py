"""Several workers' answers made one (daemon/joined.py): for ss, netstat, nstat, sysctl, Prometheus and status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from tunstack.daemon.asking import Asked, SilentError
from tunstack.daemon.control import Piece
from tunstack.daemon.joined import CHAINED, FIRST, SET, SUMMED, Joined, Totals
from tunstack.daemon.methods import METHODS, Failure, Params, Peer
from tunstack.daemon.shares import SHARED, share
from tunstack.engine.sysctl import KNOBS
from tunstack.inspect import reading
from tunstack.inspect.reading import Queue, Reading

PEER = Peer(1, 0)


class Worker:
    """One that answers from a table: pieces, an exception, or a function of the parameters."""

    def __init__(self, index: int, **answers: object) -> None:
        self.index = index
        self.pid = 1000 + index
        self.answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[tuple[str, Params]] = []

    async def ask(self, name: str, params: Params, peer: Peer) -> AsyncIterator[Piece]:
        self.asked.append((name, params))
        assert peer == PEER or name == "metrics"
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        for piece in cast("Sequence[Piece]", answer(params) if callable(answer) else answer):
            yield piece


def join(*workers: Worker, count: int | None = None, sysctl: Mapping[str, Any] | None = None) -> Joined:
    return Joined(count or len(workers), sysctl or {}, lambda: cast("list[Asked]", list(workers)), lambda: 42.0)


def ask(joined: Joined, method: str, /, **params: object) -> list[Any]:
    """Return all pieces of an answer."""

    async def collect() -> list[Any]:
        return [piece async for piece in joined.call(method, params, PEER)]

    return asyncio.run(collect())


def test_there_is_a_way_to_join_every_method() -> None:
    ways = [*CHAINED, *SUMMED, *FIRST, SET]
    assert sorted(ways) == sorted(METHODS)


def test_sockets_come_one_worker_after_the_other() -> None:
    """M-60."""
    one, two = Worker(0, sockets=[[{"a": 1}], [{"a": 2}], {"records": 2}]), Worker(1, sockets=[[{"a": 3}], {"records": 1}])
    assert ask(join(one, two), "sockets", filter={}) == [[{"a": 1}], [{"a": 2}], [{"a": 3}]]
    assert one.asked == two.asked == [("sockets", {"filter": {}})]


def test_one_that_is_silent_does_not_break_the_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Nor one that fails; what it said before counts."""
    fails = Worker(0, sockets=Failure("internal", "x"), counters=Failure("internal", "x"))
    silent = Worker(1, sockets=SilentError(), counters=SilentError(), version=SilentError())
    well = Worker(2, sockets=[[{"a": 3}], {"records": 1}], counters=[{"TcpInSegs": 3}], version=[{"tunstack": "1"}])
    assert ask(join(fails, silent, well), "sockets") == [[{"a": 3}]]
    assert ask(join(fails, silent, well), "counters") == [{"TcpInSegs": 3}]
    assert ask(join(silent, well), "version") == [{"tunstack": "1"}]
    assert caplog.text.count("worker 2 (pid 1001) does not answer") == 3


@pytest.mark.parametrize("name", ["sockets", "counters", "version"])
def test_where_none_answers_it_is_said(name: str) -> None:
    silent = [Worker(index, **{name: SilentError()}) for index in range(2)]
    with pytest.raises(Failure, match="no worker answers now"):
        ask(join(*silent), name)
    with pytest.raises(Failure, match="no worker answers now"):
        ask(join(count=2), name)


def test_a_mistake_in_the_question_is_told_once() -> None:
    wrong = [Worker(index, sockets=Failure("EINVAL", "filter: no")) for index in range(3)]
    with pytest.raises(Failure, match="filter: no"):
        ask(join(*wrong), "sockets", filter={})


def test_counters_are_summed_and_properties_are_not() -> None:
    """M-61."""
    values = [
        {"TcpInSegs": 3, "TcpRtoMin": 200, "TcpMaxConn": -1, "TcpCurrEstab": 5},
        {"TcpInSegs": 4, "TcpRtoMin": 200, "TcpMaxConn": -1, "TcpCurrEstab": 6},
    ]
    workers = [Worker(index, snmp=[{"epoch": f"{index}", "values": each}]) for index, each in enumerate(values)]
    (answer,) = ask(join(*workers), "snmp")
    assert answer["values"] == {"TcpInSegs": 7, "TcpRtoMin": 200, "TcpMaxConn": -1, "TcpCurrEstab": 11}
    assert ask(join(*workers), "snmp") == [answer]  # the same run of the program, for nstat's history


def test_what_a_dead_worker_had_told_stays_in_the_sums() -> None:
    """So that counters only grow; what is a number of things at this moment goes."""
    totals = Totals()
    assert totals.add({1: {"TcpInSegs": 10, "TcpCurrEstab": 2}, 2: {"TcpInSegs": 1, "TcpCurrEstab": 1}})["TcpInSegs"] == 11
    totals.forget(1)
    left = totals.add({2: {"TcpInSegs": 2, "TcpCurrEstab": 1}, 3: {"TcpInSegs": 0, "TcpCurrEstab": 0}})
    assert left == {"TcpInSegs": 12, "TcpCurrEstab": 1}
    totals.forget(4)
    assert totals.add({})["TcpInSegs"] == 12  # nobody answered this time: what they said last


def test_a_limit_of_the_whole_program_is_shared_out() -> None:
    """M-62: what one sets is what one reads, whatever each worker has."""
    name = "net.ipv4.tcp_max_orphans"
    assert name in SHARED and set(KNOBS) >= SHARED
    workers = [Worker(index, sysctl_set=lambda params: [dict(params)], sysctl_list=[[{"name": name, "value": "34"}]]) for index in range(3)]
    joined = join(*workers, sysctl={name: 99})
    assert ask(joined, SET, name="net/ipv4/tcp_max_orphans", value="100") == [{"name": name, "value": "100", "old": "99"}]
    assert [worker.asked for worker in workers] == [[(SET, {"name": name, "value": "34"})]] * 3
    assert joined.changed == {name: "34"}
    assert ask(joined, "sysctl.list") == [[{"name": name, "value": "100"}]]
    with pytest.raises(OSError, match="not a whole number"):
        ask(joined, SET, name=name, value="many")
    assert joined.limits[name] == 100


def test_any_other_knob_is_the_same_in_all_and_in_those_to_come() -> None:
    """M-62."""
    name = "net.ipv4.tcp_sack"
    workers = [Worker(index, sysctl_set=[{"name": name, "value": "0", "old": "1"}]) for index in range(2)]
    joined = join(*workers)
    assert ask(joined, SET, name=name, value="0") == [{"name": name, "value": "0", "old": "1"}]
    assert all(worker.asked for worker in workers) and joined.changed == {name: "0"}
    refusing = join(*(Worker(index, sysctl_set=Failure("EINVAL", "no")) for index in range(2)))
    with pytest.raises(Failure, match="no"):
        ask(refusing, SET, name=name, value="2")
    assert refusing.changed == {}


@pytest.mark.parametrize(("value", "workers", "part"), [(1000, 3, 334), (0, 2, 0), (1, 64, 1), ((10, 20, 31), 2, (5, 10, 16))])
def test_a_share_is_rounded_up(value: Any, workers: int, part: Any) -> None:
    assert share(value, workers) == part


def test_only_a_limit_is_shared() -> None:
    with pytest.raises(TypeError):
        share("cubic", 2)


def test_metrics_are_added_up() -> None:
    """M-61: sockets by state, and the queues of a port that all listen on."""
    queues: Callable[[int], Mapping[reading.QueueKey, Queue]] = lambda n: {("10.77.0.2", 80, "http"): Queue(n, 100, 2 * n)}  # noqa: E731
    told = [Reading({"TcpInSegs": n}, {"LISTEN": 1, "ESTABLISHED": n}, queues(n)) for n in (1, 2)]
    assert [reading.from_json(each.to_json()) for each in told] == told
    joined = join(*(Worker(index, metrics=[each.to_json()]) for index, each in enumerate(told)))
    whole = asyncio.run(joined.read())
    assert whole == Reading({"TcpInSegs": 3}, {"LISTEN": 2, "ESTABLISHED": 3}, {("10.77.0.2", 80, "http"): Queue(3, 200, 6)})


def test_the_status_is_of_all_with_a_line_for_each() -> None:
    def status(n: int) -> dict[str, object]:
        return {
            "version": "1",
            "uptime_s": n,
            "connections": {"total": n, "ESTABLISHED": n},
            "congestion": {"default": "cubic", "connections": {"cubic": n}},
            "counters": {"TcpInSegs": n},
            "memory": {"resident_octets": 10 * n},
        }

    (answer,) = ask(join(Worker(0, status=[status(1)]), Worker(1, status=[status(2)])), "status")
    assert answer["connections"] == {"total": 3, "ESTABLISHED": 3}
    assert answer["congestion"] == {"default": "cubic", "connections": {"cubic": 3}}
    assert (answer["counters"], answer["memory"], answer["uptime_s"]) == ({"TcpInSegs": 3}, {"resident_octets": 30}, 42.0)
    assert answer["workers"][1] == {"worker": 2, "pid": 1001, "uptime_s": 2, "connections": 2, "resident_octets": 20}
