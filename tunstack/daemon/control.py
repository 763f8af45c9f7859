"""The control socket of a running program: requests and answers, one JSON object a line.

    -> {"version": 1, "id": 7, "method": "sysctl.get", "params": {"name": "net.ipv4.tcp_sack"}}
    <- {"version": 1, "id": 7, "result": {"name": "net.ipv4.tcp_sack", "value": "1", ...}}
    <- {"version": 1, "id": 7, "error": {"code": "ENOENT", "message": "there is no such knob"}}

What is long comes in pieces, any number of lines `{"version": 1, "id": 7, "part": [record, ...]}`, and ends with a result, which has
the number of `records` (or what else the method tells), or with an error. A client's requests are answered one after another, in their
order; `params` may be left out. `id` is an integer, a short string or null, and comes back as it is. The methods are in methods.py.

Who connects must be root or who made the socket. Bounds: LINE_MAX, CLIENTS_MAX, IDLE_TIMEOUT; a client that reads no answers is
read no more, and given up after that time too. A turn of the loop does at most RECORDS_A_TURN records of work for a client, and
begins none after TURN.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Protocol, cast

from tunstack.aio import Endpoint
from tunstack.daemon import controlsocket
from tunstack.daemon.errors import UserError
from tunstack.daemon.kinds import NO_SOCKET
from tunstack.daemon.methods import METHODS, PROTOCOL, Context, Failure, Method, Params, Peer
from tunstack.daemon.status import Status
from tunstack.daemon.turns import TURN

log = logging.getLogger(__name__)

LINE_MAX = 65_536  # octets of a request, its newline counted
CLIENTS_MAX = 32
IDLE_TIMEOUT = 60.0  # s without a whole request, or without progress of an answer
RECORDS_A_TURN = 64
ACCEPT_RETRY = 1.0  # s, when there are no descriptors left
NAMESAKES_MAX = 32  # daemons of a user's whose interfaces, in namespaces of their own, have the same name
ID_MAX = 64  # characters


Piece = list[object] | Mapping[str, object]  # of an answer that comes from elsewhere: some records, or the result, which is the last
Elsewhere = Callable[[str, Params, Peer], AsyncIterator[Piece]]  # of a method's name


class Control:
    """The socket, and who is connected to it. Make it before root is given up; `start` in the loop, then `close`.

    As an async context manager it starts and closes itself: `async with Control(path, endpoint): ...`.
    """

    def __init__(self, path: Path | str, endpoint: Endpoint | None = None, status: Status | None = None) -> None:
        """Make the socket, mode 0600, in place of one that nobody serves any more; OSError, EADDRINUSE if somebody does.

        `status` is what the method of that name answers.
        """
        self.path = Path(path)
        self._socket = controlsocket.make(self.path)
        self._identity = controlsocket.identity(self.path)
        self._allowed = frozenset({0, self.path.stat().st_uid})
        self._endpoint = endpoint
        self._status = status or dict
        self._elsewhere: Elsewhere | None = None
        self._accepting: asyncio.Task[None] | None = None
        self.clients: set[Client] = set()

    async def start(self, endpoint: Endpoint | None = None, status: Status | None = None) -> None:
        """Begin to answer, for an endpoint that is not named before."""
        self._endpoint = endpoint or self._endpoint
        self._status = status or self._status
        if self._endpoint is None:
            raise ValueError("which endpoint?")
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="control socket")

    async def start_for(self, elsewhere: Elsewhere) -> None:
        """Begin to answer with what others say: `elsewhere` is called for every request."""
        self._elsewhere = elsewhere
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="control socket")

    def close(self) -> None:
        """Answer no more, and take the socket away, if we still may. Idempotent."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        for client in tuple(self.clients):
            client.abort()
        if self._socket.fileno() >= 0:
            self._socket.close()
            controlsocket.remove(self.path, self._identity)

    async def __aenter__(self) -> Control:
        await self.start()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:  # a client that went away again, or too many descriptors
                if error.errno != errno.ECONNABORTED:
                    log.warning("control socket: cannot accept: %s", error.strerror)
                    await asyncio.sleep(ACCEPT_RETRY)
                continue
            try:
                peer = credentials(connection)
                refusal = self._refusal(peer)
                await loop.connect_accepted_socket(lambda peer=peer, refusal=refusal: Client(self, peer, refusal), connection)  # type: ignore[misc]
            except OSError as error:
                log.warning("control socket: a client is lost: %s", error.strerror)
                connection.close()

    def _refusal(self, peer: Peer) -> Failure | None:
        """Tell why a peer is not served, if it is not."""
        if peer.uid not in self._allowed:
            log.warning("control socket: refused to %s", peer)
            return Failure("refused", "only root and the owner of the socket are served")
        if len(self.clients) >= CLIENTS_MAX:
            return Failure("busy", f"there are {CLIENTS_MAX} clients already")
        return None

    def call(self, name: str, method: Method, params: Params, peer: Peer) -> object:
        """Carry a method out; return its answer, or what gives it (methods.py)."""
        if self._elsewhere is not None:
            return self._elsewhere(name, params, peer)
        assert self._endpoint is not None
        return method.handler(Context(self._endpoint, self._status, peer), params)


