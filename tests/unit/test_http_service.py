"""The HTTP service, over the kernel's loopback sockets and spoken to octet by octet."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from tunstack.daemon.http import HttpService, split_path
from tunstack.daemon.httpfile import content_type, parse_range
from tunstack.daemon.tree import UPLOAD_PREFIX, Tree

Reply = tuple[int, dict[str, str], bytes]
Exchange = Callable[[bytes], Awaitable[list[Reply]]]

DATA = random.Random(3).randbytes(1_500_000)
MODIFIED = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub" / "<b>&").mkdir(parents=True)
    (root / "data.bin").write_bytes(DATA)
    (root / "small.txt").write_bytes(b"0123456789")
    os.utime(root / "small.txt", (MODIFIED, MODIFIED))
    (root / "page.html.gz").write_bytes(b"x")
    (root / 'a"<script>:%2f é').write_text("odd")
    (root / os.fsdecode(b"caf\xe9")).write_text("latin")
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to("../secret")
    return root


def parse(data: bytes, heads: int = 0) -> list[Reply]:
    """Split a connection's octets into replies; the last `heads` of them have no body."""
    replies: list[Reply] = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        status = int(first.split()[1])
        length = 0 if heads or status in (100, 204, 304) else int(headers["content-length"])
        replies.append((status, headers, data[:length]))
        data = data[length:]
    return replies


