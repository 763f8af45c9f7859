"""What an end host does with ICMP, and with what is not TCP (M-08; path MTU reports: M-07). RFC 792, 1122, 1191, 5927."""

from __future__ import annotations

import errno
import random

import pytest

from tunstack.engine.config import StackConfig
from tunstack.engine.counters import Counters
from tunstack.engine.icmp import OUTPUT_MAX, IcmpHandler, PathError
from tunstack.engine.ratelimit import PRUNE_LENGTH
from tunstack.engine.reassembly import Reassembler
from tunstack.engine.sysctl import Sysctl
from tunstack.wire import icmp, ipv4
from tunstack.wire.checksum import checksum
from tunstack.wire.flow import pack_flow
from tunstack.wire.ipv4 import Ipv4Packet

HOST = bytes((10, 77, 0, 1))
US = bytes((10, 77, 0, 2))
ALSO_US = bytes((10, 77, 0, 3))
MILLISECOND = 1000
SECOND = 1_000_000


class Bench:
    """A handler for the addresses US and ALSO_US, with its knobs and counters."""

    def __init__(self, mtu: int = 1500, **knobs: int) -> None:
        self.counters = Counters()
        self.sysctl = Sysctl(**knobs)  # type: ignore[arg-type]
        config = StackConfig(addresses=(US, ALSO_US), mtu=mtu, sysctl=self.sysctl)
        self.handler = IcmpHandler(config, self.counters, random.Random(1))

    def exchange(self, packet: bytes, now: int = 0) -> list[bytes]:
        """Hand a packet over; return what is sent for it."""
        assert self.handler.receive(memoryview(packet), now) is None
        return self.sent()

    def sent(self) -> list[bytes]:
        packets = []
        while (packet := self.handler.poll_transmit()) is not None:
            packets.append(packet)
        assert not self.handler.output
        return packets


def parsed(packet: bytes) -> tuple[Ipv4Packet, icmp.IcmpMessage]:
    """Both headers of an ICMP packet, whose checksums are thereby checked."""
    datagram = ipv4.parse(packet)
    assert datagram is not None and datagram.protocol == ipv4.ICMP
    message = icmp.parse(datagram.payload)
    assert message is not None
    return datagram, message


def udp(src: bytes = HOST, dst: bytes = US, body: bytes = b"probe", sport: int = 4000, dport: int = 44444) -> bytes:
    header = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + (8 + len(body)).to_bytes(2, "big")
    total = checksum(src + dst + bytes((0, 17)) + header[4:6] + header + b"\0\0" + body)
    return ipv4.build(src, dst, ipv4.UDP, header + total.to_bytes(2, "big") + body, ttl=1, ident=99)


def ping(body: bytes = b"abcdefgh" * 7, src: bytes = HOST, dst: bytes = US, tos: int = 0) -> bytes:
    return ipv4.build(src, dst, ipv4.ICMP, icmp.echo_request(0x1234, 5, body), ident=3, dont_fragment=True, tos=tos)


def quote(seq: int = 1000, src: bytes = US, dst: bytes = HOST, length: int = 1500) -> bytes:
    """The beginning of a TCP segment from us, as a router quotes it: IPv4 header and 8 octets."""
    ports_and_seq = (80).to_bytes(2, "big") + (40000).to_bytes(2, "big") + seq.to_bytes(4, "big")
    return ipv4.build(src, dst, ipv4.TCP, ports_and_seq + bytes(length - 28), dont_fragment=True)[:28]


def error(kind: int, code: int, quoted: bytes, *, src: bytes = bytes((192, 0, 2, 1)), dst: bytes = US, mtu: int = 0) -> bytes:
    return ipv4.build(src, dst, ipv4.ICMP, icmp.build(kind, code, 0, mtu, quoted))


