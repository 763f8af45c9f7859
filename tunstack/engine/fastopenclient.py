"""Fast Open, the client's side: cookies remembered by destination, and data that rides on the SYN.

RFC 7413 4.2, with Linux's ways: the data fits the MSS that the server told last; a SYN that is sent again has neither cookie nor data;
what the SYN-ACK does not acknowledge is sent again at once; three timeouts in a row, where tcp_fastopen_blackhole_timeout_sec is set, turn
Fast Open off for a while. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import chrono
from tunstack.engine.ackpolicy import DELACK_MIN
from tunstack.engine.config import IPV4_HEADER, TCP_HEADER
from tunstack.engine.fastopencookie import CLIENT, CLIENT_NO_COOKIE, Cookie, attach, decode, encode
from tunstack.engine.state import SECOND
from tunstack.seq import MASK
from tunstack.wire.segment import SYN, Segment
from tunstack.wire.tcp import MAX_OPTIONS

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.counters import Counters
    from tunstack.engine.options import SocketOptions
    from tunstack.engine.stack import Stack
    from tunstack.engine.sysctl import Sysctl

REMEMBERED_MAX = 4096  # destinations; the one that was not used for longest is forgotten
MULTIPLIER_MAX = 6  # the pause after a black hole doubles so often
ENOUGH_TIMEOUTS = 3  # in a row, for a black hole

# tcpi_fastopen_client_fail
COOKIE_UNAVAILABLE = 1
DATA_NOT_ACKED = 2
SYN_RETRANSMITTED = 3

# Which option asks for a cookie that RFC 7413's was no answer to.
TRY_EXPERIMENTAL = 1
TRY_NO_MORE = 2


class Remembered:
    """What is known of a destination."""

    __slots__ = ("cookie", "mss", "try_option")

    def __init__(self) -> None:
        self.mss = 0  # what its last SYN-ACK announced
        self.cookie = Cookie(b"", False)
        self.try_option = 0  # TRY_EXPERIMENTAL, TRY_NO_MORE, or 0: RFC 7413's


class Cookies:
    """The cookies of a stack, and whether Fast Open is off for a while."""

    __slots__ = ("_counters", "_known", "_sysctl", "disabled_at", "disabled_times")

    def __init__(self, sysctl: Sysctl, counters: Counters) -> None:
        self._sysctl = sysctl
        self._counters = counters
        self._known: dict[bytes, Remembered] = {}  # by our address and the destination's; the last used at the end
        self.disabled_at = 0  # last black hole
        self.disabled_times = 0  # black holes since data last came on a connection that used it

    def find(self, flow: bytes) -> Remembered | None:
        """Return what is known of the destination of a flow."""
        known = self._known.pop(flow[:8], None)
        if known is not None:
            self._known[flow[:8]] = known
        return known

    def remember(self, flow: bytes, mss: int, cookie: Cookie | None, try_option: int) -> None:
        """Take over what a SYN-ACK said: its MSS, its cookie if it had one; `try_option` is for next time."""
        known = self.find(flow)
        if known is None:
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            known = self._known[flow[:8]] = Remembered()
        known.mss = mss
        if cookie is not None and cookie.value:
            known.cookie = cookie
        elif try_option > known.try_option and not known.cookie.value:
            known.try_option = try_option

    def forget(self) -> None:
        """Forget every destination (`ip tcp_metrics flush`)."""
        self._known.clear()

    def disable(self, now: int) -> None:
        """A black hole was met."""
        if self._sysctl.tcp_fastopen_blackhole_timeout_sec:
            self.disabled_at = now
            self.disabled_times += 1
            self._counters.TCPFastOpenBlackhole += 1

    def is_disabled(self, now: int) -> bool:
        """Whether the pause after a black hole lasts."""
        pause = self._sysctl.tcp_fastopen_blackhole_timeout_sec * SECOND << min(max(self.disabled_times - 1, 0), MULTIPLIER_MAX)
        return bool(self.disabled_times and pause) and now < self.disabled_at + pause


class Attempt:
    """What a connection has that is to open fast."""

    __slots__ = ("asked", "client_fail", "is_deferred", "is_experimental", "is_sent", "is_test", "syn_data", "syn_octets")

    def __init__(self) -> None:
        self.is_deferred = False  # the SYN waits for the first write (TCP_FASTOPEN_CONNECT)
        self.is_sent = False  # it left, and if it must leave again it goes bare
        self.asked = False  # it had the option, with a cookie or asking for one ...
        self.is_experimental = False  # ... the experimental one
        self.is_test = False  # it is the first after a pause for a black hole
        self.syn_octets = 0  # data in it
        self.syn_data = False  # all of that was acknowledged by the SYN-ACK (TCPI_OPT_SYN_DATA)
        self.client_fail = 0  # what tcpi_fastopen_client_fail says

    def on_timeout(self, conn: Connection, now: int) -> None:
        """The connection met a timeout, `conn.retransmits` in a row now."""
        if self.asked and conn.retransmits == ENOUGH_TIMEOUTS:
            conn.stack.fastopen_cookies.disable(now)

    def on_over(self, conn: Connection, error: OSError | None, now: int) -> None:
        """The connection is over, or in TIME_WAIT: was it a black hole, or proof that there is none any more?"""
        if not self.asked:
            return
        cookies = conn.stack.fastopen_cookies
        if isinstance(error, TimeoutError) and 0 < conn.retransmits < ENOUGH_TIMEOUTS:
            cookies.disable(now)
        elif conn.data_segs_in:
            if self.is_test:
                cookies.disabled_times = 0
        elif conn.rx is not None and len(conn.rx.pieces) == 1 and conn.rx.pieces[0].fin:
            cookies.disable(now)  # a FIN beyond a hole, and never the data before it: a box on the path eats that


def begin(conn: Connection, is_asked: bool, now: int) -> None:
    """A connection opens: fast, if the application asks for that (`is_asked`, or TCP_FASTOPEN_CONNECT) and tcp_fastopen allows it."""
    options = conn.options
    sysctl = conn.stack.sysctl
    if sysctl.tcp_fastopen & CLIENT and (is_asked or options.fastopen_connect):
        conn.fastopen = Attempt()
        conn.fastopen.is_deferred = not is_asked and may_carry(conn.stack, conn.flow, options, now)


def may_carry(stack: Stack, flow: bytes, options: SocketOptions, now: int) -> bool:
    """Whether a SYN of this flow may carry data now: a cookie is known, or none is needed."""
    if stack.fastopen_cookies.is_disabled(now):
        return False
    if stack.sysctl.tcp_fastopen & CLIENT_NO_COOKIE or options.fastopen_no_cookie:
        return True
    known = stack.fastopen_cookies.find(flow)
    return known is not None and bool(known.cookie.value)


def room(stack: Stack, flow: bytes, options: SocketOptions, now: int) -> int:
    """Return how much data such a SYN may carry: the least of the path's, the server's and TCP_MAXSEG's MSS, less all options."""
    if not may_carry(stack, flow, options, now):
        return 0
    mss = stack.path_mtu.get(flow) - IPV4_HEADER - TCP_HEADER
    known = stack.fastopen_cookies.find(flow)
    if known is not None and known.mss:
        mss = min(mss, known.mss)
    if options.maxseg is not None:
        mss = min(mss, options.maxseg)
    return max(mss - MAX_OPTIONS, 0)


