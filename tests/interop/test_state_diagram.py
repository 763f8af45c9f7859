"""Every transition of RFC 9293's state diagram, with Linux or a raw socket at the other end of a TUN."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop import ssview
from interop.daemons import need
from interop.namespaces import Namespace
from interop.walk import BY_RESET, DIAGRAM, LINUX, RAW, US, RawPeer, Walker

from tunstack.engine import Connection

pytestmark = pytest.mark.root

INTERFACE = "tunstack0"


@pytest.fixture
def walker(namespace: Namespace) -> Iterator[Walker]:
    """A stack on a TUN, with the test within the namespace that is its other end."""
    device = namespace.open_tun(INTERFACE)
    with namespace.entered():
        yield Walker(device)


def linux_connects(port: int, local_port: int = 0) -> socket.socket:
    """Have Linux begin to connect to us."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LINUX, local_port))
    sock.setblocking(False)
    assert sock.connect_ex((US, port)) == errno.EINPROGRESS
    return sock


def simultaneously(walker: Walker, local_port: int, port: int) -> tuple[Connection, socket.socket]:
    """Have Linux and us connect to each other at once: neither SYN is answered before the other one has left."""
    conn = walker.connect(LINUX, port, local_port)
    sock = linux_connects(local_port, port)
    walker.transmit()
    walker.until_state(conn, "ESTABLISHED")
    return conn, sock


# Scenes. Each waits for the states that it passes through by name.


def linux_opens_and_closes(walker: Walker) -> None:
    listener = walker.listen(80)
    sock = linux_connects(80)
    walker.until(lambda: bool(walker.accepted))
    conn = walker.accepted.pop()
    walker.until_state(conn, "ESTABLISHED")
    sock.shutdown(socket.SHUT_WR)
    walker.until_state(conn, "CLOSE_WAIT")
    walker.call(conn.resume)
    walker.call(conn.close)
    assert walker.state(conn) == "LAST_ACK"
    walker.until_state(conn, "CLOSED")
    walker.call(listener.close)
    sock.close()


def we_open_and_close(walker: Walker) -> None:
    with socket.create_server((LINUX, 81)) as listener:
        conn = walker.connect(LINUX, 81, 5081)
        assert walker.state(conn) == "SYN_SENT"
        walker.until_state(conn, "ESTABLISHED")
        sock, _ = listener.accept()
        walker.call(conn.shutdown_write)
        assert walker.state(conn) == "FIN_WAIT_1"
        walker.until_state(conn, "FIN_WAIT_2")
        assert sock.recv(1) == b""
        sock.close()
        walker.until_state(conn, "TIME_WAIT")
        walker.skip(59)
        assert walker.state(conn) == "TIME_WAIT"
        walker.skip(1)
        assert walker.state(conn) == "CLOSED"


def both_open_and_both_close_at_once(walker: Walker) -> None:
    conn, sock = simultaneously(walker, 5082, 82)
    walker.call(conn.shutdown_write)
    sock.shutdown(socket.SHUT_WR)
    walker.turn()
    walker.until_state(conn, "TIME_WAIT")
    assert sock.recv(1) == b""
    sock.close()


def an_attempt_is_given_up(walker: Walker) -> None:
    conn = walker.connect(LINUX, 83, 5083)
    walker.call(conn.close)
    assert walker.state(conn) == "CLOSED"


def a_half_open_connection_is_reset(walker: Walker) -> None:
    listener = walker.listen(84)
    peer = RawPeer(walker, INTERFACE, 5084, 84)
    peer.send("S")
    peer.expect("SA")
    peer.send("R")
    assert [ends for ends in walker.listing() if f"{US}:84" in ends] == [f"{US}:84"]
    peer.close()
    walker.call(listener.close)


def a_fin_acknowledges_ours(walker: Walker) -> None:
    conn, peer = connected_to_raw(walker, 5085)
    walker.call(conn.shutdown_write)
    peer.expect("FA")
    peer.send("FA")
    assert walker.state(conn) == "TIME_WAIT"
    peer.close()


def we_close_while_opening_at_once(walker: Walker) -> None:
    conn, peer = half_open_to_raw(walker, 5086)
    walker.call(conn.close)
    peer.send("A")
    assert walker.state(conn) == "FIN_WAIT_1"
    peer.expect("FA")
    peer.close()


