"""A connection that is accepted begins at once: what follows its handshake in the same batch finds a reader."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from aio.recorder import Recorder

from tunstack.aio import Endpoint
from tunstack.device.memory import MemoryDevice, memory_pipe
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, FIN, PSH, SYN, Segment

PORT = 7
FLOW = pack_flow(pack_address("10.77.0.1"), 4000, pack_address("10.77.0.2"), PORT)
SEQ = 1000  # of the peer's SYN


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class Peer:
    """The other end of an endpoint's wire, whose segments go out together, as a batch."""

    def __init__(self, wire: MemoryDevice) -> None:
        self._wire = wire

    async def exchange(self, *segments: Segment) -> list[Segment]:
        """Send segments; return what comes back until the loop has nothing more to do."""
        for segment in segments:
            self._wire.write(segment)
        for _ in range(10):
            await asyncio.sleep(0)
        return list(self._wire.read_batch().segments)

    async def open(self) -> Segment:
        """Send a SYN; return the SYN-ACK."""
        (answer,) = await self.exchange(Segment(FLOW, SEQ, 0, SYN, 65535, mss=1460))
        assert answer.flags == SYN | ACK
        return answer


def segment(answer: Segment, flags: int, data: bytes = b"", offset: int = 0) -> Segment:
    """A segment of the peer's, `offset` octets into its stream; its answer to a SYN-ACK."""
    return Segment(FLOW, SEQ + 1 + offset, answer.seq + 1, flags, 65535, (data,) if data else (), len(data))


async def serve(protocol: asyncio.Protocol) -> tuple[Peer, Endpoint]:
    wire, device = memory_pipe()
    endpoint = Endpoint(device, "10.77.0.2")
    await endpoint.start()
    await endpoint.create_server(lambda: protocol, "10.77.0.2", PORT)
    return Peer(wire), endpoint


async def test_data_that_comes_with_the_handshakes_ack_is_acknowledged_by_its_answer(ours):
    protocol = Echo(keep_open=True)
    peer, endpoint = await serve(protocol)
    answer = await peer.open()
    came = await peer.exchange(segment(answer, ACK), segment(answer, ACK | PSH, b"hello"))
    assert [(seg.flags, seg.length, seg.ack) for seg in came] == [(ACK | PSH, 5, SEQ + 6)]
    assert protocol.events == ["made", "data"]
    endpoint.close()


async def test_whole_conversation_in_one_batch_comes_in_order(ours):
    protocol = Echo()
    peer, endpoint = await serve(protocol)
    answer = await peer.open()
    came = await peer.exchange(
        segment(answer, ACK),
        segment(answer, ACK | PSH, b"hello"),
        segment(answer, ACK | PSH, b"you", 5),
        segment(answer, ACK | FIN, b"", 8),
    )
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert bytes(protocol.data) == b"helloyou"
    assert [(seg.flags, seg.length, seg.ack) for seg in came] == [(ACK | PSH | FIN, 8, SEQ + 10)]
    endpoint.close()


async def test_protocol_that_pauses_when_it_is_made_is_given_nothing(ours):
    class Pausing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    protocol = Pausing()
    peer, endpoint = await serve(protocol)
    answer = await peer.open()
    await peer.exchange(segment(answer, ACK), segment(answer, ACK | PSH, b"hello"))
    assert protocol.events == ["made"]
    protocol.transport.resume_reading()
    assert protocol.events == ["made"]  # never inside a call of the application's
    assert await protocol.received(5) == b"hello"
    endpoint.close()


async def test_protocol_that_fails_when_it_is_made_resets_and_the_rest_of_the_batch_goes_on(ours):
    class Failing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise ValueError("no")

    ours.expects_errors = True
    protocol = Failing()
    peer, endpoint = await serve(protocol)
    answer = await peer.open()
    came = await peer.exchange(segment(answer, ACK), segment(answer, ACK | PSH, b"hello"))
    assert [seg.flags & ACK for seg in came] == [ACK, 0]  # the RST that ends it, and the answer to what then belongs to nobody
    assert protocol.events == ["made", "lost ValueError"]
    endpoint.close()


async def test_connection_made_and_data_received_share_a_context(ours):
    word: ContextVar[str] = ContextVar("word", default="none")
    seen: list[str] = []

    class Remembering(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            word.set("made")

        def data_received(self, data: bytes) -> None:
            seen.append(word.get())

    peer, endpoint = await serve(Remembering())
    answer = await peer.open()
    await peer.exchange(segment(answer, ACK), segment(answer, ACK | PSH, b"hello"))
    assert seen == ["made"]
    assert word.get() == "none"
    endpoint.close()


async def test_endpoint_may_be_closed_by_connection_made(ours):
    class Closing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            endpoint.close()

    protocol = Closing()
    peer, endpoint = await serve(protocol)
    answer = await peer.open()
    await peer.exchange(segment(answer, ACK), segment(answer, ACK | PSH, b"hello"))
    assert protocol.events == ["made", "lost"]
