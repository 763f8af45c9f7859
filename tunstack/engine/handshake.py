"""What two SYNs agree on, and how a SYN of ours looks.

RFC 9293 3.7.1 (MSS), RFC 7323 2 and 3 (window scale, timestamps), RFC 2018 2. Option values and the first window are Linux's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunstack.engine import usertimeout
from tunstack.engine.config import IPV4_HEADER, TCP_HEADER, TIMESTAMP_OPTION
from tunstack.engine.receivewindow import RATIO_DEFAULT, RATIO_ONE, RCVBUF_MIN, WINDOW_MAX
from tunstack.engine.sender import MSS_DEFAULT
from tunstack.wire.segment import Segment

if TYPE_CHECKING:
    from tunstack.engine.options import SocketOptions
    from tunstack.engine.sysctl import Sysctl

WSCALE_MAX = 14
KINDS_MAX = 1024  # of agreements that are shared; who makes up more has an object for each connection


class Offer(NamedTuple):
    """What a SYN of ours offered: the knobs of that name as they were then, for they may be others when the answer comes."""

    tcp_timestamps: bool
    tcp_sack: bool
    tcp_window_scaling: bool


class Agreed:
    """The options that both SYNs carried."""

    __slots__ = (
        "ecn_ok",
        "is_scaled",
        "mss",
        "rcv_wscale",
        "sack_ok",
        "signature_octets",
        "snd_wscale",
        "ts_ok",
        "user_timeout",
    )

    def __init__(self, syn: Segment, sysctl: Sysctl | Offer, rcv_wscale: int) -> None:
        self.mss = syn.mss if syn.mss else MSS_DEFAULT  # what the peer takes
        self.ts_ok = sysctl.tcp_timestamps and syn.ts_val is not None
        self.sack_ok = sysctl.tcp_sack and syn.sack_ok
        self.signature_octets = 0  # of options that sign every later segment (signature.py)
        self.ecn_ok = False  # ecn.py; set by who knows which side asked
        self.user_timeout = usertimeout.decode(syn.options) if syn.options else 0  # s, as the UTO option says; 0: there was none
        self.is_scaled = scaled = sysctl.tcp_window_scaling and syn.wscale is not None
        self.snd_wscale = min(syn.wscale or 0, WSCALE_MAX) if scaled else 0  # of the windows that come
        self.rcv_wscale = rcv_wscale if scaled else 0  # of the windows that go, as our SYN has it

    @property
    def option_octets(self) -> int:
        """Octets of options in every later segment."""
        return (TIMESTAMP_OPTION if self.ts_ok else 0) + self.signature_octets


class Agreements:
    """What connections agreed on, each kind once: those of like peers are alike, and need no object each."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Agreed] = {}

    def share(self, agreed: Agreed) -> Agreed:
        """Return an object that agrees in all."""
        key = (
            agreed.mss,
            agreed.ts_ok,
            agreed.sack_ok,
            agreed.signature_octets,
            agreed.ecn_ok,
            agreed.user_timeout,
            agreed.is_scaled,
            agreed.snd_wscale,
            agreed.rcv_wscale,
        )
        known = self._known.get(key)
        if known is None:
            known = agreed
            if len(self._known) < KINDS_MAX:
                self._known[key] = agreed
        return known


def window_scale(options: SocketOptions, sysctl: Sysctl) -> int:
    """Return the shift that Linux announces for the largest receive buffer (M-10): the least with which it is below 2^16 windows.

    A buffer just below a power of two is short of its last octets then. Deviates: net.core.rmem_max, which Linux also looks at, counts
    only where SO_RCVBUF is set: a program that tunes tcp_rmem finds the scale that belongs to it.
    """
    rcvbuf, largest = buffer_limits(options, sysctl)
    space = largest if largest > rcvbuf or options.rcvbuf is None else window_space(rcvbuf)
    if options.window_clamp:
        space = min(space, options.window_clamp)
    return min(max(space.bit_length() - 16, 0), WSCALE_MAX)


def local_mss(mtu: int, options: SocketOptions) -> int:
    """Return the MSS to announce (RFC 9293 3.7.1: the MTU less fixed headers, whatever options there will be)."""
    mss = mtu - IPV4_HEADER - TCP_HEADER
    return min(mss, options.maxseg) if options.maxseg is not None else mss


def buffer_limits(options: SocketOptions, sysctl: Sysctl) -> tuple[int, int]:
    """Return (first size, largest size) of the receive buffer, in memory. SO_RCVBUF, doubled, fixes it."""
    if options.rcvbuf is not None:
        size = max(2 * options.rcvbuf, RCVBUF_MIN)
        return size, size
    return sysctl.tcp_rmem[1], max(sysctl.tcp_rmem[2], sysctl.tcp_rmem[1]) if sysctl.tcp_moderate_rcvbuf else sysctl.tcp_rmem[1]


def window_space(rcvbuf: int) -> int:
    """Return the window that a buffer gives before anything was received."""
    return rcvbuf * RATIO_DEFAULT // RATIO_ONE


def first_window(options: SocketOptions, sysctl: Sysctl, mss: int) -> int:
    """Return the window of our SYN: what fits its unscaled field, whole segments."""
    space = window_space(buffer_limits(options, sysctl)[0])
    if options.window_clamp:
        space = min(space, options.window_clamp)
    window = space - space % mss if space > mss else space
    return min(window, WINDOW_MAX)


def make_syn(flow: bytes, seq: int, ack: int, flags: int, window: int, mss: int, wscale: int | None,
             sack_ok: bool, ts_val: int | None, ts_ecr: int, tos: int, options: bytes = b"") -> Segment:  # fmt: skip
    """Return a SYN or SYN-ACK; options that are None or False are left out, `options` are further ones."""
    return Segment(flow, seq, ack, flags, window, (), 0, ts_val, ts_ecr, 0, (), mss, wscale, sack_ok, options, tos)