def for_interface(path: Path | str | None, name: str) -> Control | None:
    """Make the socket that a daemon's configuration asks for: at a path, at none (NO_SOCKET), or (None) where they usually are.

    UserError where there is no making one at a path. Without one at the usual place the daemon can do its work all the same: None.
    """
    if path == NO_SOCKET:
        return None
    if path is not None:
        try:
            return Control(path)
        except OSError as error:
            raise UserError(f"the control socket {path} cannot be made: {error.strerror}") from error
    for number in range(1, NAMESAKES_MAX + 1):
        try:
            control = Control(controlsocket.make_default(name if number == 1 else f"{name}-{number}"))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and number < NAMESAKES_MAX:
                continue
            log.warning("no control socket: %s: %s (choose another place with --control)", error.filename or name, error.strerror)
            return None
        if number > 1:  # else commands would take the other one, which has the name, for us
            log.info("control socket: %s (another program has the usual one)", control.path)
        return control
    raise AssertionError("the last one returns")


def credentials(connection: socket.socket) -> Peer:
    """Return who is at the other end (unix(7), SO_PEERCRED)."""
    pid, uid, _gid = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)


class Host(Protocol):
    """Whose clients they are."""

    clients: set[Client]

    def call(self, name: str, method: Method, params: Params, peer: Peer) -> object:
        """Return a result; an iterator of records; or an AsyncIterator of `Piece`."""


