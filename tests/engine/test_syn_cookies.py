"""SYN cookies: what they keep of a SYN, whom they refuse, when they are sent. RFC 4987 3.6, Linux."""

from __future__ import annotations

import random

import pytest
from engine.notation import Play

from tunstack.engine import Connection, Listener, Stack, StackConfig, Sysctl
from tunstack.engine.halfopen import HalfOpen
from tunstack.engine.syncookie import MSS_VALUES, PERIOD, SynCookies
from tunstack.wire.flow import pack_address, pack_flow, reverse_flow
from tunstack.wire.segment import ACK, CWR, ECE, PSH, RST, SYN, Batch, Segment

LOCAL, REMOTE = pack_address("192.0.2.1"), pack_address("198.51.100.1")
SECRET = bytes(range(32))
SECOND = 1_000_000
START = 1_000_000_123


class Server:
    """A stack that listens on port 80, driven segment by segment."""

    def __init__(self, secret: bytes = SECRET, listeners: int = 1, **sysctl: object) -> None:
        sysctl.setdefault("tcp_syncookies", 2)
        self.stack = Stack(StackConfig((LOCAL,), sysctl=Sysctl(**sysctl)), random.Random(1), secret)  # type: ignore[arg-type]
        self.now = START
        self.listeners = [self.listen() for _ in range(listeners)]

    def listen(self) -> Listener:
        return self.stack.listen(LOCAL, 80, on_acceptable=lambda listener: None, reuse_port=True, backlog=4)

    def send(self, seg: Segment) -> list[Segment]:
        """Hand a segment in; return what the stack answers."""
        batch = Batch()
        batch.segments.append(seg)
        self.stack.receive(batch, self.now)
        sent = []
        while (item := self.stack.poll_transmit(self.now)) is not None:
            assert isinstance(item, Segment)
            sent.append(item)
        return sent

    def syn(self, port: int = 40000, seq: int = 1000, **fields: object) -> Segment:
        """Send a SYN; return the SYN-ACK."""
        flags = fields.pop("flags", SYN)
        (answer,) = self.send(Segment(flow(port), seq, 0, flags, 65535, **fields))  # type: ignore[arg-type]
        assert answer.flags & ~ECE == SYN | ACK
        return answer

    @property
    def connections(self) -> list[Connection]:
        return list(self.stack.connections)


def flow(port: int = 40000) -> bytes:
    return pack_flow(REMOTE, port, LOCAL, 80)


def third(answer: Segment, port: int = 40000, **fields: object) -> Segment:
    """Return the segment that completes a handshake."""
    if answer.ts_val is not None:
        fields.setdefault("ts_val", 501)
        fields.setdefault("ts_ecr", answer.ts_val)
    return Segment(flow(port), answer.ack, (answer.seq + 1) & 0xFFFFFFFF, ACK, 1000, **fields)  # type: ignore[arg-type]


def test_nothing_is_kept_until_the_third_segment_makes_a_connection() -> None:
    """M-26."""
    server = Server()
    answer = server.syn(mss=1460)
    assert not server.stack.flows and server.stack.next_deadline() is None and not server.listeners[0].half_open
    assert (answer.ts_val, answer.wscale, answer.sack_ok, answer.mss) == (None, None, False, 1460)
    assert server.send(third(answer)) == []
    (conn,) = server.connections
    assert conn.state.name == "ESTABLISHED" and server.listeners[0].accept() is conn
    counters = server.stack.counters
    assert (counters.SyncookiesSent, counters.SyncookiesRecv, counters.SyncookiesFailed) == (1, 1, 0)
    assert (counters.TCPReqQFullDoCookies, counters.TcpPassiveOpens) == (1, 1)
    info = conn.info(server.now)
    assert info.rto == 3 * SECOND and not info.srtt  # when the SYN-ACK left nobody knows


@pytest.mark.parametrize(
    ("offered", "kept"), [(None, 536), (60, 48), (300, 256), (536, 536), (1299, 536), (1400, 1300), (1452, 1440), (9000, 1460)]
)
def test_the_mss_is_kept_as_one_of_six(offered: int | None, kept: int) -> None:
    """M-26. The largest that is not larger, Linux's values."""
    server = Server()
    server.send(third(server.syn(mss=offered)))
    assert server.connections[0].tx.peer_mss == kept


