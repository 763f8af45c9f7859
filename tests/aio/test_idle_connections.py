"""Many idle connections: what one costs, and how it goes. The figures are scripts/bench/footprint.py's, the same on every machine."""

from __future__ import annotations

import gc
import importlib.util
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunstack.engine.options import SocketOptions
from tunstack.engine.sysctl import Sysctl

BUDGET = 3600  # octets of an idle connection, with its transport and a bare protocol, but without its share of tables
BUDGET_AFTER_DATA = 3800  # the same once it has carried some
BUDGET_OF_STREAMS = 6400  # the same with a task that waits for data in an asyncio stream
TABLES = 400  # octets of a connection's share of tables: the stack's, the transports', the timers'


@pytest.fixture(scope="module")
def footprint() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "footprint.py"
    spec = importlib.util.spec_from_file_location("footprint", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world(footprint: ModuleType) -> Iterator[Any]:
    world = footprint.World(SocketOptions(nodelay=True, keepalive=True))
    yield world
    world.close()


def own_size(footprint: ModuleType, world: Any) -> int:
    """Return the octets of one connection that are its alone."""
    one, *others = world.transports[:3]
    return sum(footprint.sizes(footprint.own_objects(one, others)).values())


def test_an_idle_connection_stays_within_its_budget(footprint: ModuleType, world: Any) -> None:
    """Issue 5: 6 KiB of resident memory for each of 100,000; the budget keeps it well below."""
    world.open(3)
    assert own_size(footprint, world) <= BUDGET


def test_an_idle_connection_with_streams_stays_within_its_budget(footprint: ModuleType) -> None:
    """Issue 6: 8 KiB of resident memory in all."""
    world = footprint.World(SocketOptions(nodelay=True, keepalive=True), streams=True)
    world.open(3)
    size = own_size(footprint, world)
    world.close()
    assert BUDGET < size <= BUDGET_OF_STREAMS


def test_a_connection_that_has_become_idle_stays_within_it_too(footprint: ModuleType, world: Any) -> None:
    """What data in both directions needs is given back when it is through."""
    world.open(3)
    for transport in world.transports:
        transport.write(bytes(1000))
    world.run(1)
    for transport in world.transports:
        world.peers.send(transport.get_extra_info("connection").flow_in, bytes(1000))
    world.run(5)
    for transport in world.transports:
        info = transport.get_extra_info("tcp_info")
        assert (info.unacked, info.bytes_received) == (0, 1000)
    assert own_size(footprint, world) <= BUDGET_AFTER_DATA


def test_the_cost_is_the_same_for_each_however_many_there_are(footprint: ModuleType, world: Any) -> None:
    world.open(100)
    few = own_size(footprint, world)
    world.open(1900)
    assert own_size(footprint, world) <= few + 64  # an int more or less
    stack = world.endpoint.stack
    slots = stack.timers._slots.values()
    tables = [stack.flows, world.endpoint._transports._members, *(slot.owners for slot in slots)]
    assert sum(map(sys.getsizeof, tables)) / 2000 <= TABLES


@pytest.mark.parametrize("way", ["reset", "closed by us", "aborted by us", "timed out"])
def test_a_connection_that_ends_is_freed_without_the_garbage_collector(footprint: ModuleType, world: Any, way: str) -> None:
    """A pass of the collector over 100,000 connections takes long: they must not need it."""
    world.open(50)
    gone = [weakref.ref(transport) for transport in world.transports]
    gone += [weakref.ref(transport.get_extra_info("connection")) for transport in world.transports]
    gc.collect()
    gc.disable()
    try:
        if way == "reset":
            world.peers.reset([transport.get_extra_info("connection").flow_in for transport in world.transports])
        elif way == "timed out":
            world.peers.is_dead = True
            world.run(7200 + 10 * 75)
        else:
            for transport in world.transports:
                transport.close() if way == "closed by us" else transport.abort()
            del transport
        world.run(2)
        assert not world.transports
        assert sum(ref() is not None for ref in gone) == 0
    finally:
        gc.enable()


def test_a_sweep_of_keepalive_probes_is_cut_into_turns(footprint: ModuleType) -> None:
    """M-42: a burst is sent a part at a time, so that answers are read in between and the queue of the device holds them."""
    world = footprint.World(SocketOptions(keepalive=True), Sysctl(tcp_keepalive_time=60))
    count = 2000
    world.open(count)
    world.peers.most_waiting = 0
    heard = world.peers.heard
    world.run(62)
    assert world.peers.heard - heard == count
    assert world.endpoint.stack.counters.TCPKeepAlive == count
    assert all(conn.keepalive_probes == 0 for conn in world.endpoint.stack.connections)
    assert world.peers.most_waiting <= 300
    world.close()
