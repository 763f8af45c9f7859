"""Urgent data: RFC 9293 3.8.5, RFC 6093, as Linux has it."""

from __future__ import annotations

import errno
import select
import socket
import struct

import pytest
from engine.notation import Play
from engine.openings import OPEN, opening
from urgent_reading import SCENES, shown

from tunstack.engine import pack_address
from tunstack.sim.packetdrill import Calls, parse_flags
from tunstack.sim.packetdrill.calls import SIOCATMARK, SIOCINQ
from tunstack.wire import codec
from tunstack.wire.flow import pack_flow
from tunstack.wire.segment import ACK, FIN, PSH, SYN, URG, Segment

FLOW = pack_flow(pack_address("192.0.2.1"), 9000, pack_address("192.168.0.1"), 8080)


class Reader:
    """A connection that was accepted, in non-blocking mode, and its peer."""

    def __init__(self, fast_path: bool) -> None:
        self.calls = calls = Calls(parse_flags(f"fast_path={fast_path:d}"))
        self.seq = self.ack = 0
        listener = calls.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        calls.bind(listener, (pack_address("192.168.0.1"), 8080))
        calls.listen(listener, 1)
        self._inject(SYN, b"")
        found = calls.netdev_receive()
        assert found is not None
        self.ack = codec.Reader(vnet=False).parse([found[0]]).segments[0].seq + 1 & 0xFFFFFFFF
        self._inject(ACK, b"")
        self.fd, _ = calls.accept(listener)
        self.flags = socket.MSG_DONTWAIT

    def _inject(self, flags: int, data: bytes) -> None:
        segment = Segment(FLOW, self.seq, self.ack, flags, 30_000, (data,), len(data), urgent=len(data) if flags & URG else 0)
        self.seq += len(data) + bool(flags & (SYN | FIN))
        for frame in codec.encode(segment):
            self.calls.netdev_send(frame)

    def do(self, operation: str) -> str | None:
        """Do one operation of the table; return its result if it has one."""
        name, _, argument = operation.partition(":")
        calls, fd = self.calls, self.fd
        match name:
            case "s":
                self._inject(ACK | PSH, argument.encode())
            case "u":
                self._inject(ACK | PSH | URG, argument.encode())
            case "f":
                self._inject(ACK | FIN, b"")
            case "i":
                calls.setsockopt(fd, socket.SOL_SOCKET, socket.SO_OOBINLINE, struct.pack("i", int(argument or 1)))
            case "r":
                return shown(calls.receive(fd, int(argument or 100), self.flags))
            case "p":
                return shown(calls.receive(fd, int(argument or 100), self.flags | socket.MSG_PEEK))
            case "o":
                return shown(calls.receive(fd, 1, self.flags | socket.MSG_OOB))
            case "op":
                return shown(calls.receive(fd, 1, self.flags | socket.MSG_OOB | socket.MSG_PEEK))
            case "m":
                return str(int(calls.ioctl(fd, SIOCATMARK, 0)))
            case "q":
                return str(calls.ioctl(fd, SIOCINQ, 0))
            case "e":
                return str(calls.poll([(fd, select.POLLIN | select.POLLPRI)], 0)[0])
        return None


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(("scene", "results"), SCENES)
def test_reading_is_as_in_linux(scene: str, results: str, fast_path: bool) -> None:
    """M-09: tests/interop/test_urgent.py runs the same table on the kernel."""
    reader = Reader(fast_path)
    got = []
    for operation in scene.split():
        try:
            result = reader.do(operation)
        except OSError as error:
            result = errno.errorcode[error.errno or 0]
        if result is not None:
            got.append(result)
    assert " ".join(got) == results


def test_an_urgent_octet_is_taken_out_of_the_stream(play: Play) -> None:
    """M-09: reading stops before it, and goes on behind it."""
    play(
        OPEN
        + """
        +0   < PU. 1:101(100) ack 1 win 30000 urg 51
        +0   > . 1:1(0) ack 101
        +0   read 50
        +0   atmark 1
        +0   oob 50
        +0   skip 1
        +0   read 49
        +0   atmark 0
        +0   oob EINVAL
        """
    )


def test_what_is_delivered_as_it_comes_lacks_the_urgent_octet(play: Play) -> None:
    """M-09: it stays while nothing follows it."""
    runner = play(
        OPEN
        + """
        +0   resume
        +0   < PU. 1:101(100) ack 1 win 30000 urg 100
        +0   > . 1:1(0) ack 101
        +0   got 99
        +0   atmark 1
        +0   oob 99
        +0   idle
        +0   skip 1
        +0   < P. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 201
        +0   got 100
        +0   atmark 0
        +0   oob EINVAL
        """
    )
    assert runner.sockets.all[-1].calls == ["data", "data"]


