"""asyncio over a stack: endpoints, transports, servers."""

from tunstack.aio.endpoint import Endpoint
from tunstack.aio.opening import memory_pair, open_tun
from tunstack.aio.run import run
from tunstack.aio.server import Server
from tunstack.aio.transport import StreamTransport
from tunstack.engine.options import SocketOptions

__all__ = ["Endpoint", "Server", "SocketOptions", "StreamTransport", "memory_pair", "open_tun", "run"]
