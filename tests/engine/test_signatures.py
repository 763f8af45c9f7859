"""Signed connections, two stacks against each other in virtual time: what leaves is signed, and what is not signed rightly is nobody's."""

from __future__ import annotations

import pytest
from engine.signedpair import ALGORITHMS, AO, PORT, A, Note, Pair, forged, key

from tunstack.device.impairment import Impairment
from tunstack.engine.keys import KeyChain
from tunstack.engine.md5sig import Md5Signer
from tunstack.engine.options import SocketOptions
from tunstack.engine.signature import Signatures
from tunstack.seq import seq_lt
from tunstack.sim.transfer import transfer
from tunstack.wire import icmp, ipv4, signed
from tunstack.wire.flow import pack_flow
from tunstack.wire.segment import ACK, FIN, PSH, RST, SYN, Segment

BAD_PATH = Impairment(delay=10_000, jitter=5_000, loss=0.02, duplicate=0.02, reorder=0.05)
MIB = 1 << 20


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", range(3))
def test_a_megabyte_crosses_a_bad_path_and_every_segment_of_it_is_signed(algorithm: str, seed: int) -> None:
    """M-15, M-16."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)], BAD_PATH, seed=seed)
    pair.listener.close(0)
    outcome = transfer(MIB, world=pair.world, hosts=(pair.a, pair.b))
    assert outcome.complete and outcome.at_rest, outcome
    assert outcome.retransmitted
    pair.assert_all_signed()
    assert all(seg.length <= 1460 for _, seg in pair.sent)
    good = {} if algorithm == "md5" else {"TCPAOGood"}
    assert pair.counted(pair.a).keys() == pair.counted(pair.b).keys() == set(good)
    assert len(pair.a.stack.signatures) <= 1


def test_corrupted_octets_that_the_checksum_lets_pass_are_caught() -> None:
    """M-15: two octets exchanged in the data leave RFC 1071's sum as it is."""
    pair = Pair([key()], [key(is_server=True)])
    conn, _, peer, heard = pair.open()
    pair.say(conn, b"abcd", heard)
    seg = forged(peer, ACK | PSH, 0, b"efgh")
    pair.a.stack.signatures.sign(seg, 0)
    seg.payload = (memoryview(b"ghef"),)
    pair.inject(pair.b, seg)
    assert heard.data == b"abcd" and pair.counted(pair.b)["TCPAOBad"] == 1
    seg.payload = (memoryview(b"efgh"),)
    pair.inject(pair.b, seg)
    assert heard.data == b"abcdefgh"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_with_a_wrong_secret_nothing_gets_through_in_either_direction(algorithm: str) -> None:
    """M-15, M-16: not even a RST comes back."""
    pair = Pair([key(b"one", algorithm)], [key(b"two", algorithm, is_server=True)])
    _, note = pair.connect()
    pair.world.run()
    assert note.events == ["TimeoutError"] and not pair.accepted
    assert {host.name for host, _ in pair.sent} == {"a"}
    assert pair.counted(pair.b) == {"TCPMD5Failure" if algorithm == "md5" else "TCPAOBad": 7}
    assert not len(pair.b.stack.signatures) and not pair.listener.half_open


@pytest.mark.parametrize(
    ("client", "server", "counter"),
    [
        (None, "md5", "TCPMD5NotFound"),
        (None, AO, "TCPAORequired"),
        ("md5", None, "TCPMD5Unexpected"),
        (AO, None, "TCPAOKeyNotFound"),
        ("md5", AO, "TCPMD5Unexpected"),
        (AO, "md5", "TCPAOKeyNotFound"),
    ],
)
def test_who_signs_otherwise_than_is_asked_is_not_heard(client: str | None, server: str | None, counter: str) -> None:
    """M-15, M-16: under Linux's counters, and to a port where nobody listens too."""
    pair = Pair(
        [key(algorithm=client)] if client else [],
        [key(algorithm=server, is_server=True)] if server else [],
    )
    notes = [pair.connect()[1], pair.connect(9)[1]]
    pair.world.run()
    assert [note.events for note in notes] == [["TimeoutError"]] * 2
    assert {host.name for host, _ in pair.sent} == {"a"}
    assert pair.counted(pair.b) == {counter: 14}