@pytest.mark.parametrize("wscale", [None, 0, 7, 14, 200])
@pytest.mark.parametrize("sack_ok", [False, True])
@pytest.mark.parametrize("asks_ecn", [False, True])
def test_with_timestamps_window_scale_sack_and_ecn_are_kept(wscale: int | None, sack_ok: bool, asks_ecn: bool) -> None:
    """M-26, M-10, M-11. The connection has all that one out of the SYN queue has."""
    facts = []
    for cookies in (2, 0):
        server = Server(tcp_syncookies=cookies)
        server.now += 17_000  # in the midst of the clock's low bits
        flags = SYN | ECE | CWR if asks_ecn else SYN
        answer = server.syn(mss=1460, ts_val=500, wscale=wscale, sack_ok=sack_ok, flags=flags)
        assert bool(answer.flags & ECE) == asks_ecn and answer.sack_ok == sack_ok and (answer.wscale is None) == (wscale is None)
        server.now += 20_000
        server.send(third(answer))
        (conn,) = server.connections
        info = conn.info(server.now)
        facts.append(
            (
                (info.timestamps, info.sack, info.snd_wscale, info.rcv_wscale, info.ecn),
                (conn.tx.snd_wnd, conn.tx.mss, conn.tx.ect, conn.mtu, conn.state),
                (conn.rx.irs, conn.rx.rcv_nxt, conn.rx.rcv_wnd, conn.rx.ts_recent, conn.rx.ecn_ok, conn.ts_offset),
                (conn.agreed.mss, conn.agreed.sack_ok, conn.agreed.is_scaled) if conn.agreed else None,
                answer.window,
            )
        )
        assert info.snd_wscale == min(wscale or 0, 14)
        # Its clock does not go back behind the SYN-ACK's.
        assert (conn.ts_val(server.now) - (answer.ts_val or 0)) & 0xFFFFFFFF < 100
        data = server.send(Segment(flow(), 1001, (answer.seq + 1) & 0xFFFFFFFF, ACK | PSH, 1000, (b"x",), 1, 502, answer.ts_val or 0))
        assert [seg.ack for seg in data] == [1002]
    assert facts[0] == facts[1]


