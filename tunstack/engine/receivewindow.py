"""The window that is advertised, and the receive buffer behind it, which follows the rate at which the application reads.

RFC 9293 3.8.6 (the window, the receiver's silly window), and what Linux does where it leaves room: the buffer counts memory, not octets;
the window starts at 64 KB and opens with the data that comes (its slow start); the buffer grows with what the application takes in a
round trip (dynamic right-sizing). Functions on a Receiver, which holds the state. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine.timers import NEVER
from tunstack.seq import HALF, MASK

if TYPE_CHECKING:
    from tunstack.engine.receiver import Receiver

WINDOW_MAX = 65535  # of the header, unscaled
RCVBUF_MIN = 2304  # SOCK_MIN_RCVBUF
RATIO_ONE = 256  # a buffer without any overhead
RATIO_DEFAULT = 128  # half of the buffer is overhead, until segments were seen
PIECE_COST = 384  # octets of memory that a piece held costs beside its data, before `memory` adds a quarter
GROW_MIN = 128  # octets of a segment for which the window opens
BEHIND_MAX = 256 * 1024  # to which a buffer grows while what comes waits in the device's queue: all windows together must fit that
PRESSED_SEGMENTS = 4  # segments of the window while memory is scarce
SPACE_SEGMENTS = 10  # segments of the first round trip that the buffer is ready for


def memory(octets: int) -> int:
    """Return the memory of a piece, near what Linux's buffers take on a TUN; ours take less. `octets` has PIECE_COST in it already."""
    return octets + (octets >> 2)


def held(rx: Receiver) -> int:
    """Return the memory of all that is held: what waits for the application, and what waits for a hole to be filled."""
    return memory(rx.queued + PIECE_COST * len(rx.queue) + rx.pieces_size)


def set_ratio(rx: Receiver, ratio: int) -> None:
    """The share of the buffer that is data, of RATIO_ONE, is another."""
    rx.ratio = ratio
    rx.full_space = rx.rcvbuf * ratio // RATIO_ONE


# What is advertised.


def select_window(rx: Receiver) -> int:
    """Return the window to offer now; the edge that was advertised may lie beyond it (Linux's __tcp_select_window).

    RFC 9293 3.8.6.2.2. With a scale the window moves in units of it, without one in segments.
    """
    free = rx.full_space
    if rx.queued or rx.pieces_size:
        free = max(rx.rcvbuf - held(rx), 0) * rx.ratio // RATIO_ONE
    shift = rx.wscale
    full = min(rx.window_clamp, rx.full_space)
    mss = min(rx.mss, full)
    if free < full >> 1:
        rx.quick = 0
        free = free >> shift << shift
        # Close in time: what the peer may still send must find room.
        if free < rx.full_space >> 4 or free < mss:
            return 0
    if free > rx.rcv_ssthresh:
        free = rx.rcv_ssthresh
    if shift:
        return (free + (1 << shift) - 1) >> shift << shift
    window = (rx.rcv_adv - rx.rcv_wup) & MASK
    if window <= free - mss or window > free:
        return free - free % mss if mss else 0
    if mss == full and free > window + (full >> 1):
        return free
    return window


def advertise(rx: Receiver) -> int:  # hot
    """Return the header's window field for a segment that leaves now; it carries the ACK. The right edge is never taken back."""
    rx.delack_at = NEVER
    rcv_nxt = rx.rcv_nxt
    if rcv_nxt == rx.field_nxt:
        return rx.field
    field = rx.open_field
    if not field or rx.queued or rx.pieces or not rx.field:
        return advertise_anew(rx)
    edge = (rcv_nxt + (field << rx.wscale)) & MASK
    beyond = (rx.rcv_adv - edge) & MASK
    if 0 < beyond < HALF:  # seq_gt(rcv_adv, edge): more was offered before, as by a SYN, whose window is finer than a scaled one
        field += -(-beyond >> rx.wscale)
        if field > WINDOW_MAX:
            return advertise_anew(rx)
        edge = (rcv_nxt + (field << rx.wscale)) & MASK
    rx.rcv_adv = edge
    rx.rcv_wup = rx.field_nxt = rcv_nxt
    rx.field = field
    return field


