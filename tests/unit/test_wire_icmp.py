"""ICMP messages, held against scapy (M-07, M-08)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from tunstack.wire import icmp, ipv4
from tunstack.wire.flow import pack_address, pack_flow

US = pack_address("10.77.0.2")
PEER = pack_address("10.77.0.1")


def sent_segment(payload: int = 100) -> bytes:
    return bytes(
        IP(src="10.77.0.2", dst="10.77.0.1", id=5, flags="DF") / TCP(sport=80, dport=40000, seq=0xFFFFFFF0, flags="A") / bytes(payload)
    )


def test_echo_is_answered_with_its_identifier_sequence_and_data() -> None:
    request = icmp.parse(bytes(ICMP(type=8, id=0x4321, seq=7) / b"ping data"))
    assert request is not None and request.type == icmp.ECHO_REQUEST and not request.is_error
    reply = ICMP(icmp.echo_reply(request))
    assert (reply.type, reply.code, reply.id, reply.seq, bytes(reply.payload)) == (0, 0, 0x4321, 7, b"ping data")
    assert icmp.parse(bytes(reply)) is not None


def test_an_echo_reply_has_the_code_of_its_request() -> None:
    """As Linux, which nmap knows it by; 0 is what RFC 792 foresees in both."""
    request = icmp.parse(bytes(ICMP(type=8, code=9, id=1, seq=295)))
    assert request is not None and ICMP(icmp.echo_reply(request)).code == 9


def test_echo_request_is_scapys() -> None:
    assert icmp.echo_request(9, 2, b"odd") == bytes(ICMP(type=8, id=9, seq=2) / b"odd")


def test_a_truncated_or_damaged_message_is_none() -> None:
    message = icmp.echo_request(1, 1, b"")
    assert icmp.parse(message) is not None
    for length in range(8):
        assert icmp.parse(message[:length]) is None
    for bit in range(64):
        broken = bytearray(message)
        broken[bit >> 3] ^= 1 << (bit & 7)
        assert icmp.parse(broken) is None


@pytest.mark.parametrize("code", [icmp.PROTOCOL_UNREACHABLE, icmp.PORT_UNREACHABLE, icmp.HOST_UNREACHABLE])
def test_unreachable_quotes_the_packet_up_to_576_octets(code: int) -> None:
    packet = bytes(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=1, dport=33434) / bytes(1000))
    message = icmp.destination_unreachable(code, packet)
    seen = ICMP(message)
    assert (seen.type, seen.code, seen.nexthopmtu) == (3, code, 0)
    assert len(ipv4.build(US, PEER, ipv4.ICMP, message)) == 576
    assert message[8:] == packet[:548]


def test_fragmentation_needed_carries_the_next_hop_mtu_flow_and_sequence_number() -> None:
    message = icmp.parse(icmp.destination_unreachable(icmp.FRAGMENTATION_NEEDED, sent_segment(), 1280))
    assert message is not None and message.is_error
    error = icmp.parse_error(message)
    assert error is not None
    assert (error.type, error.code, error.next_hop_mtu, error.protocol, error.total_length) == (3, 4, 1280, ipv4.TCP, 140)
    assert (error.src, error.dst, error.flow, error.seq) == (US, PEER, pack_flow(US, 80, PEER, 40000), 0xFFFFFFF0)


def test_errors_made_by_scapy_are_read() -> None:
    quoted = sent_segment()[:28]  # the least that RFC 792 asks for
    message = icmp.parse(bytes(ICMP(type=3, code=4, nexthopmtu=576) / quoted))
    assert message is not None
    error = icmp.parse_error(message)
    assert error is not None and (error.next_hop_mtu, error.seq, error.flow) == (576, 0xFFFFFFF0, pack_flow(US, 80, PEER, 40000))


def test_only_fragmentation_needed_has_an_mtu() -> None:
    message = icmp.parse(icmp.destination_unreachable(icmp.PORT_UNREACHABLE, sent_segment(), 1280))
    assert message is not None
    error = icmp.parse_error(message)
    assert error is not None and error.next_hop_mtu == 0


def test_time_exceeded_is_an_error_about_the_quoted_flow() -> None:
    message = icmp.parse(icmp.time_exceeded(icmp.REASSEMBLY_TIME_EXCEEDED, sent_segment()))
    assert message is not None
    error = icmp.parse_error(message)
    assert error is not None and (error.type, error.code, error.seq) == (11, 1, 0xFFFFFFF0)


def test_a_quoted_header_with_options_is_stepped_over() -> None:
    packet = ipv4.build(US, PEER, ipv4.TCP, sent_segment()[20:], options=b"\x94\x04\0\0")
    message = icmp.parse(icmp.time_exceeded(icmp.TTL_EXCEEDED, packet))
    assert message is not None
    error = icmp.parse_error(message)
    assert error is not None and error.flow == pack_flow(US, 80, PEER, 40000) and error.seq == 0xFFFFFFF0


def test_ports_are_read_from_a_first_fragment_of_tcp_or_udp_only() -> None:
    udp = ipv4.build(US, PEER, ipv4.UDP, b"\x00\x35\x9c\x40\x00\x08\x00\x00")
    later = ipv4.build(US, PEER, ipv4.TCP, bytes(40), fragment_offset=1480)
    other = ipv4.build(US, PEER, 47, bytes(40))
    short = sent_segment()[:27]
    results = []
    for packet in (udp, later, other, short):
        message = icmp.parse(icmp.destination_unreachable(icmp.PORT_UNREACHABLE, packet))
        assert message is not None
        error = icmp.parse_error(message)
        assert error is not None and error.src == US
        results.append((error.flow, error.seq))
    assert results == [(pack_flow(US, 53, PEER, 40000), None), (None, None), (None, None), (None, None)]


def test_what_is_no_error_or_quotes_no_header_gives_none() -> None:
    for data in (
        icmp.echo_request(1, 1, sent_segment()),
        icmp.destination_unreachable(1, b""),
        icmp.destination_unreachable(1, sent_segment()[:19]),
        icmp.destination_unreachable(1, b"\x65" + sent_segment()[1:]),
        icmp.destination_unreachable(1, b"\x44" + sent_segment()[1:]),
    ):
        message = icmp.parse(data)
        assert message is not None
        assert icmp.parse_error(message) is None
