"""The gate that signed connections stand behind: every segment is judged here before anybody sees it, and signed before it leaves.

RFC 5925 7.1 to 7.5, RFC 2385, in the order and under the counters of Linux (tcp_inbound_hash). Signers stand in a table of their own, by
flow, and serve whatever is at that four-tuple: half-open connection, connection, TIME-WAIT. So connections that nobody signs, nearly all,
pay for nothing: the stack comes here only once there is a key, or for a batch in which some segment has options out of the ordinary.
Times are int microseconds.
"""

from __future__ import annotations

import errno
from copy import copy
from typing import TYPE_CHECKING

from tunstack.engine.ao import AoSigner
from tunstack.engine.errors import socket_error
from tunstack.engine.keys import KeyChain
from tunstack.engine.md5sig import Md5Signer
from tunstack.engine.pathmss import sync_mss
from tunstack.engine.signing import Signer
from tunstack.engine.state import SYN_RECEIVED, SYN_SENT
from tunstack.engine.timers import NEVER
from tunstack.engine.timewait import TimeWait
from tunstack.seq import MASK
from tunstack.wire import signed
from tunstack.wire.flow import reverse_flow, unpack_flow
from tunstack.wire.segment import ACK, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.handshake import Agreed
    from tunstack.engine.icmp import PathError
    from tunstack.engine.stack import Stack

SWEEP_MIN = 64  # signers; with fewer none is looked for that serves nobody, until it is time
SWEEP_AFTER = 60_000_000  # us after the first: what stays secret need not stay in memory
# ICMP that names protocol, port or MTU (destination unreachable, codes 2 to 4): anybody could end or slow a connection by it.
ICMP_IGNORED = frozenset((errno.ENOPROTOOPT, errno.ECONNREFUSED, errno.EMSGSIZE))


