"""The sockets that packetdrill's calls act on: octets in, octets out, in virtual time; no C, no root, no packetdrill."""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tunstack.engine import Sysctl, pack_address
from tunstack.engine.tcpinfo import LAYOUT
from tunstack.sim.packetdrill import Calls, parse_flags
from tunstack.sim.packetdrill.sysctls import SysctlFolder, set_sysctl
from tunstack.wire import codec
from tunstack.wire.flow import pack_flow
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, Segment

OURS = pack_address("192.168.0.1")
THEIRS = pack_address("192.0.2.1")
PORT, PEER = 8080, 9000


class Peer:
    """The other end: what it sends and what comes, relative to both ISNs as packetdrill writes them."""

    def __init__(self, flags: str = "") -> None:
        self.calls = Calls(parse_flags(flags))
        self.iss = 0  # theirs
        self.irs = 0  # ours
        self._reader = codec.Reader(vnet=False)

    def send(self, flags: int, seq: int, ack: int = 0, length: int = 0, window: int = 32768, **options: int) -> None:
        flow = pack_flow(THEIRS, PEER, OURS, PORT)
        ack = (self.irs + ack) & 0xFFFFFFFF if flags & ACK else 0
        segment = Segment(flow, self.iss + seq, ack, flags, window, (bytes(length),) if length else (), length, **options)  # type: ignore[arg-type]
        for frame in codec.encode(segment):
            self.calls.netdev_send(frame)

    def next(self) -> Segment | None:
        found = self.calls.netdev_receive()
        if found is None:
            return None
        (segment,) = self._reader.parse([found[0]]).segments
        return segment

    def expect(self, flags: int, seq: int, length: int, ack: int = 0) -> Segment:
        segment = self.next()
        assert segment is not None
        if flags & SYN:
            self.irs = segment.seq
        got = (segment.flags, (segment.seq - self.irs) & 0xFFFFFFFF, segment.length, segment.ack - self.iss if segment.flags & ACK else 0)
        assert got == (flags, seq, length, ack)
        return segment

    def idle(self) -> bool:
        """Whether nothing has left that was not looked at."""
        return not self.calls.host.frames

    def serve(self, **options: int) -> int:
        """Listen, shake hands, accept; return the descriptor."""
        listener = self.calls.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        self.calls.bind(listener, (OURS, PORT))
        self.calls.listen(listener, 5)
        self.send(SYN, 0, **options)
        self.expect(SYN | ACK, 0, 0, 1)
        self.calls.usleep(10_000)
        self.send(ACK, 1, 1)
        fd, (host, port) = self.calls.accept(listener)
        assert (host, port) == (THEIRS, PEER)
        return fd


def number(calls: Calls, fd: int, level: int, name: int) -> int:
    return int(struct.unpack("=i", calls.getsockopt(fd, level, name, 4))[0])


def put(calls: Calls, fd: int, level: int, name: int, value: int) -> None:
    calls.setsockopt(fd, level, name, struct.pack("=i", value))


def refusal(call: Callable[[], object]) -> int:
    """Return the errno with which a call fails."""
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno is not None
    return caught.value.errno


def test_a_write_that_says_more_waits_for_the_next_or_for_its_timer() -> None:
    """MSG_MORE: Linux lets a part of a segment go after an RTO, 200 ms at least."""
    peer = Peer()
    fd = peer.serve(mss=1000)
    assert peer.calls.send(fd, bytes(40), socket.MSG_MORE) == 40
    assert peer.idle()
    assert peer.calls.send(fd, bytes(60), 0) == 60
    peer.expect(ACK | PSH, 1, 100, 1)
    peer.send(ACK, 1, 101)
    before = peer.calls.gettimeofday()
    peer.calls.send(fd, bytes(40), socket.MSG_MORE)
    peer.expect(ACK | PSH, 101, 40, 1)
    assert 200_000 < peer.calls.gettimeofday() - before < 230_000


