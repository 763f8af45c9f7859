"""Congestion control by name: of a stack, a listener, a connection; changed while it runs; a user's own. M-38."""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOENT

import pytest

from tunstack.congestion import INFINITE, CongestionControl, Cubic, Reno
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.options import SocketOptions
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.sysctl import Sysctl
from tunstack.sim import transfer
from tunstack.sim.world import Host, World


class Slow(CongestionControl):
    """Never grows."""

    def on_congestion(self, flight: int, now: int) -> None:
        self.ssthresh = self.cwnd // 2


class Broken(CongestionControl):
    """Raises after a while."""

    acks = 0

    def on_ack(self, acked: int, flight: int, rtt: int, now: int, cwnd_limited: bool) -> None:
        Broken.acks += 1
        self.cwnd += acked
        if self.cwnd > 40_000:
            raise ZeroDivisionError("too much")


def connected(
    sysctl: Sysctl | None = None, client: SocketOptions | None = None, server: SocketOptions | None = None
) -> tuple[Host, Connection, Connection]:
    world = World(3)
    a, b, _ = world.pair(sysctl=sysctl)
    accepted: list[Connection | None] = []

    def on_acceptable(listener: Listener) -> None:
        accepted.append(listener.accept())

    b.stack.listen(b.address, 7, on_acceptable=on_acceptable, options=server)
    conn = a.stack.connect(b.address, 7, NULL_SINK, world.now(), options=client)
    world.run(1_000_000)
    assert accepted[0] is not None
    return a, conn, accepted[0]


def test_the_default_is_cubic() -> None:
    """M-38."""
    _, conn, other = connected()
    assert conn.info().congestion == other.info().congestion == "cubic"
    assert isinstance(conn.tx.cc, Cubic)


def test_it_is_chosen_by_stack_listener_and_connection() -> None:
    """M-38: the nearer one goes before."""
    _, conn, other = connected(Sysctl(tcp_congestion_control="tahoe"), None, SocketOptions(congestion="reno"))
    assert (conn.info().congestion, other.info().congestion) == ("tahoe", "reno")
    _, conn, other = connected(Sysctl(tcp_congestion_control="tahoe"), SocketOptions(congestion="cubic"), None)
    assert (conn.info().congestion, other.info().congestion) == ("cubic", "tahoe")


def test_a_change_of_the_stacks_default_is_for_later_connections() -> None:
    """M-62."""
    host, conn, _ = connected()
    host.stack.use_congestion("reno")
    assert conn.info().congestion == "cubic"
    later = host.stack.connect(b"\x0a\x00\x00\x02", 7, NULL_SINK, host.world.now())
    host.world.run(2_000_000)
    assert later.info().congestion == "reno"


def test_a_running_connection_changes_and_keeps_its_windows() -> None:
    """M-38: TCP_CONGESTION as in Linux."""
    host, conn, _ = connected()
    conn.tx.cc.cwnd, conn.tx.cc.ssthresh = 33_000, 25_000
    conn.set_option("congestion", "reno", host.world.now())
    assert type(conn.tx.cc) is Reno
    assert (conn.info().congestion, conn.info().cwnd, conn.info().ssthresh) == ("reno", 33_000, 25_000)
    conn.tx.cc.on_idle(100_000_000, 300_000, 1 << 40)
    assert conn.info().cwnd == 10 * conn.mss  # the restart window is still the initial one


def test_setting_the_one_that_runs_changes_nothing() -> None:
    """M-38."""
    host, conn, _ = connected()
    control = conn.tx.cc
    conn.set_option("congestion", "cubic", host.world.now())
    assert conn.tx.cc is control


def test_before_the_connection_is_open_it_is_what_it_will_begin_with() -> None:
    world = World(3)
    a, b, _ = world.pair()
    b.stack.listen(b.address, 7, on_acceptable=lambda listener: None)
    conn = a.stack.connect(b.address, 7, NULL_SINK, world.now())
    conn.set_option("congestion", "tahoe", world.now())
    world.run(1_000_000)
    assert conn.info().congestion == "tahoe"


