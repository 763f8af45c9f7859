"""Keys, chains of them, and that their secrets do not show."""

from __future__ import annotations

import logging
import pickle
import struct
import sys
import traceback

import pytest

from tunstack.engine import mac
from tunstack.engine.keys import Key, KeyChain, Lifetime
from tunstack.engine.options import SocketOptions
from tunstack.engine.signopt import AO_ADD, MD5SIG
from tunstack.wire.flow import pack_address

SECRET = b"hunter2-is-a-secret"
PEER = pack_address("192.0.2.1")


def test_a_secret_is_in_no_repr_and_in_no_message() -> None:
    """M-15, M-16."""
    key = Key(SECRET, send_id=1)
    chain = KeyChain([key])
    texts = [repr(key), str(key), repr(chain), repr(SocketOptions(keys=chain)), f"{[key]}", repr(key.send)]
    for bad in (
        lambda: Key(SECRET, "rot13"),
        lambda: Key(SECRET, peer="nowhere"),
        lambda: Key(SECRET, send_id=256),
        lambda: Key(SECRET, port=-1),
        lambda: Key(SECRET * 10),
        lambda: Key(SECRET.decode()),  # type: ignore[arg-type]
        lambda: Key(SECRET, "md5", send_id=1),
        lambda: chain.add(Key(SECRET, send_id=1)),
        lambda: chain.add(Key(SECRET, "md5")),
        lambda: chain.remove(Key(SECRET, send_id=9)),
    ):
        with pytest.raises(ValueError) as caught:
            bad()
        texts += [str(caught.value), repr(caught.value), repr(caught.value.__cause__), repr(caught.value.args)]
    assert not any(SECRET.decode() in text for text in texts)
    assert "send_id=1" in texts[0]
    assert pickle.loads(pickle.dumps(key)) == key


def test_nothing_about_keys_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """M-15: neither while they are made nor while segments are signed."""
    caplog.set_level(logging.DEBUG)
    mac.make_mac(mac.HMAC_SHA_1_96, mac.traffic_key(mac.HMAC_SHA_1_96, Key(SECRET).secret, bytes(20))).tag((b"x",))
    assert not caplog.records


def test_a_missing_library_is_told_in_one_line_when_the_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """M-15: and the other algorithm needs none."""
    mac._cmac_maker.cache_clear()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.cmac", None)
    with pytest.raises(ValueError) as caught:
        Key(SECRET, "aes-128-cmac-96")
    assert str(caught.value) == "aes-128-cmac-96 needs the Python package cryptography: pip install 'tunstack[ao]'"
    assert SECRET.decode() not in "".join(traceback.format_exception(caught.value))
    Key(SECRET)
    monkeypatch.undo()
    Key(SECRET, "aes-128-cmac-96")


def test_keys_are_found_by_prefix_and_port_and_the_longest_prefix_comes_first() -> None:
    """M-15, M-16."""
    wide, narrow = Key(SECRET, peer="192.0.0.0/8", send_id=1, recv_id=1), Key(SECRET, peer="192.0.2.0/24", send_id=1, recv_id=1)
    other, ported = Key(SECRET, peer="192.0.3.0/24"), Key(SECRET, peer="192.0.2.1", port=179)
    chain = KeyChain([wide, narrow, other, ported])
    assert chain.matching(PEER, (179, 40000)) == (ported, narrow, wide)
    assert chain.matching(PEER, (40000, 179)) == (ported, narrow, wide)
    assert chain.matching(PEER, (1, 2)) == (narrow, wide)
    assert chain.matching(pack_address("192.0.3.255"), (1, 2)) == (other, wide)
    assert chain.matching(pack_address("193.0.0.0"), (179, 179)) == ()
    assert KeyChain([Key(SECRET)]).matching(pack_address("255.255.255.255"), (1, 2))


def test_an_md5_key_takes_the_place_of_the_peers() -> None:
    """M-16: as setting TCP_MD5SIG again does."""
    chain = KeyChain([Key(b"old", "md5", "192.0.2.1"), Key(b"else", "md5", "192.0.2.2"), Key(b"new", "md5", "192.0.2.1")])
    assert sorted(key.secret for key in chain) == [b"else", b"new"]


def test_a_lifetime_ends_before_its_end() -> None:
    life = Lifetime(10, 20)
    assert [now for now in range(30) if life.has(now)] == list(range(10, 20))


def test_the_structures_have_linuxs_sizes() -> None:
    """M-15, M-16: struct tcp_md5sig and struct tcp_ao_add."""
    assert (MD5SIG.size, AO_ADD.size, struct.calcsize("=H")) == (216, 288, 2)
