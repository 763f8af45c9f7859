"""Runs a script against one stack in virtual time.

Time moves only as the script says. What the script does at an instant comes before timers of the same instant, so its order decides.
Everything that the stack sends must be expected by the script, in its order and at its time, to the microsecond unless a range
is given: virtual time owes no tolerance. Packets are octets in both directions; payload is a known pattern, so every octet is checked too.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

from tunstack.engine.config import StackConfig
from tunstack.engine.stack import Stack
from tunstack.engine.sysctl import Sysctl
from tunstack.sim.script import packet as wire
from tunstack.sim.script.packet import Icmp, Option, Packet
from tunstack.sim.script.parser import Call, Event, parse
from tunstack.sim.script.report import Report
from tunstack.sim.script.sockets import Failed, Sockets
from tunstack.wire import codec, virtio
from tunstack.wire.flow import format_address, pack_address, pack_flow
from tunstack.wire.segment import ACK, SYN

START = 1_000_000_000  # µs: the script's 0
REMOTE_PORT = 40000  # of packets that do not say
FOREVER = 1 << 62
MASK = 0xFFFFFFFF


class FixedIsn:
    """Stands where the stack's ISN generator is: every connection begins with the script's numbers."""

    def __init__(self, isn: int, ts_offset: int) -> None:
        self._isn = isn
        self._ts_offset = ts_offset

    def isn(self, flow: bytes, now: int) -> int:
        return self._isn

    def ts_offset(self, flow: bytes) -> int:
        return self._ts_offset

    def start(self, flow: bytes, now: int) -> tuple[int, int]:
        return self._isn, self._ts_offset

    def derive(self, purpose: bytes, size: int) -> bytes:
        return purpose.ljust(size, b"\0")


class Runner:
    """One run of a script. After `run` the stack and the sockets can be looked at."""

    def __init__(
        self,
        script: str,
        *,
        local: str = "192.0.2.1",
        remote: str = "198.51.100.1",
        local_isn: int = 0x10000000,
        remote_isn: int = 0x20000000,
        mtu: int = 1500,
        fast_path: bool = True,
        sysctl: Sysctl | None = None,
        title: str = "",
    ) -> None:
        self.events = parse(script)
        self.now = START
        self.local, self.remote = pack_address(local), pack_address(remote)
        self.remote_isn = remote_isn
        self.sysctl = sysctl if sysctl is not None else Sysctl()
        config = StackConfig((self.local,), mtu=mtu, sysctl=self.sysctl, fast_path=fast_path)
        self.stack = Stack(config, random.Random(1), bytes(range(32)))
        self.stack.isn = FixedIsn(local_isn, 0x7F000000)  # type: ignore[assignment]
        self.sockets = Sockets(self)
        self._isns: dict[tuple[int, int], int] = {}  # of connections whose SYN was seen, by (local port, remote port); others: 0
        self._ts_offset: int | None = None  # what the stack's TS val is ahead of the script's
        self._reader = codec.Reader(vnet=True)
        self._sent: deque[tuple[int, bytes]] = deque()  # (time, packet) that the script has not looked at
        self._event_at = START  # of the event before
        self._report = Report(title)
        self._line = 0

    def run(self) -> Runner:
        """Play the script to its end. ScriptFailure where the stack departs from it."""
        for event in self.events:
            self._line = event.line
            earliest, latest = self._window(event)
            if event.direction == ">":
                assert isinstance(event.what, Packet)
                self._expect(event, event.what, earliest, latest)
            else:
                self._do(event, earliest, latest)
        self._line = 0
        self._run_to(self.now, inclusive=True)
        self._refuse_unexpected()
        return self

    def _window(self, event: Event) -> tuple[int, int]:
        """Return the earliest and latest time of an event."""
        base = self._event_at if event.when.relative else START
        latest = FOREVER if event.when.latest is None else base + event.when.latest
        earliest = max(base + event.when.earliest, self._event_at)
        if latest < self._event_at:
            raise self._failure("its time is before that of the line above", event.text)
        return earliest, latest

    # Time.

    def _run_to(self, at: int, inclusive: bool = False) -> None:
        """Let time pass until `at`: timers before it run, and those at it if `inclusive`."""
        while True:
            deadline = self.stack.next_deadline()
            if deadline is None or deadline > at or (deadline == at and not inclusive):
                break
            self._step(deadline)
        self.now = max(self.now, at)

    def _step(self, at: int) -> None:
        """Let the timers at `at` run."""
        self.now = max(self.now, at)
        self.stack.advance(self.now)
        self.flush()

    def flush(self) -> None:
        """Take what the stack has to send."""
        while (item := self.stack.poll_transmit(self.now)) is not None:
            for octets in [item] if isinstance(item, bytes) else codec.encode(item):
                self._sent.append((self.now, octets))

    # What the script does.

    def _do(self, event: Event, earliest: int, latest: int) -> None:
        """Send a packet into the stack, or make a call; a call that fails is tried again as timers run, until its time is over."""
        self._run_to(earliest)
        while True:
            self._refuse_unexpected()
            try:
                self._do_now(event)
                break
            except Failed as failed:
                deadline = self.stack.next_deadline()
                if deadline is None or deadline > latest:
                    raise self._failure(str(failed), event.text) from None
                self._step(deadline)
        self._event_at = self.now
        self._report.add(self.now - START, event.line, event.text)
        self.flush()

    def _do_now(self, event: Event) -> None:
        if isinstance(event.what, Call):
            self.sockets.call(event.what)
        elif isinstance(event.what, Icmp):
            self._receive(self._icmp_octets(event.what), 0, 0)
        else:
            octets, header = self._packet_octets(event.what)
            self._receive(octets, event.what.gso, header)

    def _receive(self, octets: bytes, gso: int, header: int) -> None:
        offload = virtio.HEADER.pack(0, virtio.GSO_TCPV4, header, gso, 0, 0) if gso else virtio.NO_OFFLOAD
        self.stack.receive(self._reader.parse([offload + octets]), self.now)

    def _packet_octets(self, script: Packet) -> tuple[bytes, int]:
        """Return the octets of a packet for the stack, and the length of its headers."""
        ports = script.ports or (self.sockets.remote_port(REMOTE_PORT), self.sockets.local_port())
        isn = self._isns.get((ports[1], ports[0]), 0)
        position = script.seq + bool(script.flags & SYN) - 1  # the stream begins behind the SYN
        live = wire.shifted(script, self.remote_isn, isn, (0, self._ts_offset or 0), sack_by=isn)
        payload = wire.pattern(max(position, 0), script.length)
        octets = wire.encode(replace(live, ports=ports), self.remote, self.local, payload)
        return octets, len(octets) - len(payload)

    def _icmp_octets(self, script: Icmp) -> bytes:
        ports = (self.sockets.local_port(), self.sockets.remote_port(REMOTE_PORT))
        isn = self._isns.get(ports, 0)
        quoted = Packet(ACK, (script.seq + isn) & MASK, script.length, 0, ports=ports)
        return wire.encode_icmp(script, self.remote, self.local, quoted)

    # What the script expects.

    def _expect(self, event: Event, script: Packet, earliest: int, latest: int) -> None:
        """Wait for a packet, and compare it."""
        while not self._sent:
            deadline = self.stack.next_deadline()
            if deadline is None or deadline > latest:
                self.now = max(self.now, min(latest, earliest if latest == FOREVER else latest))
                raise self._failure("nothing was sent", event.text)
            self._step(deadline)
        at, octets = self._sent.popleft()
        try:
            live, payload, src, dst = wire.decode(octets)
        except ValueError as error:
            raise self._failure(str(error), event.text, at=at) from None
        if (src, dst) != (self.local, self.remote):
            raise self._failure(f"sent from {format_address(src)} to {format_address(dst)}", event.text, at=at)
        actual = self._relative(live, script)
        reason = self._difference(script, actual, payload)
        if reason is None and not earliest <= at <= latest:
            reason = f"sent {'before' if at < earliest else 'after'} its time"
        if reason is not None:
            raise self._failure(reason, event.text, f"> {self._shown(actual, script)}", at)
        self._event_at = at
        self._report.add(at - START, event.line, event.text)

    def _relative(self, live: Packet, script: Packet | None) -> Packet:
        """Return a packet of the stack's as the script would write it; learn its ISN and its timestamp offset."""
        assert live.ports is not None
        if live.flags & SYN and live.ports not in self._isns:
            self._isns[live.ports] = (live.seq - (script.seq if script is not None else 0)) & MASK
        isn = self._isns.get(live.ports, 0)
        if self._ts_offset is None:
            script_val, live_val = (_ts_val(packet.options if packet else None) for packet in (script, live))
            if script_val is not None and live_val is not None:
                self._ts_offset = (live_val - script_val) & MASK
        return wire.shifted(live, -isn, -self.remote_isn, (-(self._ts_offset or 0), 0), sack_by=-self.remote_isn)

    def _difference(self, script: Packet, actual: Packet, payload: bytes) -> str | None:
        """Return what is wrong with a packet, None if it is as expected."""
        ports = script.ports or (self.sockets.local_port(), self.sockets.remote_port(REMOTE_PORT))
        if actual.ports != ports:
            return f"ports are {actual.ports}, not {ports}"
        for name in ("flags", "seq", "length", "ack", "urg"):
            if getattr(script, name) != getattr(actual, name):
                return f"{name} differs"
        if script.win is not None and script.win != actual.win:
            return "win differs"
        if script.ecn is not None and script.ecn != actual.ecn:
            return f"ECN mark is {wire.ECN_NAMES[actual.ecn or 0]}"
        if script.options is not None and not _options_match(script.options, actual.options or ()):
            return "options differ"
        if payload != wire.pattern(max(script.seq + bool(script.flags & SYN) - 1, 0), len(payload)):
            return "payload is not the stream's at this place"
        return None

    def _shown(self, actual: Packet, script: Packet | None) -> str:
        ports = (self.sockets.local_port(), self.sockets.remote_port(REMOTE_PORT))
        return str(replace(actual, ports=None) if actual.ports == ports else actual)

    def _refuse_unexpected(self) -> None:
        """Fail if the stack sent what the script did not look at."""
        if self._sent:
            at = self._sent[0][0]
            raise self._failure("sent, and not expected", None, at=at)

    def _failure(self, reason: str, expected: str | None, actual: str | None = None, at: int | None = None) -> AssertionError:
        waiting = []
        for when, octets in self._sent:
            try:
                text = f"> {self._shown(self._relative(wire.decode(octets)[0], None), None)}"
            except ValueError as error:
                text = f"> ({error})"
            waiting.append((when - START, text))
        return self._report.failure((self.now if at is None else at) - START, self._line, reason, expected, actual, waiting)

    def flow_in(self, local_port: int, remote_port: int) -> bytes:
        """Return the flow of the packets that come for a pair of ports."""
        return pack_flow(self.remote, remote_port, self.local, local_port)


def _ts_val(options: tuple[Option, ...] | None) -> int | None:
    for option in options or ():
        match option:
            case ("TS", int(val), _):
                return val
    return None


def _options_match(script: tuple[Option, ...], actual: tuple[Option, ...]) -> bool:
    """Tell whether options are equal; `*` in a timestamp fits everything."""
    if len(script) != len(actual):
        return False
    for expected, found in zip(script, actual, strict=True):
        if len(expected) != len(found) or any(e is not None and e != f for e, f in zip(expected, found, strict=True)):
            return False
    return True


def run(script: str, **settings: object) -> Runner:
    """Run a script; see Runner for the settings. ScriptFailure where the stack departs from it, ScriptSyntaxError for the script itself."""
    return Runner(script, **settings).run()  # type: ignore[arg-type]