def test_a_key_id_that_the_peer_does_not_have_is_counted_by_itself() -> None:
    """M-15."""
    pair = Pair([key(number=1)], [key(number=2, is_server=True)])
    _, note = pair.connect()
    pair.world.run()
    assert note.events == ["TimeoutError"] and pair.counted(pair.b) == {"TCPAOKeyNotFound": 7}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refusal_is_signed_and_believed(algorithm: str) -> None:
    """M-15, M-16: a RST for a port where nobody listens, under the stack's key."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])
    _, note = pair.connect(9)
    pair.run()
    assert note.events == ["ConnectionRefusedError"]
    pair.assert_all_signed()
    assert [seg.flags for _, seg in pair.sent] == [SYN, RST | ACK]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_reset_is_signed_and_believed(algorithm: str) -> None:
    """M-15, M-16."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])
    conn, _, _, heard = pair.open()
    pair.say(conn, b"hello", heard)
    conn.abort(pair.world.now())
    pair.run()
    assert heard.events == ["ConnectionResetError"]
    pair.assert_all_signed()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("signature", ["none", "wrong", "other kind"])
@pytest.mark.parametrize("flags", [RST, RST | ACK, SYN, SYN | ACK, ACK | PSH, ACK | FIN], ids=lambda flags: f"{flags:#x}")
def test_a_forger_who_knows_all_the_numbers_neither_ends_nor_feeds_a_connection(algorithm: str, signature: str, flags: int) -> None:
    """M-15, M-16, RFC 5961's attacks with the numbers known: the segment is seen by nobody, and drew no answer."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])
    conn, said, peer, heard = pair.open()
    pair.say(conn, b"before", heard)
    counted = sum(pair.counted(pair.b).values())
    sent = len(pair.sent)
    seg = forged(peer, flags, payload=b"evil" if flags & PSH else b"")
    if signature == "wrong":
        other = Pair([key(b"guess", algorithm)], [])
        other.connect(local_port=peer.remote[1])
        other.a.stack.signatures.sign(seg, 0)
        assert signed.find(seg.options).kind > 0
    elif signature == "other kind":
        seg.options = bytes((1, 1, 19, 18)) + bytes(16) if algorithm != "md5" else bytes((29, 16, 7, 107)) + bytes(12)
    pair.inject(pair.b, seg)
    assert len(pair.sent) == sent
    assert sum(pair.counted(pair.b).values()) == counted + 1
    pair.say(conn, b"after", heard)
    assert heard.data == b"beforeafter" and heard.events == said.events[1:] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_half_open_connection_and_time_wait_see_no_forgeries_either(algorithm: str) -> None:
    """M-15, M-16."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])
    pair.connect(local_port=4000)
    pair.a.pump(pair.world.now())
    pair.b.pump(pair.world.now())  # the SYN is in; the SYN-ACK waits to be read
    (entry,) = pair.b.stack.flows.values()
    before = pair.b.stack.counters.EmbryonicRsts
    pair.inject(pair.b, Segment(entry.flow_in, (entry.irs + 1) & 0xFFFFFFFF, 0, RST, 0))  # type: ignore[union-attr]
    assert pair.b.stack.counters.EmbryonicRsts == before
    pair.run()
    (client,) = pair.a.stack.connections
    client.close(pair.world.now())
    pair.run()
    pair.accepted[0].close(pair.world.now())
    pair.run()
    assert len(pair.a.stack.time_wait) == 1
    sent = len(pair.sent)
    fin = [seg for host, seg in pair.sent if host is pair.b and seg.flags & FIN][-1]
    pair.inject(pair.a, Segment(fin.flow, fin.seq, fin.ack, ACK | FIN, 0))  # the peer's own, but for the signature
    assert len(pair.sent) == sent
    pair.assert_all_signed()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_acknowledgement_of_time_wait_and_a_challenge_are_signed(algorithm: str) -> None:
    """M-15, M-16, RFC 5961 4: the peer's FIN again in TIME-WAIT, and a SYN in a connection."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])
    _, _, server, _ = pair.open()
    syn = forged(server, SYN)
    pair.a.stack.signatures.sign(syn, 0)
    sent = len(pair.sent)
    pair.inject(pair.b, syn)
    assert pair.b.stack.counters.TCPChallengeACK == 1 and len(pair.sent) == sent + 1
    pair.assert_all_signed()
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])  # the client's signer began anew with that SYN
    client, _, server, _ = pair.open()
    client.close(pair.world.now())
    pair.run()
    server.close(pair.world.now())
    pair.run()
    last = [frame for frame, (host, seg) in zip(pair.frames, pair.sent, strict=True) if host is pair.b and seg.flags & FIN][-1]
    sent = len(pair.sent)
    pair.deliver(pair.a, last)
    answers = [(host.name, seg.flags) for host, seg in pair.sent[sent:]]
    assert answers == [("a", ACK), ("b", RST)]  # b has forgotten the connection, but not yet its signer
    pair.assert_all_signed()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_may_open_at_once(algorithm: str) -> None:
    """M-21: simultaneous open; each SYN-ACK is signed with both ISNs."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)], Impairment(delay=10_000))
    pair.listener.close(0)
    now = pair.world.now()
    notes = [Note(), Note()]
    left = pair.a.stack.connect(pair.b.address, 700, notes[0], now, local_port=600)
    pair.b.stack.connect(pair.a.address, 600, notes[1], now, local_port=700)
    pair.run()
    assert [note.events for note in notes] == [["established"]] * 2
    pair.say(left, b"both", notes[1])
    pair.assert_all_signed()


