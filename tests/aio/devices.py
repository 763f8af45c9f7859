"""Devices for tests of the driver, and our world over them."""

from __future__ import annotations

import socket

from aio.worlds import LOOPS, Ours

from tunstack.aio import Endpoint
from tunstack.wire import codec
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, SYN, Batch, Segment


class SocketDevice:
    """A device with a descriptor: one frame a datagram. It blocks when its peer has a few of them to read, less than a first window."""

    on_readable = None
    mtu = 1500
    max_payload = 60_000

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.sock = sock
        self.frames = []  # of the item that is being written
        self.blocked = 0
        self.reader = codec.Reader(vnet=False)

    def fileno(self):
        return self.sock.fileno()

    def read_batch(self):
        return self.reader.read(self.sock.fileno())

    def write(self, item):
        frames = [item] if isinstance(item, bytes) else codec.encode(item)
        if not self.frames:
            self.frames = frames
        while self.frames:
            try:
                self.sock.send(self.frames[0])
            except BlockingIOError:
                self.blocked += 1
                return False  # what was sent of it stays sent
            del self.frames[0]
        return True

    def close(self):
        self.sock.close()


class Wrapper:
    """Another device, with something in the way."""

    def __init__(self, device) -> None:
        self.device = device
        self.mtu, self.max_payload = device.mtu, device.max_payload
        self.read_error = self.write_error = None
        self.blocking = 0  # writes that will block

    @property
    def on_readable(self):
        return self.device.on_readable

    @on_readable.setter
    def on_readable(self, callback):
        self.device.on_readable = callback

    def fileno(self):
        return -1

    def read_batch(self):
        if self.read_error:
            raise self.read_error
        return self.device.read_batch()

    def write(self, item):
        if self.write_error:
            raise self.write_error
        if self.blocking:
            self.blocking -= 1
            return False
        return self.device.write(item)

    def close(self):
        self.device.close()


class OverDevices(Ours):
    """Our world over devices of the test's choice."""

    def __init__(self, kind, devices) -> None:
        super().__init__(kind, LOOPS[kind])
        self.devices = devices

    async def __aenter__(self):
        from contextlib import AsyncExitStack

        self._stack = AsyncExitStack()
        self.client = await self._stack.enter_async_context(Endpoint(self.devices[0], "10.77.0.1"))
        self.server = await self._stack.enter_async_context(Endpoint(self.devices[1], "10.77.0.2"))
        self.create_connection = self.client.create_connection
        self.open_connection = self.client.open_connection
        return self


class Prompt:
    """A device whose peer answers at once: its SYN-ACK's ACK is there before the turn that sent it ends."""

    on_readable = None
    mtu = 1500
    max_payload = 60_000

    def __init__(self) -> None:
        self.batches = []
        self.acks = []  # what was acknowledged, by bare ACKs

    def fileno(self):
        return -1

    def bring(self, *segments):
        batch = Batch()
        batch.segments.extend(segments)
        self.batches.append(batch)

    def read_batch(self):
        return self.batches.pop(0) if self.batches else Batch()

    def write(self, seg):
        if seg.flags & SYN:
            self.bring(Segment(reverse_flow(seg.flow), 1, seg.seq + 1, ACK, 1000))
        elif not seg.length:
            self.acks.append(seg.ack)
        return True

    def close(self):
        pass
