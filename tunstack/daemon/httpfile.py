"""An open file as an HTTP response: conditional requests, one range, HEAD.

RFC 9110 13 (conditions) and 14 (ranges). aiohttp's own FileResponse opens a path; this sends a descriptor, so that what was
checked is what is sent. Offsets and lengths in octets.
"""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import os
import re
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web
from aiohttp.web_request import BaseRequest

log = logging.getLogger(__name__)

_CHUNK = 256 * 1024  # octets read and written at a time
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII | re.IGNORECASE)
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz", "br": "application/x-brotli"}


async def send_file(request: BaseRequest, descriptor: int, status: os.stat_result, name: str) -> web.StreamResponse:
    """Answer a GET or HEAD with a file; the descriptor stays the caller's."""
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    headers = {
        "ETag": etag,
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": content_type(name),
        "X-Content-Type-Options": "nosniff",
    }
    modified = int(status.st_mtime)
    failed = check_conditions(request, etag, modified)
    if failed is not None:
        if failed == HTTPStatus.PRECONDITION_FAILED:
            return web.Response(status=failed, text="412 Precondition Failed\n")
        return web.Response(status=failed, headers={key: headers[key] for key in ("ETag", "Last-Modified")})
    start, length, code = 0, status.st_size, HTTPStatus.OK
    if "Range" in request.headers and request.method == "GET" and _if_range(request, etag, modified):
        found = parse_range(request.headers["Range"], status.st_size)
        if found is not None and found[1] == 0:
            headers = {"Content-Range": f"bytes */{status.st_size}", "Accept-Ranges": "bytes"}
            return web.Response(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers, text="416 Range Not Satisfiable\n")
        if found is not None:
            (start, length), code = found, HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{status.st_size}"
    response = web.StreamResponse(status=code, headers=headers)
    response.content_length = length
    await response.prepare(request)
    if request.method == "GET":
        try:
            await _send(response, descriptor, start, length)
        except ConnectionError:
            raise
        except OSError as error:
            log.warning("http: %s was cut short: %s", name, error)
            if request.transport is not None:
                request.transport.abort()  # for the client to notice that it has not got it all
            raise ConnectionAbortedError(str(error)) from error
    await response.write_eof()
    return response


async def _send(response: web.StreamResponse, descriptor: int, offset: int, length: int) -> None:
    loop = asyncio.get_running_loop()
    while length:
        want = min(length, _CHUNK)
        data = _read_cached(descriptor, want, offset)
        if data is None:
            data = await loop.run_in_executor(None, os.pread, descriptor, want, offset)
        if not data:
            raise OSError("it became shorter while it was sent")
        offset += len(data)
        length -= len(data)
        await response.write(data)


def _read_cached(descriptor: int, length: int, offset: int) -> bytes | None:
    """Read what the page cache has; None if it has nothing there, or the file system cannot tell."""
    buffer = bytearray(length)
    try:
        count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, EOPNOTSUPP; an error of the file itself comes again from pread
        return None
    return bytes(memoryview(buffer)[:count])


def content_type(name: str) -> str:
    """Return the media type for a file's name; a compressed file is what it is, not an encoding of what is in it."""
    kind, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def check_conditions(request: BaseRequest, etag: str, modified: int) -> HTTPStatus | None:
    """Evaluate the preconditions in the order of RFC 9110 13.2.2; None: go on. `modified` in seconds since 1970."""
    headers = request.headers
    if "If-Match" in headers:
        if not _matches(headers.getall("If-Match"), etag, weak=False):
            return HTTPStatus.PRECONDITION_FAILED
    elif request.if_unmodified_since is not None and modified > request.if_unmodified_since.timestamp():
        return HTTPStatus.PRECONDITION_FAILED
    if "If-None-Match" in headers:
        if _matches(headers.getall("If-None-Match"), etag, weak=True):
            return HTTPStatus.NOT_MODIFIED
    elif request.if_modified_since is not None and modified <= request.if_modified_since.timestamp():
        return HTTPStatus.NOT_MODIFIED
    return None


def _matches(values: list[str], etag: str, weak: bool) -> bool:
    """Compare an entity tag with a list of them (RFC 9110 8.8.3.2)."""
    listed = ",".join(values).strip()
    if listed == "*":
        return True
    tags = re.findall(r'(W/)?("[^"]*")', listed)
    return any(tag == etag and (weak or not prefix) for prefix, tag in tags)


def _if_range(request: BaseRequest, etag: str, modified: int) -> bool:
    """Tell whether the range still applies (RFC 9110 13.1.5): strong comparison of the tag, or exactly the date."""
    value = request.headers.get("If-Range")
    if value is None:
        return True
    if value.strip().startswith(('"', "W/")):
        return value.strip() == etag
    return request.if_range is not None and request.if_range.timestamp() == modified


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """Return start and length of the range that is asked for, length 0 if the file has nothing of it.

    None if the whole file is to be sent: what is no range, or several, may be ignored (RFC 9110 14.2).
    """
    found = _RANGE.fullmatch(value.strip())
    if found is None or found[0].endswith("=-"):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        return size - length, length
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None
    return (first, min(last, size - 1) - first + 1) if first < size else (0, 0)