def test_in_line_the_mark_still_parts_what_is_delivered(play: Play) -> None:
    """M-09, SO_OOBINLINE."""
    runner = play(
        OPEN
        + """
        +0   setsockopt oobinline True
        +0   resume
        +0   < PU. 1:101(100) ack 1 win 30000 urg 51
        +0   > . 1:1(0) ack 101
        +0   got 100
        +0   oob EINVAL
        """
    )
    assert runner.sockets.all[-1].calls == ["data", "data"]


def test_tcp_stdurg_has_the_pointer_point_at_the_octet(play: Play) -> None:
    """M-09, RFC 1122 4.2.2.4 as nobody but this knob has it."""
    play(
        OPEN
        + """
        +0   < PU. 1:101(100) ack 1 win 30000 urg 51
        +0   > . 1:1(0) ack 101
        +0   read 51
        +0   oob 51
        """,
        tcp_stdurg=True,
    )


def test_a_pointer_of_zero_means_the_first_octet(play: Play) -> None:
    """M-09: there is nothing that it could be behind of (Linux)."""
    play(
        OPEN
        + """
        +0   < PU. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   atmark 1
        +0   oob 0
        +0   skip 1
        +0   read 99
        """
    )


def test_an_urgent_octet_that_has_not_come_is_waited_for(play: Play) -> None:
    """M-09: the pointer lies beyond the segment; the octet may come out of order, and again."""
    play(
        OPEN
        + """
        +0   < PU. 1:101(100) ack 1 win 30000 urg 250
        +0   > . 1:1(0) ack 101
        +0   oob EAGAIN
        +0   read 100
        +0   atmark 0
        +0   < P. 201:301(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   oob 249
        +0   oob EINVAL
        +0   < P. 101:201(100) ack 1 win 30000
        +0   > . 1:1(0) ack 301
        +0   < PU. 101:201(100) ack 1 win 30000 urg 150
        +0   > . 1:1(0) ack 301
        +0   oob EINVAL
        +0   read 149
        +0   atmark 1
        +0   skip 1
        +0   read 50
        """
    )


def test_a_pointer_into_what_came_before_is_ignored(play: Play) -> None:
    """M-09: a segment sent again, or overlapping, makes nothing urgent that was data."""
    play(
        OPEN
        + """
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 101
        +0   < PU. 1:101(100) ack 1 win 30000 urg 50
        +0   > . 1:1(0) ack 101
        +0   < PU. 51:151(100) ack 1 win 30000 urg 50
        +0   > . 1:1(0) ack 151
        +0   oob EINVAL
        +0   read 150
        +0   < PU. 101:251(150) ack 1 win 30000 urg 100
        +0   > . 1:1(0) ack 251
        +0   read 49
        +0   oob 199
        +0   skip 1
        +0   read 50
        """
    )


def test_a_mark_behind_a_hole_is_kept(play: Play) -> None:
    """M-09: the urgent octet is known before the data before it."""
    play(
        OPEN
        + """
        +0   < PU. 101:201(100) ack 1 win 30000 urg 50
        +0   > . 1:1(0) ack 1
        +0   oob 149
        +0   < P. 1:101(100) ack 1 win 30000
        +0   > . 1:1(0) ack 201
        +0   read 149
        +0   atmark 1
        +0   skip 1
        +0   read 50
        """
    )


def test_an_urgent_pointer_comes_through_a_closed_window(play: Play) -> None:
    """M-09, RFC 9293 3.8.5: the reader learns of it, and that it has to read on."""
    play(
        """
        0    listen 8080 rcvbuf=2920
        +0   < S 0:0(0) win 30000 <mss 1000>
        +0   > S. 0:0(0) ack 1 win 2920
        +.01 < . 1:1(0) ack 1 win 30000
        +0   accept
        +0   < P. 1:1461(1460) ack 1 win 30000
        *    > . 1:1(0) ack 1461
        +0   < P. 1461:2921(1460) ack 1 win 30000
        *    > . 1:1(0) ack 2921 win 0
        +0   oob EINVAL
        +.5  < U. 2921:2921(0) ack 1 win 30000 urg 11
        +0   oob EAGAIN
        +0   read 2920
        +0   > . 1:1(0) ack 2921 win 2920
        +0   < P. 2921:2941(20) ack 1 win 30000
        +0   > . 1:1(0) ack 2941
        +0   oob 2930
        +0   read 10
        +0   skip 1
        +0   read 9
        """
    )