def advertise_anew(rx: Receiver) -> int:
    """The same where something is held, or where windows are not scaled."""
    shift = rx.wscale
    current = (rx.rcv_adv - rx.rcv_nxt) & MASK
    window = select_window(rx)
    if window < current:
        if not window:
            rx.counters.TCPWantZeroWindowAdv += 1
        window = current
    field = min((window + (1 << shift) - 1) >> shift, WINDOW_MAX)  # rounded up: rounding down would take the edge back
    window = field << shift
    if window > current:
        rx.rcv_adv = (rx.rcv_nxt + window) & MASK
    if not field and rx.field:
        rx.counters.TCPToZeroWindowAdv += 1
    elif field and not rx.field:
        rx.counters.TCPFromZeroWindowAdv += 1
    rx.rcv_wup = rx.field_nxt = rx.rcv_nxt
    rx.field = field
    return field


def window_changed(rx: Receiver) -> None:
    """What windows go by has changed: what was advertised last is not what would be now. Prepare the field for when nothing is held."""
    rx.field_nxt = -1
    rx.open_field = field_of(rx.rcv_ssthresh, rx.full_space, rx.wscale, rx.mss)


def field_of(rcv_ssthresh: int, full_space: int, shift: int, mss: int) -> int:
    """Return the window field while nothing is held, 0 if that takes more than this to say."""
    if not shift or rcv_ssthresh < mss:
        return 0
    return min((min(rcv_ssthresh, full_space) + (1 << shift) - 1) >> shift, WINDOW_MAX)


# The window opens.