def test_a_port_is_used_again_out_of_time_wait() -> None:
    """M-54 with M-15: the new incarnation has keys of its own."""
    pair = Pair([key()], [key(is_server=True)])
    client, _, server, _ = pair.open()
    port = client.local[1]
    server.close(pair.world.now())
    pair.run()
    client.close(pair.world.now())
    pair.run()
    assert len(pair.b.stack.time_wait) == 1
    again, note = pair.connect(local_port=port)
    pair.run()
    assert note.events == ["established"] and not len(pair.b.stack.time_wait)
    pair.say(again, b"again", pair.notes[1])
    pair.assert_all_signed()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_connection_by_syn_cookie_is_signed_too(algorithm: str) -> None:
    """M-26 with M-15 and M-16: the ISNs that the keys are derived from are in the ACK, for nothing was kept of the SYN."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)], tcp_syncookies=2)
    conn, note, peer, heard = pair.open()
    assert pair.b.stack.counters.SyncookiesRecv == 1
    pair.say(conn, bytes(10_000), heard)
    pair.say(peer, bytes(10_000), note)
    assert max(seg.length for _, seg in pair.sent) == peer.tx.mss
    pair.assert_all_signed()


# Room for options.


def test_a_syn_with_md5_has_no_timestamps_and_two_sack_blocks_fit_later() -> None:
    """M-16: as Linux; 20 octets are the signature's."""
    pair = Pair([key(algorithm="md5")], [key(algorithm="md5", is_server=True)], BAD_PATH)
    pair.listener.close(0)
    assert transfer(MIB, world=pair.world, hosts=(pair.a, pair.b)).complete
    assert all(seg.ts_val is None for _, seg in pair.sent)
    assert max(len(seg.sack) for _, seg in pair.sent) == 2
    assert max(seg.length for _, seg in pair.sent) == 1460 - 20


def test_beside_timestamps_and_tcp_ao_one_sack_block_fits() -> None:
    """M-15: 16 octets are the signature's."""
    pair = Pair([key()], [key(is_server=True)], BAD_PATH)
    pair.listener.close(0)
    assert transfer(MIB, world=pair.world, hosts=(pair.a, pair.b)).complete
    assert all(seg.ts_val is not None for _, seg in pair.sent)
    assert max(len(seg.sack) for _, seg in pair.sent) == 1
    assert max(seg.length for _, seg in pair.sent) == 1460 - 12 - 16


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_user_timeout_option_goes_where_there_is_room_beside_the_signature(algorithm: str) -> None:
    """M-15, M-16 with RFC 5482: 40 octets of options are never exceeded, on SYN, SYN-ACK or data."""
    keys = [key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)]
    pair = Pair(*keys, BAD_PATH, tcp_user_timeout_option=True)
    pair.listener.close(0)
    assert transfer(MIB, world=pair.world, hosts=(pair.a, pair.b)).complete
    pair.assert_all_signed()
    assert any(seg.options.find(bytes((28, 4))) >= 0 for _, seg in pair.sent)


# Sequence numbers that wrap.


