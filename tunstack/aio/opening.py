"""Ways to come by an endpoint: on a TUN interface, or as one of a pair joined in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random

from tunstack.aio.endpoint import Endpoint
from tunstack.device.memory import memory_pipe
from tunstack.engine import CongestionControl, pack_address
from tunstack.engine.keys import Key
from tunstack.engine.sysctl import Sysctl


def open_tun(
    name: str = "tunstack0",
    *,
    host_address: str = "10.77.0.1/24",
    address: str | Iterable[str] = "10.77.0.2",
    mtu: int = 1500,
    offload: bool = True,
    sysctl: Sysctl | None = None,
    congestion: str | type[CongestionControl] | None = None,
    keys: Iterable[Key] = (),
) -> Endpoint:
    """Return an endpoint on TUN interface `name`, to be started with `async with`.

    The interface is created, which takes CAP_NET_ADMIN, or a persistent one is taken over. `host_address` is the kernel's own
    address on it, `address` what the endpoint answers to, within that subnet. Blocks for some milliseconds.
    `congestion` is an algorithm's name or a class of your own; `keys` sign connections (see Endpoint).
    DeviceError (an OSError) says in one line what is in the way.
    """
    from tunstack.device.tun import TunDevice  # needs netlink, which a stack in memory does without

    addresses = [address] if isinstance(address, str) else list(address)
    packed = tuple(pack_address(text) for text in addresses)
    sysctl = sysctl or Sysctl()
    device = TunDevice.open(
        name, host_address=host_address, addresses=packed, mtu=mtu, offload=offload, txqueuelen=sysctl.netdev_max_backlog
    )
    try:
        return Endpoint(device, packed, sysctl=sysctl, congestion=congestion, keys=keys)
    except BaseException:
        device.close()
        raise


@asynccontextmanager
async def memory_pair(
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2"),
    *,
    mtu: int = 1500,
    offload: bool = False,
    seed: int | None = None,
    sysctl: tuple[Sysctl, Sysctl] | None = None,
    congestion: str | type[CongestionControl] | None = None,
) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """Give two endpoints that are each other's network, without a kernel between and without privileges.

    With `seed` a run repeats: initial sequence numbers and ports are the same each time.
    """
    devices = memory_pipe(mtu, offload=offload)
    endpoints = []
    for index, (device, address) in enumerate(zip(devices, addresses, strict=True)):
        knobs = sysctl[index] if sysctl else None
        if seed is None:
            endpoints.append(Endpoint(device, address, sysctl=knobs, congestion=congestion))
        else:
            random = Random(seed * 2 + index)
            endpoints.append(Endpoint(device, address, sysctl=knobs, congestion=congestion, random=random, secret=random.randbytes(16)))
    left, right = endpoints
    async with left, right:
        yield left, right