# What leads to a state with a raw socket as the peer.


def half_open_to_raw(walker: Walker, local_port: int) -> tuple[Connection, RawPeer]:
    """Open a connection to a raw socket that does the same at once; SYN_RECEIVED."""
    peer = RawPeer(walker, INTERFACE, 80, local_port)
    conn = walker.connect(RAW, 80, local_port)
    peer.expect("S")
    peer.send("S")
    assert walker.state(conn) == "SYN_RECEIVED"
    peer.expect("SA")
    return conn, peer


def connected_to_raw(walker: Walker, local_port: int) -> tuple[Connection, RawPeer]:
    """Open a connection to a raw socket; ESTABLISHED."""
    peer = RawPeer(walker, INTERFACE, 80, local_port)
    conn = walker.connect(RAW, 80, local_port)
    peer.expect("S")
    peer.send("SA")
    assert walker.state(conn) == "ESTABLISHED"
    peer.expect("A")
    return conn, peer


def lead_to(walker: Walker, state: str, local_port: int) -> tuple[Connection, RawPeer]:
    """Lead a connection to a raw socket into a state."""
    if state == "SYN_SENT":
        conn = walker.connect(RAW, 80, local_port)
        peer = RawPeer(walker, INTERFACE, 80, local_port)
        peer.expect("S")
    elif state == "SYN_RECEIVED":
        conn, peer = half_open_to_raw(walker, local_port)
    else:
        conn, peer = connected_to_raw(walker, local_port)
        if state in ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING"):
            walker.call(conn.shutdown_write)
            before = peer.ack
            peer.expect("FA")
            if state == "FIN_WAIT_2":
                peer.send("A")
            elif state == "CLOSING":
                peer.send("FA", ack=before)
        elif state in ("CLOSE_WAIT", "LAST_ACK"):
            peer.send("FA")
            if state == "LAST_ACK":
                walker.call(conn.resume)
                walker.call(conn.close)
                peer.expect("FA")
    assert walker.state(conn) == state
    return conn, peer


def test_every_transition_of_the_diagram_is_seen(walker: Walker) -> None:
    """M-20, M-21, M-50, M-51, M-52, M-54, RFC 9293 3.3.2, figure 5 with note 2: those, and no other."""
    linux_opens_and_closes(walker)
    we_open_and_close(walker)
    both_open_and_both_close_at_once(walker)
    an_attempt_is_given_up(walker)
    a_half_open_connection_is_reset(walker)
    a_fin_acknowledges_ours(walker)
    we_close_while_opening_at_once(walker)
    assert walker.seen == DIAGRAM


def test_a_reset_leads_out_of_every_state(walker: Walker) -> None:
    """M-22, M-59, RFC 9293 3.3.2, note 3; out of TIME-WAIT it does not (M-54, RFC 1337)."""
    states = sorted({before for before, _ in BY_RESET})
    for number, state in enumerate(states):
        conn, peer = lead_to(walker, state, 6000 + number)
        walker.seen.clear()
        if state == "SYN_SENT":
            peer.send("RA")
        else:
            peer.send("R")
        assert walker.state(conn) == "CLOSED"
        assert walker.seen == {(state, "CLOSED")} and (state, "CLOSED") in BY_RESET
        peer.close()
    walker.seen.clear()
    a_half_open_connection_is_reset(walker)
    assert ("SYN_RECEIVED", "LISTEN") in walker.seen
    conn, peer = connected_to_raw(walker, 7000)
    walker.call(conn.shutdown_write)
    peer.expect("FA")
    peer.send("FA")
    peer.send("R")
    assert walker.state(conn) == "TIME_WAIT"
    peer.close()


def shown(walker: Walker, directory: Path, local_port: int, port: int | None = None) -> str:
    """Return the state of our end as `tunstack ss` names it; without a port of the peer's that of a listener."""
    program = ssview.Program(walker.stack, walker.device, walker.now)
    rows = ssview.ours(program, directory)
    (state,) = (row[0] for row in rows if row[1] == f"{US}:{local_port}" and row[2].endswith(f":{port or '*'}"))
    return state


