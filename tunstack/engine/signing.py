"""What the two kinds of signers have in common: their interface, and how an option gets into a segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tunstack.wire.tcp import build_options

if TYPE_CHECKING:
    from tunstack.engine.keys import KeyChain
    from tunstack.wire.segment import Segment
    from tunstack.wire.signed import Option


class Signer(Protocol):
    """Signs one connection's segments and judges those of its peer."""

    chain: KeyChain  # where its keys come from

    @property
    def is_ao(self) -> bool: ...
    @property
    def octets(self) -> int:
        """Octets of options that a signature takes in every segment."""

    def sign(self, seg: Segment, now: int) -> None:
        """Put the option into a segment that leaves, one packet, of which nothing changes afterwards."""

    def admits(self, seg: Segment, option: Option, now: int) -> bool:
        """Whether a segment that came may be seen by anybody; counts why not. `option` is what `signed.find` found."""


def attach(seg: Segment, option: bytes) -> bytes:
    """Put an option behind a segment's further ones; return all option octets as the codec will write them.

    What else is among the further ones (user timeout, Fast Open cookie) is advice: where there is no room for both, it stays out.
    """
    seg.options += option
    try:
        return build_options(seg)
    except OSError:  # EMSGSIZE
        seg.options = option
        return build_options(seg)
