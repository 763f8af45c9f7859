#!/usr/bin/env python3
"""How exact is the delay of a link in real time? `tunstack link` one way (UDP), `tunstack serve --link` there and back (ICMP echo).

    sudo .venv/bin/python scripts/bench/link_delay.py [--delay 10ms] [--seconds 4] [--rates 100,1000,5000,20000] [--loop uvloop]

Packets leave at even distances with the time in them; the receiver's kernel stamps their arrival (SO_TIMESTAMPNS), so nothing that
the measuring program does later counts. The commands run before ordinary processes (SCHED_RR). What is printed is measured minus
asked for, in microseconds: it holds the way through both kernels too, which the runs without delay ("0 ms") show by themselves.
Makes two network namespaces and removes them.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tunstack.device.linkspec import parse
from tunstack.device.netns import entered
from tunstack.wire.checksum import checksum

SO_TIMESTAMPNS, SO_RCVBUFFORCE, SOL_RAW = 35, 33, 255
PORT = 9
TIMESTAMP = struct.Struct("=qq")
SENT = struct.Struct("!QQ")
HELD_UP = 50_000  # ns
PADDING = bytes(164)  # a packet of 200 octets and its headers
TOLERANCE = 200  # µs


class Probe:
    """A socket pair or a raw socket that sends the time and learns when it arrived."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, dress: Callable[[bytes], bytes], where: int) -> None:
        self.sender, self.receiver, self.dress, self.where = sender, receiver, dress, where
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        receiver.setblocking(False)

    def run(self, rate: int, seconds: float) -> tuple[int, list[float]]:
        """Send at an even rate; return how many did not arrive, and the microseconds that each took that did.

        A send that took longer than HELD_UP, because another process had our processor, says nothing of the link and is left out.
        """
        took: dict[int, float] = {}
        held_up = set()
        gap = 1_000_000_000 // rate
        count = int(rate * seconds)
        begin = time.monotonic_ns() + 1_000_000
        for index in range(count):
            due = begin + index * gap
            while time.monotonic_ns() < due:
                self._receive(took)
            sent_at = time.time_ns()
            self.sender.send(self.dress(SENT.pack(index, sent_at) + PADDING))
            if time.time_ns() - sent_at > HELD_UP:
                held_up.add(index)
        deadline = time.monotonic() + 1
        while len(took) < count and time.monotonic() < deadline:
            self._receive(took)
        return count - len(took), [each for index, each in took.items() if index not in held_up]

    def _receive(self, took: dict[int, float]) -> None:
        try:
            data, ancillary, _, _ = self.receiver.recvmsg(512, 64)
        except BlockingIOError:
            return
        if len(data) < self.where + SENT.size + len(PADDING):
            return
        seconds, nanos = TIMESTAMP.unpack(ancillary[0][2])
        index, sent_at = SENT.unpack_from(data, self.where)
        took[index] = (seconds * 1_000_000_000 + nanos - sent_at) / 1000


def udp_probe(cleanup: ExitStack, a: str, b: str) -> Probe:
    """Return what sends from namespace a to 10.79.0.2 in b."""
    with entered(b):
        receiver = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("10.79.0.2", PORT))
    with entered(a):
        sender = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.connect(("10.79.0.2", PORT))
    return Probe(sender, receiver, lambda data: data, 0)


def echo_probe(cleanup: ExitStack, a: str) -> Probe:
    """Return what sends echo requests from namespace a to 10.77.0.2; it sees the replies only."""
    with entered(a):
        both = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    both.setsockopt(SOL_RAW, 1, struct.pack("I", ~1 & 0xFFFFFFFF))  # ICMP_FILTER: type 0 alone
    both.connect(("10.77.0.2", 0))

    def request(data: bytes) -> bytes:
        message = struct.pack("!BBHHH", 8, 0, 0, 77, 1) + data
        return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]

    return Probe(both, both, request, 28)


@contextmanager
def tunstack(a: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a tunstack command in namespace a until the block ends; it must become ready and exit 0."""
    command = ["ip", "netns", "exec", a, sys.executable, "-m", "tunstack", *arguments]
    if arguments[0] == "serve":
        command = ["chrt", "--rr", "1", *command]  # as `tunstack link` does by itself
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, stdin=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("tunstack did not become ready")
        yield process
    finally:
        process.terminate()
        process.communicate()


def report(what: str, rate: int, asked: float, lost: int, took: list[float]) -> None:
    """Print a line of figures."""
    if not took:
        print(f"{what:24} {rate:6d}/s  nothing arrived")
        return
    errors = sorted(each - asked for each in took)

    def share(of: float) -> float:
        return errors[min(int(of * len(errors)), len(errors) - 1)]

    inside = sum(abs(error) <= TOLERANCE for error in errors) / len(errors)
    mean = sum(errors) / len(errors)
    figures = "".join(f"{value:8.0f}" for value in (errors[0], mean, share(0.5), share(0.9), share(0.99), share(0.999), errors[-1]))
    print(f"{what:24} {rate:6d}/s {figures}  {inside:7.2%} {lost:6d} lost", flush=True)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description="Measure how exact a link's delay is in real time.")
    parser.add_argument("--delay", default="10ms", help="one way (default 10ms)")
    parser.add_argument("--seconds", type=float, default=4, help="length of each run (default 4)")
    parser.add_argument("--rates", default="100,1000,5000,20000", help="packets a second (default 100,1000,5000,20000)")
    parser.add_argument("--loop", default="uvloop,asyncio", help="event loops (default uvloop,asyncio)")
    parser.add_argument("--what", default="link,serve", help="link, serve or both (default)")
    given = parser.parse_args()
    delay = parse(f"delay={given.delay}").up.delay
    rates = [int(rate) for rate in given.rates.split(",")]
    a, b = f"link-delay-{os.getpid()}-a", f"link-delay-{os.getpid()}-b"
    heads = "".join(f"{head:>8}" for head in ("min", "mean", "p50", "p90", "p99", "p99.9", "max"))
    print(f"{'measured - asked for, us':24} {'':8} {heads}  +-{TOLERANCE} us")
    with ExitStack() as cleanup:
        for name in (a, b):
            subprocess.run(["ip", "netns", "add", name], check=True)
            cleanup.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        for what in given.what.split(","):
            for loop in given.loop.split(","):
                for spec, asked in (("delay=0ms", 0), (f"delay={given.delay}", delay)):
                    for rate in rates:
                        flags = ["--link", spec, "--loop", loop, "--user", "root"]
                        with ExitStack() as sockets:
                            if what == "link":
                                sockets.enter_context(tunstack(a, "link", "--a", ":link0", "--b", b, *flags))
                                probe = udp_probe(sockets, a, b)
                            else:
                                sockets.enter_context(tunstack(a, "serve", "--no-http", "--log-level", "warning", *flags))
                                probe = echo_probe(sockets, a)
                                asked *= 2 if rate == rates[0] else 1  # there and back
                            lost, took = probe.run(rate, given.seconds)
                        report(f"{what} {loop} {asked / 1000:g} ms", rate, asked, lost, took)
    return 0


if __name__ == "__main__":
    sys.exit(main())
