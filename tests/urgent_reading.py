"""What a reader finds where the peer sends urgent data: what Linux does, call by call, for it and for us.

Each line is what the peer sends and what the reader does, and behind `=>` what the calls give. The peer: `s:abc` sends, `u:abc` sends with
MSG_OOB, `f` shuts down; each arrives before the next. The reader: `r` recv, `p` recv with MSG_PEEK (both of up to 100 octets, or `r:2`),
`o` recv of one octet with MSG_OOB (`op` with MSG_PEEK too), `m` sockatmark, `q` FIONREAD, `e` the events of poll for reading (1) and
priority (2), `i` and `i:0` SO_OOBINLINE on and off. `''` is the end of the stream.
"""

from __future__ import annotations

TABLE = """
    o => EINVAL
    s:abc o r => EINVAL abc
    s:abc u:X q m r m q o o m r m o => 3 0 abc 1 0 X EINVAL 1 EAGAIN 0 EINVAL
    s:abc u:X r m s:def m q r m o => abc 1 1 0 def 0 EINVAL
    s:abc u:X s:def r r o => abc def EINVAL
    s:abc u:X s:def o r m o r o => X abc 1 EINVAL def EINVAL
    u:X m q e o e r m o => 1 0 2 X 0 EAGAIN 0 EINVAL
    u:X s:def e r e => 3 def 0
    u:X o s:def r => X def
    s:ab u:XY r o r => abX Y EAGAIN
    i s:abc u:X s:def q r m q r m o => 7 abc 1 4 Xdef 0 EINVAL
    i s:abc u:X r m o r m => abc 1 EINVAL X 0
    s:abc u:X s:def u:Y r q r o r => abcXdef 0 EAGAIN EINVAL EAGAIN
    s:abc u:X s:def u:Y o r m r r => Y abcXdef 1 EAGAIN EAGAIN
    s:abc u:X r s:def u:Y m r m o r => abc 0 def 1 Y EAGAIN
    s:abc u:X r o s:def u:Y m r m o r => abc X 0 def 1 Y EAGAIN
    s:abc u:X r u:Y m q r m o r => abc 1 0 EAGAIN 0 EINVAL EAGAIN
    s:abc u:X o r u:Y m q r m o r => X abc 1 0 EAGAIN 0 EINVAL EAGAIN
    s:abc u:X f r m r r o => abc 1 '' '' EINVAL
    s:abc u:X f r o r => abc X ''
    s:abc u:X o f r r => X abc ''
    u:X f r r => '' ''
    u:X f e o e r => 3 X 1 ''
    u:X p p o => EAGAIN EAGAIN X
    u:X s:def p p r => def def def
    s:abc u:X p:10 p:2 r:2 p r => abc ab ab c c
    s:abc u:X s:def r i r => abc Xdef
    s:abc u:X s:def i r i:0 r => abc def
    i u:X i:0 r o => EAGAIN EINVAL
    i s:abc u:X s:def p r p r => abc abc Xdef Xdef
    s:abc u:X op o op => X X EINVAL
    s:abc u:X r m r m o => abc 1 EAGAIN 0 EINVAL
    s:a u:X u:Y u:Z r m o r => aXY 1 Z EAGAIN
    i s:a u:X u:Y u:Z r m r m r => aXY 1 Z 0 EAGAIN
"""
SCENES = [(peer.strip(), results.strip()) for peer, _, results in (line.partition("=>") for line in TABLE.strip().splitlines())]


def shown(data: bytes) -> str:
    """Return what recv gave as the table writes it."""
    return data.decode() or "''"