class TestEcho:
    @pytest.mark.parametrize("length", [0, 1, 56, 57, 1472])
    def test_a_request_is_answered_with_its_own_data(self, length: int) -> None:
        bench = Bench()
        body = random.Random(length).randbytes(length)
        (reply,) = bench.exchange(ping(body, dst=ALSO_US, tos=0x28))
        datagram, message = parsed(reply)
        assert (datagram.src, datagram.dst, datagram.ttl, datagram.tos) == (ALSO_US, HOST, 64, 0x28)
        assert (message.type, message.code, message.word1, message.word2) == (icmp.ECHO_REPLY, 0, 0x1234, 5)
        assert bytes(message.body) == body
        counters = bench.counters
        assert (counters.IcmpInMsgs, counters.IcmpInEchos, counters.IcmpOutMsgs, counters.IcmpOutEchoReps) == (1, 1, 1, 1)

    def test_a_reply_larger_than_the_mtu_is_fragmented(self) -> None:
        bench = Bench(mtu=576)
        body = random.Random(1).randbytes(4000)
        fragments = bench.exchange(ping(body))
        assert len(fragments) == 8 and max(map(len, fragments)) <= 576
        assert (bench.counters.IpFragOKs, bench.counters.IpFragCreates) == (1, 8)
        host = Reassembler(Sysctl(), Counters())
        whole = [datagram for fragment in fragments if (datagram := host.add(memoryview(fragment), 0))]
        assert bytes(parsed(whole[0])[1].body) == body

    def test_replies_to_two_requests_differ_in_identification(self) -> None:
        """Else the fragments of two replies could be taken for those of one."""
        bench = Bench()
        idents = {parsed(bench.exchange(ping())[0])[0].ident for _ in range(20)}
        assert len(idents) > 15

    def test_flood_pings_are_not_rate_limited(self) -> None:
        bench = Bench()
        assert all(len(bench.exchange(ping())) == 1 for _ in range(1000))

    def test_icmp_echo_ignore_all_is_obeyed_at_once(self) -> None:
        bench = Bench()
        bench.sysctl.icmp_echo_ignore_all = True
        assert bench.exchange(ping()) == []
        bench.sysctl.icmp_echo_ignore_all = False
        assert len(bench.exchange(ping())) == 1

    def test_a_bad_checksum_is_counted_and_not_answered(self) -> None:
        bench = Bench()
        request = bytearray(ping())
        request[-1] ^= 1
        assert bench.exchange(bytes(request)) == []
        assert (bench.counters.IcmpInErrors, bench.counters.IcmpInCsumErrors) == (1, 1)

    def test_a_truncated_message_is_counted(self) -> None:
        bench = Bench()
        assert bench.exchange(ipv4.build(HOST, US, ipv4.ICMP, b"\x08\0\xf7")) == []
        assert (bench.counters.IcmpInErrors, bench.counters.IcmpInCsumErrors) == (1, 0)

    @pytest.mark.parametrize("kind", [icmp.ECHO_REPLY, 13, 17, 42, icmp.REDIRECT, icmp.SOURCE_QUENCH])
    def test_other_messages_are_ignored(self, kind: int) -> None:
        bench = Bench()
        assert bench.exchange(error(kind, 0, quote())) == []
        assert (bench.counters.IcmpInMsgs, bench.counters.IcmpInErrors) == (1, 0)

    def test_output_that_nobody_takes_is_bounded(self) -> None:
        bench = Bench()
        for _ in range(30):
            bench.handler.receive(ping(bytes(60_000)), 0)
        assert bench.counters.IcmpOutErrors > 0
        assert OUTPUT_MAX - 70_000 < sum(map(len, bench.sent())) <= OUTPUT_MAX
        assert len(bench.exchange(ping(bytes(60_000)))) == 41


