"""Options of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seeds N`: how many random worlds each test of that kind runs; CI runs a share, a release the full number."""
    parser.addoption("--seeds", type=int, default=4, help="random worlds for each test that draws them (the full number is 200)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `world_seed` runs once for each seed."""
    if "world_seed" in metafunc.fixturenames:
        metafunc.parametrize("world_seed", range(metafunc.config.getoption("seeds")))
