"""Keys that change while a connection runs: by KeyID and RNextKeyID, by lifetimes, by socket option. RFC 5925 6.1 and 7.5."""

from __future__ import annotations

import pytest
from engine.signedpair import PORT, Pair, key

from tunstack.device.impairment import Impairment
from tunstack.engine.ao import AoSigner
from tunstack.engine.connection import Connection
from tunstack.engine.keys import ALWAYS, Key, KeyChain, Lifetime
from tunstack.engine.options import SocketOptions
from tunstack.sim.transfer import transfer
from tunstack.sim.world import START, Host
from tunstack.wire import signed

MIB = 1 << 20
PATH = Impairment(delay=10_000, loss=0.01, reorder=0.02)


def signer(host: Host, conn: Connection) -> AoSigner:
    found = host.stack.signatures.get(conn)
    assert isinstance(found, AoSigner)
    return found


def ids(pair: Pair, host: Host) -> list[int]:
    """Return the KeyIDs that a host signed with, each once, in order."""
    order: list[int] = []
    for sender, seg in pair.sent:
        key_id = seg.options[signed.find(seg.options).at + 2]
        if sender is host and key_id not in order:
            order.append(key_id)
    return order


def test_the_peer_goes_over_to_the_key_that_it_is_asked_for_and_nothing_is_lost() -> None:
    """M-15: in the middle of a transfer, over a path that loses and reorders."""
    old, new = key(b"old", number=1), key(b"new", number=2)
    pair = Pair([old, new], [key(b"old", number=1, is_server=True), key(b"new", number=2, is_server=True)], PATH)
    pair.listener.close(0)

    def roll() -> None:
        (conn,) = pair.b.stack.connections
        assert signer(pair.b, conn).choose(None, 2)

    pair.world.call_later(200_000, roll)
    outcome = transfer(MIB, world=pair.world, hosts=(pair.a, pair.b))
    assert outcome.complete, outcome
    assert ids(pair, pair.a) == [1, 2]  # it was asked to
    assert ids(pair, pair.b) == [101]  # and asked for nothing itself
    assert "TCPAOBad" not in pair.counted(pair.b)


def test_a_key_may_be_added_to_both_ends_and_the_old_one_taken_away_while_data_flows() -> None:
    """M-15: the stack's chain is live; each step can be taken at either end at its own time."""
    pair = Pair([key(b"old", number=1)], [key(b"old", number=1, is_server=True)], PATH)
    pair.listener.close(0)
    chains = pair.a.stack.signatures.keys, pair.b.stack.signatures.keys

    def conn_of(host: Host) -> Connection:
        return next(iter(host.stack.connections))

    def choose() -> None:
        assert signer(pair.b, conn_of(pair.b)).choose(102, 2)

    steps = (
        lambda: chains[1].add(key(b"new", number=2, is_server=True)),
        lambda: chains[0].add(key(b"new", number=2)),
        choose,
        lambda: chains[0].remove(key(b"old", number=1)),
        lambda: chains[1].remove(key(b"old", number=1, is_server=True)),
    )
    for index, step in enumerate(steps):
        pair.world.call_later(150_000 + 100_000 * index, step)
    outcome = transfer(2 * MIB, world=pair.world, hosts=(pair.a, pair.b))
    assert outcome.complete, outcome
    assert ids(pair, pair.a) == [1, 2] and ids(pair, pair.b) == [101, 102]


def test_a_key_that_the_peer_does_not_have_is_not_gone_over_to() -> None:
    """M-15: it is asked for in vain, and the old one is used on."""
    pair = Pair([key(b"old", number=1), key(b"new", number=2)], [key(b"old", number=1, is_server=True)])
    conn, note, peer, heard = pair.open()
    assert signer(pair.a, conn).choose(None, 102)
    pair.say(conn, b"question", heard)
    pair.say(peer, b"answer", note)
    assert ids(pair, pair.b) == [101]


def test_going_over_to_a_key_with_another_secret_than_the_peers_stops_everything() -> None:
    """M-15: nothing gets through, and it is counted."""
    pair = Pair(
        [key(b"old", number=1), key(b"new", number=2)], [key(b"old", number=1, is_server=True), key(b"typo", number=2, is_server=True)]
    )
    conn, _, _, heard = pair.open()
    assert signer(pair.a, conn).choose(2, None)
    conn.send(b"lost", pair.world.now())
    pair.run(10)
    assert not heard.data and pair.counted(pair.b)["TCPAOBad"] >= 3
    assert signer(pair.a, conn).choose(1, None)
    pair.run(100)
    assert heard.data == b"lost"