class TestUnreachable:
    def test_udp_to_us_gets_port_unreachable_that_quotes_it(self) -> None:
        """tracepath and traceroute end with it."""
        bench = Bench()
        probe = udp()
        (reply,) = bench.exchange(probe)
        datagram, message = parsed(reply)
        assert (datagram.src, datagram.dst, datagram.tos) == (US, HOST, 0xC0)
        assert (message.type, message.code) == (icmp.DESTINATION_UNREACHABLE, icmp.PORT_UNREACHABLE)
        assert bytes(message.body) == probe
        assert (bench.counters.UdpNoPorts, bench.counters.IcmpOutDestUnreachs) == (1, 1)

    def test_an_error_has_at_most_576_octets(self) -> None:
        (reply,) = Bench().exchange(udp(body=bytes(1400)))
        assert len(reply) == 576

    def test_an_unknown_protocol_gets_protocol_unreachable(self) -> None:
        bench = Bench()
        (reply,) = bench.exchange(ipv4.build(HOST, US, 132, b"sctp" * 8))
        message = parsed(reply)[1]
        assert (message.type, message.code) == (icmp.DESTINATION_UNREACHABLE, icmp.PROTOCOL_UNREACHABLE)
        assert bench.counters.IpInUnknownProtos == 1

    def test_udp_without_checksum_is_sound(self) -> None:
        probe = bytearray(udp())
        probe[26:28] = b"\0\0"
        assert len(Bench().exchange(bytes(probe))) == 1

    def test_udp_that_is_damaged_is_counted_and_not_answered(self) -> None:
        """RFC 1122 4.1.3.4."""
        bench = Bench()
        damaged = bytearray(udp())
        damaged[-1] ^= 1
        assert bench.exchange(bytes(damaged)) == []
        assert (bench.counters.UdpInErrors, bench.counters.UdpInCsumErrors, bench.counters.UdpNoPorts) == (1, 1, 0)

    @pytest.mark.parametrize(
        "payload", [b"", b"\0\1\0\2\0", b"\0\1\0\2\0\7\0\0", b"\0\1\0\2\0\11\0\0"], ids=["none", "cut", "short", "long"]
    )
    def test_udp_with_a_wrong_length_is_counted_and_not_answered(self, payload: bytes) -> None:
        bench = Bench()
        assert bench.exchange(ipv4.build(HOST, US, ipv4.UDP, payload)) == []
        assert (bench.counters.UdpInErrors, bench.counters.UdpInCsumErrors) == (1, 0)

    @pytest.mark.parametrize("kind", sorted(icmp.ERRORS))
    def test_no_error_is_sent_about_an_icmp_error(self, kind: int) -> None:
        """RFC 1122 3.2.2."""
        bench = Bench()
        bench.handler.receive(error(kind, 0, quote()), 0)
        assert bench.sent() == []

    @pytest.mark.parametrize("dst", [(255, 255, 255, 255), (10, 77, 0, 255), (224, 0, 0, 1), (10, 77, 0, 9), (0, 0, 0, 0)])
    def test_what_is_not_addressed_to_us_alone_is_never_answered(self, dst: tuple[int, ...]) -> None:
        bench = Bench()
        for packet in (ping(dst=bytes(dst)), udp(dst=bytes(dst))):
            assert bench.exchange(packet) == []
        assert bench.counters.IpInAddrErrors == 2

    @pytest.mark.parametrize(
        "src", [(0, 0, 0, 0), (127, 0, 0, 1), (224, 0, 0, 5), (240, 0, 0, 1), (255, 255, 255, 255), tuple(US), tuple(ALSO_US)]
    )
    def test_a_source_that_is_no_other_host_is_never_answered(self, src: tuple[int, ...]) -> None:
        bench = Bench()
        for packet in (ping(src=bytes(src)), udp(src=bytes(src))):
            assert bench.exchange(packet) == []
        assert bench.counters.IpInAddrErrors == 2

    def test_a_malformed_packet_is_counted(self) -> None:
        bench = Bench()
        assert bench.exchange(b"\x45" + bytes(30)) == []
        assert bench.counters.IpInHdrErrors == 1


