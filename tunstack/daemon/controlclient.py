"""The client's side of the control socket (control.py): which daemon is meant, asking it, reading its answers.

For commands, so it blocks. What goes wrong is a UserError, one line; what the daemon answers in error is a ControlError.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tunstack.daemon import controlsocket
from tunstack.daemon.errors import UserError

PROTOCOL = 1
TIMEOUT = 30.0  # s that an answer, or the next piece of one, is waited for
LINE_MAX = 64 << 20  # octets of a line that is taken


class ControlError(Exception):
    """The daemon refuses. `code` is an errno's name or one of the protocol's words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ControlClient:
    """A connection to a running daemon. A context manager; one request at a time."""

    def __init__(self, path: Path | str | None = None) -> None:
        """Connect: to `path`, else to TUNSTACK_CONTROL's, else to the only daemon there is; UserError if that cannot be."""
        self.path = choose(path)
        self._socket = connect(self.path)
        self._file = self._socket.makefile("rb")
        self._serial = 0

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def call(self, method: str, **params: object) -> Mapping[str, Any]:
        """Ask, and return the result; ControlError if the daemon refuses."""
        for answer in self._ask(method, params):
            if "result" in answer:
                result: Mapping[str, Any] = answer["result"]
                return result
        raise AssertionError("an answer ends with a result")

    def stream(self, method: str, **params: object) -> Iterator[Mapping[str, Any]]:
        """Ask, and give the records of a long answer as they come; ControlError likewise. Take them all before the next request."""
        for answer in self._ask(method, params):
            yield from answer.get("part", ())

    def _ask(self, method: str, params: Mapping[str, object]) -> Iterator[Mapping[str, Any]]:
        """Send a request and give the lines of its answer, the last with the result."""
        self._serial += 1
        request = {"version": PROTOCOL, "id": self._serial, "method": method, "params": params}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:  # it hung up; what it said before that is worth reading
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise self._lost(error.strerror) from error
        while True:
            answer = self._read()
            if "error" in answer:
                raise ControlError(answer["error"]["code"], answer["error"]["message"])
            yield answer
            if "result" in answer:
                return

    def _read(self) -> Mapping[str, Any]:
        try:
            line = self._file.readline(LINE_MAX)
        except TimeoutError as error:
            raise self._lost(f"no answer for {TIMEOUT:g} s") from error
        except OSError as error:
            raise self._lost(error.strerror) from error
        if not line.endswith(b"\n"):
            raise self._lost("it hung up")
        try:
            answer: object = json.loads(line)
        except ValueError as error:
            raise self._lost("its answer is not JSON") from error
        if not isinstance(answer, dict):
            raise self._lost("its answer is no JSON object")
        if answer.get("version") == PROTOCOL and answer.get("id") is None and "error" in answer:
            raise self._lost(answer["error"]["message"])  # it has no ear for us at all
        if answer.get("version") != PROTOCOL or answer.get("id") != self._serial:
            raise self._lost("its answer is not to our question")
        return answer

    def _lost(self, why: str | None) -> UserError:
        return UserError(f"the program at {self.path}: {why}")


def choose(path: Path | str | None) -> Path:
    """Return the socket that is meant; UserError if none can be told."""
    given = path or os.environ.get(controlsocket.ENVIRONMENT)
    if given:
        return Path(given)
    directories = controlsocket.directories()
    found = [file for directory in directories for file in sorted(directory.glob("*.sock")) if controlsocket.is_live(file)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"several programs of ours run: {', '.join(map(str, found))}; say which, with --control")
    raise UserError(f"no program of ours runs (no socket in {' or '.join(map(str, directories))}); name one with --control")


def connect(path: Path) -> socket.socket:
    """Return a connection; UserError says in a line what is in the way."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Python's own timeout makes it non-blocking, and then a backlog that is full fails at once (unix(7), EAGAIN).
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(TIMEOUT), 0))
    try:
        connection.connect(os.fspath(path))
        connection.settimeout(TIMEOUT)
    except OSError as error:
        connection.close()
        hint = {
            FileNotFoundError: ": there is no such socket",
            ConnectionRefusedError: ": nobody listens on it any more" if path.is_socket() else ": it is no socket",
            PermissionError: ": it is another user's",
            BlockingIOError: f": no answer for {TIMEOUT:g} s",
        }.get(type(error), f": {error.strerror or error}")
        raise UserError(f"cannot reach {path}{hint}") from error
    return connection
