"""Keys by socket option, in Linux's structures: on connections, listeners, and before there is either."""

from __future__ import annotations

import errno

import pytest
from engine.signedpair import Pair, key

from tunstack.aio.sockopt import ListenerView, SocketView
from tunstack.engine import signopt as so
from tunstack.engine.connection import Connection
from tunstack.engine.keys import KeyChain
from tunstack.engine.options import SocketOptions
from tunstack.wire.flow import pack_address

TCP = 6
ANY = bytes(4)


def md5(peer: str, secret: bytes, prefix: int = 0, flags: int = 0, family: int = 2, length: int | None = None) -> bytes:
    return so.MD5SIG.pack(family, bytes(2), pack_address(peer), flags, prefix, len(secret) if length is None else length, 0, secret)


def ao(peer: str, prefix: int, secret: bytes, send_id: int, recv_id: int, algorithm: bytes = b"hmac(sha1)", **more: int) -> bytes:
    port = more.get("port", 0).to_bytes(2, "big")
    return so.AO_ADD.pack(
        2,
        port,
        pack_address(peer),
        algorithm,
        more.get("ifindex", 0),
        more.get("bits", 0),
        0,
        prefix,
        send_id,
        recv_id,
        more.get("mac_length", 0),
        more.get("flags", 0),
        more.get("length", len(secret)),
        secret,
    )


def ao_del(peer: str, prefix: int, send_id: int, recv_id: int, bits: int = 0, current: int = 0, rnext: int = 0) -> bytes:
    return so.AO_DEL.pack(2, bytes(2), pack_address(peer), 0, bits, 0, prefix, send_id, recv_id, current, rnext, 0)


def refused(view: SocketView | ListenerView, option: int, value: bytes) -> str:
    with pytest.raises(OSError) as caught:
        view.setsockopt(TCP, option, value)
    assert "secret" not in str(caught.value)
    return errno.errorcode[caught.value.errno or 0]


def view(pair: Pair, conn: Connection) -> SocketView:
    return SocketView(conn, pair.world.now)


def test_a_listeners_md5_keys_by_address_and_by_prefix() -> None:
    """M-16: TCP_MD5SIG, TCP_MD5SIG_EXT; what the listener is given holds from the next SYN on."""
    pair = Pair([key(b"secret", "md5")], [])
    listening = ListenerView(pair.listener)
    listening.setsockopt(TCP, so.TCP_MD5SIG, md5("10.0.0.9", b"other"))
    listening.setsockopt(TCP, so.TCP_MD5SIG_EXT, md5("10.0.0.77", b"secret", 24, so.MD5SIG_PREFIX))
    conn, _, peer, heard = pair.open()
    pair.say(conn, b"by prefix", heard)
    assert peer.options.keys is not None and [each.peer for each in peer.options.keys] == ["10.0.0.9/32", "10.0.0.0/24"]
    listening.setsockopt(TCP, so.TCP_MD5SIG_EXT, md5("10.0.0.0", b"", 24, so.MD5SIG_PREFIX))
    _, note = pair.connect()
    pair.run(2)
    assert note.events == [] and pair.counted(pair.b)["TCPMD5Unexpected"] >= 1
    pair.say(conn, b"and still", heard)


def test_md5_errors_are_linuxs() -> None:
    """M-16."""
    listening = ListenerView(Pair([], []).listener)
    assert refused(listening, so.TCP_MD5SIG, md5("10.0.0.1", b"secret")[:-1]) == "EINVAL"
    assert refused(listening, so.TCP_MD5SIG, md5("10.0.0.1", b"secret", family=10)) == "EINVAL"
    assert refused(listening, so.TCP_MD5SIG, md5("10.0.0.1", b"secret", length=81)) == "EINVAL"
    assert refused(listening, so.TCP_MD5SIG, md5("10.0.0.1", b"")) == "ENOENT"
    assert refused(listening, so.TCP_MD5SIG_EXT, md5("10.0.0.1", b"secret", 33, so.MD5SIG_PREFIX)) == "EINVAL"
    listening.setsockopt(TCP, so.TCP_MD5SIG, md5("10.0.0.1", b"secret", 99))  # the prefix is not looked at
    assert refused(listening, so.TCP_AO_ADD_KEY, ao("10.0.0.1", 32, b"secret", 1, 1)) == "EKEYREJECTED"
    with pytest.raises(OSError, match="Protocol not available"):
        listening.getsockopt(TCP, so.TCP_MD5SIG, 216)