class TestReassemblyTimeExceeded:
    def test_fragment_zero_is_quoted(self) -> None:
        bench = Bench()
        first = ipv4.fragment(udp(body=bytes(3000)), 1500)[0]
        bench.handler.time_exceeded(first, 0)
        (reply,) = bench.sent()
        datagram, message = parsed(reply)
        assert (datagram.src, datagram.dst) == (US, HOST)
        assert (message.type, message.code) == (icmp.TIME_EXCEEDED, icmp.REASSEMBLY_TIME_EXCEEDED)
        assert bytes(message.body) == first[:548]
        assert bench.counters.IcmpOutTimeExcds == 1

    def test_one_of_an_echo_request_is_reported_and_one_of_an_error_is_not(self) -> None:
        bench = Bench()
        request = ipv4.build(HOST, US, ipv4.ICMP, icmp.echo_request(1, 1, bytes(3000)))
        unreachable = error(icmp.DESTINATION_UNREACHABLE, 1, quote() + bytes(3000))
        for packet, reported in ((request, 1), (unreachable, 0)):
            bench.handler.time_exceeded(ipv4.fragment(packet, 1500)[0], 0)
            assert len(bench.sent()) == reported

    def test_one_for_or_from_everybody_is_not_reported(self) -> None:
        bench = Bench()
        for packet in (udp(dst=bytes((10, 77, 0, 255)), body=bytes(3000)), udp(src=bytes((224, 0, 0, 1)), body=bytes(3000))):
            bench.handler.time_exceeded(ipv4.fragment(packet, 1500)[0], 0)
        assert bench.sent() == []


class TestRateLimit:
    def test_six_errors_at_once_then_one_each_icmp_ratelimit(self) -> None:
        bench = Bench()
        assert sum(len(bench.exchange(udp(), now=0)) for _ in range(20)) == 6
        assert bench.counters.IcmpOutRateLimitHost == 14
        assert bench.exchange(udp(), now=999 * MILLISECOND) == []
        assert len(bench.exchange(udp(), now=1000 * MILLISECOND)) == 1
        assert bench.exchange(udp(), now=1999 * MILLISECOND) == []
        assert sum(len(bench.exchange(udp(), now=now * 10 * MILLISECOND)) for now in range(200, 1200)) == 10

    def test_the_burst_comes_back_after_six_intervals_of_silence(self) -> None:
        bench = Bench()
        for now in (0, 100 * SECOND, 106 * SECOND):
            assert sum(len(bench.exchange(udp(), now=now)) for _ in range(20)) == 6

    def test_one_target_does_not_use_up_another_s_errors(self) -> None:
        bench = Bench()
        for _ in range(20):
            bench.exchange(udp())
        assert len(bench.exchange(udp(src=bytes((10, 77, 0, 8))))) == 1

    def test_the_knob_is_obeyed_at_once(self) -> None:
        bench = Bench()
        for _ in range(20):
            bench.exchange(udp())
        bench.sysctl.icmp_ratelimit = 0
        assert sum(len(bench.exchange(udp())) for _ in range(20)) == 20

    def test_all_targets_together_are_limited_too(self) -> None:
        bench = Bench()

        def answered(count: int, now: int) -> int:
            sources = (bytes((10, 1)) + n.to_bytes(2, "big") for n in range(count))
            return sum(len(bench.exchange(udp(src=source), now=now)) for source in sources)

        assert answered(200, 0) == 50
        assert bench.counters.IcmpOutRateLimitGlobal == 150
        assert answered(200, 20 * MILLISECOND) == 20
        assert answered(200, 100 * SECOND) == 50

    def test_a_flood_from_spoofed_sources_leaves_a_bounded_memory(self) -> None:
        bench = Bench()
        dice = random.Random(1)
        for now in range(0, 60 * SECOND, 2 * MILLISECOND):
            bench.handler.receive(udp(src=bytes((10,)) + dice.randbytes(3)), now)
            bench.sent()
        # 500 a second, each remembered for a second while its bucket fills up again, and some more until the next pruning
        assert bench.counters.IcmpOutDestUnreachs > 29_000
        assert len(bench.handler._limit._filled_at) <= 2 * PRUNE_LENGTH


