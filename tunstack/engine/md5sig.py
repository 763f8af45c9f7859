"""The TCP MD5 signature option: one connection's signer.

RFC 2385, with Linux's ways: no timestamps in a SYN of ours, since with them no SACK block would fit (see `Signatures.agree`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunstack.engine.signing import attach
from tunstack.wire import signed
from tunstack.wire.buffer import Buffer
from tunstack.wire.segment import ACK, SYN, Segment
from tunstack.wire.tcp import NOP

if TYPE_CHECKING:
    from tunstack.engine.counters import Counters
    from tunstack.engine.keys import KeyChain

_OPTION = bytes((NOP, NOP, signed.MD5, signed.MD5_LENGTH))
_DIGEST = 16  # octets
_BLANK = _OPTION + bytes(_DIGEST)


class Md5Signer:
    """Signs what leaves under the peer's MD5 key, and judges what comes.

    A key that was taken out of the chain admits nothing any more; the connection goes on to sign with it until there is another.
    """

    __slots__ = ("_counters", "_has_key", "_peer", "_ports", "_secret", "_version", "chain")

    is_ao = False
    octets = len(_BLANK)  # of options in every segment

    def __init__(self, chain: KeyChain, peer: bytes, ports: tuple[int, int], counters: Counters) -> None:
        self.chain = chain
        self._peer = peer
        self._ports = ports
        self._counters = counters
        self._version = -1  # of the chain, when `_secret` was looked up
        self._has_key = False  # it is in the chain still
        self._secret = b""
        self._look_up()

    def sign(self, seg: Segment, now: int) -> None:
        """Put the option into a segment that leaves."""
        if seg.flags & (SYN | ACK) == SYN:
            seg.ts_val = None
        self._look_up()
        length = len(attach(seg, _BLANK))
        seg.options = seg.options[:-_DIGEST] + self._digest(seg, length)

    def admits(self, seg: Segment, option: signed.Option, now: int) -> bool:
        """Whether a segment has the right signature; counts where it has not."""
        if option.kind == signed.NONE.kind:
            self._counters.TCPMD5NotFound += 1
            return False
        if option.kind != signed.MD5:
            self._counters.TCPAOKeyNotFound += 1
            return False
        self._look_up()
        if not self._has_key:
            self._counters.TCPMD5Unexpected += 1
            return False
        digest = seg.options[option.at + 2 : option.at + signed.MD5_LENGTH]
        if hmac.compare_digest(digest, self._digest(seg, len(seg.options))):
            return True
        self._counters.TCPMD5Failure += 1
        return False

    def _look_up(self) -> None:
        """Look for the key, if the chain has changed."""
        if self._version == self.chain.version:
            return
        self._version = self.chain.version
        key = next((key for key in self.chain.matching(self._peer, self._ports) if not key.is_ao), None)
        self._has_key = key is not None
        if key is not None:
            self._secret = key.secret

    def _digest(self, seg: Segment, option_octets: int) -> bytes:
        """RFC 2385 2.0: pseudo-header, header without options, data, key."""
        header = signed.fixed_header(seg, option_octets)
        pieces: Iterable[Buffer] = (
            signed.pseudo_header(seg.flow, len(header) + option_octets + seg.length),
            header,
            *seg.payload,
            self._secret,
        )
        digest = hashlib.md5(usedforsecurity=False)
        for piece in pieces:
            digest.update(piece)
        return digest.digest()
