"""SYN cookies: what a listener agrees to without keeping anything of it (M-26).

RFC 4987 3.6. What the SYN said goes out with the answer and comes back with the third segment: the MSS, as one of a few values, in our
initial sequence number; window scale, SACK and ECN in the low bits of the TSval, where there are timestamps, else they are not agreed
upon. Lifetimes are Linux's. The secret is injected, and the minutes are those of `now`: workers with the same secret and
clock answer for each other. Times are int microseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2s
from struct import Struct
from typing import TYPE_CHECKING

from tunstack.engine import ecn
from tunstack.engine.config import TIMESTAMP_OPTION
from tunstack.engine.handshake import WSCALE_MAX, Agreed, first_window, local_mss, make_syn, window_scale
from tunstack.engine.sender import MSS_DEFAULT
from tunstack.seq import MASK
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, ECE, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.halfopen import HalfOpen
    from tunstack.engine.listener import Listener

PERIOD = 60_000_000  # us: the count in a cookie goes up so often
AGE_MAX = 2  # periods: a cookie is good in that in which it was made and in the next
COUNT_SHIFT = 24
HASH_MASK = (1 << COUNT_SHIFT) - 1
# Ascending; the largest that the peer takes is agreed upon. Linux has the last four, and sends 536 octets to who takes fewer.
MSS_VALUES = (48, 256, 536, 1300, 1440, 1460)

_MOMENT = Struct(">Iq")  # ISN, minute

# Low bits of the timestamp.
TS_WSCALE = 15  # the peer's shift; all ones: it does not scale
TS_SACK = 16
TS_ECN = 32
TS_MASK = 63


class SynCookies:
    """Makes and reads cookies: initial sequence numbers that nobody without the secret can guess."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = blake2s(secret, person=b"cookie").digest()

    def make(self, flow: bytes, irs: int, index: int, now: int) -> int:
        """Return the cookie for a SYN of this flow (as it came) and ISN, with an index into MSS_VALUES.

        It grows from minute to minute, as initial sequence numbers must: irs + hash + (minute << 24) + a hash that changes by the minute,
        and with the ISN: else any later segment would do that is as far from it as from ours (an echo's, the last ACK's), as in Linux.
        """
        minute = now // PERIOD
        changing = (self._hash(flow, irs, minute) + index) & HASH_MASK
        return (irs + self._hash(flow, 0, -1) + (minute << COUNT_SHIFT) + changing) & MASK

    def read(self, flow: bytes, irs: int, cookie: int, now: int) -> int | None:
        """Return the index that a cookie holds, None if it is forged or stale."""
        minute = now // PERIOD
        rest = (cookie - irs - self._hash(flow, 0, -1)) & MASK
        age = (minute - (rest >> COUNT_SHIFT)) & MASK >> COUNT_SHIFT
        if age >= AGE_MAX:
            return None
        index = (rest - self._hash(flow, irs, minute - age)) & HASH_MASK
        return index if index < len(MSS_VALUES) else None

    def _hash(self, flow: bytes, irs: int, minute: int) -> int:
        # The key stands before the message: BLAKE2 allows that, and it costs a third of its own keyed mode.
        return int.from_bytes(blake2s(self._secret + flow + _MOMENT.pack(irs, minute)).digest()[:4], "big")