class TestErrorsForOurTcp:
    FLOW = pack_flow(US, 80, HOST, 40000)

    @pytest.mark.parametrize(
        ("kind", "code", "number", "is_hard"),
        [
            (3, 0, errno.ENETUNREACH, False),
            (3, 1, errno.EHOSTUNREACH, False),
            (3, 2, errno.ENOPROTOOPT, True),
            (3, 3, errno.ECONNREFUSED, True),
            (3, 5, errno.EOPNOTSUPP, False),
            (3, 9, errno.ENETUNREACH, True),
            (3, 13, errno.EHOSTUNREACH, True),
            (11, 0, errno.EHOSTUNREACH, False),
            (12, 0, errno.EPROTO, True),
        ],
    )
    def test_an_error_comes_with_the_errno_that_a_socket_gives(self, kind: int, code: int, number: int, is_hard: bool) -> None:
        bench = Bench()
        found = bench.handler.receive(error(kind, code, quote(seq=0xFFFFFFF0)), 0)
        ends_half_open = (kind, code) in ((3, 0), (3, 1), (11, 0), (12, 0))
        assert found == PathError(self.FLOW, 0xFFFFFFF0, number, is_hard, 0, ends_half_open)
        assert bench.counters.IcmpInMsgs == 1 and bench.counters.IcmpInErrors == 0
        assert bench.counters.IcmpInDestUnreachs == (kind == 3) and bench.counters.IcmpInTimeExcds == (kind == 11)
        assert bench.sent() == []

    def test_a_fragment_that_was_lost_is_none_of_ours(self) -> None:
        bench = Bench()
        assert bench.handler.receive(error(11, 1, quote()), 0) is None and bench.counters.IcmpInTimeExcds == 1

    def test_fragmentation_needed_tells_the_mtu(self) -> None:
        """M-07, RFC 1191 4."""
        found = Bench().handler.receive(error(3, 4, quote(), mtu=1280), 0)
        assert found == PathError(self.FLOW, 1000, errno.EMSGSIZE, False, 1280)

    @pytest.mark.parametrize(
        ("length", "expected"), [(1500, 1492), (1492, 1006), (9000, 8166), (65535, 32000), (296, 68), (68, 68), (40, 68)]
    )
    def test_a_router_that_tells_no_mtu_is_guessed_from_the_plateaus(self, length: int, expected: int) -> None:
        """RFC 1191 7."""
        found = Bench().handler.receive(error(3, 4, quote(length=length)), 0)
        assert found is not None and found.mtu == expected

    @pytest.mark.parametrize(
        "quoted",
        [b"", quote()[:19], b"\x65" + quote()[1:], quote(src=HOST, dst=US), quote(src=ALSO_US)],
        ids=["nothing", "cut", "version", "not-from-us", "not-who-was-told"],
    )
    def test_a_quote_that_cannot_be_ours_is_counted(self, quoted: bytes) -> None:
        bench = Bench()
        assert bench.handler.receive(error(3, 1, quoted), 0) is None
        assert bench.counters.IcmpInErrors == 1

    def test_an_unassigned_code_is_counted(self) -> None:
        bench = Bench()
        assert bench.handler.receive(error(3, 16, quote()), 0) is None
        assert bench.counters.IcmpInErrors == 1

    @pytest.mark.parametrize("quoted", [quote()[:27], udp(src=US, dst=HOST), ping(src=US, dst=HOST)], ids=["no-seq", "udp", "icmp"])
    def test_a_quote_of_another_protocol_or_without_sequence_number_concerns_no_connection(self, quoted: bytes) -> None:
        bench = Bench()
        assert bench.handler.receive(error(3, 3, quoted), 0) is None
        assert bench.counters.IcmpInErrors == 0


@pytest.mark.parametrize("seed", range(10))
def test_noise_never_raises(seed: int) -> None:
    """Packets of every kind with octets changed at random, their IPv4 header checksums repaired."""
    bench = Bench()
    dice = random.Random(seed)
    samples = [ping(), udp(), error(3, 4, quote(), mtu=1280), error(11, 0, quote()), ipv4.build(HOST, US, 132, b"x" * 40)]
    for now in range(2000):
        packet = bytearray(dice.choice(samples))
        for _ in range(dice.randrange(4)):
            packet[dice.randrange(len(packet))] = dice.randrange(256)
        packet[6:8] = packet[10:12] = b"\0\0"  # a whole datagram, as the caller promises
        header = packet[: max(20, (packet[0] & 15) * 4)]
        packet[10:12] = checksum(header).to_bytes(2, "big")
        bench.handler.receive(bytes(packet), now * MILLISECOND)
        for reply in bench.sent():
            assert ipv4.parse(reply) is not None, seed
    assert bench.counters.IcmpOutMsgs > 100, seed