def chain_in_time(is_server: bool, overlap: int) -> list[Key]:
    """Return three keys, each to sign with for ten seconds, and accepted for `overlap` us before and after."""
    keys = []
    for number in range(3):
        begin = START + number * 10_000_000
        keys.append(
            key(
                b"secret %d" % number,
                number=number,
                is_server=is_server,
                send=Lifetime(begin, begin + 10_000_000) if number < 2 else Lifetime(begin, ALWAYS.end),
                accept=Lifetime(begin - overlap, begin + 10_000_000 + overlap) if number < 2 else Lifetime(begin - overlap, ALWAYS.end),
            )
        )
    return keys


def test_a_chain_rolls_over_by_its_lifetimes_alone() -> None:
    """M-15: an octet every second, over 30 s and three keys."""
    pair = Pair(chain_in_time(False, 2_000_000), chain_in_time(True, 2_000_000), Impairment(delay=20_000))
    conn, note, peer, heard = pair.open()
    for second in range(30):
        pair.say(conn, b"%d" % (second % 10), heard, 0.5)
        pair.say(peer, b"%d" % (second % 10), note, 0.5)
    assert heard.data == note.data == b"0123456789" * 3
    assert ids(pair, pair.a) == [0, 1, 2] and ids(pair, pair.b) == [100, 101, 102]
    assert pair.counted(pair.a).keys() == pair.counted(pair.b).keys() == {"TCPAOGood"}


def test_a_key_whose_time_is_over_is_accepted_no_more() -> None:
    """M-15."""
    late = key(b"one", is_server=True, accept=Lifetime(START, START + 5_000_000))
    pair = Pair([key(b"one")], [late])
    conn, _, _, heard = pair.open()
    pair.run(6)
    conn.send(b"too late", pair.world.now())
    pair.run(5)
    assert not heard.data and pair.counted(pair.b)["TCPAOKeyNotFound"] >= 2


def test_an_md5_key_may_be_exchanged_taken_away_and_put_back_on_a_connection() -> None:
    """M-16: as with Linux, from one segment to the next, and the segment size follows."""
    pair = Pair([], [])
    conn, _, peer, heard = pair.open(
        SocketOptions(),
    )
    mss = conn.tx.mss
    for secret in (b"one", b"two", None, b"three"):
        chain = KeyChain([key(secret, "md5")]) if secret is not None else None
        for end in (conn, peer):
            end.set_option("keys", chain, pair.world.now())
        before = len(pair.sent)
        pair.say(conn, bytes(3 * mss), heard)
        assert {bool(signed.find(seg.options).kind) for _, seg in pair.sent[before:]} == {secret is not None}
        assert max(seg.length for _, seg in pair.sent[before:]) == mss - (20 if secret is not None else 0)
    assert not pair.counted(pair.a) and not pair.counted(pair.b)


def test_a_key_that_one_connection_is_given_is_nothing_to_its_like() -> None:
    """M-16: what the SYNs of connections agreed on is one object where it is the same."""
    pair = Pair([], [])
    conn, _, peer, _ = pair.open()
    other, _, _, heard = pair.open()
    assert conn.agreed is other.agreed
    mss = other.tx.mss
    for end in (conn, peer):
        end.set_option("keys", KeyChain([key(algorithm="md5")]), pair.world.now())
    assert (conn.agreed.signature_octets, other.agreed.signature_octets) == (20, 0)  # type: ignore[union-attr]
    before = len(pair.sent)
    pair.say(other, bytes(3 * mss), heard)
    assert max(seg.length for _, seg in pair.sent[before:]) == mss


def test_tcp_ao_neither_begins_nor_ends_on_a_connection_that_runs() -> None:
    """M-15, RFC 5925 7.1: EINVAL, and all stays as it was."""
    plain = Pair([], [])
    conn, _, _, heard = plain.open()
    with pytest.raises(OSError, match="Invalid argument"):
        conn.set_option("keys", KeyChain([key()]), plain.world.now())
    assert conn.options.keys is None
    plain.say(conn, b"still here", heard)
    chain = KeyChain([key()])
    pair = Pair([], [key(is_server=True)])
    conn, _, _, heard = pair.open(SocketOptions(keys=chain))
    for keys in (None, KeyChain([key(algorithm="md5")]), KeyChain([key(peer="192.0.2.1")])):
        with pytest.raises(OSError, match="Invalid argument"):
            conn.set_option("keys", keys, pair.world.now())
    pair.say(conn, b"still signed", heard)
    pair.assert_all_signed()


def test_what_becomes_of_a_listeners_keys_is_nothing_to_connections_that_it_has_accepted() -> None:
    """M-15, M-16: they have copies, as in Linux."""
    listening = SocketOptions(keys=KeyChain([key(is_server=True)]))
    pair = Pair([key()], [], options=listening)
    conn, _, peer, heard = pair.open()
    pair.listener.set_option("keys", None)
    pair.say(conn, b"as before", heard)
    assert peer.options.keys is not None and len(peer.options.keys) == 1
    _, note = pair.connect(PORT)
    pair.run(3)
    assert note.events == [] and pair.counted(pair.b)["TCPAOKeyNotFound"] >= 2
