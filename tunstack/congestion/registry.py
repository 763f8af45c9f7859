"""Algorithms by name. Adding one is one file and one line here; a user adds his own to a stack's `Algorithms`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from tunstack.congestion.base import CongestionControl, Factory
from tunstack.congestion.bbr import Bbr
from tunstack.congestion.cubic import Cubic
from tunstack.congestion.guard import Guard
from tunstack.congestion.reno import Reno
from tunstack.congestion.tahoe import Tahoe

BUILT_IN: Mapping[str, Factory] = MappingProxyType(
    {
        "bbr": Bbr,
        "cubic": Cubic,
        "reno": Reno,
        "tahoe": Tahoe,
    }
)
NAME = re.compile(r"[a-z][a-z0-9_-]{0,14}")  # TCP_CA_NAME_MAX is 16, with the NUL


class Algorithms(Mapping[str, Factory]):
    """The algorithms that one stack has: ours, and what its user added. Iterates by name (tcp_available_congestion_control)."""

    __slots__ = ("_factories", "on_failure")

    def __init__(self, on_failure: Callable[[str, Exception], None] | None = None) -> None:
        self._factories = dict(BUILT_IN)
        self.on_failure = on_failure  # told of what a user's algorithm raised, with its name

    def __getitem__(self, name: str) -> Factory:
        return self._factories[name]

    def factory(self, name: str) -> Factory:
        """Return what makes an algorithm, Reno's where there is none of that name: a program may write what it likes into the sysctl."""
        return self._factories.get(name, Reno)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._factories))

    def __len__(self) -> int:
        return len(self._factories)

    def add(self, algorithm: type[CongestionControl]) -> str:
        """Make a user's algorithm available and return its name: its attribute `name` or, without one, the class's in lower case.

        It runs under guard (guard.py). TypeError for what is no subclass of CongestionControl, ValueError for a name that is none
        or is taken, whatever the class raises where it cannot be made.
        """
        if not (isinstance(algorithm, type) and issubclass(algorithm, CongestionControl)):
            raise TypeError(f"{getattr(algorithm, '__name__', algorithm)!r} is not a subclass of CongestionControl")
        own = algorithm.__dict__.get("name")
        name = algorithm.__name__.lower() if own is None else own
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a congestion control: 1 to 15 of a-z, 0-9, _ and -, a letter first")
        if name in self._factories:
            raise ValueError(f"a congestion control named {name!r} exists already")
        errors: list[Exception] = []
        Guard(algorithm, name, lambda _, error: errors.append(error), 1460, 14600)
        if errors:
            raise errors[0]
        self._factories[name] = partial(Guard, algorithm, name, self._failed)
        return name

    def _failed(self, name: str, error: Exception) -> None:
        if self.on_failure is not None:
            self.on_failure(name, error)


def available() -> list[str]:
    """Return the names of ours, sorted."""
    return sorted(BUILT_IN)
