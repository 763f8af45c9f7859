"""Local ports: which are given, in which order, and who may share one. RFC 6056, bind(2) of Linux."""

from __future__ import annotations

import errno
import random
from collections import Counter
from itertools import pairwise

import pytest

from tunstack.engine import SocketOptions, Stack, StackConfig, Sysctl, pack_address
from tunstack.engine.connection import Connection
from tunstack.engine.knob import parse_ports
from tunstack.engine.listener import Listener
from tunstack.engine.sink import NULL_SINK

US, ALSO_US, HOST, OTHER = map(pack_address, ("10.77.0.2", "10.77.0.4", "10.77.0.1", "10.77.0.3"))
LOW, HIGH = 32768, 60999


def make_stack(seed: int = 1, **knobs: object) -> Stack:
    return Stack(StackConfig((US, ALSO_US), sysctl=Sysctl(**knobs)), random.Random(seed), random.Random(seed).randbytes(16))  # type: ignore[arg-type]


def connect(stack: Stack, remote: bytes = HOST, port: int = 80, local_port: int = 0, reuseaddr: bool = False) -> Connection:
    return stack.connect(remote, port, NULL_SINK, 0, local_port=local_port, options=SocketOptions(reuseaddr=reuseaddr))


def listen(stack: Stack, port: int, address: bytes = US, reuseaddr: bool = False, reuse_port: bool = False) -> Listener:
    options = SocketOptions(reuseaddr=reuseaddr)
    return stack.listen(address, port, on_acceptable=lambda listener: None, options=options, reuse_port=reuse_port)


def raises(number: int, call: object, *args: object, **kwds: object) -> None:
    with pytest.raises(OSError) as caught:
        call(*args, **kwds)  # type: ignore[operator]
    assert caught.value.errno == number, caught.value


def test_connections_are_given_even_ports_and_listeners_odd_ones() -> None:
    """M-04: as Linux, so that programs that bind find room where thousands of connections are."""
    stack = make_stack()
    ports = [connect(stack).local[1] for _ in range(1000)]
    assert all(LOW <= port <= HIGH and port % 2 == 0 for port in ports) and len(set(ports)) == 1000
    ports = [listen(stack, 0).port for _ in range(100)]
    assert all(LOW <= port <= HIGH and port % 2 for port in ports) and len(set(ports)) == 100


def test_odd_ports_follow_when_the_even_ones_are_out_and_then_there_are_none() -> None:
    """M-04: EADDRNOTAVAIL to one destination; another one has them all again."""
    stack = make_stack(ip_local_port_range=(40000, 40009))
    ports = [connect(stack).local[1] for _ in range(10)]
    assert sorted(ports[:5]) == [40000, 40002, 40004, 40006, 40008] and sorted(ports[5:]) == [40001, 40003, 40005, 40007, 40009]
    raises(errno.EADDRNOTAVAIL, connect, stack)
    assert connect(stack, port=81).local[1] % 2 == 0
    assert connect(stack, remote=OTHER).local[1] % 2 == 0
    raises(errno.EADDRINUSE, listen, stack, 0)
    assert len(stack.flows) == 12


def test_a_range_of_one_port_serves_one_connection_to_a_destination() -> None:
    """M-04."""
    stack = make_stack(ip_local_port_range=(40001, 40001))
    assert connect(stack).local[1] == 40001
    raises(errno.EADDRNOTAVAIL, connect, stack)


def test_ports_to_one_destination_do_not_come_again_soon_and_cannot_be_foreseen() -> None:
    """M-04, RFC 6056 3.3.4: a closed port is not given again before half the range was, and where it goes on differs by destination."""
    stack = make_stack()
    given: list[int] = []
    for _ in range(1500):
        conn = connect(stack)
        given.append(conn.local[1])
        conn.abort(0)
    assert len(set(given)) == len(given)
    steps = Counter((after - before) % (HIGH - LOW + 1) for before, after in pairwise(given))
    assert set(steps) == {2, 4, 6, 8, 10, 12, 14, 16} and max(steps.values()) < 2 * min(steps.values())
    firsts = {connect(make_stack(seed)).local[1] for seed in range(200)}
    assert len(firsts) > 190
    stack = make_stack()
    assert len({connect(stack, port=port).local[1] for port in range(1, 201)}) > 190


