"""HTTP from the tools that people use, over our TCP."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from interop.daemons import ADDRESS, Daemon, need, random_file, sha256


def test_two_hundred_connections_at_once(daemon: Daemon, tmp_path: Path) -> None:
    """M-03, M-24: 200 downloads in parallel, each on a connection of its own, all whole."""
    digest = random_file(daemon.root / "file", 1 << 20)
    urls = f"http://{ADDRESS}/file?[1-200] -o {tmp_path}/#1"
    daemon.curl(f"--parallel --parallel-immediate --parallel-max 200 {urls}", timeout=120)
    assert [sha256(tmp_path / str(n)) for n in range(1, 201)] == [digest] * 200


def test_wrk_sees_no_failed_request(daemon: Daemon) -> None:
    """M-30: many requests on few connections."""
    need("wrk")
    random_file(daemon.root / "small", 1000)
    output = daemon.namespace.run(f"wrk -t2 -c50 -d10s http://{ADDRESS}/small", timeout=60).stdout
    assert "Socket errors" not in output and "Non-2xx" not in output, output
    assert int(re.search(r"(\d+) requests in", output)[1]) > 1000, output  # type: ignore[index]


def test_ab_sees_no_failed_request(daemon: Daemon) -> None:
    """M-20, M-50: a connection for each request."""
    need("ab")
    random_file(daemon.root / "small", 1000)
    output = daemon.namespace.run(f"ab -q -t 10 -n 1000000 -c 20 http://{ADDRESS}/small", timeout=60).stdout
    assert re.search(r"Failed requests:\s+0\n", output), output
    assert int(re.search(r"Complete requests:\s+(\d+)", output)[1]) > 1000, output  # type: ignore[index]


def test_ranges(daemon: Daemon, tmp_path: Path) -> None:
    """Part of a file, and a download that is taken up again."""
    random_file(daemon.root / "file", 1 << 20)
    whole = (daemon.root / "file").read_bytes()
    daemon.curl(f"--range 1000-99999 -o {tmp_path}/part http://{ADDRESS}/file")
    assert (tmp_path / "part").read_bytes() == whole[1000:100000]
    (tmp_path / "begun").write_bytes(whole[:123456])
    daemon.curl(f"-C - -o {tmp_path}/begun http://{ADDRESS}/file")
    assert (tmp_path / "begun").read_bytes() == whole


def test_keep_alive_uses_one_connection(daemon: Daemon) -> None:
    """Two requests of one curl share a connection."""
    (daemon.root / "a").write_text("a")
    output = daemon.curl(f"-v http://{ADDRESS}/a http://{ADDRESS}/a").stdout
    assert output.count("Connected to") == 1, output
    assert re.search(r"(Re-using existing|left intact)", output), output


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    """Requests sent without waiting for the answers."""
    for n in range(50):
        (daemon.root / f"f{n}").write_text(f"<{n}>")
    with daemon.namespace.entered():
        client = socket.create_connection((ADDRESS, 80), timeout=10)
    requests = "".join(f"GET /f{n} HTTP/1.1\r\nHost: x\r\n{'Connection: close' if n == 49 else 'X: y'}\r\n\r\n" for n in range(50))
    with client:
        client.sendall(requests.encode())
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    assert re.findall(rb"<(\d+)>", answer) == [str(n).encode() for n in range(50)]
