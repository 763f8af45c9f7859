"""Message authentication codes and key derivation of TCP-AO.

RFC 5926 3 (HMAC-SHA-1-96 with KDF_HMAC_SHA1, AES-128-CMAC-96 with KDF_AES_128_CMAC), RFC 4493, RFC 4615. AES is not in the standard
library: `cryptography` does it, imported when the first key asks for it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from tunstack.wire.buffer import Buffer

if TYPE_CHECKING:
    from collections.abc import Callable

HMAC_SHA_1_96 = "hmac-sha-1-96"
AES_128_CMAC_96 = "aes-128-cmac-96"
MAC_LENGTH = 12  # octets that go into the segment, of either

_LABEL = b"\x01TCP-AO"  # counter 1: one block of output is all that either algorithm needs (RFC 5926 3.1.1)


class Mac(Protocol):
    """A keyed function."""

    def tag(self, pieces: Iterable[Buffer]) -> bytes:
        """Return the whole tag of what the pieces are together."""


class HmacSha1:
    """RFC 2104 with SHA-1. The keyed state is made once and copied for each message."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha1")

    def tag(self, pieces: Iterable[Buffer]) -> bytes:  # hot
        state = self._keyed.copy()
        for piece in pieces:
            state.update(piece)
        return state.digest()


class AesCmac:
    """RFC 4493; keys have 16 octets."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        self._keyed = _cmac_maker()(key)

    def tag(self, pieces: Iterable[Buffer]) -> bytes:  # hot
        state = self._keyed.copy()
        for piece in pieces:
            state.update(piece)
        tag: bytes = state.finalize()
        return tag


@cache
def _cmac_maker() -> Callable[[bytes], Any]:
    try:
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.cmac import CMAC
    except ImportError:
        raise ValueError(f"{AES_128_CMAC_96} needs the Python package cryptography: pip install 'tunstack[ao]'") from None
    return lambda key: CMAC(AES(key))


def check_available(algorithm: str) -> None:
    """ValueError if the library of an algorithm is missing."""
    if algorithm == AES_128_CMAC_96:
        _cmac_maker()


def make_mac(algorithm: str, key: bytes) -> Mac:
    """Return an algorithm's MAC under a traffic key."""
    return AesCmac(key) if algorithm == AES_128_CMAC_96 else HmacSha1(key)


def traffic_key(algorithm: str, master: bytes, context: bytes) -> bytes:
    """Derive a traffic key (RFC 5926 3.1). `context` is the four-tuple and the two ISNs, as the segment's sender sees them."""
    if algorithm == AES_128_CMAC_96:
        seed = master if len(master) == 16 else AesCmac(bytes(16)).tag((master,))  # RFC 4615: any length
        return AesCmac(seed).tag((_LABEL, context, (128).to_bytes(2, "big")))
    return HmacSha1(master).tag((_LABEL, context, (160).to_bytes(2, "big")))
