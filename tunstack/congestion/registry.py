"""Algorithms by name. Adding one is one file and one line here; a user registers his own with `register`."""

from __future__ import annotations

from tunstack.congestion.base import Factory
from tunstack.congestion.bbr import Bbr
from tunstack.congestion.reno import Reno

_FACTORIES: dict[str, Factory] = {"bbr": Bbr, "reno": Reno}


def register(name: str, factory: Factory) -> None:
    """Make an algorithm available under a name; ValueError if the name is taken."""
    if name in _FACTORIES:
        raise ValueError(f"a congestion control named {name!r} exists already")
    _FACTORIES[name] = factory


def lookup(name: str) -> Factory:
    """Return the factory of an algorithm; KeyError if there is none of that name."""
    return _FACTORIES[name]


def available() -> list[str]:
    """Return the names, sorted (tcp_available_congestion_control)."""
    return sorted(_FACTORIES)
