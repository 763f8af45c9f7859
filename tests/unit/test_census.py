"""Counting sockets in pieces, for ss, Prometheus and /status (M-60, M-61)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tunstack.daemon.socketmethods import get_snmp
from tunstack.daemon.turns import in_turns
from tunstack.engine import Stack, StackConfig, pack_address
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import CLOSE_WAIT, ESTABLISHED, SYN_SENT, TIME_WAIT, State
from tunstack.inspect import snmpvalues
from tunstack.inspect.census import PIECE, Census, Work, count, finish
from tunstack.inspect.prometheus import StackCollector

HERE, THERE = pack_address("10.77.0.2"), pack_address("10.77.0.1")
NUMBER = 3 * PIECE + 5


def stack_of(number: int) -> Stack:
    """Return a stack with so many connections, of which each tenth is still opening and each fifth has had the peer's FIN."""
    stack = Stack(StackConfig((HERE,)), random.Random(1), bytes(16))
    for index in range(number):
        conn = stack.connect(THERE, 80, NULL_SINK, 0, local=HERE, local_port=1 + index)
        if index % 10:
            conn.state = CLOSE_WAIT if index % 5 == 1 else ESTABLISHED
    return stack


def states(number: int) -> dict[State, int]:
    """Return what it then has."""
    opening = -(-number // 10)
    waiting = sum(1 for index in range(number) if index % 10 and index % 5 == 1)
    return {SYN_SENT: opening, CLOSE_WAIT: waiting, ESTABLISHED: number - opening - waiting}


def test_all_are_counted_once() -> None:
    """M-61: states by number, and TcpCurrEstab from them."""
    stack = stack_of(NUMBER)
    census = finish(count(stack))
    assert census.connections == states(NUMBER)
    assert census.others == {}
    assert census.algorithms.total() == NUMBER
    assert census.established == NUMBER - states(NUMBER)[SYN_SENT] == snmpvalues.values(stack)["TcpCurrEstab"]


def test_the_stack_goes_on_meanwhile() -> None:
    """M-61: what is gone between two pieces is not counted, what is new is not looked for, and no piece is long."""
    stack = stack_of(NUMBER)
    work = count(stack)
    next(work)
    for flow in list(stack.flows)[-7:]:
        del stack.flows[flow]
    stack.flows[b"new"] = cast(Any, SimpleNamespace(state=TIME_WAIT))
    found: list[Census] = []

    def rest() -> Iterator[None]:
        found.append((yield from work))

    assert 1 + sum(1 for _ in rest()) == -(-NUMBER // PIECE)
    assert found[0].connections.total() == NUMBER - 7
    assert found[0].others == {}


def test_prometheus_shows_what_was_counted_before() -> None:
    """M-61: a scrape does not walk over the connections once more."""
    stack = stack_of(20)
    collector = StackCollector(stack, {})
    registry = CollectorRegistry()
    registry.register(collector)
    collector.census = finish(count(stack))
    stack.flows.clear()
    text = generate_latest(registry).decode()
    assert '\ntunstack_tcp_sockets{state="syn_sent"} 2.0\n' in text
    assert '\ntunstack_tcp_sockets{state="close_wait"} 4.0\n' in text
    collector.census = None
    assert '\ntunstack_tcp_sockets{state="syn_sent"} 0.0\n' in generate_latest(registry).decode()


def test_snmp_comes_in_pieces() -> None:
    """M-61: what nstat and netstat -s ask for is a generator that returns its result."""
    stack = stack_of(NUMBER)
    context = cast(Any, SimpleNamespace(endpoint=SimpleNamespace(stack=stack)))
    work = get_snmp(context, {})
    next(work)
    values = cast(dict[str, int], finish(work)["values"])
    assert values == snmpvalues.values(stack)


def test_the_loop_has_its_turns_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """M-61: work in turns lets others run, and returns what it came to."""
    monkeypatch.setattr("tunstack.daemon.turns.TURN", 0.0)
    done = []

    def work() -> Work[str]:
        for number in range(5):
            done.append(number)
            yield
        return "done"

    async def main() -> list[int]:
        task = asyncio.get_running_loop().create_task(in_turns(work()))
        seen = []
        while not task.done():
            await asyncio.sleep(0)
            seen.append(len(done))
        assert task.result() == "done"
        return seen

    assert set(asyncio.run(main())) == {1, 2, 3, 4, 5}