@pytest.mark.parametrize("name", ["none such", "", "RENO", "slow"])
def test_a_name_that_there_is_not_is_enoent_and_changes_nothing(name: str) -> None:
    """M-38: on a connection, a listener's options, and for a stack."""
    host, conn, _ = connected()
    with pytest.raises(OSError) as caught:
        conn.set_option("congestion", name, host.world.now())
    assert caught.value.errno == ENOENT
    assert conn.info().congestion == "cubic"
    with pytest.raises(OSError) as caught:
        host.stack.listen(host.address, 9, on_acceptable=lambda listener: None, options=SocketOptions(congestion=name))
    assert caught.value.errno == ENOENT
    with pytest.raises(ValueError, match="there is bbr, cubic, reno, tahoe"):
        host.stack.use_congestion(name)


def test_a_name_that_a_program_wrote_into_the_sysctl_cannot_hurt() -> None:
    host, _, _ = connected()
    host.stack.sysctl.tcp_congestion_control = "none such"
    conn = host.stack.connect(b"\x0a\x00\x00\x02", 7, NULL_SINK, host.world.now())
    host.world.run(2_000_000)
    assert conn.info().congestion == "reno"


def test_the_first_windows_are_knobs() -> None:
    """M-39: 10 segments and no ssthresh, unless the route, here the stack, says otherwise."""
    _, conn, _ = connected()
    assert (conn.info().cwnd, conn.info().ssthresh) == (10 * conn.mss, INFINITE)
    _, conn, _ = connected(Sysctl(tcp_initial_cwnd=1, tcp_initial_ssthresh=16))
    assert (conn.info().cwnd, conn.info().ssthresh) == (conn.mss, 16 * conn.mss)


@pytest.mark.parametrize(("knob", "names"), [(0, []), (1, ["cubic"]), (2, ["cubic", "reno", "tahoe"])])
def test_hystart_is_a_knob(knob: int, names: list[str]) -> None:
    """M-39."""
    found = []
    for name in ("cubic", "reno", "tahoe"):
        _, conn, _ = connected(Sysctl(tcp_hystart=knob, tcp_congestion_control=name))
        assert isinstance(conn.tx.cc, Reno)
        if conn.tx.cc._uses_hystart:
            found.append(name)
    assert found == names


@pytest.fixture
def broken() -> Iterator[type[Broken]]:
    yield Broken
    Broken.acks = 0


def test_a_users_own_is_used_like_any_other() -> None:
    """M-38: `transfer(..., congestion=Slow)`; a window that never grows moves ten segments a round trip."""
    world = World(1)
    a, b, _ = world.pair(congestion=Slow)
    outcome = transfer(1_000_000, world=world, hosts=(a, b))
    assert outcome.complete
    assert a.stack.sysctl.tcp_congestion_control == "slow"
    assert list(a.stack.algorithms) == ["bbr", "cubic", "reno", "slow", "tahoe"]
    _, conn, _ = connected()
    assert "slow" not in conn.stack.algorithms  # two stacks are two hosts


def test_a_users_own_that_raises_costs_the_connection_nothing_but_itself(broken: type[Broken]) -> None:
    """M-38: Reno takes its place, it is counted, and told once."""
    world = World(1)
    a, b, _ = world.pair(congestion=broken)
    told: list[tuple[str, str]] = []
    a.stack.on_algorithm_failure = lambda name, error: told.append((name, str(error)))
    outcome = transfer(1_000_000, world=world, hosts=(a, b))
    assert outcome.complete
    acks = broken.acks
    assert acks
    assert a.stack.counters.TCPCongestionFallback == 1
    assert transfer(1_000_000, world=world, hosts=(a, b)).complete
    assert a.stack.counters.TCPCongestionFallback == 2
    assert broken.acks == 2 * acks  # it is given up at the first
    assert told == [("broken", "too much")]


def test_restart_after_idle_begins_with_the_initial_window() -> None:
    """M-39, RFC 5681 4.1."""
    host, conn, _ = connected()
    for is_wanted, segments in ((True, 10), (False, 100)):
        host.stack.sysctl.tcp_slow_start_after_idle = is_wanted
        conn.send(b"x", host.world.now())
        conn.tx.cc.cwnd = 100 * conn.mss
        host.world.call_later(60_000_000, int)  # time passes
        host.world.run()
        conn.send(b"x", host.world.now())
        assert conn.info().cwnd == segments * conn.mss
        host.world.run()
