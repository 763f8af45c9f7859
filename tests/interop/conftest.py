"""Fixtures of the tests against Linux: namespaces of their own (see namespaces.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from namespaces import Namespace

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
