"""Keys that end, keys that are taken out, keys that come late, and old segments that name old keys."""

from __future__ import annotations

import pytest
from engine.signedpair import Pair, forged, key

from tunstack.engine import ao
from tunstack.engine.keys import Lifetime
from tunstack.engine.timewait import TimeWait
from tunstack.seq import MASK
from tunstack.wire.segment import ACK, PSH, SYN, Segment


def test_a_key_whose_time_is_over_does_not_live_on_under_the_id_of_another() -> None:
    """M-15: two prefixes may have keys of one id; after the first's time the second is meant, and what the first signed is refused."""
    until = Lifetime(0, 1_005_000_000)  # 5 s after the world's beginning
    short = key(b"for an hour", is_server=True, peer="10.0.0.1", accept=until, send=until)
    pair = Pair([key(b"for an hour")], [short, key(b"for ever", is_server=True)])
    conn, _, peer, heard = pair.open()
    pair.say(conn, b"in time", heard)
    pair.run(10)
    seg = forged(peer, ACK | PSH, 0, b"late")
    pair.a.stack.signatures.sign(seg, pair.world.now())
    pair.inject(pair.b, seg)
    assert heard.data == b"in time" and pair.counted(pair.b)["TCPAOBad"] == 1


def test_an_old_syn_that_comes_again_does_not_bring_the_old_key_back() -> None:
    """M-15, RFC 5925 7.5: a SYN of before is signed rightly for ever, and names the key of then."""
    pair = Pair([key()], [key(is_server=True)])
    conn, _, _, heard = pair.open()
    syn = pair.frames[0]
    pair.a.stack.signatures.keys.add(key(b"new", number=8))
    pair.b.stack.signatures.keys.add(key(b"new", is_server=True, number=8))
    signer = pair.a.stack.signatures.get(conn)
    assert signer is not None and signer.choose(8, 108)  # type: ignore[attr-defined]
    pair.say(conn, b"under the new key", heard)
    theirs = pair.b.stack.signatures.get(pair.accepted[-1])
    assert theirs.current(pair.world.now()).send_id == 108  # type: ignore[union-attr]
    pair.deliver(pair.b, syn)
    assert theirs.current(pair.world.now()).send_id == 108  # type: ignore[union-attr]


def test_a_syn_without_a_signature_does_not_pass_by_the_keys_through_time_wait() -> None:
    """M-15, M-55: a connection of before there were keys is in TIME-WAIT; who takes its four-tuple has to sign all the same."""
    pair = Pair([], [])
    conn, _, peer, _ = pair.open()
    peer.close(pair.world.now())
    pair.run()
    conn.close(pair.world.now())
    pair.run()
    entry = pair.b.stack.flows[peer.flow_in]
    assert isinstance(entry, TimeWait)
    irs = entry.remembered.rcv_nxt
    pair.b.stack.use_keys().keys.add(key(is_server=True))
    pair.inject(pair.b, Segment(peer.flow_in, (irs + 1000) & MASK, 0, SYN, 1000))
    assert pair.b.stack.flows[peer.flow_in] is entry and pair.counted(pair.b) == {"TCPAORequired": 1}


def test_an_md5_key_that_was_taken_out_admits_nothing_any_more() -> None:
    """M-16."""
    pair = Pair([key(algorithm="md5")], [key(algorithm="md5", is_server=True)])
    conn, _, _, heard = pair.open()
    pair.say(conn, b"before", heard)
    pair.b.stack.signatures.keys.replace(())
    conn.send(b"after", pair.world.now())
    pair.run()
    assert heard.data == b"before" and pair.counted(pair.b)["TCPMD5Unexpected"]


def test_a_mac_of_another_length_costs_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """M-15: who forges makes us work as little as can be."""
    pair = Pair([key()], [key(is_server=True)])
    _, _, peer, _ = pair.open()
    seg = forged(peer, ACK)
    seg.options = bytes((29, 20, 7, 107)) + bytes(16)
    monkeypatch.setattr(ao, "message", None)
    pair.inject(pair.b, seg)
    assert pair.counted(pair.b)["TCPAOBad"] == 1