def both_shown(walker: Walker, directory: Path, local_port: int, port: int) -> tuple[str, str]:
    """Return the state of a connection as `tunstack ss` names it, and as the kernel's ss does at Linux's end; "-" where there is none."""
    linux = [row[0] for row in ssview.kernels() if row[1:] == (f"{LINUX}:{port}", f"{US}:{local_port}")]
    program = ssview.Program(walker.stack, walker.device, walker.now)
    us = [row[0] for row in ssview.ours(program, directory) if row[1:] == (f"{US}:{local_port}", f"{LINUX}:{port}")]
    return " ".join(us) or "-", " ".join(linux) or "-"


def test_ss_names_every_state(walker: Walker, tmp_path: Path) -> None:
    """M-60, M-20: the command itself, while the state lasts."""
    names = {
        "SYN_SENT": "SYN-SENT",
        "SYN_RECEIVED": "SYN-RECV",
        "ESTABLISHED": "ESTAB",
        "FIN_WAIT_1": "FIN-WAIT-1",
        "FIN_WAIT_2": "FIN-WAIT-2",
        "CLOSE_WAIT": "CLOSE-WAIT",
        "CLOSING": "CLOSING",
        "LAST_ACK": "LAST-ACK",
    }
    walker.listen(79)
    assert shown(walker, tmp_path, 79) == "LISTEN"
    for local_port, (state, name) in enumerate(names.items(), 6100):
        _, peer = lead_to(walker, state, local_port)
        assert shown(walker, tmp_path, local_port, 80) == name
        peer.close()
    conn, peer = connected_to_raw(walker, 6200)
    walker.call(conn.shutdown_write)
    peer.expect("FA")
    peer.send("FA")
    assert shown(walker, tmp_path, 6200, 80) == "TIME-WAIT"
    peer.close()


def test_ss_at_both_ends_of_connections_with_linux(walker: Walker, tmp_path: Path) -> None:
    """M-60, M-50, M-52: ours beside the kernel's; a pair is what each end knows when only one of them has acted."""
    need("ss")
    seen = []

    def look(local_port: int, port: int) -> None:
        seen.append(both_shown(walker, tmp_path, local_port, port))

    # Linux opens and closes.
    walker.listen(90)
    sock = linux_connects(90, 4090)
    look(90, 4090)
    walker.until(lambda: bool(walker.accepted))
    conn = walker.accepted.pop()
    look(90, 4090)
    sock.shutdown(socket.SHUT_WR)
    look(90, 4090)
    walker.until_state(conn, "CLOSE_WAIT")
    look(90, 4090)
    walker.call(conn.resume)
    walker.call(conn.close)
    look(90, 4090)
    walker.until_state(conn, "CLOSED")
    look(90, 4090)
    sock.close()
    assert seen == [
        ("-", "SYN-SENT"),
        ("ESTAB", "ESTAB"),
        ("ESTAB", "FIN-WAIT-1"),
        ("CLOSE-WAIT", "FIN-WAIT-2"),
        ("LAST-ACK", "FIN-WAIT-2"),
        ("-", "TIME-WAIT"),
    ]

    # We open and close.
    seen.clear()
    with socket.create_server((LINUX, 91)) as listener:
        conn = walker.connect(LINUX, 91, 5091)
        walker.transmit()
        look(5091, 91)
        walker.until_state(conn, "ESTABLISHED")
        sock, _ = listener.accept()
    walker.call(conn.shutdown_write)
    look(5091, 91)
    walker.until_state(conn, "FIN_WAIT_2")
    look(5091, 91)
    assert sock.recv(1) == b""
    sock.close()
    look(5091, 91)
    walker.until_state(conn, "TIME_WAIT")
    look(5091, 91)
    assert seen == [
        ("SYN-SENT", "SYN-RECV"),
        ("FIN-WAIT-1", "ESTAB"),
        ("FIN-WAIT-2", "CLOSE-WAIT"),
        ("FIN-WAIT-2", "LAST-ACK"),
        ("TIME-WAIT", "-"),
    ]

    # Both open and close at once.
    seen.clear()
    conn, sock = simultaneously(walker, 5092, 92)
    sock.shutdown(socket.SHUT_WR)
    walker.call(conn.shutdown_write)
    walker.transmit()
    look(5092, 92)
    walker.until_state(conn, "TIME_WAIT")
    look(5092, 92)
    assert seen == [("FIN-WAIT-1", "CLOSING"), ("TIME-WAIT", "TIME-WAIT")]
    sock.close()
