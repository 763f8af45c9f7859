"""Who imports whom: the directions of the architecture, and what the engine must not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

PACKAGE = Path(__file__).parents[2] / "tunstack"

# A room may import itself and these. `seq` is a room of one module; "" is the package itself, which hands public names on.
ALLOWED = {
    "": {"aio", "device", "engine"},
    "__main__": {"cli"},
    "cli": {"daemon", "inspect", "sim", "aio"},
    "daemon": {"aio", "inspect", "device", "engine"},
    "aio": {"engine", "device"},
    "sim": {"engine", "device", "wire"},
    "inspect": {"engine", "wire"},
    "device": {"wire"},
    "engine": {"congestion", "wire", "seq"},
    "congestion": set(),
    "wire": set(),
    "seq": set(),
}

# The engine knows no clock, no I/O, no randomness.
SANS_IO = ("engine", "congestion", "wire", "seq")
BANNED = {"asyncio", "time", "os", "socket", "random", "secrets", "logging"}

# The package's own table of public names, which are wherever they are.
MAY_IMPORT_ANY_NAME = {"__init__"}
UNKNOWN = "a module whose name is computed"


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Give line and full name of everything that a module imports, wherever it stands: in functions and under TYPE_CHECKING too.

    `from tunstack import engine` and `from tunstack.engine import stack` are given down to the last name.
    """
    package = ["tunstack", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield node.lineno, f"{name}.{alias.name}"
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and module not in MAY_IMPORT_ANY_NAME:
                for name in names_of(node.args[0]):
                    yield node.lineno, name


def names_of(node: ast.expr) -> list[str]:
    """Return the strings that an expression can be, as far as they are written out."""
    if isinstance(node, ast.IfExp):
        return names_of(node.body) + names_of(node.orelse)
    if isinstance(node, ast.JoinedStr) and node.values:
        return names_of(node.values[0])
    return [node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else UNKNOWN]


def violations(source: str, module: str) -> list[str]:
    """Return what a module (its name below the package, `engine.stack`) imports against the rules."""
    room = "" if module == "__init__" else module.split(".")[0]
    found = []
    for line, name in imports(source, module):
        parts = name.split(".")
        if name == UNKNOWN:
            found.append(f"{module}:{line} imports {name}")
        elif parts[0] == "tunstack":
            target = parts[1] if len(parts) > 1 and parts[1] in ALLOWED else ""
            if target != room and target not in ALLOWED[room]:
                found.append(f"{module}:{line} imports {name}")
        elif parts[0] in BANNED and room in SANS_IO:
            found.append(f"{module}:{line} imports {name}")
    return found


def modules() -> list[tuple[str, Path]]:
    return [(".".join(path.relative_to(PACKAGE).with_suffix("").parts), path) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize(("module", "path"), modules(), ids=[module for module, _path in modules()])
def test_module_imports_only_what_its_room_may(module: str, path: Path) -> None:
    assert violations(path.read_text(), module) == []


def test_every_module_is_in_a_room_of_the_architecture() -> None:
    assert {module.split(".")[0] for module, _path in modules()} == (ALLOWED.keys() - {""}) | {"__init__"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.stack", "import time"),
        ("engine.stack", "import os.path"),
        ("engine.stack", "from random import Random"),
        ("congestion.cubic", "def f():\n    import logging"),
        ("engine.stack", "from tunstack.aio import Endpoint"),
        ("engine.stack", "from tunstack import aio"),
        ("engine.stack", "import tunstack.device.tun"),
        ("engine.stack", "from ..device import tun"),
        ("engine.stack", "from .. import device"),
        ("engine.stack", "from tunstack import Endpoint"),
        ("engine.stack", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tunstack.daemon.serve import serve"),
        ("engine.stack", "from importlib import import_module\nimport_module('tunstack.aio')"),
        ("engine.stack", "__import__('time')"),
        ("engine.stack", "import importlib\nimportlib.import_module(f'tunstack.aio.{name}')"),
        ("engine.stack", "import importlib\nimportlib.import_module(name)"),
        ("congestion.cubic", "from tunstack.engine.sysctl import Sysctl"),
        ("wire.codec", "from tunstack.engine import Stack"),
        ("seq", "from tunstack.wire import flow"),
        ("device.tun", "from tunstack.engine import Stack"),
        ("aio.driver", "from tunstack.wire.segment import Segment"),
        ("inspect.ss", "from tunstack.aio import Endpoint"),
        ("sim.world", "from tunstack.aio import Endpoint"),
        ("daemon.serve", "from tunstack.wire import codec"),
        ("daemon.serve", "from tunstack.cli.parser import Parser"),
        ("cli.nc", "from tunstack.engine import Stack"),
        ("__main__", "from tunstack.daemon import serve"),
        ("__init__", "from tunstack.cli import main"),
    ],
)
def test_import_against_the_rules_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.stack", "from tunstack import seq"),
        ("engine.stack", "from tunstack.seq import seq_lt"),
        ("engine.stack", "from . import timers"),
        ("engine.stack", "from .timers import NEVER\nfrom ..wire import flow\nfrom ..seq import seq_lt"),
        ("engine.sub.deep", "from ..timers import NEVER\nfrom ...wire import flow"),
        ("aio.driver", "import asyncio, time\nfrom tunstack.engine import Stack"),
        ("wire.codec", "import struct\nfrom tunstack.wire import native"),
        ("__init__", dedent("""\
            from importlib import import_module
            import_module("tunstack.aio")""")),
    ],
)  # fmt: skip
def test_import_by_the_rules_is_let_pass(module: str, source: str) -> None:
    assert violations(source, module) == []
