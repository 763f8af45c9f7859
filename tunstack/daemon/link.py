"""`tunstack link`: two TUN interfaces in two network namespaces, joined by a link, so that two kernels can be put on it.

Frames pass unread: nothing of them is parsed or built anew, so what one kernel sent is, octet for octet, what the other receives, but
for what the link is told to do. Where that is a delay at most, the kernels exchange super-segments of up to 64 KB, which pass whole;
else the sending kernel is asked to cut and checksum them itself (TUNSETOFFLOAD), so that each packet fares by itself. Times int
microseconds, lengths octets.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from errno import EAGAIN, EINVAL
from ipaddress import IPv4Interface

from tunstack.daemon.errors import UserError
from tunstack.daemon.host import give_up_root, loop_factory
from tunstack.device.errors import DeviceError
from tunstack.device.impairment import Impairment
from tunstack.device.link import Clock, Direction, Way, join_ways
from tunstack.device.linkspec import LinkSpec, parse
from tunstack.device.netns import entered, same_namespace
from tunstack.device.realclock import RealClock
from tunstack.device.tun import LOST, TXQUEUELEN, VNET_HEADER_LENGTH, TunDevice
from tunstack.engine import pack_address

FRAME_MAX = VNET_HEADER_LENGTH + 65535
FRAMES_A_TURN = 64  # then the clock and the other direction have their turn
QUEUE_TURNS = -(-TXQUEUELEN // FRAMES_A_TURN)  # that take all that the kernel's queue can hold
NO_OFFLOAD = bytes(VNET_HEADER_LENGTH)
NOT_SENT = LOST | {EINVAL, EAGAIN}  # EINVAL: corruption hit the IP version; EAGAIN: the interface takes no more


@dataclass(frozen=True, slots=True)
class End:
    """One end of the link. A namespace is a name, a path, or nothing for the one we are in."""

    namespace: str
    name: str
    address: IPv4Interface

    def __str__(self) -> str:
        return f"{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """What `tunstack link` runs with."""

    a: End
    b: End
    mtu: int
    offload: bool
    spec: LinkSpec
    realtime: bool
    user: str
    loop: str


class Interface:
    """A TUN interface in a namespace, with the kernel's count of what found its queue full."""

    def __init__(self, end: End, peer: End, mtu: int, offload: bool) -> None:
        with entered(end.namespace):
            peers = [pack_address(str(peer.address.ip))]
            self.device = TunDevice.open(end.name, host_address=str(end.address), addresses=peers, mtu=mtu, offload=offload)
            try:
                self._statistics = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)  # stays that namespace's
            except OSError:
                self.device.close()
                raise

    def queue_dropped(self) -> int:
        """Return the frames that the kernel dropped because we did not read them in time, 0 where the interface is gone."""
        found = re.search(rf"^ *{re.escape(self.device.name)}:(.*)$", os.pread(self._statistics, 1 << 16, 0).decode(), re.MULTILINE)
        return int(found[1].split()[11]) if found else 0  # eight columns of receiving, then octets, packets, errors, drops

    def close(self) -> None:
        os.close(self._statistics)
        self.device.close()


class Lane:
    """One direction: what is read from `source` goes through the link and is written to `sink`."""

    def __init__(self, source: TunDevice, sink: TunDevice, direction: Direction, clock: Clock) -> None:
        self.direction = direction
        self.delivered = 0  # frames
        self.refused = 0  # frames that the kernel did not take
        self.stale = 0  # super-segments that came when packets were asked for already; lost
        self._source = source
        self._sink = sink
        self._fd = source.fileno()
        self._to = sink.fileno()
        # Whole frames keep their virtio header; packets are without. Both ways draw on one direction, which keeps their order.
        self._whole_way = Way(direction, self._deliver_whole, clock)
        self._packet_way = Way(direction, self._deliver_packet, clock)
        self._is_whole = False
        self.change()

    def join(self, other: Lane) -> None:
        """Let what a router on either lane has to say go back by the other; it only speaks of packets."""
        join_ways(self._packet_way, other._packet_way)

    @property
    def is_whole(self) -> bool:
        """Tell whether super-segments pass uncut."""
        return self._is_whole

    @property
    def overflowed(self) -> int:
        """Frames lost because too much was on the way."""
        return self._whole_way.overflowed + self._packet_way.overflowed

    def change(self) -> None:
        """Follow a change of the direction's impairment: ask for packets or super-segments."""
        self._is_whole = self._may_be_whole(self.direction.impairment)
        if self._source.vnet:
            self._source.set_offload(self._is_whole)

    def settle(self) -> None:
        """Send what the kernel has queued by now into the link as it is; before a change, so that it falls under the old rules."""
        if self._is_whole:
            self._source.set_offload(False)
        for _ in range(QUEUE_TURNS):  # and no more: a sender that goes on must not keep us here
            if not self.on_readable():
                break

    def on_readable(self) -> bool:  # hot
        """Take some frames; tell whether there may be more. OSError if the interface is gone."""
        read, fd = os.read, self._fd
        if self._is_whole:
            carry = self._whole_way.carry
            for _ in range(FRAMES_A_TURN):
                try:
                    frame = read(fd, FRAME_MAX)
                except BlockingIOError:
                    return False
                carry(frame)
            return True
        carry = self._packet_way.carry
        vnet = self._source.vnet
        for _ in range(FRAMES_A_TURN):
            try:
                frame = read(fd, FRAME_MAX)
            except BlockingIOError:
                return False
            if not vnet:
                carry(frame)
            elif frame[0] & 1 or frame[1]:  # NEEDS_CSUM, or a GSO type: a sender that raced with our change of the offload
                self.stale += 1
            else:
                carry(frame[VNET_HEADER_LENGTH:])
        return True

    def _may_be_whole(self, impairment: Impairment) -> bool:
        return self._source.offload and self._sink.offload and impairment.takes_any_size

    def _deliver_whole(self, frame: bytes) -> None:  # hot
        try:
            os.write(self._to, frame)
        except OSError as error:
            self._refuse(error)
        else:
            self.delivered += 1

    def _deliver_packet(self, packet: bytes) -> None:  # hot
        try:
            if self._sink.vnet:
                os.writev(self._to, (NO_OFFLOAD, packet))
            else:
                os.write(self._to, packet)
        except OSError as error:
            self._refuse(error)
        else:
            self.delivered += 1

    def _refuse(self, error: OSError) -> None:
        if error.errno not in NOT_SENT:
            raise error
        self.refused += 1


