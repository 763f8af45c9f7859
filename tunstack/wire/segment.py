"""The TCP segment, in both directions, and a batch of what was received.

RFC 9293 3.1, RFC 7323 (options). No state, no behaviour. Lengths in octets.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunstack.wire.flow import format_address, unpack_flow

FIN = 0x001
SYN = 0x002
RST = 0x004
PSH = 0x008
ACK = 0x010
URG = 0x020
ECE = 0x040
CWR = 0x080
AE = 0x100

FLAG_LETTERS = ((FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P"), (ACK, "."), (URG, "U"), (ECE, "E"), (CWR, "W"), (AE, "A"))


class Segment:
    """One TCP segment, or a run of consecutive ones of a flow handled as one (GSO, GRO).

    Received: `payload` views the batch buffer and is borrowed until the next read; who keeps it copies it.
    To be sent: `payload` is the application's own buffers, or views of them.
    Invariant: `length == sum(len(piece) for piece in payload)`.
    """

    __slots__ = (
        "ack",
        "flags",
        "flow",
        "gso_size",
        "ident",
        "length",
        "mss",
        "options",
        "packets",
        "payload",
        "sack",
        "sack_ok",
        "seq",
        "tos",
        "ts_ecr",
        "ts_val",
        "urgent",
        "window",
        "wscale",
    )

    def __init__(
        self,
        flow: bytes,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        payload: Sequence[bytes | memoryview] = (),
        length: int = 0,
        ts_val: int | None = None,
        ts_ecr: int = 0,
        gso_size: int = 0,
        sack: Sequence[tuple[int, int]] = (),
        mss: int | None = None,
        wscale: int | None = None,
        sack_ok: bool = False,
        options: bytes = b"",
        tos: int = 0,
        packets: int = 1,
        urgent: int = 0,
        ident: int = 0,
    ) -> None:
        self.flow = flow  # addresses and ports, as in the packet (see flow.py)
        self.seq = seq  # SEG.SEQ
        self.ack = ack  # SEG.ACK; 0 where the ACK flag is not set
        self.flags = flags  # nine flags, FIN = 1 ... CWR = 0x80, AE = 0x100
        self.window = window  # the 16 bits of the header, not scaled
        self.payload = payload
        self.length = length  # octets of payload; SYN and FIN not counted
        self.ts_val = ts_val  # TSval, None where there is no timestamp option
        self.ts_ecr = ts_ecr  # TSecr
        self.gso_size = gso_size  # payload octets of each packet of a run; 0: one packet
        self.sack = sack  # SACK blocks (left, right), in the order of the option
        self.mss = mss  # MSS option, None where absent
        self.wscale = wscale  # window scale option, None where absent
        self.sack_ok = sack_ok  # SACK-permitted option
        self.options = options  # received: all option octets where there are others than the above; sent: further options, padded to 4
        self.tos = tos  # DSCP and ECN
        self.packets = packets  # packets on the wire that this stands for (received)
        self.urgent = urgent  # urgent pointer
        self.ident = ident  # IPv4 identification, of the first packet

    def __repr__(self) -> str:
        src, sport, dst, dport = unpack_flow(self.flow)
        letters = "".join(letter for bit, letter in FLAG_LETTERS if self.flags & bit)
        return (
            f"<Segment {format_address(src)}:{sport} > {format_address(dst)}:{dport} [{letters}]"
            f" seq {self.seq}:{(self.seq + self.length) & 0xFFFFFFFF}({self.length}) ack {self.ack} win {self.window}>"
        )


class Batch:
    """What one read of a device brought, checked and parsed.

    `segments` are the TCP segments, in order of arrival; `packets` is every other IPv4 packet (ICMP, UDP,
    fragments) as one whole datagram each, its IPv4 header checked. Both are borrowed until the next read, and so is the batch.
    """

    __slots__ = ("checksum_errors", "has_options", "header_errors", "ignored", "is_drained", "packets", "segments")

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.packets: list[memoryview] = []
        self.checksum_errors = 0  # TCP segments dropped: bad checksum (TcpInCsumErrors)
        self.header_errors = 0  # frames dropped: malformed IPv4 or TCP header (IpInHdrErrors, TcpInErrs)
        self.has_options = False  # some segment has `options`: the stack looks for signatures
        self.ignored = 0  # frames that are not IPv4: a TUN interface also brings the host's IPv6 solicitations
        self.is_drained = False  # nothing, or a lone small frame, and nothing behind it: to read again at once is in vain