@pytest.mark.parametrize("isns", [(0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFF00, 0), (0xFFFF0000, 0xFFFFFFF0)], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_sequence_numbers_may_wrap(isns: tuple[int, int], seed: int) -> None:
    """M-15, RFC 5925 6.2: in both directions, with segments lost and out of order around the wrap."""
    pair = Pair([key()], [key(is_server=True)], BAD_PATH, isns=isns, seed=seed)
    pair.listener.close(0)
    outcome = transfer(MIB // 2, world=pair.world, hosts=(pair.a, pair.b))
    assert outcome.complete, outcome
    assert "TCPAOBad" not in pair.counted(pair.a) | pair.counted(pair.b)


def test_a_segment_of_the_round_before_is_not_taken_for_one_of_this() -> None:
    """M-15, RFC 5925 6.2: the MAC after a wrap is over another extension, so an old segment cannot be replayed 2^32 octets later."""
    pair = Pair([key()], [key(is_server=True)], isns=(0xFFFFFFF0, 1000))
    conn, _, peer, heard = pair.open()
    pair.say(conn, bytes(100), heard)
    assert seq_lt(0xFFFFFFF0, conn.tx.snd_nxt) and conn.tx.snd_nxt < 0xFFFFFFF0
    client, server = pair.a.stack.signatures.get(conn), pair.b.stack.signatures.get(peer)
    assert client.sent.highest >> 32 == server.received.highest >> 32 == 0  # type: ignore[union-attr]
    pair.say(conn, b"x", heard)
    assert client.sent.highest >> 32 == server.received.highest >> 32 == 1  # type: ignore[union-attr]
    last = forged(peer, ACK | PSH, payload=b"y")
    pair.a.stack.signatures.sign(last, 0)
    with_one = last.options
    client.sent.highest &= 0xFFFFFFFF  # type: ignore[union-attr]
    last.options = b""
    pair.a.stack.signatures.sign(last, 0)
    assert last.options != with_one
    pair.inject(pair.b, last)
    assert pair.counted(pair.b)["TCPAOBad"] == 1 and heard.data[-1:] == b"x"
    last.options = with_one
    pair.inject(pair.b, last)
    assert heard.data[-1:] == b"y"


# ICMP.


def test_icmp_that_could_end_or_slow_a_connection_is_ignored_unless_it_is_asked_for() -> None:
    """M-15, RFC 5925 7.8."""
    for accepts in (False, True):
        pair = Pair([key()], [key(is_server=True)])
        pair.a.stack.signatures.keys.accept_icmps = accepts
        conn, _, _, _ = pair.open()
        conn.send(bytes(1000), pair.world.now())
        pair.a.pump(pair.world.now())
        quote = ipv4.build(pair.a.address, pair.b.address, ipv4.TCP, conn.flow[8:] + conn.tx.snd_una.to_bytes(4, "big") + bytes(12), ttl=64)
        message = icmp.destination_unreachable(icmp.FRAGMENTATION_NEEDED, quote, 600)
        pair.a.device.deliver(ipv4.build(pair.b.address, pair.a.address, ipv4.ICMP, message, ttl=64))
        pair.run()
        assert (conn.mtu == 600) is accepts
        assert pair.counted(pair.a).get("TCPAODroppedIcmps", 0) == (not accepts)


# Whose keys.


def test_a_sockets_keys_go_before_the_stacks_and_a_longer_prefix_before_a_shorter() -> None:
    """M-15, M-16: a wrong key of the stack does no harm where the socket has its own."""
    wrong = key(b"of the stack")
    right = KeyChain([key(b"for all", number=1), key(peer=f"{A[:-1]}0/24", number=1), key(b"for others", peer="192.0.2.0/24")])
    listening = SocketOptions(
        keys=KeyChain([key(b"for all", is_server=True, number=1), key(peer=f"{A[:-1]}0/24", is_server=True, number=1)])
    )
    pair = Pair([wrong], [key(b"other", is_server=True)], options=listening)
    conn, _, _, heard = pair.open(SocketOptions(keys=right))
    pair.say(conn, b"mine", heard)
    assert pair.counted(pair.b).keys() == {"TCPAOGood"}


def test_a_key_for_a_port_leaves_other_ports_unsigned() -> None:
    """M-15: `port` may be either end's."""
    pair = Pair([key(port=PORT)], [key(is_server=True, port=PORT)])
    other = pair.b.stack.listen(pair.b.address, 80, on_acceptable=pair._accept)
    conn, _, _, heard = pair.open()
    pair.say(conn, b"signed", heard)
    pair.assert_all_signed()
    pair.sent.clear()
    plain, _ = pair.connect(other.port)
    pair.run()
    pair.say(plain, b"unsigned", pair.notes[-1])
    assert pair.sent and not any(seg.options for _, seg in pair.sent)


def test_a_listener_can_ask_for_signatures_of_everybody() -> None:
    """M-15: ao_required refuses who has no key at all."""
    required = SocketOptions(keys=KeyChain([key(peer="192.0.2.1", is_server=True)], is_required=True))
    pair = Pair([], [], options=required)
    _, note = pair.connect()
    pair.world.run()
    assert note.events == ["TimeoutError"] and pair.counted(pair.b) == {"TCPAORequired": 7}


def test_signers_whose_connections_are_gone_are_forgotten() -> None:
    """M-15: a bound on the table."""
    pair = Pair([key()], [key(is_server=True)])
    for _ in range(300):
        conn, _ = pair.connect()
        pair.run(0.1)
        conn.abort(pair.world.now())
        pair.run(0.1)
    assert len(pair.accepted) == 300
    assert len(pair.a.stack.signatures) <= 64 and len(pair.b.stack.signatures) <= 64


def test_the_last_signers_go_too_when_nothing_follows() -> None:
    """M-15: traffic keys do not stay in memory until somebody connects again."""
    pair = Pair([key()], [key(is_server=True)])
    conns = [pair.connect()[0] for _ in range(100)]
    pair.run()
    assert len(pair.accepted) == len(pair.b.stack.signatures) == 100
    for conn in conns:
        conn.abort(pair.world.now())
    pair.run(130)
    assert not len(pair.a.stack.signatures) and not len(pair.b.stack.signatures)
    assert pair.a.stack.next_deadline() is None


def test_answers_without_a_connection_are_signed_however_many_wait_to_leave() -> None:
    """M-15 with M-26: the signers of those that are half open by cookie alone are not among those that serve nobody."""
    pair = Pair([key()], [key(is_server=True)], tcp_syncookies=2)
    notes = [pair.connect()[1] for _ in range(300)]
    pair.run()
    assert all(note.events == ["established"] for note in notes)
    pair.assert_all_signed()


def test_a_stack_without_keys_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """M-15: no gate is entered for segments with ordinary options."""
    pair = Pair([], [])
    monkeypatch.setattr(Signatures, "admits", None)
    monkeypatch.setattr(Signatures, "sign", None)
    pair.listener.close(0)
    assert transfer(100_000, world=pair.world, hosts=(pair.a, pair.b)).complete


@pytest.mark.parametrize("sack_ok", [True, False])
def test_a_peer_that_offers_timestamps_with_md5_gets_them_only_if_it_has_no_sack(sack_ok: bool) -> None:
    """M-16: as Linux answers; both would leave no room for SACK blocks. What the stranger signs itself has all of its options."""
    pair = Pair([key(algorithm="md5")], [key(algorithm="md5", is_server=True)])
    flow = pack_flow(pair.a.address, 4000, pair.b.address, PORT)
    signer = pair.b.stack.signatures._make(None, pack_flow(pair.b.address, PORT, pair.a.address, 4000), 0, 0)
    assert isinstance(signer, Md5Signer)
    syn = Segment(flow, 1, 0, SYN | ACK, 1000, ts_val=5, mss=1000, sack_ok=sack_ok)  # with ACK the signer leaves the timestamp
    signer.sign(syn, 0)
    syn.flags, syn.options = SYN, syn.options[:-16]
    syn.options += signer._digest(syn, 36)
    pair.inject(pair.b, syn)
    answer = next(seg for host, seg in pair.sent if host is pair.b)
    assert answer.flags == SYN | ACK and answer.sack_ok is sack_ok
    assert (answer.ts_val is None) is sack_ok


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signed_connection_does_without_fast_open(algorithm: str) -> None:
    """M-15, M-16 with M-17: as with Linux the cookie finds no room; the data follows the handshake."""
    keys = [key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)]
    pair = Pair(*keys, tcp_fastopen=0x1 | 0x2 | 0x4 | 0x200)
    conn, _ = pair.connect(options=SocketOptions(fastopen_connect=True))
    conn.send(bytes(3000), pair.world.now())
    pair.run()
    assert pair.notes[0].data == bytes(3000)
    assert pair.sent[0][1].flags == SYN and not pair.sent[0][1].length
    pair.assert_all_signed()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_only_advice_gives_way_to_the_signature(algorithm: str) -> None:
    """M-15, M-16: a Fast Open cookie of 16 octets does not fit a SYN beside it; the SYN leaves without."""
    pair = Pair([key(algorithm=algorithm)], [key(algorithm=algorithm, is_server=True)])
    conn, _ = pair.connect()
    syn = Segment(
        conn.flow, 1, 0, SYN, 1000, ts_val=5, mss=1000, wscale=7, sack_ok=True, options=bytes((34, 18)) + bytes(16) + bytes((1, 1))
    )
    pair.a.stack.signatures.sign(syn, 0)
    kind, at, _ = signed.find(syn.options)
    assert kind and not any(syn.options[:at].strip(b"\x01"))
    pair.inject(pair.b, syn)
    assert pair.b.stack.counters.TCPAOBad == pair.b.stack.counters.TCPMD5Failure == 0
    assert any(host is pair.b and seg.flags == SYN | ACK for host, seg in pair.sent)
