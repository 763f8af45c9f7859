"""Two hosts of ours with keys, in virtual time; every packet that either sends is kept."""

from __future__ import annotations

from tunstack.device.impairment import Impairment
from tunstack.engine.connection import Connection
from tunstack.engine.counters import Counters
from tunstack.engine.isn import IsnGenerator
from tunstack.engine.keys import Key
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.sysctl import Sysctl
from tunstack.seq import MASK
from tunstack.sim.transfer import Drain
from tunstack.sim.world import Host, World
from tunstack.wire import codec, signed, tcp
from tunstack.wire.segment import ACK, Segment

A, B = "10.0.0.1", "10.0.0.2"
PORT = 5001
ALGORITHMS = ("md5", "hmac-sha-1-96", "aes-128-cmac-96")
AO = ALGORITHMS[1]


def key(secret: bytes = b"a secret", algorithm: str = AO, is_server: bool = False, number: int = 7, **fields: object) -> Key:
    """Return one end's key: the client's KeyIDs are `number` and 100 more, the server's the other way round."""
    if algorithm != "md5":
        ids = (number + 100, number) if is_server else (number, number + 100)
        fields |= {"send_id": ids[0], "recv_id": ids[1]}
    return Key(secret, algorithm, **fields)  # type: ignore[arg-type]


class Note:
    """A sink that writes down what it hears."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()

    def on_established(self) -> None:
        self.events.append("established")

    def on_data(self, data: memoryview) -> None:
        self.data += data

    def on_eof(self) -> None:
        self.events.append("eof")

    def on_writable(self) -> None: ...

    def on_closed(self, error: OSError | None) -> None:
        self.events.append("closed" if error is None else type(error).__name__)


class _FixedIsn(IsnGenerator):
    """Every connection begins with the same number."""

    def __init__(self, isn: int) -> None:
        super().__init__(bytes(16))
        self._isn = isn

    def isn(self, flow: bytes, now: int) -> int:
        return self._isn

    def start(self, flow: bytes, now: int) -> tuple[int, int]:
        return self._isn, self.ts_offset(flow)


class Pair:
    """Host a, a client, and host b, which listens on PORT."""

    def __init__(
        self,
        client: list[Key],
        server: list[Key],
        trouble: Impairment | None = None,
        *,
        seed: int = 1,
        isns: tuple[int, int] | None = None,
        options: SocketOptions | None = None,
        **sysctl: object,
    ) -> None:
        self.world = World(seed)
        self.a, self.b, _ = self.world.pair(trouble, trouble, sysctl=Sysctl(**sysctl))  # type: ignore[arg-type]
        self.sent: list[tuple[Host, Segment]] = []
        self.frames: list[bytes] = []  # the same
        for host, keys, isn in zip((self.a, self.b), (client, server), isns or (None, None), strict=True):
            self._keep(host)
            if isn is not None:
                host.stack.isn = _FixedIsn(isn)
            for each in keys:
                host.stack.use_keys().keys.add(each)
        self.accepted: list[Connection] = []
        self.notes: list[Note] = []
        self.listener = self.b.stack.listen(self.b.address, PORT, on_acceptable=self._accept, options=options)

    def _keep(self, host: Host) -> None:
        carry = host.device.carry

        def keep(frame: bytes) -> None:
            parsed = tcp.parse(bytes(frame))
            if parsed.segment is not None:
                self.sent.append((host, parsed.segment))
                self.frames.append(frame)
            carry(frame)

        host.device.carry = keep

    def _accept(self, listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            note = Note()
            conn.sink = note
            self.accepted.append(conn)
            self.notes.append(note)
            conn.resume(self.world.now())

    def connect(self, port: int = PORT, options: SocketOptions | None = None, local_port: int = 0) -> tuple[Connection, Note]:
        note = Note()
        conn = self.a.stack.connect(self.b.address, port, note, self.world.now(), options=options, local_port=local_port)
        return conn, note

    def run(self, seconds: float = 1) -> None:
        """Let time pass, even if nothing is to happen."""
        self.world.call_later(round(seconds * 1_000_000), int)
        self.world.run(self.world.elapsed + round(seconds * 1_000_000))

    def open(self, options: SocketOptions | None = None) -> tuple[Connection, Note, Connection, Note]:
        """Connect; return both ends with their sinks."""
        conn, note = self.connect(options=options)
        self.run()
        assert note.events == ["established"]
        return conn, note, self.accepted[-1], self.notes[-1]

    def say(self, conn: Connection, data: bytes, hearer: Note, seconds: float = 1) -> None:
        """Send, and see that it is heard."""
        before = len(hearer.data)
        conn.send(data, self.world.now())
        self.run(seconds)
        assert hearer.data[before:] == data

    def inject(self, host: Host, seg: Segment) -> None:
        """Have a host receive a segment, as it stands but for its checksum."""
        (frame,) = codec.encode(seg)
        self.deliver(host, frame)

    def deliver(self, host: Host, frame: bytes) -> None:
        host.device.deliver(frame)  # type: ignore[attr-defined]
        self.run(0.1)

    def counted(self, host: Host) -> dict[str, int]:
        """Return the counters of signatures that are not zero."""
        counters: Counters = host.stack.counters
        return {name: value for name, value in counters.as_dict().items() if name.startswith(("TCPMD5", "TCPAO")) and value}

    def assert_all_signed(self) -> None:
        assert self.sent
        for host, seg in self.sent:
            assert signed.find(seg.options).kind in (signed.MD5, signed.AO), (host.name, seg)


def forged(victim: Connection, flags: int, ahead: int = 0, payload: bytes = b"") -> Segment:
    """Return what somebody who knows all the numbers, but no key, would send to a connection."""
    data = (memoryview(payload),) if payload else ()
    return Segment(
        victim.flow_in,
        (victim.rx.rcv_nxt + ahead) & MASK,
        victim.tx.snd_nxt if flags & ACK else 0,
        flags,
        1000,
        data,
        len(payload),
        ts_val=(victim.rx.ts_recent + 1) & MASK if victim.ts_ok else None,
    )


__all__ = ["ALGORITHMS", "AO", "PORT", "A", "B", "Drain", "Note", "Pair", "forged", "key"]