def test_what_a_write_with_more_left_over_goes_with_the_next_ack_and_has_no_push() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    put(peer.calls, fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert peer.calls.send(fd, bytes(1100), socket.MSG_MORE) == 1100
    peer.expect(ACK, 1, 1000, 1)
    assert peer.idle()
    peer.send(ACK, 1, 1001)
    peer.expect(ACK, 1001, 100, 1)


def test_a_write_takes_what_the_send_buffer_takes_and_waits_for_the_rest() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    put(peer.calls, fd, socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
    assert number(peer.calls, fd, socket.SOL_SOCKET, socket.SO_SNDBUF) == 20_000
    peer.calls.fcntl(fd, 4, os.O_RDWR | os.O_NONBLOCK)  # F_SETFL
    sent = peer.calls.send(fd, bytes(100_000), 0)
    assert 20_000 <= sent < 40_000
    assert refusal(lambda: peer.calls.send(fd, b"x", 0)) == errno.EAGAIN
    assert not peer.calls.poll([(fd, select.POLLOUT)], 0)[0]


def test_receiving_peeks_waits_for_all_and_ends() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    peer.send(ACK | PSH, 1, 1, 10)
    assert peer.calls.receive(fd, 4, socket.MSG_PEEK) == bytes(4)
    assert refusal(lambda: peer.calls.receive(fd, 20, socket.MSG_WAITALL | socket.MSG_DONTWAIT)) == errno.EAGAIN
    assert peer.calls.receive(fd, 20, 0) == bytes(10)
    assert refusal(lambda: peer.calls.receive(fd, 20, socket.MSG_DONTWAIT)) == errno.EAGAIN
    peer.send(ACK | FIN, 11, 1)
    assert peer.calls.receive(fd, 20, 0) == b""
    assert peer.calls.poll([(fd, select.POLLIN | 0x2000)], 0) == [select.POLLIN | 0x2000]  # POLLRDHUP


def test_a_reset_is_told_once_what_came_before_it_can_still_be_read() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    peer.send(ACK | PSH, 1, 1, 10)
    peer.send(RST, 11)
    assert peer.calls.poll([(fd, select.POLLIN)], 0) == [select.POLLIN | select.POLLERR | select.POLLHUP]
    assert refusal(lambda: peer.calls.send(fd, b"x", 0)) == errno.ECONNRESET
    assert refusal(lambda: peer.calls.send(fd, b"x", 0)) == errno.EPIPE
    assert peer.calls.receive(fd, 20, 0) == bytes(10)
    assert peer.calls.receive(fd, 20, 0) == b""


def test_a_connection_is_refused_or_times_out() -> None:
    peer = Peer("tcp_syn_retries=1")
    calls = peer.calls
    fd = calls.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    assert refusal(lambda: calls.connect(fd, (THEIRS, PEER))) == errno.EINPROGRESS
    assert refusal(lambda: calls.connect(fd, (THEIRS, PEER))) == errno.EALREADY
    assert refusal(lambda: calls.send(fd, b"x", 0)) == errno.EAGAIN
    peer.next()
    peer.next()
    assert peer.next() is None  # and with that the time is up
    assert number(calls, fd, socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
    assert number(calls, fd, socket.SOL_SOCKET, socket.SO_ERROR) == 0
    blocking = calls.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    before = calls.gettimeofday()
    assert refusal(lambda: calls.connect(blocking, (THEIRS, PEER))) == errno.ETIMEDOUT
    assert 3_000_000 <= calls.gettimeofday() - before < 3_100_000  # 1 s and 2 s: the only thread goes on in time itself


def test_a_call_that_would_wait_for_ever_fails_instead() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    assert refusal(lambda: peer.calls.receive(fd, 10, 0)) == errno.EDEADLK


def test_a_call_in_another_thread_is_through_at_its_instant() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    ended: list[tuple[bytes, int]] = []

    def read() -> None:
        data = peer.calls.receive(fd, 10, 0)
        ended.append((data, peer.calls.gettimeofday()))

    thread = threading.Thread(target=read)
    thread.start()
    while not peer.calls.host._waiters:
        pass
    peer.calls.usleep(5_000_000)
    before = peer.calls.gettimeofday()
    peer.send(ACK | PSH, 1, 1, 3)
    after = peer.calls.gettimeofday()
    peer.calls.usleep(5_000_000)
    thread.join()
    ((data, at),) = ended
    assert data == bytes(3)
    assert before <= at <= after


def test_a_timeout_of_a_socket_ends_its_call() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    peer.calls.setsockopt(fd, socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 1, 500_000))
    before = peer.calls.gettimeofday()
    assert refusal(lambda: peer.calls.receive(fd, 10, 0)) == errno.EAGAIN
    assert 1_500_000 <= peer.calls.gettimeofday() - before < 1_500_100


def test_edge_triggered_epoll_tells_each_arrival_once_and_level_triggered_always() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    calls = peer.calls
    for mode, again in ((0, 1), (select.EPOLLET, 0), (select.EPOLLONESHOT, 0)):
        epfd = calls.epoll_create()
        calls.epoll_ctl(epfd, 1, fd, select.EPOLLIN | mode, 7)  # EPOLL_CTL_ADD
        seq = 1 + calls.ioctl(fd, 0x541B, 0)  # FIONREAD
        peer.send(ACK | PSH, seq, 1, 5)
        assert calls.epoll_wait(epfd, 4, 0) == [(select.EPOLLIN, 7)]
        assert len(calls.epoll_wait(epfd, 4, 0)) == again
        peer.send(ACK | PSH, seq + 5, 1, 5)
        assert len(calls.epoll_wait(epfd, 4, 0)) == (mode != select.EPOLLONESHOT)
        calls.close(epfd)


def test_linger_waits_until_its_time_is_up() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    peer.calls.setsockopt(fd, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 2))
    peer.calls.send(fd, bytes(100), 0)
    before = peer.calls.gettimeofday()
    peer.calls.close(fd)
    assert 2_000_000 <= peer.calls.gettimeofday() - before < 2_000_100


def test_options_read_back_as_linux_gives_them() -> None:
    peer = Peer()
    calls = peer.calls
    fd = calls.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    assert number(calls, fd, socket.SOL_SOCKET, socket.SO_RCVBUF) == 131072
    put(calls, fd, socket.SOL_SOCKET, socket.SO_RCVBUF, 5000)
    assert number(calls, fd, socket.SOL_SOCKET, socket.SO_RCVBUF) == 10_000
    put(calls, fd, socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    assert number(calls, fd, socket.SOL_SOCKET, socket.SO_RCVBUF) == 2304
    assert number(calls, fd, socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 536
    put(calls, fd, socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1100)
    assert number(calls, fd, socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1100
    calls.setsockopt(fd, socket.IPPROTO_IP, socket.IP_TOS, b"\x10")
    assert number(calls, fd, socket.IPPROTO_IP, socket.IP_TOS) == 16
    assert number(calls, fd, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7200
    assert number(calls, fd, socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    assert calls.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == b"cubic".ljust(16, b"\0")
    assert refusal(lambda: put(calls, fd, socket.IPPROTO_TCP, 9999, 1)) == errno.ENOPROTOOPT
    assert refusal(lambda: put(calls, fd, socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1000)) == errno.EINVAL
    assert refusal(lambda: calls.setsockopt(fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, b"1")) == errno.EINVAL


def test_tcp_info_has_linuxs_layout() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000, wscale=7)
    peer.calls.send(fd, bytes(2500), 0)
    info = peer.calls.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_INFO, 1000)
    assert len(info) == LAYOUT.size == 280  # linux/tcp.h
    assert info[0] == 1  # tcpi_state, established
    assert info[5] == 4  # tcpi_options: window scaling alone
    assert info[6] == 7 | 7 << 4
    rto, _ato, snd_mss, _rcv_mss, unacked = struct.unpack_from("=5I", info, 8)
    assert (rto // 1000, snd_mss, unacked) == (210, 1000, 3)
    pmtu, _, rtt, rttvar, ssthresh, cwnd, advmss, reordering = struct.unpack_from("=8I", info, 60)
    assert (pmtu, rtt // 1000, rttvar // 1000, ssthresh, cwnd, advmss, reordering) == (1500, 10, 5, 0x7FFFFFFF, 10, 1460, 3)
    assert len(peer.calls.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_INFO, 104)) == 104
    assert peer.calls.getsockopt(fd, socket.IPPROTO_TCP, 26, 100) == b""  # TCP_CC_INFO


def test_knobs_are_taken_from_a_folder_as_they_change(tmp_path: Path) -> None:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "core").mkdir()
    files = {
        "ipv4/tcp_sack": "0\n",
        "ipv4/tcp_rmem": "4096\t87380\t4194303\n",
        "core/somaxconn": "7\n",
        "ipv4/tcp_congestion_control": "vegas\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    sysctl = Sysctl()
    folder = SysctlFolder(tmp_path, sysctl)
    folder.read()
    assert (sysctl.tcp_sack, sysctl.tcp_rmem, sysctl.somaxconn) == (False, (4096, 87380, 4194303), 7)
    assert sysctl.tcp_congestion_control == "cubic"  # we have no vegas
    for name, expected in (("reno", "reno"), ("vegas", "reno"), ("cubic", "cubic")):
        (tmp_path / "ipv4/tcp_congestion_control").write_text(name + "\n")
        folder.read()
        assert sysctl.tcp_congestion_control == expected
    (tmp_path / "ipv4" / "tcp_sack").write_text("1\n")
    folder.read()
    assert sysctl.tcp_sack is True
    sysctl.tcp_sack = False
    folder.read()
    assert sysctl.tcp_sack is False  # only what changed


def test_the_congestion_control_that_a_namespace_begins_with_is_nobodys_choice(tmp_path: Path) -> None:
    """M-38: it is the machine's, which may be one that the scripts do not mean."""
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4/tcp_congestion_control").write_text("reno\n")
    sysctl = Sysctl()
    folder = SysctlFolder(tmp_path, sysctl)
    folder.read()
    assert sysctl.tcp_congestion_control == "cubic"


def test_a_knob_that_does_not_fit_is_refused() -> None:
    sysctl = Sysctl()
    for name, value in (("tcp_rmem", "1 2"), ("tcp_sack", "yes"), ("tcp_fin_timeout", "1 2")):
        with pytest.raises(ValueError, match=name):
            set_sysctl(sysctl, name, value)
    with pytest.raises(AttributeError, match="no knob 'tcp_sock'"):
        set_sysctl(sysctl, "tcp_sock", "1")


def test_flags_choose_the_address_the_mtu_and_any_knob() -> None:
    flags = parse_flags("local=10.0.0.1,mtu=1280,fast_path=0,tcp_retries2=3")
    assert (flags.local, flags.mtu, flags.fast_path, flags.sysctl.tcp_retries2) == (pack_address("10.0.0.1"), 1280, False, 3)


def test_shutdown_for_reading_ends_the_reader_and_for_writing_sends_a_fin() -> None:
    peer = Peer()
    fd = peer.serve(mss=1000)
    peer.calls.shutdown(fd, socket.SHUT_RD)
    assert peer.calls.receive(fd, 10, 0) == b""
    peer.calls.shutdown(fd, socket.SHUT_WR)
    peer.expect(ACK | FIN, 1, 0, 1)
    assert refusal(lambda: peer.calls.send(fd, b"x", 0)) == errno.EPIPE
    assert refusal(lambda: peer.calls.shutdown(fd, 9)) == errno.EINVAL
    fresh = peer.calls.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    assert refusal(lambda: peer.calls.shutdown(fresh, socket.SHUT_WR)) == errno.ENOTCONN


def test_descriptors_are_real() -> None:
    peer = Peer()
    fd = peer.calls.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    os.fstat(fd)
    peer.calls.close(fd)
    assert refusal(lambda: os.fstat(fd)) == errno.EBADF
    assert refusal(lambda: peer.calls.close(fd)) == errno.EBADF


def test_nstat_shows_a_scripts_commands_the_counters(tmp_path: Path) -> None:
    """M-61: by the flag `counters`, in the form of /proc/net/netstat."""
    if not shutil.which("nstat"):
        pytest.skip("there is no nstat (Debian's iproute2)")
    environment = {"PROC_NET_NETSTAT": f"{tmp_path}/netstat", "PROC_NET_SNMP": "/dev/null", "NSTAT_HISTORY": f"{tmp_path}/history"}
    peer = Peer(f"counters={tmp_path}/netstat")
    for expected in (["TcpOutRsts", "TcpInSegs"], ["TcpInSegs"]):
        peer.send(ACK if expected[0] == "TcpOutRsts" else RST, 1)
        shown = subprocess.run(["nstat"], env=os.environ | environment, capture_output=True, text=True, check=True).stdout
        values = {line.split()[0]: int(line.split()[1]) for line in shown.splitlines()[1:]}
        assert {name: values.get(name) for name in ("TcpOutRsts", "TcpInSegs")} == {
            name: 1 if name in expected else None for name in ("TcpOutRsts", "TcpInSegs")
        }
