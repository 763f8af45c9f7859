"""What the tests of the codec share: segments as comparable values, frames by scapy, random and damaged frames."""

from __future__ import annotations

import random
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from tunstack.wire import native, twin
from tunstack.wire.flow import pack_address, pack_flow
from tunstack.wire.segment import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, Batch, Segment
from tunstack.wire.virtio import HEADER

CODECS = (native, twin)
ALL_FLAGS = FIN | SYN | RST | PSH | ACK | URG | ECE | CWR | AE
PEER, US = pack_address("10.77.0.1"), pack_address("10.77.0.2")
FLOW = pack_flow(PEER, 40000, US, 80)


def fields(segment: Segment) -> dict[str, Any]:
    """Return every field of a segment, the payload joined; one that is not contiguous is told by its views."""
    values = {name: getattr(segment, name) for name in Segment.__slots__}
    values["payload"] = [bytes(view) for view in segment.payload]
    return values


def content(batch: Batch) -> dict[str, Any]:
    """Return everything that a batch says."""
    return {
        "segments": [fields(segment) for segment in batch.segments],
        "packets": [bytes(packet) for packet in batch.packets],
        "checksum_errors": batch.checksum_errors,
        "header_errors": batch.header_errors,
        "ignored": batch.ignored,
    }


def make_segment(size: int = 0, **values: Any) -> Segment:
    """Return a segment of our flow with that much payload."""
    payload = random.Random(size).randbytes(size)
    segment = Segment(FLOW, 1000, 2000, ACK, 500, (memoryview(payload),) if size else (), size)
    for name, value in values.items():
        setattr(segment, name, value)
    return segment


def scapy_frame(payload: bytes = b"", ip: dict[str, Any] | None = None, **tcp: Any) -> bytes:
    """Return a frame that scapy built."""
    header = IP(**{"src": "10.77.0.1", "dst": "10.77.0.2", "flags": "DF", **(ip or {})})
    return bytes(header / TCP(**{"sport": 40000, "dport": 80, **tcp}) / Raw(payload))


def random_segment(rng: random.Random) -> Segment:
    """Return a segment with any field at any value that a header can say, its payload in up to 20 views."""
    sizes = [rng.choice((0, 1, 2, 3, 100, 1448, rng.randrange(5000))) for _ in range(rng.choice((0, 1, 1, 2, 3, 20)))]
    views = tuple(rng.choice((memoryview, bytes))(rng.randbytes(size)) for size in sizes)
    further = rng.choice((0, 0, 0, 1, 2, 4))
    return Segment(
        rng.randbytes(12),
        rng.choice((rng.randrange(1 << 32), 0xFFFFFFFF - rng.randrange(3000))),
        rng.randrange(1 << 32),
        rng.choice((ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, rng.randrange(512))),
        rng.randrange(1 << 16),
        views,
        sum(sizes),
        ts_val=rng.choice((None, rng.randrange(1 << 32))),
        ts_ecr=rng.randrange(1 << 32),
        gso_size=rng.choice((0, 1448, 536, 1 + rng.randrange(3000))),
        sack=tuple((rng.randrange(1 << 32), rng.randrange(1 << 32)) for _ in range(rng.choice((0, 0, 1, 2, 3, 4, 5)))),
        mss=rng.choice((None, None, 1460, rng.randrange(1, 1 << 16))),
        wscale=rng.choice((None, None, rng.randrange(256))),
        sack_ok=rng.random() < 0.3,
        options=bytes((0xFD, 4 * further) + (7,) * (4 * further - 2)) if further else b"",
        tos=rng.randrange(256),
        urgent=rng.choice((0, 0, 1, 1000, rng.randrange(1 << 16))),
        ident=rng.choice((0, 0xFFFE, rng.randrange(1 << 16))),
    )


def random_options(rng: random.Random) -> bytes:
    """Return an option list, padded, that is well-formed more often than not."""
    options = bytearray()
    while len(options) < 40 and rng.random() < 0.85:
        kind = rng.choice((0, 1, 1, 2, 3, 4, 5, 5, 8, 8, rng.randrange(256)))
        if kind < 2:
            options.append(kind)
            continue
        usual = {2: 4, 3: 3, 4: 2, 5: 2 + 8 * rng.randrange(1, 5), 8: 10}.get(kind, rng.randrange(2, 8))
        length = usual if rng.random() < 0.8 else rng.randrange(256)
        options += bytes((kind, length)) + rng.randbytes(max(0, min(length, 40) - 2))
    del options[40:]
    return bytes(options) + b"\0" * (-len(options) & 3)