class Client(asyncio.Protocol):
    """One client. A request is answered to its end before the next is looked at."""

    def __init__(self, control: Host, peer: Peer, refusal: Failure | None = None) -> None:
        self._control = control
        self._peer = peer
        self._refusal = refusal
        self._buffer = bytearray()  # what is not answered yet
        self._records: Iterator[object] | None = None  # left to send of the answer under way
        self._relay: asyncio.Task[None] | None = None  # sends the answer under way, which comes from elsewhere
        self._id: object = None  # of the request that it answers
        self._sent = 0  # records of it
        self._is_ended = False  # the client will send no more
        self._may_write = True
        self._writable = asyncio.Event()  # the same, to wait for
        self._writable.set()
        self._turn: asyncio.Handle | None = None
        self._idle: asyncio.TimerHandle | None = None

    # asyncio's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        if self._refusal is not None:
            self._fail(None, self._refusal)
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=LINE_MAX)
        self._control.clients.add(self)
        self._touch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._control.clients.discard(self)
        for handle in (self._turn, self._idle):
            if handle is not None:
                handle.cancel()
        if self._relay is not None:
            self._relay.cancel()
        self._turn = self._idle = self._records = self._relay = None

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._buffer += data
        if len(self._buffer) > LINE_MAX:
            self._transport.pause_reading()
        self._go_on()

    def eof_received(self) -> bool:
        self._is_ended = True
        self._buffer += b"\n"  # the last line may lack it
        self._go_on()
        return True  # answers may be due still

    def pause_writing(self) -> None:
        self._may_write = False
        self._writable.clear()

    def resume_writing(self) -> None:
        self._may_write = True
        self._writable.set()
        self._touch()
        self._go_on()

    def abort(self) -> None:
        """End it now."""
        self._transport.abort()

    # Our own.

    def _touch(self) -> None:
        """Something moved: count the idle time from here."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self._loop.call_later(IDLE_TIMEOUT, self._transport.abort)

    def _go_on(self) -> None:
        """See to it that the next turn of the loop does some work, if there is any that may be done."""
        if self._turn is None and self._may_write and not self._transport.is_closing():
            self._turn = self._loop.call_soon(self._work)

    def _work(self) -> None:
        """Send a piece of the answer under way, or take up the next request."""
        self._turn = None
        if self._relay is not None:
            return  # it goes on when that is done
        if self._records is not None:
            self._send_part()
        else:
            end = self._buffer.find(b"\n", 0, LINE_MAX)
            if end < 0:
                self._wait()
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._touch()
            if line.strip():
                self._answer(line)
        self._go_on()

    def _wait(self) -> None:
        """There is no whole request."""
        if len(self._buffer) >= LINE_MAX:
            self._fail(None, Failure("request", f"a request has at most {LINE_MAX} octets"))
            self._transport.close()
        elif self._is_ended:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _answer(self, line: bytes) -> None:
        self._id = None
        try:
            request = parse(line)
            self._id = identify(request)
            self._call(request)
        except Exception as error:
            self._fail(self._id, self._explain(error))

    def _call(self, request: dict[str, object]) -> None:
        if request.get("version") != PROTOCOL:
            raise Failure("version", f"this is version {PROTOCOL} of the protocol")
        name = request.get("method")
        if not isinstance(name, str):
            raise Failure("request", "method must be a string")
        if name not in METHODS:
            raise Failure("method", f"there is no method {name[:40]!r}; the method 'methods' lists them")
        method = METHODS[name]
        answer = self._control.call(name, method, method.check(request.get("params", {})), self._peer)
        if isinstance(answer, AsyncIterator):
            self._relay = self._loop.create_task(self._send_pieces(answer))
        elif isinstance(answer, Iterator):
            self._records = answer
            self._sent = 0
        else:
            self._send({"version": PROTOCOL, "id": self._id, "result": answer})

    def _send_part(self) -> None:
        """Send the records that one turn's work brings."""
        assert self._records is not None
        part: list[object] = []
        result: object = None  # of a generator that is done
        end = perf_counter() + TURN
        try:
            for _ in range(RECORDS_A_TURN):
                try:
                    record = next(self._records)
                except StopIteration as done:
                    self._records, result = None, done.value
                    break
                if record is not None:
                    part.append(record)
                if perf_counter() >= end:
                    break
            if part:
                self._send({"version": PROTOCOL, "id": self._id, "part": part})
                self._sent += len(part)
                self._touch()
            if self._records is None:
                self._send({"version": PROTOCOL, "id": self._id, "result": {"records": self._sent} if result is None else result})
        except Exception as error:
            self._records = None
            self._fail(self._id, self._explain(error))

    async def _send_pieces(self, pieces: AsyncIterator[Piece]) -> None:
        """Send an answer as it comes, no faster than the client reads."""
        result: Mapping[str, object] | None = None
        sent = 0
        try:
            async for piece in pieces:
                if isinstance(piece, list):
                    self._send({"version": PROTOCOL, "id": self._id, "part": piece})
                    sent += len(piece)
                    self._touch()
                else:
                    result = piece
                await self._writable.wait()
            self._send({"version": PROTOCOL, "id": self._id, "result": {"records": sent} if result is None else result})
        except Exception as error:
            self._fail(self._id, self._explain(error))
        self._relay = None
        self._go_on()

    def _explain(self, error: Exception) -> Failure:
        if isinstance(error, Failure):
            return error
        if isinstance(error, OSError) and error.errno is not None:
            return Failure(errno.errorcode.get(error.errno, str(error.errno)), error.strerror or str(error))
        log.error("control socket: a request of %s failed", self._peer, exc_info=error)
        return Failure("internal", "internal error; the program's log says more")

    def _fail(self, number: object, failure: Failure) -> None:
        self._send({"version": PROTOCOL, "id": number, "error": {"code": failure.code, "message": str(failure)}})

    def _send(self, answer: dict[str, object]) -> None:
        self._transport.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")


def parse(line: bytes) -> dict[str, object]:
    """Return the object that a line is; Failure if it is none."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise Failure("parse", "not JSON") from None
    if not isinstance(request, dict):
        raise Failure("request", "a request is an object")
    return request


def identify(request: dict[str, object]) -> int | str | None:
    """Return the id of a request; Failure if that is none."""
    number = request.get("id")
    if number is None or (isinstance(number, int) and not isinstance(number, bool) and abs(number) < 1 << 63):
        return number
    if isinstance(number, str) and len(number) <= ID_MAX:
        return number
    raise Failure("request", f"id must be an integer or a string of at most {ID_MAX} characters")
