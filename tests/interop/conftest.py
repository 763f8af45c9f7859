"""Fixtures of the tests against Linux: namespaces of their own (see namespaces.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from interop.daemons import Daemon
from interop.namespaces import Namespace

from tunstack.device.tun import CLONE_DEVICE


@pytest.fixture
def make_namespace() -> Iterator[Callable[[], Namespace]]:
    """A function that makes a namespace, for tests that need more than one."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    if not os.path.exists(CLONE_DEVICE):
        pytest.skip(f"needs {CLONE_DEVICE}")
    with ExitStack() as cleanup:

        def make() -> Namespace:
            made = Namespace()
            cleanup.callback(made.close)
            return made

        yield make


@pytest.fixture
def namespace(make_namespace: Callable[[], Namespace]) -> Namespace:
    """A network namespace of the test's own."""
    return make_namespace()


@pytest.fixture(params=["offload", "no-offload"])
def offload_flags(request: pytest.FixtureRequest) -> list[str]:
    """The flags for either way of exchanging frames with the kernel."""
    return [] if request.param == "offload" else ["--no-offload"]


@pytest.fixture
def start_daemon(namespace: Namespace) -> Iterator[Callable[..., Daemon]]:
    """A function that starts `tunstack serve` with further flags in the test's namespace."""
    with ExitStack() as cleanup:

        def start(*flags: str) -> Daemon:
            started = Daemon(namespace, *flags)
            cleanup.callback(started.close)
            return started

        yield start


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon], offload_flags: list[str]) -> Daemon:
    """`tunstack serve` with the defaults, once with offload and once without."""
    return start_daemon(*offload_flags)