def talk(root: Path | None, request: bytes, *, upload: bool = False, half_close: bool = False, heads: int = 0) -> list[Reply]:
    """Send octets over one connection and return the replies until the server closes it."""

    async def main() -> bytes:
        tree = None if root is None else Tree(root)
        service = HttpService(tree, upload, lambda: {"answer": 42})
        server = await asyncio.get_running_loop().create_server(service, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(20):
                writer.write(request)
                if half_close:
                    writer.write_eof()
                return await reader.read()
        finally:
            writer.transport.abort()
            server.close()
            await service.shutdown(1)
            if tree is not None:
                tree.close()

    return parse(asyncio.run(main()), heads)


def get(root: Path | None, path: str, *headers: str, method: str = "GET") -> Reply:
    """Make one request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    (reply,) = talk(root, "\r\n".join(lines).encode(), heads=int(method == "HEAD"))
    return reply


def put(root: Path, path: str, data: bytes, *headers: str, upload: bool = True) -> Reply:
    lines = [f"PUT {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(data)}", *headers, "", ""]
    return talk(root, "\r\n".join(lines).encode() + data, upload=upload)[-1]


def test_file_is_served_whole(root: Path) -> None:
    status, headers, body = get(root, "/data.bin")
    assert (status, body) == (200, DATA)
    assert headers["content-type"] == "application/octet-stream" and headers["accept-ranges"] == "bytes"
    assert headers["last-modified"].endswith("GMT")


def test_head_has_the_headers_and_no_body(root: Path) -> None:
    status, headers, body = get(root, "/data.bin", method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(DATA)), b"")
    status, headers, body = get(root, "/", method="HEAD")
    assert status == 200 and int(headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-4", (206, b"01234", "bytes 0-4/10")),
        ("bytes=5-", (206, b"56789", "bytes 5-9/10")),
        ("bytes=-3", (206, b"789", "bytes 7-9/10")),
        ("bytes=-30", (206, b"0123456789", "bytes 0-9/10")),
        ("bytes=8-99", (206, b"89", "bytes 8-9/10")),
        ("bytes=9-9", (206, b"9", "bytes 9-9/10")),
        ("bytes=10-", (416, b"416 Range Not Satisfiable\n", "bytes */10")),
        ("bytes=-0", (416, b"416 Range Not Satisfiable\n", "bytes */10")),
        ("bytes=4-2", (200, b"0123456789", None)),
        ("bytes=0-1,3-4", (200, b"0123456789", None)),
        ("bytes=-", (200, b"0123456789", None)),
        ("lines=1-2", (200, b"0123456789", None)),
    ],
)
def test_range(root: Path, value: str, expected: tuple[int, bytes, str | None]) -> None:
    """RFC 9110 14: one range is honoured, what is not understood is ignored."""
    status, headers, body = get(root, "/small.txt", f"Range: {value}")
    assert (status, body, headers.get("content-range")) == expected


def test_range_in_a_large_file(root: Path) -> None:
    _, headers, body = get(root, "/data.bin", "Range: bytes=300001-1400000")
    assert body == DATA[300001:1400001] and headers["content-range"] == f"bytes 300001-1400000/{len(DATA)}"


def test_range_of_an_empty_file() -> None:
    assert parse_range("bytes=0-", 0) == (0, 0)
    assert parse_range("bytes=-1", 0) == (0, 0)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(-1, {"If-Modified-Since": 200, "If-Unmodified-Since": 412}), (0, {"If-Modified-Since": 304, "If-Unmodified-Since": 200})],
)
def test_conditions_by_date(root: Path, offset: int, expected: dict[str, int]) -> None:
    for header, status in expected.items():
        assert get(root, "/small.txt", f"{header}: {formatdate(MODIFIED + offset, usegmt=True)}")[0] == status


def test_conditions_by_entity_tag(root: Path) -> None:
    etag = get(root, "/small.txt")[1]["etag"]
    past = formatdate(MODIFIED - 9, usegmt=True)
    assert get(root, "/small.txt", f"If-None-Match: {etag}")[0] == 304
    assert get(root, "/small.txt", f'If-None-Match: "x", W/{etag}')[0] == 304
    assert get(root, "/small.txt", "If-None-Match: *")[0] == 304
    assert get(root, "/small.txt", 'If-None-Match: "x"', f"If-Modified-Since: {formatdate(MODIFIED, usegmt=True)}")[0] == 200
    assert get(root, "/small.txt", f"If-Match: {etag}", f"If-Unmodified-Since: {past}")[0] == 200
    assert get(root, "/small.txt", f"If-Match: W/{etag}")[0] == 412
    assert get(root, "/small.txt", f"If-None-Match: {etag}", method="HEAD")[0] == 304


def test_if_range_decides_whether_the_range_counts(root: Path) -> None:
    """RFC 9110 13.1.5."""
    etag = get(root, "/small.txt")[1]["etag"]
    for value, status in (
        (etag, 206),
        (f"W/{etag}", 200),
        ('"x"', 200),
        (formatdate(MODIFIED, usegmt=True), 206),
        (formatdate(MODIFIED + 1, usegmt=True), 200),
        ("yesterday", 200),
    ):
        assert get(root, "/small.txt", "Range: bytes=0-1", f"If-Range: {value}")[0] == status


def test_listing_is_readable_and_escaped(root: Path) -> None:
    status, headers, body = get(root, "/")
    text = body.decode()
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    assert '<a href="./a%22%3Cscript%3E%3A%252f%20%C3%A9">a&quot;&lt;script&gt;:%2f é</a>' in text
    assert '<a href="./caf%E9">caf\N{REPLACEMENT CHARACTER}</a>' in text
    assert '<a href="./sub/">sub/</a>' in text
    assert "10</td><td>2023-11-14 22:13:20" in text
    assert "out" not in text and "../" not in text


def test_listing_below_the_root_leads_back(root: Path) -> None:
    status, _headers, body = get(root, "/sub/")
    assert status == 200 and b'<a href="../">' in body and b"./%3Cb%3E%26/" in body
    assert b"<h1>/sub/</h1>" in body
    assert b"<h1>/sub/&lt;b&gt;&amp;/</h1>" in get(root, "/sub/%3Cb%3E&/")[2]


def test_directory_without_its_slash_is_redirected(root: Path) -> None:
    status, headers, _body = get(root, "/sub?x=1")
    assert (status, headers["location"]) == (301, "./sub/?x=1")
    assert get(root, "/sub/%3Cb%3E&")[1]["location"] == "./%3Cb%3E&/"


def test_odd_names_are_served(root: Path) -> None:
    assert get(root, "/a%22%3Cscript%3E:%252f%20%C3%A9")[2] == b"odd"
    assert get(root, "/caf%E9")[2] == b"latin"
    assert get(root, "//./small.txt?q#f")[2] == b"0123456789"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/out", 403),
        ("/../secret", 400),
        ("/sub/../../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/sub/%2e%2e/%2E./secret", 400),
        ("/sub/..%2f..%2fsecret", 400),
        ("/%2fetc%2fpasswd", 400),
        ("//etc/passwd", 404),
        ("/small.txt%00.png", 400),
        ("/small.txt/", 404),
        ("/small.txt/x", 404),
        ("/nothing", 404),
        ("/" + "x" * 300, 404),
        (f"/{UPLOAD_PREFIX}1", 404),
        ("/sub/.", 404),
        ("/..;/secret", 404),
        ("/..%5csecret", 404),
        ("/%252e%252e/secret", 404),
        ("http://x/../secret", 400),
        ("/\\..\\secret", 404),
    ],
)
def test_nothing_outside_is_served(root: Path, path: str, status: int) -> None:
    reply = get(root, path)
    assert reply[0] == status and b"secret" not in reply[2]


def test_fifo_is_forbidden(root: Path) -> None:
    os.mkfifo(root / "fifo")
    assert get(root, "/fifo")[0] == 403


def test_unreadable_file_is_forbidden(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Tree, names: list[str]) -> tuple[int, os.stat_result]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Tree, "open", refuse)
    assert get(root, "/small.txt")[0] == 403


def test_status_is_json(root: Path) -> None:
    status, headers, body = get(root, "/status")
    assert status == 200 and headers["content-type"].startswith("application/json")
    assert json.loads(body) == {"answer": 42}
    assert put(root, "/status", b"x")[0] == 405


def test_without_files_there_is_a_page_and_the_status() -> None:
    assert b"/status" in get(None, "/")[2]
    assert json.loads(get(None, "/status")[2]) == {"answer": 42}
    assert get(None, "/small.txt")[0] == 404


def test_other_methods_are_refused_with_those_that_are_allowed(root: Path) -> None:
    for method in ("POST", "DELETE", "PUT", "TRACE"):
        status, headers, _body = get(root, "/small.txt", "Content-Length: 0", method=method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert (root / "small.txt").read_bytes() == b"0123456789"


def test_upload_creates_then_replaces(root: Path) -> None:
    assert put(root, "/new%20file", DATA)[0] == 201
    assert (root / "new file").read_bytes() == DATA
    assert put(root, "/new%20file", b"short")[0] == 204
    assert (root / "new file").read_bytes() == b"short"
    assert put(root, "/sub/empty", b"")[0] == 201
    assert (root / "sub" / "empty").read_bytes() == b""


def test_upload_in_chunks(root: Path) -> None:
    head = b"PUT /chunked HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (DATA[:400_000], DATA[400_000:])) + b"0\r\n\r\n"
    assert talk(root, head + body, upload=True)[0][0] == 201
    assert (root / "chunked").read_bytes() == DATA


def test_upload_with_expect_is_told_to_go_on(root: Path) -> None:
    head = b"PUT /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab"
    assert [reply[0] for reply in talk(root, head, upload=True)] == [100, 201]


def test_refused_upload_is_not_told_to_go_on(root: Path) -> None:
    head = b"PUT /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab"
    assert [reply[0] for reply in talk(root, head)] == [405]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/none/x", 404), ("/sub", 409), ("/", 409), ("/sub/", 409)),
        *(("/out/x", 403), ("/../x", 400), ("/small.txt/x", 404), (f"/{UPLOAD_PREFIX}x", 404)),
    ],
)
def test_upload_to_where_it_cannot_go_is_refused(root: Path, path: str, status: int) -> None:
    assert put(root, path, b"data")[0] == status


def test_upload_of_a_part_is_refused(root: Path) -> None:
    assert put(root, "/small.txt", b"x", "Content-Range: bytes 0-0/10")[0] == 400
    assert (root / "small.txt").read_bytes() == b"0123456789"


def test_upload_that_breaks_off_changes_nothing(root: Path) -> None:
    before = sorted(os.listdir(root))
    request = b"PUT /small.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000)
    assert [reply[0] for reply in talk(root, request, upload=True, half_close=True)] in ([], [400])
    assert (root / "small.txt").read_bytes() == b"0123456789"
    assert sorted(os.listdir(root)) == before


def test_upload_that_is_malformed_changes_nothing(root: Path) -> None:
    before = sorted(os.listdir(root))
    request = b"PUT /small.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n"
    assert [reply[0] for reply in talk(root, request, upload=True)] == [400]
    assert (root / "small.txt").read_bytes() == b"0123456789" and sorted(os.listdir(root)) == before


def test_full_disk_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    before = sorted(os.listdir(root))
    status = put(root, "/new", b"data")[0]
    monkeypatch.undo()
    assert status == 507 and sorted(os.listdir(root)) == before


def test_pipelined_requests_are_answered_in_order(root: Path) -> None:
    one = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n%b\r\n"
    request = one % b"" + one % b"Range: bytes=3-5\r\n" + one % b"" * 20 + one % b"Connection: close\r\n"
    replies = talk(root, request)
    assert [reply[2] for reply in replies] == [b"0123456789", b"345", *[b"0123456789"] * 21]


def test_half_closed_client_gets_all_its_answers(root: Path) -> None:
    """M-51: `printf ... | nc -N`."""
    request = b"GET /data.bin HTTP/1.1\r\nHost: x\r\n\r\nGET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    replies = talk(root, request, half_close=True)
    assert [(reply[0], len(reply[2])) for reply in replies] == [(200, len(DATA)), (200, 10)]
    assert talk(root, b"GET /data.bin HTTP/1.0\r\n\r\n", half_close=True)[0][2] == DATA
    assert talk(root, b"GET / HT", half_close=True) == []


def test_file_that_shrinks_ends_the_connection(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client must be able to tell that it has not got all of it."""

    def end(descriptor: int, buffers: object, offset: int, flags: int) -> int:
        return 0

    monkeypatch.setattr(os, "preadv", end)

    async def main() -> None:
        tree = Tree(root)
        server = await asyncio.get_running_loop().create_server(HttpService(tree, False, dict), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET /data.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            async with asyncio.timeout(20):
                data = await reader.read()
        except ConnectionResetError:
            data = b""
        assert b"Content-Length: 1500000" in data or data == b""
        assert len(data) < len(DATA)
        writer.close()
        server.close()
        tree.close()

    asyncio.run(main())


def test_file_is_sent_where_the_page_cache_cannot_be_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_arguments: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", unsupported)
    assert get(root, "/data.bin")[2] == DATA


def test_request_that_is_no_http_is_answered_with_400(root: Path) -> None:
    assert talk(root, b"\x16\x03\x01 hello\r\n\r\n")[0][0] == 400


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.txt", "text/plain; charset=utf-8"),
        ("x.png", "image/png"),
        ("x.tar.gz", "application/gzip"),
        ("x.unknown-kind", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_media_type_is_that_of_the_file_itself(name: str, kind: str) -> None:
    assert content_type(name) == kind


def test_path_is_split_before_it_is_decoded() -> None:
    assert split_path("/") == []
    assert split_path("/a/b%20c/") == ["a", "b c", ""]
    assert split_path("//a//./b") == ["a", "b"]
    for raw in ("*", "", "a/b", "/a%2fb", "/../x", "/%00"):
        with pytest.raises(ValueError, match="not a"):
            split_path(raw)
