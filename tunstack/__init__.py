"""A TCP endpoint in user space: TUN in, asyncio out.

The public names. They are fetched when they are first used: the engine is at home where there is no asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunstack.aio import Endpoint, Server, memory_pair, open_tun, run
    from tunstack.device.errors import DeviceError
    from tunstack.engine import CongestionControl
    from tunstack.engine.keys import Key, KeyChain
    from tunstack.engine.options import SocketOptions
    from tunstack.engine.sysctl import Sysctl

__all__ = [
    "CongestionControl",
    "DeviceError",
    "Endpoint",
    "Key",
    "KeyChain",
    "Server",
    "SocketOptions",
    "Sysctl",
    "memory_pair",
    "open_tun",
    "run",
]

_HOMES = {
    "CongestionControl": "tunstack.engine",
    "DeviceError": "tunstack.device.errors",
    "Endpoint": "tunstack.aio.endpoint",
    "Key": "tunstack.engine.keys",
    "KeyChain": "tunstack.engine.keys",
    "Server": "tunstack.aio.server",
    "SocketOptions": "tunstack.engine.options",
    "Sysctl": "tunstack.engine.sysctl",
    "memory_pair": "tunstack.aio.opening",
    "open_tun": "tunstack.aio.opening",
    "run": "tunstack.aio.run",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
