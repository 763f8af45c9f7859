"""Send half of a connection: SND.* variables, send queue, what may leave.

RFC 9293 3.8.6 (window, silly window), RFC 1122 4.2.3.4 (Nagle), RFC 6675 (pipe, as octets). Knows no clock and no I/O.
What was sent stands in scoreboard.py, what of it is lost recovery.py decides. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.congestion import CongestionControl
from tunstack.engine.pacing import UNPACED_SEGMENTS, Pacer
from tunstack.engine.rate import DeliveryRate
from tunstack.engine.scoreboard import Flight, Scoreboard
from tunstack.engine.sendqueue import SendQueue
from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK

if TYPE_CHECKING:
    from tunstack.engine.sysctl import Sysctl

MSS_DEFAULT = 536  # RFC 9293 3.7.1: the peer announced none
BURST_MAX = 65536  # octets of a super-segment
SLOW_RATE = 150_000  # octets a second below which packets of a paced connection leave one by one (Linux's bbr_min_tso_rate)


def effective_mss(peer_mss: int, path_mss: int, maxseg: int | None, least: int, option_octets: int) -> int:
    """Return Eff.snd.MSS (RFC 9293 3.7.1, RFC 6691): it is `least` at the least, options counted."""
    mss = min(peer_mss, path_mss) if maxseg is None else min(peer_mss, path_mss, maxseg)
    return max(mss, least) - option_octets


class Sender:
    """The SND.* variables of RFC 9293 3.3.1. Invariant: `snd_una <= snd_nxt`."""

    __slots__ = (
        "board",
        "burst",
        "busy_time",
        "bytes_retrans",
        "cc",
        "chrono",
        "chrono_at",
        "cwnd_limited",
        "ect",
        "fin_queued",
        "fin_sent",
        "iss",
        "last_sent_at",
        "max_flight",
        "max_pacing_rate",
        "max_window",
        "more",
        "mss",
        "mss_now",
        "nxt_position",
        "pacer",
        "path_mss",
        "peer_mss",
        "probe_due",
        "push_position",
        "queue",
        "rate",
        "rwnd_time",
        "snd_nxt",
        "snd_sml",
        "snd_una",
        "snd_wl1",
        "snd_wl2",
        "snd_wnd",
        "sndbuf",
        "sndbuf_time",
        "una_position",
        "urgent_end",
        "usage_end",
        "wscale",
    )

    def __init__(self, iss: int, path_mss: int) -> None:
        self.iss = iss  # initial send sequence number
        self.snd_una = iss  # oldest unacknowledged sequence number
        self.snd_nxt = iss  # next sequence number to be sent; never goes back
        self.snd_wnd = 0  # send window, octets (scaled)
        self.snd_wl1 = 0  # SEG.SEQ of the last window update
        self.snd_wl2 = 0  # SEG.ACK of the last window update
        self.wscale = 0  # shift of the windows that the peer sends
        self.max_window = 0  # MAX.SND.WND: largest window seen
        self.path_mss = path_mss  # from our MTU and the path's, without options
        self.peer_mss = MSS_DEFAULT  # from the peer's MSS option
        self.mss = min(path_mss, MSS_DEFAULT)  # Eff.snd.MSS: payload of a full segment (RFC 9293 3.7.1)
        self.mss_now = self.mss  # the same, but no more than half the peer's largest window
        self.queue = SendQueue()
        self.una_position = 0  # position in the queue of snd_una
        self.nxt_position = 0  # position in the queue of snd_nxt
        self.board = Scoreboard()  # what of it the peer has, and what is lost
        self.more = False  # the last write said that there is more to come (MSG_MORE); over with the next ACK
        self.push_position = 0  # position in the queue behind the last write that did not
        self.urgent_end = 0  # position in the queue behind the last urgent octet; 0: none on the way (urgent.py)
        self.fin_queued = False  # the application shut down writing
        self.fin_sent = False
        self.snd_sml = iss  # end of the last segment that was less than full (Minshall's Nagle)
        # How far the congestion window is used, a window of data at a time (RFC 7661 as Linux has it).
        self.cwnd_limited = False  # it held the sender back
        self.max_flight = 0  # octets outstanding at most, if it did not
        self.usage_end = iss  # snd_nxt when these were set: they hold until it is acknowledged
        self.last_sent_at = 0  # when data left last (restart after idle)
        self.burst = 0  # octets that leave in one go, as one super-segment; 0: to be computed when more than a packet is to leave
        self.sndbuf = NEVER  # octets in flight at most: SO_SNDBUF, or tcp_wmem
        self.bytes_retrans = 0  # octets sent again
        self.chrono = 0  # what time is spent with (chrono.py) ...
        self.chrono_at = 0  # ... since then
        self.busy_time = 0  # what was spent before then, of it ...
        self.rwnd_time = 0  # ... held up by the peer's window
        self.sndbuf_time = 0  # ... by our buffer
        self.ect = 0  # ECN codepoint of new data: ECT(0) where both sides know ECN (ecn.py)
        self.probe_due = False  # the persist timer wants something sent into a closed window
        self.cc: CongestionControl  # set when the MSS is known (control.py)
        self.rate: DeliveryRate | None = None  # measured for algorithms that are `rate_based`
        self.pacer: Pacer | None = None  # holds data back where the algorithm or the application wants that
        self.max_pacing_rate = 0  # SO_MAX_PACING_RATE, octets a second; 0: no limit

    # What stands where.

    @property
    def outstanding(self) -> int:
        """Octets of sequence space sent and not acknowledged."""
        return (self.snd_nxt - self.snd_una) & MASK

    @property
    def pipe(self) -> int:
        """Octets thought to be in the network (RFC 6675 2)."""
        return ((self.snd_nxt - self.snd_una) & MASK) - self.board.lost_out - self.board.sacked_out

    @property
    def unsent(self) -> int:
        """Octets of data that were never sent."""
        return self.queue.end - self.nxt_position

    @property
    def bytes_acked(self) -> int:
        """Octets of data acknowledged since the connection began."""
        return self.una_position

    @property
    def is_all_acked(self) -> bool:
        """Whether nothing is queued or in flight, FIN included."""
        return self.snd_una == self.snd_nxt and not self.unsent and self.fin_sent == self.fin_queued

    def position(self, seq: int) -> int:
        """Return the queue position of a sequence number at or after snd_una."""
        return self.una_position + ((seq - self.snd_una) & MASK)

    # What the handshake brings.

    def syn_sent(self) -> None:
        """The SYN takes one sequence number (RFC 9293 3.4)."""
        self.snd_nxt = (self.iss + 1) & MASK

    def syn_acked(self) -> None:
        """Our SYN is acknowledged: data begins."""
        self.snd_una = self.snd_sml = (self.iss + 1) & MASK

    def set_mss(self, option_octets: int, maxseg: int | None = None, least: int = 48) -> None:
        """Compute Eff.snd.MSS from the peer's MSS, the path and the octets of options in every segment (RFC 6691).

        It is `least` at the least, options counted (tcp_min_snd_mss).
        """
        self.mss = effective_mss(self.peer_mss, self.path_mss, maxseg, least, option_octets)
        self.bound_mss()

    def bound_mss(self) -> None:
        """Segments are full at the MSS, or at half the peer's largest window where that is less (silly window, RFC 9293 3.8.6.2.1)."""
        self.mss_now = mss = self.mss
        window = self.max_window
        if 0 < window < 2 * mss:
            half = window >> 1 if window > MSS_DEFAULT else window
            self.mss_now = min(mss, max(half, 28))

    # What the peer's ACKs bring.

    def update_window(self, window: int, seq: int, ack: int) -> None:
        """Take over a window (RFC 9293 3.10.7.4)."""
        self.snd_wnd = window
        self.snd_wl1 = seq
        self.snd_wl2 = ack
        if window > self.max_window:
            self.max_window = window
            self.bound_mss()

    def advance(self, ack: int, fin: bool) -> int:  # hot
        """Move snd_una to `ack` (snd_una < ack <= snd_nxt), `fin`: over our FIN. Return the octets of sequence space acknowledged."""
        acked = (ack - self.snd_una) & MASK
        self.snd_una = ack
        self.una_position += acked - fin
        self.queue.release(self.una_position)
        return acked

    # What may leave.

    def forget_burst(self) -> bool:  # hot
        """The size of bursts is to be computed anew, when it is needed. Return whether it must be now, since the pace follows too."""
        self.burst = 0
        return self.pacer is not None or self.cc.pacing_rate > 0

    def size_bursts(self, srtt: int, min_rtt: int, sysctl: Sysctl) -> None:  # hot
        """Set how much leaves in one go: what the path takes in a millisecond, two packets at least, more on short paths.

        Linux's TSO autosizing (tcp_update_pacing_rate, tcp_tso_autosize): large bursts of a few packets overflow queues.
        Never more than half the congestion window, so that two are in flight, and their ACKs come apart.
        """
        cc = self.cc
        mss = self.mss_now
        half = cc.cwnd // (2 * mss) or 1
        least = sysctl.tcp_min_tso_segs
        rate = cc.pacing_rate
        is_paced = rate or self.pacer is not None
        if not rate and srtt:
            percent = sysctl.tcp_pacing_ss_ratio if cc.cwnd < cc.ssthresh >> 1 else sysctl.tcp_pacing_ca_ratio
            rate = cc.cwnd * percent * 10_000 // srtt
        if is_paced:
            rate = self._pace(rate)
            if rate < SLOW_RATE:
                least = 1
        if not rate:
            self.burst = min(BURST_MAX, half * mss)
            return
        octets = rate >> 10
        shift = min_rtt >> sysctl.tcp_tso_rtt_log
        if shift < 17:
            octets += BURST_MAX >> shift
        segments = octets // mss
        if segments < least:
            segments = least
        self.burst = (segments if segments < half else half) * mss

    def _pace(self, rate: int) -> int:
        """Pace at this rate, within SO_MAX_PACING_RATE, if the algorithm or that asks for it; return what the rate comes to."""
        limit = self.max_pacing_rate
        if limit and (rate > limit or not rate):
            rate = limit
        if limit or self.cc.pacing_rate:
            if self.pacer is None:
                self.pacer = Pacer(UNPACED_SEGMENTS * self.mss - self.nxt_position)
            self.pacer.rate = rate
        else:
            self.pacer = None
        return rate

    def limit_pacing_rate(self, limit: int) -> None:
        """Set SO_MAX_PACING_RATE, octets a second, 0 for none; `size_bursts` is to follow."""
        self.max_pacing_rate = limit
        if limit:
            self._pace(self.pacer.rate if self.pacer is not None else limit)

    def sendable(self, max_payload: int, nodelay: bool, cork: bool) -> int:  # hot
        """Return how many octets of new data may leave now in one (super-)segment, 0 if none. `burst` is known if more than one packet may.

        Window, congestion window, silly-window avoidance and Nagle are obeyed; keeps account of how far the congestion window is used.
        """
        unsent = self.queue.end - self.nxt_position
        if not unsent:
            return 0
        outstanding = (self.snd_nxt - self.snd_una) & MASK
        mss = self.mss_now
        size = unsent if unsent < max_payload else max_payload
        if size > self.burst and size > mss:
            size = self.burst
        window = (self.snd_wnd if self.snd_wnd < self.sndbuf else self.sndbuf) - outstanding
        if size > window:
            size = window
        board = self.board
        room = self.cc.cwnd - outstanding + board.lost_out + board.sacked_out
        if size > room:
            size = room
        if size > 0:
            tail = size % mss
            # A part of what should go waits for more window (silly window); the end of the data obeys Nagle.
            if tail and (size < unsent or not self._may_send_small(outstanding or size > mss, nodelay, cork)):
                size -= tail
        else:
            size = 0
        limited = room - size < mss
        outstanding += size
        if limited or (
            size and (((self.snd_una - self.usage_end) & MASK) < HALF or (not self.cwnd_limited and outstanding > self.max_flight))
        ):  # the first: seq_ge(snd_una, usage_end)
            self.cwnd_limited = limited
            self.max_flight = outstanding
            self.usage_end = (self.snd_nxt + size) & MASK
        return size

    def may_grow(self) -> bool:  # hot
        """Whether the congestion window is used enough to grow: to the full or, in slow start, by half."""
        cc = self.cc
        return self.cwnd_limited or (cc.cwnd < cc.ssthresh and cc.cwnd < 2 * self.max_flight)

    def _may_send_small(self, outstanding: int, nodelay: bool, cork: bool) -> bool:
        """Nagle's rule as Minshall changed it: one segment that is less than full in flight, and none while corked."""
        if self.fin_queued:
            return True
        if cork:
            return False
        if nodelay or not outstanding:
            return True
        # Not snd_una < snd_sml <= snd_nxt. Two gigabytes after the last small segment its end seems to lie ahead, but not in flight.
        return (self.snd_sml - self.snd_una - 1) & MASK >= (self.snd_nxt - self.snd_una) & MASK

    def sent(self, length: int, fin: bool, now: int) -> Flight:
        """Record that `length` octets, and the FIN if `fin`, leave as new data; return the record."""
        seq = self.snd_nxt
        self.snd_nxt = end = (seq + length + fin) & MASK
        self.nxt_position += length
        if length % self.mss_now:
            self.snd_sml = end
        if fin:
            self.fin_sent = True
        self.last_sent_at = now
        flight = Flight(seq, end, now, fin)
        if self.rate is not None:
            self._count_sent(self.rate, flight, now)
        if self.pacer is not None:
            self.pacer.on_sent(length, now)
        self.board.flights.append(flight)
        return flight

    def _count_sent(self, rate: DeliveryRate, flight: Flight, now: int) -> None:
        """New data leaves under an algorithm that is `rate_based`."""
        is_alone = flight.seq == self.snd_una
        if is_alone:
            self.cc.on_restart(rate.limited_until > 0, now)
            if self.cc.pacing_rate:
                self._pace(self.cc.pacing_rate)
        rate.on_sent(flight, is_alone, now)

    def resent(self, flight: Flight, now: int) -> None:
        """Record that a flight leaves again."""
        self.board.resend(flight, now)
        if self.rate is not None:
            self.rate.on_sent(flight, False, now)
        if self.pacer is not None:
            self.pacer.on_sent((flight.end - flight.seq) & MASK, now)

    def check_app_limited(self, rate: DeliveryRate, now: int) -> None:
        """The application is about to write: had we nothing to send, though window and pace allowed it? (Linux's check, at its place)"""
        pipe = self.pipe
        if self.unsent < self.mss_now and not self.board.lost_out and pipe < self.cc.cwnd and (self.pacer is None or now > self.pacer.at):
            rate.limit(pipe)
