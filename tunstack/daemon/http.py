"""The HTTP service: files, directory listings, uploads, `/status`.

RFC 9110, 9112. The protocol is aiohttp's, run over whatever transports `create_server` gives; what is served, and
from where, is decided here.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Generator, Mapping
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from tunstack.daemon.httpfile import send_file
from tunstack.daemon.listing import directory_page, welcome_page
from tunstack.daemon.status import Status
from tunstack.daemon.tree import OutsideError, Tree, Upload, check_name, list_directory
from tunstack.daemon.turns import in_turns

log = logging.getLogger(__name__)

_READ_BUFFER = 256 * 1024  # octets of a request's body that may wait; twice that at most
_UPLOAD_CHUNK = 1024 * 1024  # octets of an upload handed to a thread at a time

_STATUS_OF_ERRNO = {
    errno.ENOENT: HTTPStatus.NOT_FOUND,
    errno.ENOTDIR: HTTPStatus.NOT_FOUND,
    errno.ENAMETOOLONG: HTTPStatus.NOT_FOUND,
    errno.EACCES: HTTPStatus.FORBIDDEN,
    errno.EPERM: HTTPStatus.FORBIDDEN,
    errno.ELOOP: HTTPStatus.FORBIDDEN,
    errno.EROFS: HTTPStatus.FORBIDDEN,
    errno.EISDIR: HTTPStatus.CONFLICT,
    errno.EEXIST: HTTPStatus.CONFLICT,
    errno.ENOTEMPTY: HTTPStatus.CONFLICT,
    errno.ENOSPC: HTTPStatus.INSUFFICIENT_STORAGE,
    errno.EDQUOT: HTTPStatus.INSUFFICIENT_STORAGE,
    errno.EFBIG: HTTPStatus.INSUFFICIENT_STORAGE,
    errno.EMFILE: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.ENFILE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Handler(RequestHandler):
    """aiohttp's protocol for a connection, with half-close, and with an end for idle connections.

    By itself aiohttp drops a connection when the client's FIN comes, and with it the answer to `printf ... | nc -N`.
    """

    __slots__ = ("is_half_closed",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_half_closed = False  # the client's FIN has come
        super().connection_made(transport)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp declares that it returns nothing
        """Keep the transport open while a request waits for its answer, unless its body will never be whole."""
        self.is_half_closed = True
        if self._is_idle():
            return False
        if not self._messages:
            super().close()  # the answer at hand is the last, also if it is written already and only the next wait has not begun
            if self._current_request is not None:
                return self._current_request.content.is_eof()
        return True

    def close(self) -> None:
        """Close when the requests at hand are answered; aiohttp forgets the connection that has none."""
        is_idle = self._is_idle()
        super().close()
        if is_idle:
            self.force_close()

    def _is_idle(self) -> bool:
        """Tell whether no request is at hand: between two there is a waiter, and before the first there is nothing."""
        return not self._messages and (self._waiter is not None or self._request_count == 0)

    def must_close(self) -> bool:
        """Tell whether the request at hand is the last that this connection can have."""
        return self.is_half_closed and not self._messages


class HttpService(web.Server):
    """The service; called, it makes the protocol for one connection."""

    def __init__(self, tree: Tree | None, upload: bool, status: Status) -> None:
        # aiohttp logs a request at level info, which is too much for ours.
        self._access_log = logging.getLogger("tunstack.daemon.http.access") if log.isEnabledFor(logging.DEBUG) else None
        super().__init__(self._answer)
        self._tree = tree
        self._upload = upload
        self._status = status
        self._methods = "GET, HEAD, PUT" if upload else "GET, HEAD"

    def __call__(self) -> Handler:
        loop = asyncio.get_running_loop()
        return Handler(self, loop=loop, access_log=self._access_log, logger=log, read_bufsize=_READ_BUFFER)  # type: ignore[arg-type]

    def drain(self) -> None:
        """Close connections that wait for a request; let the others finish the one at hand."""
        self.pre_shutdown()

    async def _answer(self, request: BaseRequest) -> web.StreamResponse:
        handler = request.protocol
        assert isinstance(handler, Handler)
        try:
            if handler.is_half_closed and not request.content.is_eof():
                response: web.StreamResponse = _text(HTTPStatus.BAD_REQUEST)  # the rest of its body will not come
            else:
                response = await self._respond(request)
        except ConnectionError:
            # The client is gone. Writing this answer will fail too, which aiohttp takes without a word in its log.
            response = _text(HTTPStatus.BAD_REQUEST)
        except OSError as error:
            response = self._refuse(error)
        if handler.must_close():
            response.force_close()
        return response

    async def _respond(self, request: BaseRequest) -> web.StreamResponse:
        if request.method not in self._methods.split(", "):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": self._methods})
        try:
            names = split_path(request.rel_url.raw_path)
        except ValueError:
            return _text(HTTPStatus.BAD_REQUEST)
        if names == ["status"]:
            if request.method == "PUT":
                return _text(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
            said = self._status()
            answer = await in_turns(said) if isinstance(said, Generator) else said
            return web.Response(text=json.dumps(answer, indent=1) + "\n", content_type="application/json")
        if self._tree is None:
            if names or request.method == "PUT":
                return _text(HTTPStatus.NOT_FOUND)
            return web.Response(text=welcome_page(), content_type="text/html")
        if request.method == "PUT":
            return await self._receive(request, self._tree, names)
        # In the loop's own thread: it takes microseconds, where handing it to another takes longer.
        descriptor, status = self._tree.open([name for name in names if name])
        try:
            if stat.S_ISDIR(status.st_mode):
                return await self._list(request, descriptor, names)
            if names[-1] == "":
                return _text(HTTPStatus.NOT_FOUND)  # a file's name with a slash after it
            return await send_file(request, descriptor, status, names[-1])
        finally:
            os.close(descriptor)

    async def _list(self, request: BaseRequest, descriptor: int, names: list[str]) -> web.Response:
        if names and names[-1] != "":
            # Links in the listing are relative to the directory, so the address must end in a slash.
            query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            location = request.rel_url.raw_path.rpartition("/")[2]
            return _text(HTTPStatus.MOVED_PERMANENTLY, {"Location": f"./{location}/{query}"})
        entries = await asyncio.get_running_loop().run_in_executor(None, list_directory, descriptor)
        return web.Response(text=directory_page(names[:-1], entries), content_type="text/html", charset="utf-8")

    async def _receive(self, request: BaseRequest, tree: Tree, names: list[str]) -> web.Response:
        """Carry out a PUT (RFC 9110 9.3.4)."""
        if "Content-Range" in request.headers:
            return _text(HTTPStatus.BAD_REQUEST)  # RFC 9110 14.5
        if not names or names[-1] == "":
            return _text(HTTPStatus.CONFLICT)
        loop = asyncio.get_running_loop()
        upload = Upload(tree, names)
        try:
            if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # nothing of the answer proper was sent (as aiohttp's router does it)
            async for chunks in _gather(request):
                await loop.run_in_executor(None, upload.write, chunks)
            is_new = await loop.run_in_executor(None, upload.commit)
        except web.RequestPayloadError:
            return _text(HTTPStatus.BAD_REQUEST)
        finally:
            await loop.run_in_executor(None, upload.close)
        return web.Response(status=HTTPStatus.CREATED if is_new else HTTPStatus.NO_CONTENT)

    def _refuse(self, error: OSError) -> web.Response:
        code = _STATUS_OF_ERRNO.get(error.errno or 0)
        if code is None:
            log.error("http: %s", error)
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR)
        return _text(code)


def split_path(raw: str) -> list[str]:
    """Return the names of a request's path, decoded; the last one is empty if the path ends in a slash.

    ValueError if it is no path, or one that no client sends in good faith: `..`, encoded slashes, NULs. Octets that are not
    UTF-8 stand for names that have them (surrogateescape, as in os.listdir).
    """
    if not raw.startswith("/"):
        raise ValueError("not a path")
    parts = raw[1:].split("/")
    names = [os.fsdecode(unquote_to_bytes(part)) for part in parts[:-1] if part not in ("", ".")]
    names.append(os.fsdecode(unquote_to_bytes(parts[-1])))
    if names == [""]:
        return []
    for name in names[:-1] if names[-1] == "" else names:
        if name == ".." or "/" in name or "\0" in name:
            raise ValueError("not a name")
        try:
            check_name(name)
        except OutsideError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
    return names


async def _gather(request: BaseRequest) -> AsyncIterator[list[bytes]]:
    """Give the body in lists of chunks, `_UPLOAD_CHUNK` octets or a little more in each."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size >= _UPLOAD_CHUNK:
            yield chunks
            chunks, size = [], 0
    if chunks:
        yield chunks


def _text(code: HTTPStatus, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=code, text=f"{code.value} {code.phrase}\n", headers=headers)