def answer(listener: Listener, syn: Segment, now: int) -> None:  # hot
    """Answer a SYN with a cookie: nothing of it stays."""
    stack = listener.stack
    sysctl = stack.sysctl
    options = listener.options
    flow = reverse_flow(syn.flow)
    ecn_ok = sack_ok = False
    ts_val = wscale = None
    signature_octets = 0
    has_ts = syn.ts_val is not None and sysctl.tcp_timestamps
    if stack.signing is not None:  # a signature may leave no room for timestamps
        agreed = Agreed(syn, sysctl, 0)
        stack.signing.agree(syn.flow, agreed)
        has_ts = agreed.ts_ok
        signature_octets = agreed.signature_octets
    if has_ts:
        hint = TS_WSCALE
        if syn.wscale is not None and sysctl.tcp_window_scaling:
            hint = min(syn.wscale, WSCALE_MAX)
            wscale = window_scale(options, sysctl)
        if syn.sack_ok and sysctl.tcp_sack:
            sack_ok = True
            hint |= TS_SACK
        if ecn.agrees_to_syn(syn, sysctl):
            ecn_ok = True
            hint |= TS_ECN
        clock = now // 1000
        stamp = clock & ~TS_MASK | hint
        if stamp > clock:  # never ahead: what the connection sends later must be newer
            stamp -= TS_MASK + 1
        ts_val = (stamp + stack.isn.ts_offset(flow)) & MASK
    index = max(bisect_right(MSS_VALUES, syn.mss or MSS_DEFAULT) - 1, 0)
    mss = local_mss(stack.path_mtu.get(flow), options)
    stack.counters.SyncookiesSent += 1
    listener.group.cookies_until = now + AGE_MAX * PERIOD
    stack.emit(
        make_syn(
            flow,
            stack.cookies.make(syn.flow, syn.seq, index, now),
            (syn.seq + 1) & MASK,
            SYN | ACK | ECE if ecn_ok else SYN | ACK,
            _window(listener, signature_octets + (TIMESTAMP_OPTION if has_ts else 0)),
            mss,
            wscale,
            sack_ok,
            ts_val,
            syn.ts_val or 0,
            syn.tos & ~ecn.MASK if sysctl.tcp_reflect_tos else options.tos,
        )
    )


def complete(listener: Listener, seg: Segment, now: int, entry: HalfOpen | None = None) -> bool:
    """Make the connection whose third segment this is by its cookie; False if it is not, and is to be answered with RST.

    `entry` is what a later SYN of the same four-tuple, that found a place in the queue, has left there; the connection takes its place.
    Only looked at while cookies that were sent may still come back: else each ACK from nowhere would be a try at guessing one.
    """
    stack = listener.stack
    sysctl = stack.sysctl
    if not sysctl.tcp_syncookies or now > listener.group.cookies_until or seg.flags & (SYN | RST | ACK) != ACK:
        return False
    irs = (seg.seq - 1) & MASK
    iss = (seg.ack - 1) & MASK
    index = stack.cookies.read(seg.flow, irs, iss, now)
    if index is None:
        stack.counters.SyncookiesFailed += 1
        return False
    stack.counters.SyncookiesRecv += 1
    flow = reverse_flow(seg.flow)
    syn = Segment(seg.flow, irs, 0, SYN, 0, mss=MSS_VALUES[index])  # as much of it as has come back
    ecn_ok = False
    if seg.ts_val is not None:
        hint = (seg.ts_ecr - stack.isn.ts_offset(flow)) & TS_MASK
        if hint & TS_WSCALE != TS_WSCALE:
            syn.wscale = hint & TS_WSCALE
        syn.sack_ok = bool(hint & TS_SACK)
        syn.ts_val = seg.ts_val
        ecn_ok = bool(hint & TS_ECN and sysctl.tcp_ecn)
        if not sysctl.tcp_timestamps or (syn.sack_ok and not sysctl.tcp_sack) or (syn.wscale is not None and not sysctl.tcp_window_scaling):
            return False  # we promised what is switched off now
    if not listener.is_overflown():
        agreed = Agreed(syn, sysctl, window_scale(listener.options, sysctl))
        agreed.ecn_ok = ecn_ok
        if stack.signing is not None:
            stack.signing.agree(seg.flow, agreed)
        if entry is not None:
            entry.listener.drop(entry)
        conn = listener.make_connection(flow, seg.flow, iss, stack.isn.ts_offset(flow))
        window = _window(listener, agreed.option_octets)
        sent_at = 0  # we do not know
        listener.establish(conn, seg, irs, agreed, seg.ts_val or 0, window, sent_at, seg.tos & ~ecn.MASK, now)
    return True


def _window(listener: Listener, option_octets: int) -> int:
    """Return the window that the SYN-ACK advertised, or does: of the interface's MTU, the path's may be another by the third segment."""
    options, stack = listener.options, listener.stack
    return first_window(options, stack.sysctl, local_mss(stack.config.mtu, options) - option_octets)
