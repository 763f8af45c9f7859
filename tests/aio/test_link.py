"""An endpoint behind a link, under each loop: on the loop's own virtual clock, and on a timerfd."""

from __future__ import annotations

import asyncio

import pytest
from aio.worlds import LOOPS

from tunstack.aio import Endpoint
from tunstack.device.link import Clock
from tunstack.device.linkdevice import LinkDevice
from tunstack.device.linkspec import parse
from tunstack.device.memory import memory_pipe
from tunstack.device.realclock import RealClock
from tunstack.sim.loop import LoopClock, VirtualLoop


async def echo_once(text: str, data: bytes) -> tuple[bytes, LinkDevice, float]:
    """Send data to an echo server through a link; return what came back, the link, and how long it took by the loop's clock."""
    loop = asyncio.get_running_loop()
    clock: Clock = LoopClock(loop) if isinstance(loop, VirtualLoop) else RealClock()
    near, far = memory_pipe(offload=True)
    device = LinkDevice(near, *parse(text).directions(1), clock)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
        writer.close()

    async with Endpoint(device, "10.77.0.1") as client, Endpoint(far, "10.77.0.2") as server:
        await server.start_server(echo, "10.77.0.2", 7)
        begun = loop.time()
        reader, writer = await client.open_connection("10.77.0.2", 7)
        writer.write(data)
        writer.write_eof()
        got = await reader.read(-1)
        took = loop.time() - begun
        writer.close()
        await writer.wait_closed()
    assert device.fileno() == -1
    return got, device, took


@pytest.mark.parametrize("kind", LOOPS)
def test_data_goes_through_the_link_and_back(kind: str) -> None:
    data = bytes(range(256)) * 1000
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        got, device, _ = runner.run(asyncio.wait_for(echo_once("delay=300us,reorder=5%/2,dup=5%,seed=3", data), 20))
    assert got == data
    for direction in (device.forward, device.backward):
        assert direction.duplicated > 0
        assert direction.offered > len(data) // 1460


def test_in_virtual_time_the_delay_is_exact() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        got, _, took = runner.run(echo_once("up:delay=1s;down:delay=2s", b"x"))
    assert got == b"x"
    assert took == pytest.approx(6, abs=1e-5)  # there and back for the handshake, there and back for the data with its FIN
