"""What the engine's tests share."""

from __future__ import annotations

import pytest
from engine.notation import Play, run_in_all_ways


@pytest.fixture
def play() -> Play:
    """Return the function that runs a script in all ways."""
    return run_in_all_ways
