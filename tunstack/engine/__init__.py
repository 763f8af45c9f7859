"""The protocol, sans I/O."""

from tunstack.congestion import CongestionControl
from tunstack.congestion import available as congestion_controls
from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.counters import Counters
from tunstack.engine.errors import errno_error, socket_error
from tunstack.engine.info import ConnectionInfo
from tunstack.engine.keys import Key, KeyChain, Lifetime
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.sink import NULL_SINK, NullSink, Sink
from tunstack.engine.stack import Stack
from tunstack.engine.state import State
from tunstack.engine.sysctl import Sysctl
from tunstack.wire.codec import BACKEND
from tunstack.wire.flow import ANY_IPV4, format_address, pack_address

__all__ = [
    "ANY_IPV4",
    "BACKEND",
    "NULL_SINK",
    "CongestionControl",
    "Connection",
    "ConnectionInfo",
    "Counters",
    "Key",
    "KeyChain",
    "Lifetime",
    "Listener",
    "NullSink",
    "Sink",
    "SocketOptions",
    "Stack",
    "StackConfig",
    "State",
    "Sysctl",
    "congestion_controls",
    "errno_error",
    "format_address",
    "pack_address",
    "socket_error",
]
