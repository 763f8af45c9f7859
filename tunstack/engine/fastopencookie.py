"""Fast Open cookies and the option that carries them.

RFC 7413 2 and 4.1.1, RFC 6994 (the experimental option of before). A server's cookie is a keyed hash of the two addresses, as in Linux;
the keys are the listener's (TCP_FASTOPEN_KEY), else the stack's (tcp_fastopen_key), else made from the stack's secret. The first key
makes cookies, a second one is still believed while the keys are changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunstack.engine.knob import parse_keys
from tunstack.engine.siphash import siphash
from tunstack.wire.buffer import Buffer
from tunstack.wire.tcp import END, MAX_OPTIONS, NOP, build_options

if TYPE_CHECKING:
    from tunstack.engine.listener import Listener
    from tunstack.wire.segment import Segment

# tcp_fastopen
CLIENT = 0x1  # clients may
SERVER = 0x2  # listeners that have TCP_FASTOPEN may
CLIENT_NO_COOKIE = 0x4  # data in a SYN without a cookie
SERVER_NO_COOKIE = 0x200  # which listeners accept
SERVER_ALL = 0x400  # listeners need no TCP_FASTOPEN: their queue is their backlog

KIND = 34
EXPERIMENT = 254  # with ...
MAGIC = b"\xf9\x89"  # ... this number
COOKIE_MIN, COOKIE_MAX = 4, 16  # octets
KEY_LENGTH = 16


class Cookie(NamedTuple):
    """What the option says: a cookie or, empty, that one is asked for; and whether it is the experimental option."""

    value: bytes
    is_experimental: bool


# The option.


def decode(options: Buffer) -> Cookie | None:
    """Return what the option among all option octets of a SYN or SYN-ACK says; None if there is none of a right length."""
    found = None
    i = 0
    while i < len(options) and options[i] != END:
        if options[i] == NOP:
            i += 1
            continue
        length = options[i + 1] if i + 1 < len(options) else 0
        if length < 2 or i + length > len(options):
            break
        if options[i] == KIND:
            found = _cookie(bytes(options[i + 2 : i + length]), False, found)
        elif options[i] == EXPERIMENT and bytes(options[i + 2 : i + 4]) == MAGIC and length >= 4:
            found = _cookie(bytes(options[i + 4 : i + length]), True, found)
        i += length
    return found


def _cookie(value: bytes, is_experimental: bool, before: Cookie | None) -> Cookie | None:
    if len(value) & 1:
        return before  # as Linux: as if it were not there
    if value and not COOKIE_MIN <= len(value) <= COOKIE_MAX:
        return None
    return Cookie(value, is_experimental)


def encode(cookie: Cookie) -> bytes:
    """Return the option, padded."""
    head = bytes((EXPERIMENT, 4 + len(cookie.value))) + MAGIC if cookie.is_experimental else bytes((KIND, 2 + len(cookie.value)))
    option = head + cookie.value
    return option + bytes((NOP,)) * (-len(option) & 3)


def attach(seg: Segment, option: bytes) -> bool:
    """Put the option into a SYN or SYN-ACK behind all others, if it has room; return whether it had."""
    if len(build_options(seg)) + len(option) > MAX_OPTIONS:
        return False
    seg.options += option
    return True


# Keys.


def keys_of(listener: Listener) -> Sequence[bytes]:
    """Return the keys that a listener's cookies are made with, the one for new cookies first."""
    stack = listener.stack
    keys = listener.options.fastopen_key or parse_keys(stack.sysctl.tcp_fastopen_key) or stack.isn.derive(b"fastopen", KEY_LENGTH)
    return [keys[i : i + KEY_LENGTH] for i in range(0, len(keys), KEY_LENGTH)]


def make_cookie(key: bytes, flow_in: bytes) -> bytes:
    """Return the cookie of a client whose segments have this flow: of its address and the one that it talks to."""
    return siphash(key, flow_in[:8])
