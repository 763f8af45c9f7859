"""Listening against Linux on a TUN: a full accept queue, deferred accept, a short SYN flood from the namespace's own range."""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from interop.daemons import ADDRESS, Daemon, need
from interop.namespaces import Namespace
from interop.stackhost import US, StackHost

from tunstack.engine import Listener, SocketOptions, pack_address

SYNFLOOD = Path(__file__).parents[2] / "scripts" / "flood" / "synflood.c"
RANGE = ("10.78.0.0", "16")
PORT = 8080


def nobody(listener: Listener) -> None:
    """An application that is slow to accept."""


def connecting(namespace: Namespace, count: int) -> list[socket.socket]:
    """Return kernel sockets that are connecting to US."""
    clients = []
    with namespace.entered():
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            assert client.connect_ex((US, PORT)) == errno.EINPROGRESS
            clients.append(client)
    return clients


def test_connections_beyond_a_full_accept_queue_wait_for_a_slow_acceptor(namespace: Namespace) -> None:
    """M-24. Linux holds its ends for established; what the queue did not take is made when the SYN-ACK, or its data, comes again."""
    host = StackHost(namespace.open_tun())
    listener = host.stack.listen(pack_address(US), PORT, on_acceptable=nobody, backlog=1)
    clients = connecting(namespace, 2)
    host.run_until(lambda: listener.acceptable == 2)
    clients += connecting(namespace, 1)
    host.run_until(lambda: host.stack.counters.ListenOverflows > 0)  # a full queue takes no SYN, which Linux sends again
    assert (listener.acceptable, listener.half_open) == (2, 0)
    accepted = [listener.accept()]
    host.run_until(lambda: listener.acceptable == 2)
    while (conn := listener.accept()) is not None:
        accepted.append(conn)
    assert len(accepted) == 3
    for number, client in enumerate(clients):
        client.send(bytes(number + 1))
    host.run_until(lambda: sorted(conn.readable for conn in accepted if conn is not None) == [1, 2, 3])
    for client in clients:
        client.close()


def test_deferred_accept_waits_for_the_data_of_a_linux_client(namespace: Namespace) -> None:
    """M-27."""
    host = StackHost(namespace.open_tun())
    listener = host.listen(PORT, nobody, SocketOptions(defer_accept=30))
    (client,) = connecting(namespace, 1)
    host.run_until(lambda: host.stack.counters.TCPDeferAcceptDrop == 1)
    client.setblocking(True)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and client.getpeername() == (US, PORT)
    end = time.monotonic() + 1.5  # the SYN-ACK would be sent again after one second
    host.run_until(lambda: time.monotonic() > end)
    assert (listener.acceptable, listener.half_open) == (0, 1) and host.stack.counters.TcpRetransSegs == 0
    client.send(b"hello")
    host.run_until(lambda: listener.acceptable == 1)
    conn = listener.accept()
    assert conn is not None and conn.read(10, host.now()) == b"hello"
    client.close()


def test_honest_clients_get_through_a_short_flood(namespace: Namespace, tmp_path: Path, start_daemon: Callable[..., Daemon]) -> None:
    """M-26, M-28. Cookies, since the queue of 17 is full at once; memory stays, and the log has one line about it."""
    need("cc", "curl")
    binary = tmp_path / "synflood"
    subprocess.run(["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(binary), str(SYNFLOOD)], check=True)
    daemon = start_daemon("--sysctl", "net.core.somaxconn=16")
    refused = namespace.run([str(binary), ADDRESS, "80", *RANGE, "1000", "1"], check=False)
    assert refused.returncode == 2 and "blackhole" in refused.stdout  # answers would go somewhere
    namespace.run(f"ip route add blackhole {'/'.join(RANGE)}")
    daemon.curl(f"http://{ADDRESS}/")
    before = daemon.memory()
    flood = namespace.popen([str(binary), ADDRESS, "80", *RANGE, "2000", "4"], stdout=subprocess.PIPE)
    succeeded = 0
    while flood.poll() is None:
        daemon.curl(f"--max-time 25 http://{ADDRESS}/")
        succeeded += 1
    assert flood.stdout is not None
    sent = int(flood.stdout.read().split()[0])
    assert succeeded and sent > 1000
    counters = daemon.status()["counters"]
    assert counters["SyncookiesSent"] > 100 and counters["SyncookiesRecv"] > 0 and counters["SyncookiesFailed"] == 0
    assert counters["ListenDrops"] == 0
    assert daemon.memory() - before < 10 << 20
    assert daemon.stop().count("possible SYN flooding on port 10.77.0.2:80: sending cookies") == 1
