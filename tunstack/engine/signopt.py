"""Keys by socket option: TCP_MD5SIG, TCP_MD5SIG_EXT, TCP_AO_ADD_KEY, TCP_AO_DEL_KEY, TCP_AO_INFO in Linux's layouts.

<linux/tcp.h>; Documentation/networking/tcp_ao in Linux. Errors are Linux's; of what is specific to devices (ifindex), and of algorithms
other than RFC 5926's two, there is none here: EINVAL, ENOENT. No error says anything of a key's octets.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from tunstack.engine.ao import AoSigner
from tunstack.engine.errors import socket_error
from tunstack.engine.keys import MD5, SECRET_MAX, Key, KeyChain
from tunstack.engine.mac import AES_128_CMAC_96, HMAC_SHA_1_96, MAC_LENGTH
from tunstack.wire.flow import format_address

if TYPE_CHECKING:
    from tunstack.engine.sockopt import Target

TCP_MD5SIG, TCP_MD5SIG_EXT, TCP_AO_ADD_KEY, TCP_AO_DEL_KEY, TCP_AO_INFO = 14, 32, 38, 39, 40
AF_INET = 2

MD5SIG = struct.Struct("=H2s4s120xBBHi80s")  # struct tcp_md5sig: address (a sockaddr_storage), flags, prefix, key length, ifindex, key
MD5SIG_PREFIX, MD5SIG_IFINDEX = 1, 2  # its flags
# struct tcp_ao_add: address, algorithm, ifindex, bits, reserved, prefix, SendID, RecvID, MAC length, flags, key length, key
AO_ADD = struct.Struct("=H2s4s120x64siIHBBBBBB80s")
# struct tcp_ao_del: address, ifindex, bits, reserved, prefix, SendID, RecvID, current, rnext, flags
AO_DEL = struct.Struct("=H2s4s120xiIHBBBBBB")
AO_INFO = struct.Struct("=IHBBQQQQQ")  # struct tcp_ao_info_opt: bits, reserved, current, rnext, counters
SET_CURRENT, SET_RNEXT, AO_REQUIRED, SET_COUNTERS, ACCEPT_ICMPS = 1, 2, 4, 8, 16  # bits
KEYF_IFINDEX, KEYF_EXCLUDE_OPT = 1, 2  # key flags
AO_ALGORITHMS = {"": HMAC_SHA_1_96, "hmac(sha1)": HMAC_SHA_1_96, "cmac(aes128)": AES_128_CMAC_96, "cmac(aes)": AES_128_CMAC_96}


def set_md5(target: Target, value: bytes) -> None:
    """TCP_MD5SIG: the key for one peer; without octets it is taken away."""
    _set_md5(target, value, False)


def set_md5_ext(target: Target, value: bytes) -> None:
    """TCP_MD5SIG_EXT: the same for a prefix of peers."""
    _set_md5(target, value, True)


def _set_md5(target: Target, value: bytes, is_extended: bool) -> None:
    if len(value) < MD5SIG.size:
        raise socket_error("EINVAL")
    family, _, address, flags, prefix, length, ifindex, octets = MD5SIG.unpack_from(value)
    if not (is_extended and flags & MD5SIG_PREFIX):
        prefix = 32
    if family != AF_INET or prefix > 32 or length > SECRET_MAX or (is_extended and flags & MD5SIG_IFINDEX and ifindex):
        raise socket_error("EINVAL")
    peer = str(IPv4Network((address, prefix), strict=False))
    chain = _chain(target)
    if length:
        _add(chain, Key(octets[:length], MD5, peer))
    else:
        found = [key for key in chain if not key.is_ao and key.peer == peer]
        if not found:
            raise socket_error("ENOENT")
        chain.remove(found[0])
    _put(target, chain)


def add_ao(target: Target, value: bytes) -> None:
    """TCP_AO_ADD_KEY."""
    if len(value) < AO_ADD.size:
        raise socket_error("EINVAL")
    family, port, address, name, ifindex, bits, reserved, prefix, send_id, recv_id, mac_length, flags, length, octets = AO_ADD.unpack_from(
        value
    )
    peer = _network(family, port, address, prefix)
    if flags & ~KEYF_EXCLUDE_OPT or ifindex or reserved or bits & ~(SET_CURRENT | SET_RNEXT) or not 1 <= length <= SECRET_MAX:
        raise socket_error("EINVAL")
    if (bits and target.listener is not None) or mac_length not in (0, MAC_LENGTH):
        raise socket_error("EINVAL")
    algorithm = AO_ALGORITHMS.get(name.partition(b"\0")[0].decode("ascii", "replace"))
    if algorithm is None:
        raise socket_error("ENOENT")
    chain = _chain(target)
    key = Key(octets[:length], algorithm, peer, 0, send_id, recv_id, not flags & KEYF_EXCLUDE_OPT)
    if any(other.is_ao and other.peer == peer and (other.send_id == send_id or other.recv_id == recv_id) for other in chain):
        raise socket_error("EEXIST")
    _add(chain, key)
    _put(target, chain)
    _choose(target, send_id if bits & SET_CURRENT else None, recv_id if bits & SET_RNEXT else None)


def delete_ao(target: Target, value: bytes) -> None:
    """TCP_AO_DEL_KEY: not the one that a connection signs with, or asks for, unless others take their place at once."""
    if len(value) < AO_DEL.size:
        raise socket_error("EINVAL")
    family, port, address, ifindex, bits, reserved, prefix, send_id, recv_id, current, rnext, flags = AO_DEL.unpack_from(value)
    peer = _network(family, port, address, prefix)
    if flags or ifindex or reserved or bits & ~(SET_CURRENT | SET_RNEXT) or (bits and target.listener is not None):
        raise socket_error("EINVAL")
    chain = _chain(target)
    found = [key for key in chain if key.is_ao and (key.peer, key.send_id, key.recv_id) == (peer, send_id, recv_id)]
    if not found:
        raise socket_error("ENOENT")
    _choose(target, current if bits & SET_CURRENT else None, rnext if bits & SET_RNEXT else None)
    signer = _signer(target)
    if signer is not None and found[0] in (signer.current(target.now()), signer.rnext(target.now())):
        raise socket_error("EBUSY")
    chain.remove(found[0])
    _put(target, chain)


def set_ao_info(target: Target, value: bytes) -> None:
    """TCP_AO_INFO: which key to sign with and to ask for, and what is taken without a signature."""
    if len(value) < AO_INFO.size:
        raise socket_error("EINVAL")
    bits, reserved, current, rnext = AO_INFO.unpack_from(value)[:4]
    if reserved or bits & ~(SET_CURRENT | SET_RNEXT | AO_REQUIRED | ACCEPT_ICMPS):
        raise socket_error("EINVAL")
    if bits & (SET_CURRENT | SET_RNEXT) and _signer(target) is None:
        raise socket_error("EINVAL")
    _choose(target, current if bits & SET_CURRENT else None, rnext if bits & SET_RNEXT else None)
    chain = _chain(target)
    chain.accept_icmps = bool(bits & ACCEPT_ICMPS)
    chain.is_required = bool(bits & AO_REQUIRED)
    _put(target, chain)


def get_ao_info(target: Target) -> bytes:
    """TCP_AO_INFO; OSError ENOENT where nothing is signed with TCP-AO."""
    signer = _signer(target)
    chain = target.options.keys if signer is None else signer.chain
    if chain is None or (signer is None and not any(key.is_ao for key in chain) and not chain.is_required):
        raise socket_error("ENOENT")
    bits = (AO_REQUIRED if chain.is_required else 0) | (ACCEPT_ICMPS if chain.accept_icmps else 0)
    if signer is None:
        return AO_INFO.pack(bits, 0, 0, 0, 0, 0, 0, 0, 0)
    current, rnext = signer.current(target.now()), signer.rnext(target.now())
    return AO_INFO.pack(
        bits | SET_CURRENT | SET_RNEXT,
        0,
        current.send_id if current is not None else 0,
        rnext.recv_id if rnext is not None else 0,
        signer.good,
        signer.bad,
        signer.key_not_found,
        signer.required,
        signer.icmps_dropped,
    )


def _network(family: int, port: bytes, address: bytes, prefix: int) -> str:
    """Return the network of TCP-AO's structures; OSError EINVAL for a port, or bits beyond the prefix (Linux)."""
    if family != AF_INET or port != b"\0\0" or prefix > 32:
        raise socket_error("EINVAL")
    try:
        return str(IPv4Network(f"{format_address(address)}/{prefix}"))
    except ValueError:
        raise socket_error("EINVAL") from None


def _chain(target: Target) -> KeyChain:
    """Return a chain like the target's, to be changed and put back."""
    return target.options.keys.copy() if target.options.keys is not None else KeyChain()


def _add(chain: KeyChain, key: Key) -> None:
    try:
        chain.add(key)
    except ValueError:  # the peer has keys of the other kind
        raise socket_error("EKEYREJECTED") from None


def _put(target: Target, chain: KeyChain) -> None:
    target.set_option("keys", chain if chain.keys or chain.is_required or chain.accept_icmps else None)
    if target.listener is not None:
        target.listener.stack.use_keys()


def _signer(target: Target) -> AoSigner | None:
    conn = target.conn
    signer = conn.stack.signatures.get(conn) if conn is not None else None
    return signer if isinstance(signer, AoSigner) else None


def _choose(target: Target, current: int | None, rnext: int | None) -> None:
    signer = _signer(target)
    if signer is not None and not signer.choose(current, rnext):
        raise socket_error("ENOENT")