def grow(rx: Receiver, length: int, stays: bool) -> None:
    """Open the window by what a segment of `length` octets says (Linux's tcp_grow_window): twice of it, if so much fits the buffer.

    `stays`: nobody takes it now, and it is not counted as held yet.
    """
    size = memory(length + PIECE_COST)
    space = max(rx.rcvbuf - held(rx) - (size if stays else 0), 0) * rx.ratio // RATIO_ONE
    room = min(rx.window_clamp, space) - rx.rcv_ssthresh
    if room <= 0 or rx.memory.is_pressed:
        return
    size = size * rx.ratio // RATIO_ONE
    increase = 2 * rx.advmss
    if size > length:  # overhead above the share: the wider the window is, the less of that is borne
        increase = 2 * rx.mss
        size >>= 1
        limit = (rx.rcvbuf_max * rx.ratio // RATIO_ONE) >> 1
        while size > length:
            size >>= 1
            limit >>= 1
        if rx.rcv_ssthresh > limit:
            return
    rx.rcv_ssthresh += min(room, max(increase, 2 * length))
    rx.quick |= 1
    window_changed(rx)


def narrow(rx: Receiver) -> None:
    """Memory is scarce: offer no more than a few segments beyond what was offered (Linux's tcp_adjust_rcv_ssthresh)."""
    if rx.rcv_ssthresh > PRESSED_SEGMENTS * rx.advmss:
        rx.rcv_ssthresh = PRESSED_SEGMENTS * rx.advmss
        window_changed(rx)


def measure_overhead(rx: Receiver, length: int) -> None:
    """Segments are larger than was known: set the share of the buffer that is data by one of them."""
    ratio = max(length * RATIO_ONE // memory(length + PIECE_COST), 1)
    if ratio != rx.ratio:
        set_ratio(rx, ratio)
        set_clamp(rx, rx.full_space)
        rx.space = min(rx.space, rx.window_clamp)


def set_user_clamp(rx: Receiver, clamp: int) -> None:
    """TCP_WINDOW_CLAMP: the largest window to offer.

    Deviates: Linux 6.18 forgets it with the first segment that tells it the MSS; tcp(7) says that it is a bound.
    """
    rx.clamp_max = clamp
    set_clamp(rx, clamp)


def set_clamp(rx: Receiver, clamp: int) -> None:
    """The largest window to offer is another: what the user or the buffer allows."""
    clamp = max(min(clamp, rx.clamp_max), RCVBUF_MIN // 2)
    if clamp < rx.window_clamp:
        rx.rcv_ssthresh = min(rx.rcv_ssthresh, clamp)
    elif clamp > rx.window_clamp:
        rx.rcv_ssthresh = max(rx.rcv_ssthresh, min((rx.rcv_adv - rx.rcv_wup) & MASK, clamp))
    rx.window_clamp = clamp
    window_changed(rx)


def set_rcvbuf(rx: Receiver, size: int) -> None:
    """SO_RCVBUF, doubled: the buffer is as large, and tuned no more."""
    rx.rcvbuf = rx.rcvbuf_max = size
    rx.is_tuned = False
    set_ratio(rx, rx.ratio)
    set_clamp(rx, rx.full_space)


# The buffer grows.


def sample_rtt(rx: Receiver, rtt: int, is_window: bool) -> None:
    """Take a round-trip time as the receiver sees it. The time for a window of data is an upper bound: only less is believed."""
    old = rx.rcv_rtt
    if rtt < old:
        rx.rcv_rtt = rtt
    elif not is_window and not rx.queued:
        rx.rcv_rtt = old + ((rtt - old) >> 3)


def measure_window(rx: Receiver, now: int) -> None:
    """A window of data has come since this was called last."""
    if rx.rtt_at:
        sample_rtt(rx, now - rx.rtt_at or 1, True)
    rx.rtt_seq = (rx.rcv_nxt + ((rx.rcv_adv - rx.rcv_wup) & MASK)) & MASK
    rx.rtt_at = now
    count_received(rx)


def count_received(rx: Receiver) -> int:
    """Return the octets of sequence space taken in order; called more often than they wrap."""
    rx.received += (rx.rcv_nxt - rx.received_seq) & MASK
    rx.received_seq = rx.rcv_nxt
    return rx.received


def tune(rx: Receiver, now: int, in_hand: int = 0) -> None:
    """A round trip is over: what the application took in it says how large the buffer must be (Linux's tcp_rcv_space_adjust).

    `in_hand`: octets that it will be given in a moment, and that are not `ready`.
    """
    waiting = rx.queued + sum(map(len, rx.ready)) + in_hand
    copied = ((rx.rcv_nxt - rx.space_seq) & MASK) - waiting
    if copied - waiting > rx.space:
        grow_buffer(rx, copied - waiting)
    rx.space_seq = (rx.rcv_nxt - waiting) & MASK
    rx.space_at = now


def grow_buffer(rx: Receiver, space: int) -> None:
    """Make the buffer fit for `space` octets a round trip, twice over, and more while that grows: this comes a round trip late.

    Deviates: where it is us that are behind, a round trip lasts as long as the device's queue is, and a wider window makes that longer
    until it overflows. Linux's own senders have no such queue between them and its receivers.
    """
    old = rx.space
    rx.space = space
    if not rx.is_tuned or rx.memory.is_pressed:
        return
    window = 2 * space
    if old:
        window += 2 * (window * (space - old) // old)
    if rx.pieces:
        window += (rx.pieces[-1].end - rx.rcv_nxt) & MASK
    size = min(window * RATIO_ONE // rx.ratio, rx.rcvbuf_max)
    if rx.memory.is_behind:
        size = min(size, BEHIND_MAX)
    if size > rx.rcvbuf:
        rx.rcvbuf = size
        set_ratio(rx, rx.ratio)
        rx.window_clamp = min(rx.full_space, rx.clamp_max, WINDOW_MAX << rx.wscale)
        window_changed(rx)
