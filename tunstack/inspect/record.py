"""What is known of one socket, as values: the record that ss, netstat and scripts read, on both ends of the control socket.

Times are int microseconds, lengths octets. States are named as RFC 9293 prints them; the tools have names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

Info = Mapping[str, object]
RCV_SHUTDOWN = 1  # of `shutdown`: the peer sends no more
SEND_SHUTDOWN = 2  # we do not


@dataclass(frozen=True, slots=True)
class Timer:
    """The timer that a socket waits for: `on` (retransmission), `persist`, `keepalive` or `timewait`."""

    kind: str
    remaining: int  # us
    retransmits: int  # timeouts in a row
    probes: int  # window or keepalive probes without an answer


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a socket: a name (the daemon's service), the process, and the descriptor of its interface."""

    name: str
    pid: int
    fd: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What a socket holds and may hold at most, octets as the engine counts memory."""

    received: int  # what the application has not taken, and what waits for a hole to be filled
    rcvbuf: int
    sndbuf: int
    queued: int  # written and not acknowledged
    drops: int = 0


@dataclass(frozen=True, slots=True)
class SocketRecord:
    """One socket. `recv_q` and `send_q` are what Linux counts: of a listener the accept queue's length and limit."""

    state: str
    local: str
    local_port: int
    remote: str
    remote_port: int  # 0: none, of a listener
    recv_q: int = 0
    send_q: int = 0
    timer: Timer | None = None
    uid: int = 0
    inode: int = 0  # 0: held by nobody
    cookie: int = 0
    shutdown: int = 0  # RCV_SHUTDOWN, SEND_SHUTDOWN
    owner: Owner | None = None
    memory: Memory | None = None  # where it was asked for
    info: Info | None = None  # likewise: TCP_INFO by Linux's names (tcpinfo.py)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON has it; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def from_json(value: object) -> SocketRecord:
    """Make the record of what `to_json` gave; ValueError for anything else. Fields that a newer daemon has are ignored."""
    if not isinstance(value, dict):
        raise ValueError("a socket is an object")
    known = {name: value[name] for name in SocketRecord.__dataclass_fields__ if name in value}
    try:
        for name, kind in (("timer", Timer), ("owner", Owner), ("memory", Memory)):
            if name in known:
                part = known[name]
                known[name] = kind(**{field: part[field] for field in kind.__dataclass_fields__ if field in part})
        return SocketRecord(**known)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a socket: {error}") from error
