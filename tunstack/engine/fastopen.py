"""Fast Open, the server's side: a SYN with a good cookie is a connection at once, and its data is the application's.

RFC 7413 4.2, with Linux's limits. The connection is in SYN_RECEIVED and in the accept queue; the application may read and write. Its
SYN-ACK stands outside of the send window: `tx` begins behind it, and until it is acknowledged nothing but it is sent again. Times are int
microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.engine import control, ecn, mtuprobe, output, paws, retransmission, transitions
from tunstack.engine.delivery import deliver
from tunstack.engine.errors import socket_error
from tunstack.engine.fastopencookie import SERVER, SERVER_ALL, SERVER_NO_COOKIE, Cookie, decode, encode, keys_of, make_cookie
from tunstack.engine.fastopenrequest import RESET_HOLD, Request, Requests
from tunstack.engine.handshake import Agreed, first_window, local_mss, window_scale
from tunstack.engine.opening import learn_peer
from tunstack.engine.receivewindow import WINDOW_MAX
from tunstack.engine.sink import NULL_SINK
from tunstack.engine.state import ESTABLISHED, FIN_WAIT_1, SYN_RECEIVED
from tunstack.engine.timers import NEVER
from tunstack.seq import MASK
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import ACK, RST, SYN, Segment

if TYPE_CHECKING:
    from tunstack.engine.connection import Connection
    from tunstack.engine.listener import Listener


def enable(listener: Listener) -> None:
    """A listener begins: tcp_fastopen may say that it needs no TCP_FASTOPEN."""
    options = listener.options
    if listener.stack.sysctl.tcp_fastopen & (SERVER | SERVER_ALL) == SERVER | SERVER_ALL and not options.fastopen:
        listener.set_option("fastopen", listener.backlog_limit)


def answer(listener: Listener, syn: Segment, now: int, iss: int) -> bytes | None:
    """Return the option for the SYN-ACK to a SYN, empty if there is none; None if the SYN made a connection."""
    if not (syn.options or syn.length):
        return b""
    stack = listener.stack
    counters = stack.counters
    sysctl = stack.sysctl
    cookie = decode(syn.options) if syn.options else None
    if cookie is not None and not cookie.value:
        counters.TCPFastOpenCookieReqd += 1
    if not sysctl.tcp_fastopen & SERVER or not (syn.length or cookie is not None) or not _has_place(listener, now):
        return b""
    if sysctl.tcp_fastopen & SERVER_NO_COOKIE or listener.options.fastopen_no_cookie:
        _open(listener, syn, now, iss, b"")
        return None
    if cookie is None:
        return b""
    keys = keys_of(listener)
    fresh = make_cookie(keys[0], syn.flow)
    option = encode(Cookie(fresh, cookie.is_experimental))
    if not cookie.value:
        return option
    if cookie.value == fresh:
        _open(listener, syn, now, iss, b"")
        return None
    if any(cookie.value == make_cookie(key, syn.flow) for key in keys[1:]):
        counters.TCPFastOpenPassiveAltKey += 1
        _open(listener, syn, now, iss, option)
        return None
    counters.TCPFastOpenPassiveFail += 1
    return option


def _has_place(listener: Listener, now: int) -> bool:
    limit = listener.options.fastopen
    if not limit:
        return False
    if listener.fastopen is None:
        listener.fastopen = Requests()
    if not listener.fastopen.has_place(limit, now):
        listener.stack.counters.TCPFastOpenListenOverflow += 1
        return False
    return True


def _open(listener: Listener, syn: Segment, now: int, iss: int, option: bytes) -> None:
    """Make the connection, take the data of its SYN, and put it into the accept queue."""
    stack = listener.stack
    sysctl = stack.sysctl
    flow = reverse_flow(syn.flow)
    agreed = Agreed(syn, sysctl, window_scale(listener.options, sysctl))
    agreed.ecn_ok = ecn.agrees_to_syn(syn, sysctl)
    if stack.signing is not None:
        stack.signing.agree(syn.flow, agreed)
    mss = local_mss(stack.path_mtu.get(flow), listener.options) - agreed.option_octets
    window = first_window(listener.options, sysctl, mss)
    conn = listener.make_connection(flow, syn.flow, iss, stack.isn.ts_offset(flow))
    assert listener.fastopen is not None
    request = conn.fastopen = Request(listener.fastopen, option)
    conn.state = SYN_RECEIVED
    conn.segs_in = syn.packets
    conn.syn_window = min(window, WINDOW_MAX)
    conn.syn_ts_val = conn.ts_val(now)
    conn.last_received_at = now
    learn_peer(conn, agreed, syn.seq, syn.ts_val or 0, window, now)
    if sysctl.tcp_reflect_tos:
        conn.options = conn.options.having("tos", syn.tos & ~ecn.MASK)
    tx, rx = conn.tx, conn.rx
    tx.syn_sent()
    tx.syn_acked()
    tx.update_window(syn.window, syn.seq, tx.snd_una)  # the window of a SYN is never scaled
    control.start(conn, now)
    if syn.length:
        request.syn_data = rx.accept(rx.rcv_nxt, memoryview(syn.payload[0]), False)
        conn.data_segs_in = syn.packets
        rx.rcv_wup = rx.rcv_nxt  # the SYN-ACK acknowledges it, and its window counts from there
        rx.rcv_adv = (rx.rcv_nxt + window) & MASK
    stack.counters.TCPFastOpenPassive += 1
    listener.enqueue(conn)
    conn.syn_due = True
    conn.mark_dirty()
    deliver(conn)  # into its queue: nobody has accepted it yet
    listener.on_acceptable(listener)


# What comes before the handshake is complete.


def may_arrive(conn: Connection, seg: Segment, now: int) -> bool:
    """Look at a segment for a connection in SYN_RECEIVED before all else; return whether it goes the ordinary way.

    It does not if it is the SYN again, which a window that starts behind the SYN's data would not take, or a RST that ends it.
    """
    request = conn.fastopen
    if not isinstance(request, Request):
        return True
    rx = conn.rx
    flags = seg.flags
    is_timed = conn.ts_ok and seg.ts_val is not None
    if is_timed and not flags & (RST | SYN) and not paws.is_echo(seg.ts_ecr, conn.syn_ts_val, conn.ts_val(now)):
        conn.stack.counters.TSEcrRejected += 1
        return False
    is_old = is_timed and paws.is_old(seg.ts_val or 0, rx.ts_recent, now, now)
    if flags & (SYN | ACK | RST) == SYN and seg.seq == rx.irs and not is_old:
        _answer_again(conn, request, now)
        return False
    if flags & RST and seg.seq == rx.rcv_nxt:
        conn.stack.counters.EmbryonicRsts += 1
        if request.is_pending and conn.sink is not NULL_SINK:  # accepted: the accept queue does not count it any more
            request.requests.pending += 1
            request.requests.resets.append(now + RESET_HOLD)
        transitions.finish(conn, socket_error("ECONNRESET"), now)
        return False
    return True


def _answer_again(conn: Connection, request: Request, now: int) -> None:
    """The SYN again: our SYN-ACK was lost. At most one answer each tcp_invalid_ratelimit; the timer goes on as it was."""
    stack = conn.stack
    if request.last_answer_at and now - request.last_answer_at < stack.sysctl.tcp_invalid_ratelimit * 1000:
        stack.counters.TCPACKSkippedSynRecv += 1
        return
    request.last_answer_at = now
    output.answer_syn_again(conn, now)


def complete(conn: Connection, request: Request, now: int) -> None:
    """The SYN-ACK is acknowledged: what `transitions.established` does, for a connection that is at work already."""
    request.release()
    is_bad_path = conn.retransmits > 1
    conn.state = FIN_WAIT_1 if conn.tx.fin_queued else ESTABLISHED
    conn.retransmits = 0
    conn.retrans_at = 0
    conn.rto_at = NEVER
    conn.syn_due = False
    mtuprobe.begin(conn, now)
    conn.tx.size_bursts(conn.rtt.srtt, conn.rtt.min_rtt, conn.stack.sysctl)
    conn.start_keepalive(now)
    if is_bad_path and conn.tx.outstanding:  # what was sent behind a SYN-ACK that was lost twice is lost too (Linux)
        conn.recovery.on_timeout(False, now)
    retransmission.set_timer(conn, True, now)
    conn.mark_dirty()
