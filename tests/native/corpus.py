"""The frames that an input of the fuzzer stands for: the twin of make_frame() in native/fuzz/fuzz_frames.c, its form in README.md there."""

from __future__ import annotations

from pathlib import Path

from tunstack.wire import twin

CORPUS = Path(__file__).resolve().parents[2] / "native" / "fuzz" / "corpus"

MAX_FRAMES = 16
MAX_FRAME = 65545
FOLLOW, FIX_CHECKSUMS, FIX_LENGTH, FLIP_PSH, FLIP_FIN, SECOND_LAST, STRETCH, ADVANCE = 1, 2, 4, 8, 16, 32, 64, 128
STRETCH_TIMES = 32


def decode(data: bytes) -> tuple[bool, bool, bool, list[bytes]]:
    """Return (vnet, coalesce, coalesce_acks, frames)."""
    frames: list[bytes] = []
    vnet = bool(data[0] & 1)
    prefix = 10 if vnet else 0
    at = 1
    while len(data) - at >= 3 and len(frames) < MAX_FRAMES:
        op, length = data[at], int.from_bytes(data[at + 1 : at + 3], "little")
        frames.append(_make_frame(op, data[at + 3 : at + 3 + length], frames, prefix))
        at = min(at + 3 + length, len(data))
    return vnet, bool(data[0] & 2), bool(data[0] & 4), frames


def _make_frame(op: int, content: bytes, frames: list[bytes], prefix: int) -> bytes:
    header = bytearray()
    if op & FOLLOW and frames:
        before = frames[-2 if op & SECOND_LAST and len(frames) > 1 else -1]
        header += before[: _payload_at(before, prefix)]
        if header:
            tcp = prefix + (header[prefix] & 0xF) * 4
            seq = int.from_bytes(header[tcp + 4 : tcp + 8], "big") + len(before) - len(header)
            header[tcp + 4 : tcp + 8] = (seq & 0xFFFFFFFF).to_bytes(4, "big")
            if op & ADVANCE:
                ack = int.from_bytes(header[tcp + 8 : tcp + 12], "big") + int.from_bytes(content[:4], "big")
                header[tcp + 8 : tcp + 12] = (ack & 0xFFFFFFFF).to_bytes(4, "big")
                content = b""
            header[tcp + 13] ^= (8 if op & FLIP_PSH else 0) | (1 if op & FLIP_FIN else 0)
    frame = (header + content * (STRETCH_TIMES if op & STRETCH else 1))[:MAX_FRAME]
    if op & FIX_LENGTH and len(frame) >= prefix + 4:
        frame[prefix + 2 : prefix + 4] = min(len(frame) - prefix, 65535).to_bytes(2, "big")
    if op & FIX_CHECKSUMS:
        _fix_checksums(frame, prefix)
    return bytes(frame)


def _payload_at(frame: bytes, prefix: int) -> int:
    if len(frame) < prefix + 20:
        return 0
    tcp = prefix + (frame[prefix] & 0xF) * 4
    if tcp < prefix + 20 or len(frame) < tcp + 20:
        return 0
    payload = tcp + (frame[tcp + 12] >> 4) * 4
    return payload if tcp + 20 <= payload <= len(frame) else 0


def _fix_checksums(frame: bytearray, prefix: int) -> None:
    if len(frame) < prefix + 20:
        return
    header = (frame[prefix] & 0xF) * 4
    if header < 20 or prefix + header > len(frame):
        return
    frame[prefix + 10 : prefix + 12] = b"\0\0"
    frame[prefix + 10 : prefix + 12] = twin.checksum(frame[prefix : prefix + header]).to_bytes(2, "big")
    total = int.from_bytes(frame[prefix + 2 : prefix + 4], "big")
    if frame[prefix + 9] != 6 or total < header + 20 or prefix + total > len(frame):
        return
    begin, end = prefix + header, prefix + total
    frame[begin + 16 : begin + 18] = b"\0\0"
    pseudo = frame[prefix + 12 : prefix + 20] + b"\0\x06" + (total - header).to_bytes(2, "big")
    frame[begin + 16 : begin + 18] = twin.checksum(pseudo + frame[begin:end]).to_bytes(2, "big")