class Signatures:
    """A stack's signers, and the keys that it has for all of its sockets.

    The keys of a socket (`SocketOptions.keys`) go before the stack's, where any of them is for the peer. Call order: `open` when a
    connection of ours begins; `admits` for every segment that comes, `sign` for every one that leaves. A signer whose four-tuple is
    nobody's any more is forgotten now and then, or when it is needed anew.
    """

    __slots__ = ("_incoming", "_outgoing", "_stack", "_sweep_at", "_sweep_count", "heap_at", "keys")

    def __init__(self, stack: Stack) -> None:
        self.keys = KeyChain()  # for every socket
        self._stack = stack
        self._incoming: dict[bytes, Signer] = {}  # by the flow of incoming segments
        self._outgoing: dict[bytes, Signer] = {}  # the same, by the flow of outgoing ones
        self._sweep_count = SWEEP_MIN  # signers at which those that serve nobody are looked for
        self._sweep_at = NEVER  # when they are in any case
        self.heap_at = NEVER

    def __len__(self) -> int:
        return len(self._incoming)

    # Segments.

    def admits(self, seg: Segment, owner: object | None, now: int) -> bool:
        """Whether a segment may be seen by who has its four-tuple (`Stack.flows`), or by a listener if nobody has."""
        if owner is None:
            return self._admits_stranger(seg, now)
        signer = self._incoming.get(seg.flow)
        if type(owner) is TimeWait and seg.flags & (SYN | ACK | RST) == SYN:
            return self._admits_successor(seg, signer, now)
        return self._admits_by(signer, seg, now)

    def _admits_by(self, signer: Signer | None, seg: Segment, now: int) -> bool:
        if signer is None:
            return not seg.options or self._is_unsigned(seg)
        return signer.admits(seg, signed.find(seg.options), now)

    def _admits_successor(self, seg: Segment, signer: Signer | None, now: int) -> bool:
        """A SYN that may take a four-tuple out of TIME-WAIT: the listener's keys of today judge it, whatever the old connection had.

        Until it does, and if it does not, TIME-WAIT answers under the old ISNs.
        """
        listener = self._stack.listeners.find(seg.flow)
        chain = listener.options.keys if listener is not None else None
        fresh = self._make(chain, reverse_flow(seg.flow), 0, seg.seq)
        if fresh is None:
            if chain is not None and chain.is_required:
                self._stack.counters.TCPAORequired += 1
                return False
            return self._admits_by(signer, seg, now)
        if not fresh.admits(seg, signed.find(seg.options), now):
            return False
        if isinstance(signer, AoSigner) and isinstance(fresh, AoSigner):
            signer.renew(fresh)
        else:
            self._drop(seg.flow)
            self._hold(seg.flow, fresh, now)
        return True

    def _admits_stranger(self, seg: Segment, now: int) -> bool:
        """A segment of no connection: the keys are its listener's, or the stack's (those of a port that is closed)."""
        signer = held = self._incoming.get(seg.flow)
        if signer is None or seg.flags & SYN:
            listener = self._stack.listeners.find(seg.flow)
            flow = reverse_flow(seg.flow)
            if seg.flags & SYN:
                iss, irs = 0, seg.seq  # as a RST has it that answers; a SYN-ACK brings its own
            else:
                iss, irs = (seg.ack - 1) & MASK, (seg.seq - 1) & MASK  # as a SYN cookie has it
            chain = listener.options.keys if listener is not None else None
            signer = self._make(chain, flow, iss, irs)
            if signer is None and chain is not None and chain.is_required:
                self._stack.counters.TCPAORequired += 1
                return False
        if not self._admits_by(signer, seg, now):
            return False
        if signer is not held:  # not before it is admitted: an answer under the one that is held may be on its way
            self._drop(seg.flow)
            if signer is not None:
                self._hold(seg.flow, signer, now)
        return True

    def _is_unsigned(self, seg: Segment) -> bool:
        """Whether a segment for which there is no key has no signature either; else it is counted and dropped (RFC 5925 7.3)."""
        option = signed.find(seg.options)
        if option.kind == signed.MD5:
            self._stack.counters.TCPMD5Unexpected += 1
        elif option.kind == signed.AO:
            self._stack.counters.TCPAOKeyNotFound += 1
        else:
            return True  # the options that cannot be read are no concern of one who has no keys
        return False

    def sign(self, seg: Segment, now: int) -> None:
        """Sign a segment that leaves, if its connection is signed."""
        signer = self._outgoing.get(seg.flow)
        if signer is not None:
            signer.sign(seg, now)

    def max_payload(self, conn: Connection, max_payload: int) -> int:
        """Return how many octets of data may leave at once: no more than a packet's where each is signed."""
        return min(max_payload, conn.tx.mss_now) if conn.flow in self._outgoing else max_payload

    def ignores(self, error: PathError, owner: object) -> bool:
        """Whether an ICMP error about a synchronized connection is not to be believed (RFC 5925 7.8)."""
        signer = self._outgoing.get(error.flow)
        if not isinstance(signer, AoSigner) or signer.chain.accept_icmps or error.errno not in ICMP_IGNORED:
            return False
        if getattr(owner, "state", SYN_RECEIVED) in (SYN_SENT, SYN_RECEIVED):  # what has no state is half open, or does not care
            return False
        self._stack.counters.TCPAODroppedIcmps += 1
        signer.icmps_dropped += 1
        return True

    # Connections.

    def open(self, conn: Connection, now: int) -> None:
        """A connection of ours begins: it is signed from its SYN on if there is a key for the peer."""
        self._drop(conn.flow_in)
        signer = self._make(conn.options.keys, conn.flow, conn.tx.iss, None)
        if signer is not None:
            self._hold(conn.flow_in, signer, now)

    def agree(self, flow_in: bytes, agreed: Agreed) -> None:
        """Take the room of a signature out of what two SYNs agreed on.

        MD5 leaves none for SACK blocks beside timestamps: SACK is worth more (Linux).
        """
        signer = self._incoming.get(flow_in)
        if signer is not None:
            agreed.signature_octets = signer.octets
            if not signer.is_ao and agreed.sack_ok:
                agreed.ts_ok = False

    def get(self, conn: Connection) -> Signer | None:
        """Return a connection's signer, None where it is not signed."""
        return self._outgoing.get(conn.flow)

    def rekey(self, conn: Connection, now: int) -> None:
        """The keys of a connection's socket are others now.

        MD5 may begin and end at any time, as with Linux; TCP-AO only with the connection (RFC 5925 7.1): OSError EINVAL.
        """
        was = self._incoming.get(conn.flow_in)
        signer = self._make(conn.options.keys, conn.flow, conn.tx.iss, conn.rx.irs if conn.rx is not None else None)
        if isinstance(was, AoSigner) or isinstance(signer, AoSigner):
            if not (isinstance(was, AoSigner) and isinstance(signer, AoSigner)):
                raise socket_error("EINVAL")
            was.chain = signer.chain
            was.forget_keys()
            return
        self._drop(conn.flow_in)
        if signer is not None:
            self._hold(conn.flow_in, signer, now)
        if conn.agreed is not None:
            agreed = copy(conn.agreed)  # other connections may share it
            agreed.signature_octets = signer.octets if signer is not None else 0
            conn.agreed = self._stack.agreements.share(agreed)
            sync_mss(conn)

    def _make(self, chain: KeyChain | None, flow: bytes, iss: int, irs: int | None) -> Signer | None:
        """Return a signer for an outgoing flow, None where no key is for it."""
        _, sport, peer, dport = unpack_flow(flow)
        ports = sport, dport
        for each in (chain.copy() if chain is not None else None, self.keys):
            keys = each.matching(peer, ports) if each is not None else ()
            if each is not None and keys:
                if keys[0].is_ao:
                    return AoSigner(each, flow, peer, ports, iss, irs, self._stack.counters)
                return Md5Signer(each, peer, ports, self._stack.counters)
        return None

    def _hold(self, flow_in: bytes, signer: Signer, now: int) -> None:
        if len(self._incoming) >= self._sweep_count:
            self._sweep()
        self._incoming[flow_in] = signer
        self._outgoing[reverse_flow(flow_in)] = signer
        if self._sweep_at == NEVER:
            self._sweep_at = now + SWEEP_AFTER
            self._stack.timers.arm(self, self._sweep_at)

    def _sweep(self) -> None:
        """Forget those that serve nobody; not while something waits to leave, which may be the answer of such a one."""
        if self._stack.has_output:
            return
        flows = self._stack.flows
        for flow in [flow for flow in self._incoming if flow not in flows]:
            self._drop(flow)
        self._sweep_count = max(SWEEP_MIN, 2 * len(self._incoming))

    def next_deadline(self) -> int:
        """Return when those that serve nobody are looked for, NEVER without any."""
        return self._sweep_at

    def on_timer(self, now: int) -> None:
        """It is time to look for them."""
        self._sweep()
        self._sweep_at = now + SWEEP_AFTER if self._incoming else NEVER

    def _drop(self, flow_in: bytes) -> None:
        if self._incoming.pop(flow_in, None) is not None:
            del self._outgoing[reverse_flow(flow_in)]