def test_every_port_of_the_range_can_be_used_and_the_search_stays_short() -> None:
    """M-04: then the error; few ports are looked at for each, though the even ones are soon out."""
    high = LOW + 4095
    stack = make_stack(ip_local_port_range=(LOW, high))
    looks = 0

    class Flows(dict[bytes, object]):
        def __contains__(self, flow: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__contains__(flow)

    stack.flows = Flows()  # type: ignore[assignment]
    ports = {connect(stack).local[1] for _ in range(4000)}
    assert len(ports) == 4000 and looks < 40 * len(ports), looks
    ports |= {connect(stack).local[1] for _ in range(96)}
    assert ports == set(range(LOW, high + 1))
    raises(errno.EADDRNOTAVAIL, connect, stack)


def test_reserved_ports_are_given_to_nobody_but_who_asks_for_them() -> None:
    """M-04: ip_local_reserved_ports."""
    stack = make_stack(ip_local_port_range=(40000, 40009), ip_local_reserved_ports="40000-40003,40009")
    assert {connect(stack).local[1] for _ in range(5)} == {40004, 40005, 40006, 40007, 40008}
    raises(errno.EADDRNOTAVAIL, connect, stack)
    assert connect(stack, local_port=40000).local[1] == 40000
    assert listen(stack, 40001).port == 40001


@pytest.mark.parametrize(
    ("text", "ports"),
    [("", set()), (" ", set()), ("80", {80}), ("8080,9148-9150", {8080, 9148, 9149, 9150}), (" 1 , 3-3\n", {1, 3})],
)
def test_a_list_of_reserved_ports_is_read(text: str, ports: set[int]) -> None:
    """M-04, M-62."""
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["x", "80,", "80-", "-80", "90-80", "65536", "1-2-3", "+80", "80;81", "٨٠"])
def test_what_is_no_list_of_ports_is_refused(text: str) -> None:
    """M-04, M-62."""
    with pytest.raises(OSError, match="port"):
        parse_ports(text)


def test_a_port_that_is_listened_on_or_was_chosen_is_given_to_no_connection() -> None:
    """M-04: a listener of any address, as in Linux, and a connection to anywhere."""
    stack = make_stack(ip_local_port_range=(40000, 40003))
    listener = listen(stack, 40000, ALSO_US)
    chosen = connect(stack, remote=OTHER, local_port=40001)
    assert {connect(stack).local[1] for _ in range(2)} == {40002, 40003}
    raises(errno.EADDRNOTAVAIL, connect, stack)
    listener.close(0)
    assert connect(stack).local[1] == 40000
    chosen.abort(0)
    assert connect(stack).local[1] == 40001


# Who may share a port: tests/interop/test_bind_rules.py asks the kernel the same.


def test_a_listener_keeps_every_other_socket_from_its_port() -> None:
    """M-58: whatever SO_REUSEADDR says, unless all have SO_REUSEPORT."""
    for first, second in ((False, False), (True, True)):
        stack = make_stack()
        listen(stack, 7000, reuseaddr=first)
        raises(errno.EADDRINUSE, listen, stack, 7000, reuseaddr=second)
        raises(errno.EADDRINUSE, connect, stack, local_port=7000, reuseaddr=second)
        assert listen(stack, 7000, ALSO_US).port == 7000
        raises(errno.EADDRINUSE, listen, stack, 7000, bytes(4))
    stack = make_stack()
    listen(stack, 7000, reuse_port=True)
    listen(stack, 7000, reuse_port=True)
    raises(errno.EADDRINUSE, listen, stack, 7000)


def test_connections_share_a_port_where_both_have_reuseaddr() -> None:
    """M-04, M-58: EADDRINUSE is bind(2)'s, EADDRNOTAVAIL connect(2)'s, where only the four-tuple is in the way."""
    stack = make_stack()
    first = connect(stack, local_port=7000)
    raises(errno.EADDRINUSE, connect, stack, remote=OTHER, local_port=7000, reuseaddr=True)
    first.abort(0)
    connect(stack, local_port=7000, reuseaddr=True)
    raises(errno.EADDRINUSE, connect, stack, remote=OTHER, local_port=7000)
    raises(errno.EADDRNOTAVAIL, connect, stack, local_port=7000, reuseaddr=True)
    assert connect(stack, remote=OTHER, local_port=7000, reuseaddr=True).local[1] == 7000


def test_a_listener_joins_connections_only_where_both_have_reuseaddr() -> None:
    """M-58."""
    for own in (7000, 0):
        for first, second in ((False, True), (True, False)):
            stack = make_stack()
            port = connect(stack, local_port=own, reuseaddr=first).local[1]
            raises(errno.EADDRINUSE, listen, stack, port, reuseaddr=second)
            assert listen(stack, port, ALSO_US).port == port
        stack = make_stack()
        port = connect(stack, local_port=own, reuseaddr=True).local[1]
        assert listen(stack, port, reuseaddr=True).port == port