def is_due(conn: Connection) -> bool:
    """Whether the SYN may leave: one that waits for the first write does so until that is there, or none will come."""
    attempt = conn.fastopen
    if isinstance(attempt, Attempt) and attempt.is_deferred:
        if not (conn.tx.unsent or conn.tx.fin_queued):
            return False
        attempt.is_deferred = False
    return True


def is_deferred(conn: Connection) -> bool:
    """Whether the SYN waits for the first write."""
    return isinstance(conn.fastopen, Attempt) and conn.fastopen.is_deferred


def equip(conn: Connection, attempt: Attempt, syn: Segment, now: int) -> None:
    """Give the first SYN its option and its data."""
    if attempt.is_sent:
        return
    attempt.is_sent = True
    stack = conn.stack
    cookies = stack.fastopen_cookies
    is_signed = stack.signing is not None and stack.signing.get(conn) is not None  # which takes the room that a cookie needs
    if cookies.is_disabled(now) or is_signed:
        return
    attempt.is_test = cookies.disabled_times > 0
    if not stack.sysctl.tcp_fastopen & CLIENT_NO_COOKIE and not conn.options.fastopen_no_cookie:
        known = cookies.find(conn.flow)
        cookie = known.cookie if known is not None else Cookie(b"", False)
        if not cookie.value:
            attempt.client_fail = COOKIE_UNAVAILABLE
            cookie = Cookie(b"", known is not None and known.try_option == TRY_EXPERIMENTAL)
        if not attach(syn, encode(cookie)):
            return
        attempt.asked = True
        attempt.is_experimental = cookie.is_experimental
    tx = conn.tx
    length = min(room(stack, conn.flow, conn.options, now), tx.unsent)
    if length:
        syn.payload = tx.queue.slice(0, length)
        syn.length = attempt.syn_octets = length
        tx.sent(length, False, now)
        chrono.switch(tx, chrono.BUSY, now)
        if not conn.was_writable and tx.unsent <= conn.write_low_water:
            conn.was_writable = True
            stack.writable.append(conn)


def on_syn_ack(conn: Connection, attempt: Attempt, seg: Segment, is_resent: bool, now: int) -> None:
    """Our SYN was acknowledged, by `seg`: remember the cookie, see what became of the data. `is_resent`: the SYN was sent again."""
    if not (attempt.asked or attempt.syn_octets):
        return
    stack = conn.stack
    tx = conn.tx
    agreed = conn.agreed
    assert agreed is not None
    cookie = decode(seg.options) if attempt.asked and seg.options else None
    try_option = 0
    if attempt.asked and not is_resent and cookie is None and not attempt.syn_octets:
        try_option = TRY_NO_MORE if attempt.is_experimental else TRY_EXPERIMENTAL
    stack.fastopen_cookies.remember(conn.flow, agreed.mss, cookie, try_option)
    acked = (seg.ack - tx.snd_una) & MASK
    if acked:
        tx.board.acknowledge(seg.ack)
        tx.advance(seg.ack, False)
    if tx.outstanding:
        attempt.client_fail = SYN_RETRANSMITTED if is_resent else DATA_NOT_ACKED
        stack.counters.TCPFastOpenActiveFail += 1
        tx.board.mark_all_lost()
        conn.recovery.repair()
        return
    if attempt.syn_octets:
        attempt.syn_data = True
        stack.counters.TCPFastOpenActive += 1
        if tx.unsent:
            conn.rx.ato = DELACK_MIN  # what leaves now is an answer to the SYN-ACK: a conversation (Linux)
    if seg.length and seg.flags & SYN:  # a server may answer in its SYN-ACK (RFC 7413 4.2.2)
        attempt.syn_data = True
        conn.rx.accept(conn.rx.rcv_nxt, memoryview(seg.payload[0]), False)
