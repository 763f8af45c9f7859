"""Linux talks to a stack through a TUN interface, with offload and without. The stack is driven by hand: no event loop in here."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interop.namespaces import Namespace

from tunstack.device.tun import TunDevice
from tunstack.engine.config import StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.listener import Listener
from tunstack.engine.stack import Stack
from tunstack.wire import codec
from tunstack.wire.flow import pack_address
from tunstack.wire.segment import Segment

pytestmark = pytest.mark.root

US = "10.77.0.2"


class Echo:
    """A sink that sends back what comes, and closes when the peer does."""

    def __init__(self, conn: Connection, host: Host) -> None:
        self.conn, self.host = conn, host

    def on_established(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_closed(self, error: OSError | None) -> None: ...

    def on_data(self, data: memoryview) -> None:
        self.conn.send(bytes(data), self.host.now())

    def on_eof(self) -> None:
        self.conn.close(self.host.now())


class Host:
    """A stack at US on a device, with echo on port 7; it lives while `run_until` runs."""

    def __init__(self, device: TunDevice) -> None:
        self.device = device
        config = StackConfig((pack_address(US),), mtu=device.mtu, max_payload=device.max_payload)
        self.stack = Stack(config, random.Random(1), bytes(16))
        self.stack.listen(pack_address(US), 7, on_acceptable=self._accept)
        self.received: list[tuple[int, int]] = []  # (length, packets) of each segment
        self._held: Segment | bytes | None = None  # what the device did not take

    @staticmethod
    def now() -> int:
        return time.monotonic_ns() // 1000

    def run_until(self, is_over: Callable[[], bool], timeout: float = 30) -> None:
        """Handle frames and timers until is_over(), looked at every 10 ms."""
        end = time.monotonic() + timeout
        while not is_over():
            assert time.monotonic() < end, "timed out"
            if select.select([self.device.fileno()], [], [], 0.01)[0]:
                batch = self.device.read_batch()
                self.received += [(segment.length, segment.packets) for segment in batch.segments]
                self.stack.receive(batch, self.now())
            self.stack.advance(self.now())
            self._flush()

    def serve(self, process: subprocess.Popen[str], timeout: float = 30) -> str:
        """Run until the process ends; return its output. Its status must be 0."""
        self.run_until(lambda: process.poll() is not None, timeout)
        output = process.communicate()[0]
        assert process.returncode == 0, output
        return output

    def _flush(self) -> None:
        while (item := self._held or self.stack.poll_transmit(self.now())) is not None:
            self._held = None
            if not self.device.write(item):
                self._held = item
                return

    def _accept(self, listener: Listener) -> None:
        while (conn := listener.accept()) is not None:
            conn.sink = Echo(conn, self)
            conn.resume(self.now())


@pytest.fixture(params=["native", "python"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both codecs."""
    before = codec.BACKEND
    codec.select(request.param)
    yield request.param
    codec.select(before)  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["offload", "no-offload"])
def offload(request: pytest.FixtureRequest) -> bool:
    """Both kinds of frames."""
    is_on: bool = request.param
    return is_on


@pytest.fixture
def host(namespace: Namespace, backend: str, offload: bool) -> Host:
    """A stack on an interface of MTU 1500."""
    return Host(namespace.open_tun(offload=offload))


def started(namespace: Namespace, command: str) -> subprocess.Popen[str]:
    return namespace.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def frame_sizes(namespace: Namespace) -> tuple[float, float]:
    """Return the mean octets of the frames that the kernel handed us, and of those that it got from us."""
    statistics: Any = json.loads(namespace.run("ip -s -j link show tunstack0").stdout)[0]["stats64"]
    return (statistics["tx"]["bytes"] / statistics["tx"]["packets"], statistics["rx"]["bytes"] / statistics["rx"]["packets"])


class TestPing:
    """M-08."""

    def test_ping_is_answered(self, namespace: Namespace, host: Host) -> None:
        assert " 0% packet loss" in host.serve(started(namespace, f"ping -n -c 3 -i 0.05 {US}"))

    @pytest.mark.parametrize("size", [1472, 1473, 4000, 65507])
    def test_large_pings_are_reassembled_and_answered_in_fragments(self, namespace: Namespace, host: Host, size: int) -> None:
        output = host.serve(started(namespace, f"ping -n -c 3 -i 0.05 -W 2 -s {size} {US}"))
        assert " 0% packet loss" in output and "wrong data" not in output
        counters = host.stack.counters
        cut = size + 28 > 1500
        assert (counters.IpReasmOKs, counters.IpFragOKs) == ((3, 3) if cut else (0, 0))

    def test_a_flood_of_pings_loses_none(self, namespace: Namespace, host: Host) -> None:
        assert " 0% packet loss" in host.serve(started(namespace, f"ping -n -q -f -c 3000 {US}"))

    def test_the_smallest_mtu_works(self, namespace: Namespace) -> None:
        host = Host(namespace.open_tun(mtu=88))
        assert " 0% packet loss" in host.serve(started(namespace, f"ping -n -c 2 -i 0.05 -s 300 {US}"))
        assert host.stack.counters.IpFragCreates == 2 * 5


