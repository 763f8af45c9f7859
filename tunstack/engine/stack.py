"""A stack: demultiplexing, ports, what is dirty, what is due.

RFC 9293 3.3.1 (a connection is its four-tuple), 3.10.7.1 (segments for no connection), RFC 5961 7. Sans I/O: frames come in as
batches, what is to be sent is polled out, time is an argument. Times are int microseconds.

Call order: `receive`, `advance` or an application's method; then `poll_transmit` until it returns None; then `next_deadline`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from tunstack.congestion import Algorithms, CongestionControl
from tunstack.engine import ecn, fastopen, fastopenclient, fastoutput, output
from tunstack.engine.config import Random, StackConfig
from tunstack.engine.connection import Connection
from tunstack.engine.counters import Counters
from tunstack.engine.datagrams import Datagrams
from tunstack.engine.errors import socket_error
from tunstack.engine.finwait import FinWait2
from tunstack.engine.firsttimeouts import FirstTimeouts
from tunstack.engine.guard import ChallengeLimit
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.handshake import Agreements
from tunstack.engine.icmp import is_host
from tunstack.engine.isn import IsnGenerator
from tunstack.engine.listener import Listener
from tunstack.engine.listeners import Listeners
from tunstack.engine.memory import PAGE_SHIFT, Memory
from tunstack.engine.neighbours import Neighbours
from tunstack.engine.opening import open_active
from tunstack.engine.options import SocketOptions, check_options
from tunstack.engine.orphans import Orphans
from tunstack.engine.pathmtu import PathMtu
from tunstack.engine.ports import Ports
from tunstack.engine.proven import ProvenHosts
from tunstack.engine.reuse import take_over
from tunstack.engine.signature import Signatures
from tunstack.engine.sink import Sink
from tunstack.engine.state import CLOSED
from tunstack.engine.syncookie import SynCookies
from tunstack.engine.timers import TimerHeap
from tunstack.engine.timewait import TimeWait, TimeWaitTable
from tunstack.engine.transitions import abort
from tunstack.seq import MASK
from tunstack.wire.flow import ANY_IPV4, pack_flow, reverse_flow
from tunstack.wire.segment import ACK, FIN, RST, SYN, Batch, Segment

REPLIES_MAX = 16_384  # segments that wait for the device and belong to no connection


class Stack:
    """All connections and listeners of a set of addresses.

    `flows` is the one table of who takes the segments of a four-tuple: a Connection, a HalfOpen, or what is left of a connection that is
    over, a TimeWait or a FinWait2. Nothing is global: two stacks in one process are two hosts.
    """

    def __init__(self, config: StackConfig, random: Random, secret: bytes) -> None:
        """Make a stack; ValueError for a congestion control that there is not (see `use_congestion`) or a secret that is too short."""
        self.config = config
        self.sysctl = config.sysctl
        self.algorithms = Algorithms(self._on_algorithm_failure)  # congestion control by name
        config.sysctl.algorithms = self.algorithms
        self.on_algorithm_failure: Callable[[str, Exception], None] | None = None  # a user's raised, for the first time; its name
        self._failed_algorithms: set[str] = set()
        self.use_congestion(config.congestion or config.sysctl.tcp_congestion_control)
        self.fast_path = config.fast_path
        self.counters = Counters()
        self.isn = IsnGenerator(secret)
        self.cookies = SynCookies(secret)
        self.proven = ProvenHosts()
        self.fastopen_cookies = fastopenclient.Cookies(config.sysctl, self.counters)
        self.timers = TimerHeap()
        self.first_timeouts = FirstTimeouts(self.timers)
        self.path_mtu = PathMtu(config.mtu, self.sysctl, self.timers, lambda: self.connections)
        self.time_wait = TimeWaitTable(self)
        self.signatures = Signatures(self)  # keys, and who signs
        self.signing: Signatures | None = None  # the same, once there was a key (use_keys)
        self.agreements = Agreements()
        self.orphans = Orphans(self)
        self.memory = Memory(self.sysctl, self.counters)
        self.flows: dict[bytes, Connection | HalfOpen | TimeWait | FinWait2] = {}  # by the flow of incoming segments
        self.writable: list[Connection] = []  # on_writable is due
        self.may_tell = True  # ... and may be called now
        self.on_dirty: Callable[[], None] | None = None  # output appeared
        self.on_flood: Callable[[Listener], None] | None = None  # a listener's SYN queue is full, for the first time
        self.octets: Callable[[], tuple[int, int]] | None = None  # of IPv4 packets that the device took in and sent, ever (the driver's)
        self.timer_grain = 0  # us by which `advance` comes late for want of a finer timer (the driver's); pacing makes up for it
        self.random = random
        self.neighbours: Neighbours | None = None  # stacks of other processes on the same addresses
        self._max_payload = config.max_payload
        self._poll = fastoutput.poll if config.fast_path else output.poll_and_look
        self.is_drained = False  # the connection that was polled last, and gave a segment, has no other
        self._addresses = frozenset(config.addresses)
        self.listeners = Listeners(self.isn.ts_offset)
        self._ports = Ports(self, random)
        self.challenges = ChallengeLimit(self.sysctl, random)
        self._datagrams = Datagrams(self, config)
        self._replies: deque[Segment] = deque()  # what leaves without a connection to poll: RST, SYN-ACK, ACKs of TIME-WAIT
        self._dirty: deque[Connection] = deque()  # connections that may have output

    def use_congestion(self, algorithm: str | type[CongestionControl]) -> None:
        """Set what new connections use: an algorithm by name, or a class, which is added under its own name.

        ValueError for a name that there is not; for a class what `Algorithms.add` raises.
        """
        name = algorithm if isinstance(algorithm, str) else self.algorithms.add(algorithm)
        if name not in self.algorithms:
            raise ValueError(f"there is no congestion control named {name!r}; there is {', '.join(self.algorithms)}")
        self.sysctl.tcp_congestion_control = name

    def use_keys(self) -> Signatures:
        """Judge and sign segments from now on: somebody has keys, or is to have some."""
        self.signing = self.signatures
        return self.signatures

    def _on_algorithm_failure(self, name: str, error: Exception) -> None:
        self.counters.TCPCongestionFallback += 1
        if name not in self._failed_algorithms:
            self._failed_algorithms.add(name)
            if self.on_algorithm_failure is not None:
                self.on_algorithm_failure(name, error)

    # Queries.

    @property
    def connections(self) -> Iterator[Connection]:
        """All connections but those in TIME_WAIT and those half open."""
        return (owner for owner in self.flows.values() if isinstance(owner, Connection))

    @property
    def has_output(self) -> bool:
        """Whether `poll_transmit` may have something."""
        return bool(self._dirty or self._replies or self._datagrams.output)

    def read_counters(self) -> dict[str, int]:
        """Return all counters by name, with what the device alone counts."""
        if self.octets is not None:
            self.counters.IpExtInOctets, self.counters.IpExtOutOctets = self.octets()
        return self.counters.as_dict()

    def next_deadline(self) -> int | None:
        """Return when `advance` must be called, None if nothing is due ever."""
        deadline = self.timers.next_deadline()
        fragments = self._datagrams.next_deadline()
        if deadline is None or (fragments is not None and fragments < deadline):
            return fragments
        return deadline

    # Input.

    def receive(self, batch: Batch, now: int) -> None:  # hot
        """Handle a batch from the device. Sinks are called in here, at the end of each segment."""
        flows = self.flows
        if self.neighbours is not None:
            batch.segments = self.neighbours.keep_ours(batch.segments, flows)
        gate = self.signatures if batch.has_options else self.signing
        segments = batch.segments
        packets = marked = 0
        for seg in segments:
            packets += seg.packets
            if seg.tos & 3:  # ecn.MASK
                marked += ecn.count_mark(self.counters, seg.tos, seg.packets)
            owner = flows.get(seg.flow)
            if gate is not None and not gate.admits(seg, owner, now):
                continue
            if owner is not None:
                owner.on_segment(seg, now)
            else:
                self._receive_unknown(seg, now)
        counters = self.counters
        received = len(segments)
        counters.TcpInSegs += packets
        counters.IpExtInNoECTPkts += packets - marked
        counters.IpInReceives += received
        counters.IpInDelivers += received
        if batch.packets or batch.checksum_errors or batch.header_errors:
            self._receive_others(batch, now)

    def _receive_others(self, batch: Batch, now: int) -> None:
        """Handle what a batch brought beside good segments."""
        counters = self.counters
        counters.IpInReceives += len(batch.packets) + batch.checksum_errors + batch.header_errors
        counters.IpInHdrErrors += batch.header_errors
        counters.IpInDelivers += batch.checksum_errors
        counters.TcpInSegs += batch.checksum_errors
        counters.TcpInErrs += batch.checksum_errors
        counters.TcpInCsumErrors += batch.checksum_errors
        for packet in batch.packets:
            self._datagrams.receive(packet, now)

    def receive_reassembled(self, seg: Segment, now: int) -> None:
        """Handle a segment that came in fragments."""
        owner = self.flows.get(seg.flow)
        if (seg.options or self.signing is not None) and not self.signatures.admits(seg, owner, now):
            return
        if owner is not None:
            owner.on_segment(seg, now)
        else:
            self._receive_unknown(seg, now)

    def _receive_unknown(self, seg: Segment, now: int) -> None:
        """A segment of no connection: a listener's, or one that is answered with RST (RFC 9293 3.10.7.1)."""
        flow = seg.flow
        n = (len(flow) - 4) >> 1  # octets of an address: unpack_flow, inlined
        src, dst = flow[:n], flow[n : n + n]
        if dst not in self._addresses or not is_host(src) or src in self._addresses:
            self.counters.IpInAddrErrors += 1
            self.counters.IpInDelivers -= 1  # `receive` counted it
            return
        listener = self.listeners.find(flow)
        if listener is not None:
            listener.on_segment(seg, now)
        else:
            self.reply_reset(seg)

    def advance(self, now: int) -> None:
        """Handle timers that are due, up to a bound; what is left is still due (`next_deadline`)."""
        self.timers.advance(now)
        self._datagrams.advance(now)

    # Output.

    def poll_transmit(self, now: int) -> Segment | bytes | None:  # hot
        """Return the next segment or IPv4 packet to send, None when there is nothing. Connections take turns."""
        while True:
            if self._replies:
                seg = self._replies.popleft()
                if self.signing is not None:
                    self.signing.sign(seg, now)
                self.counters.TcpOutSegs += 1
                self.counters.IpOutRequests += 1
                return seg
            if self._datagrams.output:  # which counts them itself, before they are cut
                return self._datagrams.poll_transmit()
            dirty = self._dirty
            while dirty:
                conn = dirty[0]
                signing = self.signing
                if signing is None:
                    out = self._poll(self, conn, now, self._max_payload)
                else:
                    out = self._poll(self, conn, now, signing.max_payload(conn, self._max_payload))
                    if out is not None:
                        signing.sign(out, now)
                if out is not None:
                    packets = -(-out.length // out.gso_size) if out.gso_size else 1
                    conn.segs_out += packets
                    counters = self.counters
                    if out.length:
                        conn.data_segs_out += packets
                        counters.TCPOrigDataSent += packets
                    counters.TcpOutSegs += packets
                    counters.IpOutRequests += 1
                    if self.is_drained:
                        dirty.popleft()
                        self._settle(conn, now)
                    elif len(dirty) > 1:
                        dirty.rotate(-1)
                    return out
                dirty.popleft()
                self._settle(conn, now)
            if not (self.writable and self.may_tell):
                return None
            # Last, so that an application that writes at once finds everything sent that could be.
            writable, self.writable = self.writable, []
            for conn in writable:
                if conn.was_writable and not conn.is_told:  # it may have written since
                    conn.sink.on_writable()

    def _settle(self, conn: Connection, now: int) -> None:  # hot
        """A connection has sent what was due, and is out of the queue."""
        conn.is_dirty = False
        queue = conn.tx.queue
        rx = conn.rx
        pages = (queue.end - queue.start + (rx.queued + rx.pieces_size if rx is not None else 0)) >> PAGE_SHIFT
        if pages != conn.pages or self.memory.is_pressed:
            self.memory.settle(conn, pages, now)
        if conn.is_orphan:
            self.orphans.on_quiet(conn, now)

    def emit(self, seg: Segment) -> None:
        """Queue a segment that no connection will be polled for. What a device that takes none lets pile up is lost, as on a full link."""
        if len(self._replies) >= REPLIES_MAX:
            self.counters.IpOutDiscards += 1
            return
        self._replies.append(seg)
        if self.on_dirty is not None:
            self.on_dirty()

    def reply_reset(self, seg: Segment) -> None:
        """Answer a segment with RST, unless it is one (RFC 9293 3.10.7.1); with its DSCP, as Linux does."""
        if seg.flags & RST:
            return
        self.counters.TcpOutRsts += 1
        flow = reverse_flow(seg.flow)
        tos = seg.tos & ~ecn.MASK
        if seg.flags & ACK:
            self.emit(Segment(flow, seg.ack, 0, RST, 0, tos=tos))
        else:
            end = (seg.seq + seg.length + bool(seg.flags & SYN) + bool(seg.flags & FIN)) & MASK
            self.emit(Segment(flow, 0, end, RST | ACK, 0, tos=tos))

    def on_connection_dirty(self, conn: Connection) -> None:  # hot
        """A connection may have output; it has set `is_dirty`."""
        self._dirty.append(conn)
        if self.on_dirty is not None:
            self.on_dirty()

    # Opening and closing.

    def listen(
        self,
        address: bytes,
        port: int,
        *,
        on_acceptable: Callable[[Listener], None],
        backlog: int = 128,
        options: SocketOptions | None = None,
        reuse_port: bool = False,
    ) -> Listener:
        """Listen on a port of an address (all zeros: of every address); port 0 chooses one.

        OSError EADDRNOTAVAIL for an address that is not ours, EADDRINUSE for a port that somebody listens on, or setsockopt(2)'s.
        """
        if address != ANY_IPV4 and address not in self._addresses:
            raise socket_error("EADDRNOTAVAIL")
        options = check_options(options or SocketOptions(), self.algorithms)
        port = self._ports.for_listener(address, port, options.reuseaddr, reuse_port)
        listener = Listener(self, address, port, backlog, options, on_acceptable, reuse_port)
        fastopen.enable(listener)
        self.listeners.add(listener)
        if listener.options.keys is not None:
            self.use_keys()
        return listener

    def connect(
        self,
        remote: bytes,
        remote_port: int,
        sink: Sink,
        now: int,
        *,
        local: bytes | None = None,
        local_port: int = 0,
        options: SocketOptions | None = None,
        data: bytes | memoryview | None = None,
    ) -> Connection:
        """Open a connection; the sink hears on_established, or on_closed with the reason.

        `data` is written at once, and rides on the SYN if Fast Open can be (MSG_FASTOPEN); what does not follows the handshake.

        OSError EADDRNOTAVAIL (local address not ours, no port free), EADDRINUSE (local port taken, see ports.py),
        ENETUNREACH (no such destination, or our own address), or setsockopt(2)'s.
        """
        if local is None or local == ANY_IPV4:
            local = self.config.addresses[0]
        if local not in self._addresses:
            raise socket_error("EADDRNOTAVAIL")
        if not is_host(remote) or not remote_port or remote in self._addresses:  # there is no loopback
            raise socket_error("ENETUNREACH")

        options = check_options(options or SocketOptions(), self.algorithms)
        is_own_port = local_port != 0
        local_port = self._ports.for_connection(local, local_port, remote, remote_port, options.reuseaddr, now)
        flow = pack_flow(local, local_port, remote, remote_port)
        old = self.flows.get(reverse_flow(flow))
        iss = take_over(old) if isinstance(old, TimeWait) else self.isn.isn(flow, now)
        conn = Connection(self, flow, reverse_flow(flow), iss, self.isn.ts_offset(flow), options, sink)
        self.adopt(conn)
        if is_own_port:
            self._ports.keep(conn)
        self.counters.TcpActiveOpens += 1
        if options.keys is not None:
            self.use_keys()
        if self.signing is not None:
            self.signing.open(conn, now)
        fastopenclient.begin(conn, data is not None, now)
        open_active(conn, now)
        if data:
            conn.send(data, now)
        return conn

    def adopt(self, conn: Connection) -> None:
        """Route the four-tuple of a connection to it."""
        self.flows[conn.flow_in] = conn
        self.path_mtu.join(conn)

    def forget(self, conn: Connection) -> None:
        """A connection is over: its four-tuple is free, if no entry has taken its place, and what it held is given back."""
        if self.flows.get(conn.flow_in) is conn:
            del self.flows[conn.flow_in]
        if conn.is_orphan:
            self.orphans.discard(conn)
        if conn.pages:
            self.memory.release(conn)
        if self.memory.is_pressed:
            conn.mark_dirty()  # somebody must judge whether it still is; nothing else may happen for long
        self._ports.release(conn)

    def abort_all(self, now: int) -> None:
        """Close every listener and reset every connection; their sinks hear nothing."""
        for listener in list(self.listeners):
            listener.close(now)
        for owner in list(self.flows.values()):
            if isinstance(owner, FinWait2):
                owner.reset()
            elif isinstance(owner, Connection) and owner.state is not CLOSED:
                abort(owner, now)
