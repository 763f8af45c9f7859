"""What a listener offers: all that its options, the knobs and the path's MTU come to, worked out once for all that connect.

RFC 9293 3.7.1 (MSS), RFC 7323 2 (window scale), RFC 5482 (user timeout). Lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import ecn, sendbuffer, usertimeout
from tunstack.engine.config import IPV4_HEADER, TCP_HEADER
from tunstack.engine.handshake import KINDS_MAX, Agreed, buffer_limits, first_window, local_mss, window_scale
from tunstack.engine.receiver import ReceiveTerms
from tunstack.engine.retransmission import uses_probes
from tunstack.engine.sender import effective_mss
from tunstack.engine.timers import NEVER

if TYPE_CHECKING:
    from tunstack.engine.options import SocketOptions
    from tunstack.engine.stack import Stack
    from tunstack.engine.sysctl import Sysctl
    from tunstack.wire.segment import Segment


class Kind:
    """What peers whose SYNs are alike agree on with a listener, and what follows of that for their connections. Never changed."""

    __slots__ = ("agreed", "can_probe", "initial_cwnd", "is_common", "mss", "receive", "sndbuf", "terms", "window")

    def __init__(self, terms: Terms, agreed: Agreed, options: SocketOptions, sysctl: Sysctl, mtu: int, is_common: bool) -> None:
        octets = agreed.option_octets
        self.terms = terms
        self.agreed = agreed
        self.is_common = is_common  # one object for all of the kind; else a peer's own, with options out of the ordinary
        self.window = first_window(options, sysctl, terms.mss - octets)  # of the SYN-ACK
        self.receive = receive_terms(options, sysctl, terms.mss - octets, self.window, agreed.rcv_wscale)
        self.mss = effective_mss(agreed.mss, mtu - IPV4_HEADER - TCP_HEADER, options.maxseg, sysctl.tcp_min_snd_mss, octets)
        self.sndbuf = sendbuffer.flight_limit(options.sndbuf, sysctl)
        self.can_probe = uses_probes(agreed.sack_ok, sysctl)  # tail loss probes
        self.initial_cwnd = sysctl.tcp_initial_cwnd * self.mss


class Terms:
    """What is offered, as long as `are_current`."""

    __slots__ = ("_kinds", "_mtu", "_options", "_sysctl", "_version", "mss", "rcv_wscale", "user_timeout")

    def __init__(self, options: SocketOptions, sysctl: Sysctl, mtu: int) -> None:
        self._options = options
        self._sysctl = sysctl
        self._version = sysctl.version
        self._mtu = mtu
        self._kinds: dict[tuple[object, ...], Kind] = {}  # by what matters of a SYN
        self.mss = local_mss(mtu, options)
        self.rcv_wscale = window_scale(options, sysctl)
        self.user_timeout = usertimeout.option_for(options, sysctl)  # the option, empty if there is none

    def are_current(self, options: SocketOptions, mtu: int) -> bool:
        """Whether nothing has changed since that they come from."""
        return self._options is options and self._mtu == mtu and self._version == self._sysctl.version

    def kind(self, syn: Segment, stack: Stack) -> Kind:
        """Return what a SYN comes to."""
        if syn.options or stack.signing is not None:
            return self._make(syn, stack, False)
        key = (syn.mss, syn.wscale, syn.sack_ok, syn.ts_val is None, syn.flags, syn.tos & ecn.MASK)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._make(syn, stack, True)
            if len(self._kinds) < KINDS_MAX:
                self._kinds[key] = kind
        return kind

    def _make(self, syn: Segment, stack: Stack, is_common: bool) -> Kind:
        agreed = Agreed(syn, self._sysctl, self.rcv_wscale)
        agreed.ecn_ok = ecn.agrees_to_syn(syn, self._sysctl)
        if stack.signing is not None:
            stack.signing.agree(syn.flow, agreed)
        elif is_common:
            agreed = stack.agreements.share(agreed)
        return Kind(self, agreed, self._options, self._sysctl, self._mtu, is_common)


def receive_terms(options: SocketOptions, sysctl: Sysctl, mss: int, window: int, wscale: int) -> ReceiveTerms:
    """Return what a receiver begins with whose SYN offered `window`; `mss` is the peer's to us, options taken off."""
    rcvbuf, largest = buffer_limits(options, sysctl)
    return ReceiveTerms(window, rcvbuf, largest, options.window_clamp or NEVER, wscale, mss)