@pytest.mark.parametrize("algorithm", [b"hmac(sha1)", b"cmac(aes128)"])
def test_tcp_ao_by_socket_option_with_rollover_and_what_is_told_of_it(algorithm: bytes) -> None:
    """M-15: add, choose, take away; TCP_AO_INFO has the ids in use and the counters."""
    pair = Pair([], [])
    listening = ListenerView(pair.listener)
    for number in (1, 2):
        listening.setsockopt(TCP, so.TCP_AO_ADD_KEY, ao("10.0.0.0", 24, b"secret %d" % number, 100 + number, number, algorithm))
    name = {b"hmac(sha1)": "hmac-sha-1-96", b"cmac(aes128)": "aes-128-cmac-96"}[algorithm]
    chain = KeyChain([key(b"secret %d" % number, name, number=number) for number in (1, 2)])
    conn, _, peer, heard = pair.open(SocketOptions(keys=chain))
    pair.say(conn, b"one", heard)
    ours, theirs = view(pair, conn), view(pair, peer)

    def told(sock: SocketView) -> tuple[int, ...]:
        return so.AO_INFO.unpack(sock.getsockopt(TCP, so.TCP_AO_INFO, so.AO_INFO.size))  # type: ignore[arg-type]

    assert told(ours)[2:4] == (1, 101) and told(theirs)[2:4] == (101, 1)
    assert told(theirs)[4] == pair.counted(pair.b)["TCPAOGood"] and told(theirs)[5:] == (0, 0, 0, 0)
    assert refused(theirs, so.TCP_AO_DEL_KEY, ao_del("10.0.0.0", 24, 101, 1)) == "EBUSY"
    assert refused(theirs, so.TCP_AO_INFO, so.AO_INFO.pack(so.SET_RNEXT, 0, 0, 77, 0, 0, 0, 0, 0)) == "ENOENT"
    theirs.setsockopt(TCP, so.TCP_AO_INFO, so.AO_INFO.pack(so.SET_RNEXT, 0, 0, 2, 0, 0, 0, 0, 0))
    ours.setsockopt(TCP, so.TCP_AO_INFO, so.AO_INFO.pack(so.SET_CURRENT | so.SET_RNEXT, 0, 2, 102, 0, 0, 0, 0, 0))
    pair.say(conn, b"two", heard)
    assert told(ours)[2:4] == (2, 102) and told(theirs)[2:4] == (102, 2)
    theirs.setsockopt(TCP, so.TCP_AO_DEL_KEY, ao_del("10.0.0.0", 24, 101, 1))
    assert refused(theirs, so.TCP_AO_DEL_KEY, ao_del("10.0.0.0", 24, 101, 1)) == "ENOENT"
    pair.say(conn, b"three", heard)
    pair.assert_all_signed()


def test_tcp_ao_errors_are_linuxs() -> None:
    """M-15."""
    pair = Pair([], [])
    listening = ListenerView(pair.listener)
    add = so.TCP_AO_ADD_KEY
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1)[:-1]) == "EINVAL"
    assert refused(listening, add, ao("10.0.0.1", 24, b"secret", 1, 1)) == "EINVAL"  # bits beyond the prefix
    assert refused(listening, add, ao("10.0.0.1", 33, b"secret", 1, 1)) == "EINVAL"
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1, port=5)) == "EINVAL"
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1, length=81)) == "EINVAL"
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1, mac_length=16)) == "EINVAL"
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1, flags=4)) == "EINVAL"
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1, bits=so.SET_CURRENT)) == "EINVAL"  # a listener has no current key
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 1, b"rot13")) == "ENOENT"
    listening.setsockopt(TCP, add, ao("10.0.0.1", 32, b"secret", 1, 1))
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 1, 2)) == "EEXIST"
    assert refused(listening, add, ao("10.0.0.1", 32, b"secret", 2, 1)) == "EEXIST"
    assert refused(listening, so.TCP_MD5SIG, md5("10.0.0.1", b"secret")) == "EKEYREJECTED"
    assert refused(listening, so.TCP_AO_DEL_KEY, ao_del("10.0.0.1", 32, 1, 9)) == "ENOENT"
    plain = Pair([], [])
    conn, _, _, _ = plain.open()
    assert refused(view(plain, conn), add, ao("10.0.0.2", 32, b"secret", 1, 1)) == "EINVAL"  # it runs without (RFC 5925 7.1)
    with pytest.raises(OSError, match="No such file"):
        view(plain, conn).getsockopt(TCP, so.TCP_AO_INFO, 48)


def test_options_that_are_not_covered_and_icmp_that_is_accepted_are_flags() -> None:
    """M-15: TCP_AO_KEYF_EXCLUDE_OPT, accept_icmps, ao_required."""
    pair = Pair([], [])
    listening = ListenerView(pair.listener)
    listening.setsockopt(TCP, so.TCP_AO_ADD_KEY, ao("0.0.0.0", 0, b"secret", 9, 8, b"", flags=so.KEYF_EXCLUDE_OPT))
    listening.setsockopt(TCP, so.TCP_AO_INFO, so.AO_INFO.pack(so.ACCEPT_ICMPS | so.AO_REQUIRED, 0, 0, 0, 0, 0, 0, 0, 0))
    chain = pair.listener.options.keys
    assert chain is not None and chain.accept_icmps and chain.is_required and not chain.keys[0].covers_options
    bits = so.AO_INFO.unpack(listening.getsockopt(TCP, so.TCP_AO_INFO, 48))[0]  # type: ignore[arg-type]
    assert bits == so.ACCEPT_ICMPS | so.AO_REQUIRED