def test_a_second_pointer_makes_the_first_octet_data_again(play: Play) -> None:
    """M-09: there is one mark only (RFC 6093 3.2 tells of it)."""
    play(
        OPEN
        + """
        +0   < PU. 1:101(100) ack 1 win 30000 urg 51
        +0   > . 1:1(0) ack 101
        +0   < PU. 101:201(100) ack 1 win 30000 urg 51
        +0   > . 1:1(0) ack 201
        +0   read 150
        +0   oob 150
        +0   skip 1
        +0   read 49
        """
    )


def test_a_reset_is_told_though_an_urgent_octet_was_not_read(play: Play) -> None:
    """M-09: what nobody read by itself does not hold the end back."""
    play(
        OPEN
        + """
        +0   resume
        +0   < PU. 1:101(100) ack 1 win 30000 urg 100
        +0   > . 1:1(0) ack 101
        +0   < R. 101:101(0) ack 1 win 0
        +0   closed ECONNRESET
        """
    )


def test_an_urgent_octet_at_the_end_of_the_stream(play: Play) -> None:
    """M-09: the end of file comes behind it."""
    play(
        OPEN
        + """
        +0   resume
        +0   < PU. 1:101(100) ack 1 win 30000 urg 100
        +0   > . 1:1(0) ack 101
        +0   oob 99
        +0   < F. 101:101(0) ack 1 win 30000
        +0   got 99
        +0   eof
        *    > . 1:1(0) ack 102
        """
    )


# Sending.


def test_the_last_octet_of_an_urgent_write_is_pointed_behind(play: Play) -> None:
    """M-09: with PSH, and nothing of it waits for Nagle."""
    play(
        OPEN
        + """
        +0   write 10
        +0   > P. 1:11(10) ack 1
        +0   write 5
        +0   idle
        +0   urgent 3
        +0   > PU. 11:19(8) ack 1 urg 8
        +0   write 5
        +0   > P. 19:24(5) ack 1
        +.01 < . 1:1(0) ack 24 win 30000
        +0   write 10
        +0   > P. 24:34(10) ack 1
        """
    )


def test_every_segment_before_the_end_of_what_is_urgent_points_at_it(play: Play) -> None:
    """M-09: one packet each, none as a super-segment, and again when sent again."""
    play(
        opening(2500)
        + """
        +0   write 3000
        +0   > . 1:1001(1000) ack 1
        +0   > P. 1001:2001(1000) ack 1
        +0   urgent 1
        +.1  < . 1:1(0) ack 1001 win 2500
        +0   > U. 2001:3001(1000) ack 1 urg 1001
        +0   > PU. 3001:3002(1) ack 1 urg 1
        +.2~+.3  > U. 1001:2001(1000) ack 1 urg 2001
        +.01 < . 1:1(0) ack 3002 win 2500
        +0   write 1000
        +0   > P. 3002:4002(1000) ack 1
        """
    )


def test_an_ack_tells_of_urgent_data_too(play: Play) -> None:
    """M-09: as long as it was not sent."""
    play(
        opening(2000)
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +0   urgent 1
        +0   > PU. 1001:1002(1) ack 1 urg 1
        +0   < . 1:1(0) ack 1002 win 0
        +0   urgent 1
        +0   < P. 1:1001(1000) ack 1002 win 0
        +0   > U. 1002:1002(0) ack 1001 urg 1
        """
    )


def test_a_closed_window_is_probed_with_the_urgent_pointer(play: Play) -> None:
    """M-09, RFC 9293 3.8.5: by a segment at snd_una, beside the probe (Linux)."""
    play(
        opening(2000)
        + """
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1
        +.01 < . 1:1(0) ack 1001 win 0
        +0   urgent 10
        +.2~+.3  > U. 1001:1001(0) ack 1 urg 10
        +0   > U. 1000:1000(0) ack 1 urg 11
        +.01 < . 1:1(0) ack 1001 win 1000
        +0   > PU. 1001:1011(10) ack 1 urg 10
        """
    )


def test_an_end_beyond_the_reach_of_the_pointer(play: Play) -> None:
    """M-09: it says 65535, and the exact distance when that fits."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 65535 <mss 30000,nop,wscale 7>
        +0   > S. 0:0(0) ack 1
        +.01 < . 1:1(0) ack 1 win 1000
        +0   accept
        +0   urgent 100000
        +0   > U. 1:30001(30000) ack 1 urg 65535
        +0   > U. 30001:60001(30000) ack 1 urg 65535
        +0   > U. 60001:90001(30000) ack 1 urg 40000
        +0   > PU. 90001:100001(10000) ack 1 urg 10000
        """,
        mtu=40000,
    )