def random_frames(rng: random.Random, vnet: bool) -> list[bytes]:
    """Return frames of a few flows, some following each other, some damaged, truncated or no TCP at all."""
    ports = [rng.randrange(1 << 16) for _ in range(3)]
    seqs = [rng.choice((0, 0xFFFFFF00)) for _ in ports]
    size = rng.choice((1, 3, 100, 536, 1448))
    frames = []
    for _ in range(rng.randrange(1, 40)):
        which = rng.randrange(3)
        length = rng.choice((size, size, size, size, 0, 1, rng.randrange(2 * size)))
        if rng.random() < 0.1:
            length = min(length * rng.choice((2, 3, 40)), 65000)
        segment = Segment(PEER + US + ports[which].to_bytes(2, "big") + b"\0\x50", seqs[which], 7, ACK, 500)
        segment.payload, segment.length = (memoryview(rng.randbytes(length)),), length
        segment.ts_val, segment.ts_ecr = rng.choice(((1, 2), (1, 2), (1, 2), (1, 3), (None, 0)))
        change = rng.random()
        if change < 0.3:
            segment.flags = rng.choice(
                (ACK | PSH, ACK | FIN, ACK | FIN | PSH, ACK | ECE, ACK | CWR, SYN, RST, ACK | URG, rng.randrange(512))
            )
        elif change < 0.4:
            name, value = rng.choice(
                (("ack", 8), ("window", 501), ("tos", 3), ("urgent", 9), ("sack", ((1, 2),)), ("options", b"\xfd\x04ab"))
            )
            setattr(segment, name, value)
        seqs[which] = (seqs[which] + length + rng.choice((0, 0, 0, 0, 0, 0, 1, -1))) & 0xFFFFFFFF
        frame = bytearray(twin.encode(segment)[0])
        if rng.random() < 0.1:
            options = random_options(rng)
            frame[32:34] = bytes(((5 + len(options) // 4) << 4, ACK))
            frame[40 : 40 + (12 if segment.ts_val is not None else 0)] = options
            frame = bytearray(fixed(bytes(frame)))
        damage = rng.random()
        if damage < 0.05:
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        elif damage < 0.1:
            at = rng.randrange(min(len(frame), 60))
            frame[at] = rng.randrange(256)
            frame = bytearray(fixed(bytes(frame)))
        elif damage < 0.13:
            del frame[rng.randrange(len(frame)) :]
        elif damage < 0.16:
            frame += bytes(rng.randrange(1, 30))
        elif damage < 0.18:
            frame = bytearray(rng.randbytes(rng.randrange(100)))
        if vnet:
            gso = rng.choice((0, 0, 0, size, rng.randrange(1 << 16)))
            kind = rng.choice((1, 1, 1, 0x81, 0, 4, rng.randrange(256))) if gso else 0
            flags = rng.choice((0, 1, 2, 3))
            start = rng.choice((20, 20, 20, rng.randrange(100)))
            frame[:0] = HEADER.pack(flags, kind, rng.randrange(200), gso, start, rng.choice((16, 16, 6, rng.randrange(1 << 16))))
            if rng.random() < 0.02:
                del frame[rng.randrange(11) :]
        frames.append(bytes(frame))
    return frames


def fixed(frame: bytes) -> bytes:
    """Return the frame with its lengths and checksums made right as far as its headers allow."""
    raw = bytearray(frame)
    header = (raw[0] & 0xF) * 4 if raw else 0
    if len(raw) < 20 or not 20 <= header <= len(raw):
        return frame
    raw[2:4] = len(raw).to_bytes(2, "big")
    raw[10:12] = b"\0\0"
    raw[10:12] = twin.checksum(raw[:header]).to_bytes(2, "big")
    if raw[9] == 6 and len(raw) >= header + 20:
        raw[header + 16 : header + 18] = b"\0\0"
        pseudo = bytes(raw[12:20]) + b"\0\x06" + (len(raw) - header).to_bytes(2, "big")
        raw[header + 16 : header + 18] = twin.checksum(pseudo + raw[header:]).to_bytes(2, "big")
    return bytes(raw)
