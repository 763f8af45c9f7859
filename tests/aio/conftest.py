"""Tests that are coroutines, and the worlds that they run in (worlds.py)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
from aio.worlds import LOOPS, Kernel, Ours, World

from tunstack.sim.loop import VirtualLoop


@pytest.fixture(params=[*LOOPS, "kernel"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    yield Kernel() if request.param == "kernel" else Ours(request.param, LOOPS[request.param])


@pytest.fixture(params=list(LOOPS))
def ours(request: pytest.FixtureRequest) -> Iterator[Ours]:
    yield Ours(request.param, LOOPS[request.param])


@pytest.fixture
def virtual() -> Iterator[Ours]:
    yield Ours("virtual", VirtualLoop)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are coroutines in their world."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    place = next(value for value in arguments.values() if isinstance(value, World))
    place.run(pyfuncitem.obj(**arguments))
    return True