class Joint:
    """Two interfaces and the link between them, run by an event loop until a signal or until one of them is gone."""

    def __init__(self, config: LinkConfig, a: Interface, b: Interface) -> None:
        self._config = config
        self._ends = a, b
        self._clock = RealClock()
        self._seed = secrets.randbits(32) if config.spec.seed is None else config.spec.seed
        up, down = config.spec.directions(self._seed)
        self._lanes = Lane(a.device, b.device, up, self._clock), Lane(b.device, a.device, down, self._clock)
        self._lanes[0].join(self._lanes[1])
        self._ended: asyncio.Future[None] | None = None
        self._input = b""  # of a line on standard input that has no end yet

    async def run(self) -> None:
        """Forward until SIGTERM or SIGINT; OSError if an interface goes away."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        for lane, end in zip(self._lanes, self._ends, strict=True):
            loop.add_reader(end.device.fileno(), self._guard(lane.on_readable))
        loop.add_reader(self._clock.fileno(), self._guard(self._clock.run_due))
        self._listen(loop)
        print(self.ready_line(), flush=True)
        try:
            await self._ended
        finally:
            for fd in (*(end.device.fileno() for end in self._ends), self._clock.fileno()):
                loop.remove_reader(fd)
            loop.remove_reader(0)
            print(self.summary(), flush=True)
            self._clock.close()

    def ready_line(self) -> str:
        """Say what is joined, and how."""
        a, b = self._config.a, self._config.b
        spec = self._config.spec
        how = spec.text or "no impairment"
        seed = "" if spec.seed is not None or not spec.text else f" (seed {self._seed})"
        offload = "on" if all(end.device.offload for end in self._ends) else "off"
        mtu = " and ".join(sorted({str(end.device.mtu) for end in self._ends}))
        return f"tunstack: linking {a} {a.address} with {b} {b.address} (mtu {mtu}, offload {offload}): {how}{seed}"

    def summary(self) -> str:
        """Return the counts, in frames, a line for each direction."""
        lines = []
        for name, lane, end in zip(("up (a to b)", "down (b to a)"), self._lanes, self._ends, strict=True):
            counts = {
                **lane.direction.counts(),
                "overflowed": lane.overflowed + lane.stale,
                "refused": lane.refused,
                "not read in time": end.queue_dropped(),
                "delivered": lane.delivered,
            }
            lines.append(f"tunstack: {name}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        return "\n".join(lines)

    def change(self, text: str) -> None:
        """Go on with what a line says; ValueError, and nothing is changed, where it is wrong."""
        spec = parse(text)
        for lane in self._lanes:
            lane.settle()
        up, down = (lane.direction for lane in self._lanes)
        spec.apply(up, down)
        for lane in self._lanes:
            lane.change()
        print(f"tunstack: now {spec.text or 'no impairment'}", flush=True)

    def _guard(self, work: Callable[[], object]) -> Callable[[], None]:
        """Make an error of the interfaces the end of the run."""

        def guarded() -> None:
            try:
                work()
            except OSError as error:
                if self._ended is not None and not self._ended.done():
                    self._ended.set_exception(OSError(f"an interface of the link is gone: {error.strerror}"))

        return guarded

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take lines from standard input, where it is something that lines come from."""
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # in the background of a terminal reading fails, and does not stop us
        try:
            loop.add_reader(0, self._guard(self._read_lines))
        except (PermissionError, ValueError):
            return  # a file, or /dev/null, or closed: nothing will come

    def _read_lines(self) -> None:
        try:
            chunk = os.read(0, 4096)
        except OSError:
            chunk = b""
        if not chunk:
            asyncio.get_running_loop().remove_reader(0)
            return
        *lines, self._input = (self._input + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if not text:
                print(self.summary(), flush=True)
                continue
            try:
                self.change(text)
            except ValueError as error:
                print(f"tunstack: {error}", file=sys.stderr, flush=True)


def run(config: LinkConfig) -> None:
    """Join two interfaces until told to end; UserError if that cannot be, OSError if one goes away meanwhile."""
    factory = loop_factory(config.loop)
    try:
        if same_namespace(config.a.namespace, config.b.namespace):
            raise UserError("both ends are in one network namespace, where its kernel talks to itself without any interface: give two")
        a = Interface(config.a, config.b, config.mtu, config.offload)
        try:
            b = Interface(config.b, config.a, config.mtu, config.offload)
        except BaseException:
            a.close()
            raise
    except DeviceError as error:
        raise UserError(str(error)) from error
    try:
        if config.realtime:
            with suppress(PermissionError):  # a container may forbid it: the delay is as exact as other processes let it be
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        give_up_root(config.user)
        with asyncio.Runner(loop_factory=factory) as runner:
            gc.collect()
            gc.freeze()  # what is there stays: collections to come are short, and the delay exact
            runner.run(Joint(config, a, b).run())
    finally:
        a.close()
        b.close()
