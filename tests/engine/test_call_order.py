"""The application's calls in an order that few would choose, from within callbacks too."""

from __future__ import annotations

from errno import EINVAL, ENOENT

import pytest
from engine.notation import Play
from engine.openings import OPEN, opening

from tunstack.engine.options import SocketOptions
from tunstack.sim.script import Runner
from tunstack.sim.script.packet import Packet
from tunstack.sim.script.sockets import Socket
from tunstack.wire.segment import ACK, RST, Segment

# Both FINs are exchanged, ten octets and the EOF are still to be read.
UNREAD = (
    OPEN
    + """
    +0   shutdown
    +0   > F. 1:1(0) ack 1
    +.01 < P. 1:11(10) ack 2 win 30000
    +0   > . 2:2(0) ack 11
    +.01 < F. 11:11(0) ack 2 win 30000
    +0   > . 2:2(0) ack 12
    +0   state TIME_WAIT
"""
)


def test_close_with_data_unread_after_the_end_tells_of_the_end(play: Play) -> None:
    """on_closed waits for the reader; who closes will not read."""
    runner = play(UNREAD + "+0 close\n+0 resume\n+0 closed\n+0 got 0")
    assert runner.sockets.all[-1].calls == ["closed"]


def test_nothing_is_told_after_abort(play: Play) -> None:
    runner = play(UNREAD + "+0 abort\n+0 resume\n+0 got 0")
    assert runner.sockets.all[-1].calls == []


def test_on_writable_is_not_called_after_abort() -> None:
    """The first of two that became writable aborts the second."""
    runner = Runner(opening(500) + "+0 write 1000\n+0 > . 1:501(500) ack 1").run()
    socket = runner.sockets.all[-1]
    conn = socket.conn
    assert conn is not None
    runner.stack.writable.append(conn)
    conn.abort(runner.now)
    while runner.stack.poll_transmit(runner.now) is not None:
        pass
    assert "writable" not in socket.calls


def test_a_receive_buffer_that_changes_while_opening_does_not_change_what_the_syn_said(play: Play) -> None:
    """RFC 7323 2.2: the shift is fixed by the SYN; M-31: so is the window's edge."""
    runner = play(
        """
        0    connect 80
        +0   > S 0:0(0) win 64240 <...>
        +0   setsockopt rcvbuf 20000
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000,nop,wscale 2>
        +0   > . 1:1(0) ack 1 win 502
        +0   expect rcv_wscale=7
        """,
        tcp_rmem=(4096, 131072, 6291456),
    )
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    assert conn.rx.rcv_wnd == 502 << 7


def test_a_scale_is_kept_that_a_later_buffer_would_not_need(play: Play) -> None:
    play(
        """
        0    connect 80 rcvbuf=20000
        +0   > S 0:0(0) win 18980 <mss 1460,sackOK,TS val 0 ecr 0,nop,wscale 0>
        +0   setsockopt rcvbuf 5000000
        +.01 < S. 0:0(0) ack 1 win 30000 <mss 1000,nop,wscale 2>
        +0   > . 1:1(0) ack 1 win 18980
        +0   expect rcv_wscale=0
        """
    )


class Closes(Socket):
    """Closes as soon as the first data comes."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self.runner = runner

    def on_data(self, data: memoryview) -> None:
        super().on_data(data)
        assert self.conn is not None
        self.conn.close(self.runner.now)


def test_close_within_on_data_resets_if_more_was_there_to_read() -> None:
    """RFC 1122 4.2.2.13, RFC 2525 2.17: also where the rest came with the same segment, which filled a hole."""
    script = OPEN + "+0 < . 101:201(100) ack 1 win 30000\n+0 > . 1:1(0) ack 1\n"
    runner = Runner(script).run()
    socket = Closes(runner)
    conn = runner.sockets.all[-1].conn
    assert conn is not None
    socket.conn, conn.sink = conn, socket
    conn.resume(runner.now)
    runner._receive(runner._packet_octets(Packet(ACK, 1, 100, 1, 30000))[0], 0, 0)
    reset = runner.stack.poll_transmit(runner.now)
    assert isinstance(reset, Segment)
    assert reset.flags == RST | ACK
    assert socket.calls == ["data", "closed"]
    assert runner.stack.counters.TCPAbortOnClose == 1


@pytest.mark.parametrize(("options", "error"), [({"congestion": "none such"}, ENOENT), ({"syncnt": 0}, EINVAL), ({"maxseg": 1}, EINVAL)])
def test_options_given_to_listen_and_connect_are_checked_there(options: dict[str, object], error: int) -> None:
    """Else they raise when a peer answers, in the middle of its segment."""
    runner = Runner("0 listen 8080").run()
    with pytest.raises(OSError) as caught:
        runner.stack.listen(runner.local, 81, on_acceptable=lambda listener: None, options=SocketOptions(**options))  # type: ignore[arg-type]
    assert caught.value.errno == error
    with pytest.raises(OSError) as caught:
        runner.stack.connect(runner.remote, 81, Socket(), runner.now, options=SocketOptions(**options))  # type: ignore[arg-type]
    assert caught.value.errno == error
    assert not runner.stack.flows
