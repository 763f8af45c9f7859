"""M-15: the published vectors of RFC 9235, key derivation and MACs, IPv4 and IPv6."""

from __future__ import annotations

import pytest
from engine.rfc9235 import CLIENT_KEY_ID, MASTER_KEY, SECTIONS, SERVER_KEY_ID, Section

from tunstack.engine.ao import AoSigner
from tunstack.engine.counters import Counters
from tunstack.engine.keys import Key, KeyChain
from tunstack.engine.mac import traffic_key
from tunstack.wire import signed, tcp
from tunstack.wire.flow import reverse_flow
from tunstack.wire.segment import Segment

IPV6_HEADER = 40


def parse(packet: str) -> Segment:
    """Return the segment of a vector, with all of its option octets. IPv6 has no parser here: its fixed header is stepped over."""
    data = bytes.fromhex(packet)
    if data[0] >> 4 == 4:
        parsed = tcp.parse(data, verify=False)  # the vectors' TCP checksums were left to offload
        assert parsed.segment is not None
        return parsed.segment
    addresses, body = data[8:IPV6_HEADER], data[IPV6_HEADER:]
    _, _, seq, ack, offset, flags, window, _, urgent = tcp.HEADER.unpack_from(body)
    end = (offset >> 4) * 4
    seg = Segment(addresses + body[:4], seq, ack, flags, window, (body[end:],), len(body) - end, urgent=urgent)
    tcp.parse_options(body[tcp.MIN_HEADER : end], seg)
    return seg


def chain(section: Section, is_client: bool) -> KeyChain:
    """Return the key of one end. A Key's peers are IPv4's; that both ends of IPv6 vectors take it is told to the signer below."""
    ids = (CLIENT_KEY_ID, SERVER_KEY_ID) if is_client else (SERVER_KEY_ID, CLIENT_KEY_ID)
    return KeyChain([Key(MASTER_KEY, section.algorithm, send_id=ids[0], recv_id=ids[1], covers_options=section.covers_options)])


def signer(section: Section, is_client: bool, counters: Counters) -> AoSigner:
    syn = parse(section.packets[0])
    isns = (section.client_isn, section.server_isn) if is_client else (section.server_isn, section.client_isn)
    flow = syn.flow if is_client else reverse_flow(syn.flow)
    return AoSigner(chain(section, is_client), flow, bytes(4), (0, 0), *isns, counters)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.number)
def test_traffic_keys_are_those_of_the_vectors(section: Section) -> None:
    """M-15."""
    flow = parse(section.packets[0]).flow
    client, server = section.client_isn.to_bytes(4, "big"), section.server_isn.to_bytes(4, "big")
    contexts = flow + client + bytes(4), flow + client + server, reverse_flow(flow) + server + client
    assert [traffic_key(section.algorithm, MASTER_KEY, context).hex() for context in contexts] == list(section.keys)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.number)
@pytest.mark.parametrize("index", range(4))
def test_a_packet_of_the_vectors_is_admitted_and_one_with_a_bit_turned_is_not(section: Section, index: int) -> None:
    """M-15: each octet that the MAC covers counts."""
    counters = Counters()
    is_to_server = index in (0, 2)
    end = signer(section, not is_to_server, counters)
    seg = parse(section.packets[index])
    assert end.admits(seg, signed.find(seg.options), 0)
    assert counters.TCPAOGood == 1
    seg.window ^= 1
    assert not end.admits(seg, signed.find(seg.options), 0)
    seg.window ^= 1
    for at in range(len(seg.options)):
        seg = parse(section.packets[index])
        option = signed.find(seg.options)
        if option.at <= at < option.at + 2:
            continue  # the option itself would be another
        is_covered = section.covers_options or option.at <= at < option.at + option.length
        octets = bytearray(seg.options)
        octets[at] ^= 0x80
        seg.options = bytes(octets)
        assert end.admits(seg, option, 0) is not is_covered


# The vectors' SYNs have the window scale before the timestamp, ours behind it: where the MAC covers the options it is another.
SIGNED = [(section, index) for section in SECTIONS for index in range(4) if index >= 2 or not section.covers_options]


@pytest.mark.parametrize(("section", "index"), SIGNED, ids=lambda value: getattr(value, "number", value))
def test_we_sign_as_the_vectors_are_signed(section: Section, index: int) -> None:
    """M-15: the same option, octet for octet."""
    seg = parse(section.packets[index])
    theirs = seg.options
    mac_at = signed.find(theirs).at + signed.AO_HEADER
    end = signer(section, index in (0, 2), Counters())
    seg.options = b""
    end.sign(seg, 0)
    assert seg.options == theirs[mac_at - signed.AO_HEADER : mac_at + 12]