def test_the_timestamp_is_never_ahead_of_the_clock() -> None:
    """M-26. It is that of the 64 ms before, so that what follows is newer, whatever its low bits say."""
    for ms in range(0, 64, 7):
        for options in ({}, {"wscale": 14, "sack_ok": True}, {"wscale": 0}):
            server = Server()
            server.now += ms * 1000
            answer = server.syn(ts_val=5, **options)
            offset = server.stack.isn.ts_offset(pack_flow(LOCAL, 80, REMOTE, 40000))
            behind = (server.now // 1000 + offset - (answer.ts_val or 0)) & 0xFFFFFFFF
            assert behind < 64


def test_data_and_fin_may_come_with_the_third_segment() -> None:
    """M-26. Its bare ACK may be lost."""
    server = Server()
    answer = server.syn(mss=1460)
    seg = third(answer, payload=(b"GET",), length=3)
    (ack,) = server.send(seg)
    assert ack.ack == 1004 and server.connections[0].readable == 3


def test_the_window_of_the_answer_holds_though_the_path_takes_less_by_the_third_segment() -> None:
    """M-26, M-31. Random world 94414: it shrank by what the smaller segments did not fill."""
    server = Server(tcp_rmem=(2048, 2048, 65536))
    answer = server.syn(mss=1460)
    server.stack.path_mtu.lower(reverse_flow(flow()), 659, server.now)
    server.send(third(answer))
    (conn,) = server.connections
    assert conn.mtu == 659 and conn.rx.rcv_wnd >= answer.window


def test_a_forged_cookie_is_refused() -> None:
    """M-26. Wrong by whatever: another number, another port, another ISN; nothing but a RST comes of it."""
    server = Server()
    answer = server.syn(mss=1460)
    forged = [
        Segment(flow(), 1001, (answer.seq + 1 + delta) & 0xFFFFFFFF, ACK, 1000)
        for delta in (1, 4, 1 << 8, 1 << 23, 1 << 24, 1 << 25, 0x80000000)
    ]
    forged += [third(answer, port=40001), Segment(flow(), 5000, (answer.seq + 1) & 0xFFFFFFFF, ACK, 1000)]
    for seg in forged:
        (reset,) = server.send(seg)
        assert reset.flags == RST and reset.seq == seg.ack
    assert not server.connections and server.stack.counters.SyncookiesFailed == len(forged)
    other = Server(secret=bytes(32))
    other.syn()
    assert other.send(third(answer))[0].flags == RST


def test_a_guess_has_a_chance_of_three_in_two_to_the_30th() -> None:
    """M-26. Of 2^32 numbers twelve are cookies: two minutes, six sizes."""
    cookies = SynCookies(SECRET)
    guess = random.Random(3)
    now = 50 * PERIOD
    assert all(cookies.read(flow(), guess.getrandbits(32), guess.getrandbits(32), now) is None for _ in range(20_000))
    good = {cookies.make(flow(), 7, index, now - age * PERIOD) for index in range(len(MSS_VALUES)) for age in (0, 1)}
    assert len(good) == 12 and all(cookies.read(flow(), 7, cookie, now) is not None for cookie in good)
    assert not any(cookies.read(flow(), 7, (cookie + 6) & 0xFFFFFFFF, now) is not None for cookie in good)


def test_a_later_segment_as_far_from_both_numbers_is_no_cookie() -> None:
    """M-26. The last ACK of a conversation in which both sides said as much, an echo's for example."""
    cookies = SynCookies(SECRET)
    cookie = cookies.make(flow(), 7, 2, 0)
    assert cookies.read(flow(), 7, cookie, 0) == 2
    assert not any(cookies.read(flow(), 7 + more, cookie + more, 0) is not None for more in range(1, 1000))


def test_a_cookie_lives_to_the_end_of_the_next_minute() -> None:
    """M-26. Linux: two periods of 60 s, counted by the minute."""
    cookies = SynCookies(SECRET)
    for minute in (1, 255, 256, 1 << 40):
        begin = minute * PERIOD
        cookie = cookies.make(flow(), 0xFFFFFFF0, 2, begin)
        for later in (0, PERIOD - 1, PERIOD, 2 * PERIOD - 1):
            assert cookies.read(flow(), 0xFFFFFFF0, cookie, begin + later) == 2
        for later in (2 * PERIOD, 3 * PERIOD, 100 * PERIOD, -1):
            assert cookies.read(flow(), 0xFFFFFFF0, cookie, begin + later) is None


def test_cookies_of_one_flow_grow_from_minute_to_minute() -> None:
    """M-26. As initial sequence numbers must, so that a new incarnation's is above the old one's (RFC 6528 3)."""
    cookies = SynCookies(SECRET)
    for minute in range(100):
        step = (cookies.make(flow(), 7, 0, (minute + 2) * PERIOD) - cookies.make(flow(), 7, 0, minute * PERIOD)) & 0xFFFFFFFF
        assert 0 < step < 1 << 26


def test_third_segments_are_looked_at_only_while_cookies_are_out() -> None:
    """M-26. Else each ACK to the port would be a free guess."""
    server = Server(tcp_syncookies=1)
    assert server.send(Segment(flow(), 1, 1, ACK, 1000))[0].flags == RST
    assert server.stack.counters.SyncookiesFailed == 0
    server.stack.sysctl.tcp_syncookies = 2
    answer = server.syn(mss=1460)
    assert server.send(Segment(flow(), 1, 1, ACK, 1000))[0].flags == RST
    assert server.stack.counters.SyncookiesFailed == 1
    server.now += 2 * PERIOD + 1
    assert server.send(third(answer))[0].flags == RST
    assert server.stack.counters.SyncookiesFailed == 1


def test_what_was_switched_off_since_refuses_the_cookie() -> None:
    """M-26. As Linux does: what the SYN-ACK promised cannot be kept."""
    for knob in ("tcp_timestamps", "tcp_sack", "tcp_window_scaling", "tcp_syncookies"):
        server = Server()
        answer = server.syn(mss=1460, ts_val=5, wscale=7, sack_ok=True)
        setattr(server.stack.sysctl, knob, 0)
        assert server.send(third(answer))[0].flags == RST
        assert not server.connections


def test_a_full_accept_queue_takes_no_cookie_until_there_is_room() -> None:
    """M-26, M-24. The third segment is dropped; data that follows it is as good."""
    server = Server()
    for port in range(40000, 40005):
        server.send(third(server.syn(port), port))
    assert server.send(Segment(flow(50000), 1, 0, SYN, 1000)) == []
    assert server.stack.counters.ListenOverflows == 1
    server.listeners[0].accept()
    answer = server.syn(50000)
    server.send(third(server.syn(50001), 50001))
    assert server.send(third(answer, 50000)) == [] and server.stack.counters.ListenOverflows == 2
    server.listeners[0].accept()
    (ack,) = server.send(third(answer, 50000, payload=(b"x",), length=1))
    assert ack.ack == 1002 and len(server.connections) == 7


def test_a_cookie_of_one_listener_is_taken_by_another_of_its_port() -> None:
    """M-26, M-58. With SO_REUSEPORT, when the one that sent it is gone, or a third has come."""
    server = Server(listeners=2)
    answers = {port: server.syn(port, mss=1460) for port in range(40000, 40020)}
    server.listeners[1].close(server.now)
    for port in range(40000, 40004):
        server.send(third(answers[port], port))
    assert len(server.connections) == 4
    server.listeners.append(server.listen())
    while server.listeners[0].accept() is not None:
        pass
    for port in range(40004, 40008):
        server.send(third(answers[port], port))
    assert len(server.connections) == 8


def test_workers_that_share_secret_and_clock_take_each_others_cookies() -> None:
    """M-26."""
    one, other = Server(), Server()
    other.syn(1)
    assert other.send(third(one.syn(mss=1300, ts_val=1, wscale=3), ts_val=2)) == []
    assert other.connections[0].info(other.now).snd_wscale == 3


def test_cookies_begin_when_the_syn_queue_is_full_and_the_flood_is_told_once() -> None:
    """M-26, M-28."""
    server = Server(tcp_syncookies=1)
    told: list[Listener] = []
    server.stack.on_flood = told.append
    for port in range(40000, 40005):
        server.syn(port)
    assert not told and server.stack.counters.SyncookiesSent == 0
    answer = server.syn(40005, mss=1460)
    for port in range(41000, 41100):
        server.syn(port)
    assert told == server.listeners and server.stack.counters.SyncookiesSent == 101
    assert len(server.stack.flows) == server.listeners[0].half_open == 5
    server.send(third(answer, 40005))
    assert len(server.connections) == 1


def test_an_early_cookie_counts_although_a_later_syn_found_room() -> None:
    """M-26. The SYN came twice: first to a full queue, then to one with a place, and both SYN-ACKs arrived."""
    server = Server()
    first = server.syn(mss=1460, ts_val=7)
    server.stack.sysctl.tcp_syncookies = 1
    server.syn(mss=1460, ts_val=7)
    assert isinstance(server.stack.flows[flow()], HalfOpen)
    assert server.send(third(first)) == []
    assert len(server.connections) == 1 and server.listeners[0].half_open == 0
    server.now += 2 * SECOND
    server.stack.advance(server.now)
    assert server.stack.poll_transmit(server.now) is None  # no SYN-ACK of the entry's


def test_a_transfer_over_a_cookie_is_like_any_other(play: Play) -> None:
    """M-26. In all the ways, and the SYN-ACK is not sent again: nobody remembers it."""
    play(
        """
        0    listen 8080
        +0   < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 9>
        +0   > S. 0:0(0) ack 1 win 65160 <mss 1460,sackOK,TS val 100 ecr 1,nop,wscale 7>
        +5   idle
        +0   < . 1:1(0) ack 1 win 100 <nop,nop,TS val 6 ecr 100>
        +0   accept
        +0   expect timestamps=True sack=True snd_wscale=9 rcv_wscale=7
        +0   < P. 1:1001(1000) ack 1 win 100 <nop,nop,TS val 7 ecr 100>
        +0~+.04 > . 1:1(0) ack 1001
        +0   read 1000
        +0   write 1000
        +0   > P. 1:1001(1000) ack 1001
        +.1  < . 1001:1001(0) ack 1001 win 100
        +0   close
        +0   > F. 1001:1001(0) ack 1001
        """,
        tcp_syncookies=2,
    )