class TestUnreachable:
    """M-08."""

    def test_tracepath_reaches_us(self, namespace: Namespace, host: Host) -> None:
        output = host.serve(started(namespace, f"tracepath -n {US}"))
        assert re.search(r"^ 1: +10\.77\.0\.2 .*reached$", output, re.MULTILINE), output
        assert "Resume: pmtu 1500 hops 1 back 1" in output

    def test_udp_to_us_is_refused(self, namespace: Namespace, host: Host) -> None:
        with namespace.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.connect((US, 4000))
            client.setblocking(False)
            client.send(b"anybody there?")
            host.run_until(lambda: bool(select.select([client], [], [], 0)[0]))
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)

    def test_an_unknown_protocol_is_unreachable(self, namespace: Namespace, host: Host) -> None:
        with namespace.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_RAW, 200)
        with client:
            client.connect((US, 0))
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
            client.send(b"?" * 20)
            host.run_until(lambda: host.stack.counters.IcmpOutDestUnreachs > 0)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOPROTOOPT


class TestTcp:
    def test_a_closed_port_refuses_at_once(self, namespace: Namespace, host: Host) -> None:
        process = started(namespace, f"curl -s -S -m 10 http://{US}:81/")
        host.run_until(lambda: process.poll() is not None)
        assert process.returncode == 7, process.communicate()[0]
        assert "TcpRetransSegs                  0 " in namespace.run("nstat -az TcpRetransSegs").stdout  # the first SYN was answered

    def test_four_megabytes_come_back_and_offload_shows_in_the_frames(self, namespace: Namespace, host: Host, offload: bool) -> None:
        sent = random.Random(2).randbytes(4 << 20)
        digest = hashlib.sha256()
        with namespace.entered():
            thread = threading.Thread(target=lambda: exchange(socket.create_connection((US, 7), 20), sent, digest), daemon=True)
            thread.start()
        host.run_until(lambda: not thread.is_alive(), 60)
        assert digest.digest() == hashlib.sha256(sent).digest()
        from_kernel, to_kernel = frame_sizes(namespace)
        assert (from_kernel > 3000 and to_kernel > 3000) if offload else (from_kernel <= 1500 and to_kernel <= 1500)
        assert max(packets for _, packets in host.received) > 1  # one object for many packets, whoever merged them
        assert host.device.tx_dropped == 0
        assert host.stack.counters.TcpInCsumErrors == 0

    def test_tcpdump_finds_every_checksum_right_without_offload(self, namespace: Namespace, backend: str, tmp_path: Path) -> None:
        """M-63."""
        host = Host(namespace.open_tun(offload=False))
        frames = tmp_path / "frames"
        dump = started(namespace, f"tcpdump -i tunstack0 --immediate-mode -U -B 16384 -s 2000 -Z root -w {frames}")
        assert dump.stdout and "listening on" in dump.stdout.readline()
        with namespace.entered():
            thread = threading.Thread(target=lambda: exchange(socket.create_connection((US, 7), 20), bytes(100_000), hashlib.sha256()))
            thread.start()
        host.run_until(lambda: not thread.is_alive())
        host.serve(started(namespace, f"ping -n -c 1 -s 3000 {US}"))
        host.serve(started(namespace, f"ping -n -c 1 -s 24 -p c0ffee {US}"))  # the last, whose request and reply are waited for
        host.run_until(lambda: frames.read_bytes().count(b"\xc0\xff\xee" * 2) == 2)
        dump.terminate()
        assert "0 packets dropped by kernel" in dump.communicate()[0]
        output = namespace.run(f"tcpdump -n -vv -r {frames}").stdout
        assert "incorrect" not in output and "bad cksum" not in output
        assert output.count("(correct)") > 100 and "ICMP echo reply" in output


def exchange(client: socket.socket, data: bytes, digest: Any) -> None:
    """Send data while reading it back into the digest."""
    with client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        while chunk := client.recv(1 << 16):
            digest.update(chunk)
        sender.join()


class TestWhenTheInterfaceGoesAway:
    def test_what_is_written_while_it_is_down_is_counted_as_dropped(self, namespace: Namespace, host: Host) -> None:
        namespace.run("ip link set tunstack0 down")
        segment = Segment(pack_address(US) + pack_address("10.77.0.1") + b"\0\7\0\7", 1, 1, 0x10, 100)
        assert host.device.write(segment) is True
        assert host.device.write(bytes.fromhex("4500001400004000400126e60a4d00020a4d0001")) is True
        assert host.device.tx_dropped == 2
        assert host.device.read_batch().segments == []
        namespace.run("ip link set tunstack0 up")
        assert " 0% packet loss" in host.serve(started(namespace, f"ping -n -c 1 {US}"))
        assert host.device.tx_dropped == 2

    def test_once_it_is_removed_reading_and_writing_raise(self, namespace: Namespace, host: Host) -> None:
        namespace.run("ip link del tunstack0")
        for use in (host.device.read_batch, lambda: host.device.write(b"\x45" + bytes(19))):
            with pytest.raises(OSError) as caught:
                use()
            assert caught.value.errno == errno.EBADFD
        host.device.close()

    def test_the_readable_interface_of_a_device_that_was_removed_wakes_its_reader(self, namespace: Namespace, host: Host) -> None:
        poll = select.epoll()
        poll.register(host.device.fileno(), select.EPOLLIN)
        namespace.run("ip link del tunstack0")
        assert poll.poll(1)
        poll.close()


def test_a_burst_up_to_the_queue_length_is_not_lost(namespace: Namespace) -> None:
    """What the kernel sends while we are busy elsewhere waits: here a datagram each, 3000 of them, and nobody reads."""
    device = namespace.open_tun(offload=False)
    with namespace.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        for _ in range(3000):
            client.sendto(b"x", (US, 9))
    count = 0
    while packets := device.read_batch().packets:
        count += len(packets)
    assert count == 3000
    assert os.get_blocking(device.fileno()) is False
