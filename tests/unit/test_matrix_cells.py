"""What the interop matrix combines (scripts/interop/cells.py)."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def cells() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix_cells", Path(__file__).resolve().parents[2] / "scripts" / "interop" / "cells.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_there_are_1440_cells(cells: ModuleType) -> None:
    names = [str(cell) for setting in cells.all_settings() for cell in cells.cells_of(setting)]
    assert len(names) == len(set(names)) == 72 * 2 * 5 * 2
    assert len({setting.number for setting in cells.all_settings()}) == 144


@pytest.mark.parametrize("option", ["sack", "timestamps", "window_scaling"])
def test_an_option_is_off_on_either_side_and_on_both_over_each_link(cells: ModuleType, option: str) -> None:
    factor = {"sack": "sack", "timestamps": "ts", "window_scaling": "ws"}[option]
    seen = set()
    for setting in cells.all_settings():
        ours, linux = getattr(setting.ours, option), getattr(setting.linux, option)
        assert (ours and linux) == (getattr(setting, factor) == "on") == getattr(setting.negotiated("client"), option)
        seen.add((ours, linux, setting.link))
    assert seen == set(itertools.product([True, False], [True, False], ["clean", "lossy"]))


def test_every_pair_of_ecn_values_meets_at_every_mtu_or_more_than_one(cells: ModuleType) -> None:
    pairs = {(setting.ours.ecn, setting.linux.ecn, setting.link) for setting in cells.all_settings()}
    assert pairs == set(itertools.product(range(3), range(3), ["clean", "lossy"]))
    for ours, linux in itertools.product(range(3), range(3)):
        assert len({setting.mtu for setting in cells.all_settings() if (setting.ours.ecn, setting.linux.ecn) == (ours, linux)}) > 1


def test_ecn_is_negotiated_where_the_client_asks_and_the_server_agrees(cells: ModuleType) -> None:
    """M-18: tcp_ecn 0 never, 1 asks and agrees, 2 agrees only."""
    for setting in cells.all_settings():
        ours, linux = setting.ours.ecn, setting.linux.ecn
        assert setting.negotiated("client").ecn == (ours == 1 and linux != 0)
        assert setting.negotiated("server").ecn == (linux == 1 and ours != 0)


def test_any_two_values_of_two_factors_meet_in_the_share(cells: ModuleType) -> None:
    share = cells.share()
    assert len(share) < 20
    for one, other in itertools.combinations(cells.SETTING_FACTORS, 2):
        met = {(getattr(setting, one), getattr(setting, other)) for setting in share}
        assert met == set(itertools.product(cells.FACTORS[one], cells.FACTORS[other]))
    assert {(setting.ours.ecn, setting.linux.ecn) for setting in share} == set(itertools.product(range(3), range(3)))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mtu", "'mtu' is not NAME=VALUE with a name of sack, ts, ws, ecn, mtu, link, role, load"),
        ("speed=9", "'speed=9' is not NAME=VALUE"),
        ("ecn=3+4", "ecn is one of 0, 1, 2, not 3, 4"),
    ],
)
def test_a_filter_that_says_nothing_is_refused(cells: ModuleType, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="^" + complaint.replace("+", r"\+")):
        cells.Filter(text)
