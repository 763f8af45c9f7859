"""The throughput table (throughput.txt) computed anew: virtual time repeats exactly, so a line that differs is a change of behaviour.

A change that is meant is written down with `scripts/throughput_table.py --write` and reviewed with the commit that brings it.
"""

from __future__ import annotations

import importlib.util
import sys
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "throughput_table.py"
    spec = importlib.util.spec_from_file_location("throughput_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


table = load()
kept = table.TABLE.read_text().splitlines()
lines = [item for item in table.texts() if not isinstance(item, str)]


def test_the_table_has_the_lines_that_it_should_have() -> None:
    expected = "\n".join(item if isinstance(item, str) else item.name for item in table.texts()).splitlines()
    for number, (want, is_there) in enumerate(zip_longest(expected, kept, fillvalue=""), 1):
        assert is_there.startswith(want) and bool(want) == bool(is_there), f"line {number}: {is_there!r} where {want!r} should be"


@pytest.mark.parametrize("item", lines, ids=[" ".join(item.name.split()) for item in lines])
def test_a_line_of_the_table(item: object) -> None:
    """M-38: the figures are exactly those that are kept."""
    name, line = item.name, item.line()  # type: ignore[attr-defined]
    assert line in kept, f"\nkept      {next((was for was in kept if was.startswith(name)), None)}\ncomputed  {line}"
