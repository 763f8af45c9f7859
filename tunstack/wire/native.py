"""The codec's Python face of the C extension; see twin.py for what each name does, codec.py for who chooses.

ImportError where the extension was not built. A segment crosses the border as one fixed record (struct ts_record, native/tunstack.h),
packed and unpacked whole, because every field of a cffi structure would cost as much as a third of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from tunstack.wire._native import ffi, lib
from tunstack.wire.buffer import Buffer
from tunstack.wire.segment import Batch, Segment
from tunstack.wire.tcp import checked_options

BACKEND = "native"

_RECORD = 128  # octets of struct ts_record
_HAS_TIMESTAMP, _HAS_MSS, _HAS_WSCALE, _HAS_SACK_OK, _HAS_SACK, _HAS_OPTIONS, _IS_PACKET = 1, 2, 4, 8, 16, 32, 64

# flow, seq, ack, ts_val, ts_ecr, offset, length, gso_size, flags, window, urgent, ident, packets, mss, tos, (ttl,) wscale, present
_RECEIVED = Struct("=12sIIIIIIHHHHHHHBxBB74x")
_RARE = Struct("=54xBB32s40s")  # sack_count, options_length, sack, options
_BLOCK = Struct("=II")
# flow, seq, ack, ts_val, ts_ecr, gso_size, flags, window, urgent, ident, tos, ttl, present: a segment without options, or with a timestamp
_PLAIN = Struct("=12sIIII8xHHHHH4xBBxB74x")
# the same with mss and wscale, and sack_count, options_length, sack, options
_FULL = Struct("=12sIIII8xHHHHH2xHBBBBBB32s40s")

_MAX_VIEWS: int = lib.TS_MAX_VIEWS
_COUNT: int = lib.TS_COUNT
_UNUSUAL: int = lib.TS_UNUSUAL
_new = Segment.__new__
_read = lib.ts_reader_read
_send = lib.ts_writer_send
_from_buffer = ffi.from_buffer
_NULL = ffi.NULL


def checksum(data: Buffer, initial: int = 0) -> int:
    """Return the Internet checksum of data; `initial` is a sum to start from, below 2^64."""
    result: int = lib.ts_checksum(_from_buffer(data), len(data), initial)
    return result


def _error(result: int) -> OSError:
    return OSError(-result, ffi.string(lib.strerror(-result)).decode())


class Reader:
    """As twin.Reader. Payloads are views into one buffer of `max_frames` slots, which the next `read` or `parse` fills again."""

    def __init__(
        self, vnet: bool, max_frames: int = 64, max_octets: int = 1 << 19, coalesce: bool = True, coalesce_acks: bool = False
    ) -> None:
        if not 0 < max_frames <= 1024:
            raise ValueError(f"a batch has 1 to 1024 frames: {max_frames}")
        self._max_frames = max_frames
        self._reader: Any = ffi.new("struct ts_reader *")
        self._reader.slots = max_frames
        self._reader.max_frames = max_frames
        self._reader.max_octets = min(max_octets, 0xFFFFFFFF)
        self._reader.vnet = vnet
        self._reader.coalesce = coalesce
        self._reader.coalesce_acks = coalesce_acks
        self._runs: Any = ffi.new("struct ts_run[]", max_frames)  # kept alive for C
        self._reader.runs = self._runs
        # Pinned is the bytearray, not a view of it: a collector that finds both in a cycle clears the view under cffi's hands and crashes.
        records = bytearray(max_frames * _RECORD)
        self._records = memoryview(records)
        self._records_pin: Any = _from_buffer("struct ts_record[]", records)
        self._reader.records = self._records_pin
        self._batch = Batch()  # most batches are segments and no more: they take turns in this one
        self._nothing = Batch()
        self._fresh_buffer()

    def _fresh_buffer(self) -> None:
        buffer = bytearray(self._max_frames * lib.TS_SLOT)  # memory only where a slot is used
        self._buffer = memoryview(buffer)
        self._buffer_pin: Any = _from_buffer("uint8_t[]", buffer)
        self._reader.buffer = self._buffer_pin

    @property
    def coalesce_acks(self) -> bool:
        """Whether bare ACKs are merged."""
        return bool(self._reader.coalesce_acks)

    @coalesce_acks.setter
    def coalesce_acks(self, wanted: bool) -> None:
        self._reader.coalesce_acks = wanted

    @property
    def octets(self) -> int:
        """Octets of IPv4 packets that came and were good, ever."""
        octets: int = self._reader.octets
        return octets

    def read(self, fd: int) -> Batch:  # hot
        """Return what has arrived, possibly nothing, without waiting; it is borrowed until the next call."""
        result: int = _read(self._reader, fd)
        if not result:
            return self._nothing
        if result < 0:
            raise _error(result)
        if result & _UNUSUAL:
            batch = Batch()
            self._collect(batch)
        else:
            batch = self._batch
            batch.segments = []
            _unpack(self._records, result & _COUNT, self._buffer, batch)
        return batch

    def parse(self, frames: Sequence[Buffer]) -> Batch:
        """Return the batch of frames that are in memory; each with its virtio header if `vnet`."""
        batch = Batch()
        reader, add = self._reader, lib.ts_reader_add
        for start in range(0, len(frames), self._max_frames):
            if start:
                self._fresh_buffer()  # what was parsed before is still borrowed
            lib.ts_reader_begin(reader)
            for frame in frames[start : start + self._max_frames]:
                add(reader, _from_buffer(frame), len(frame))
            self._collect(batch)
        return batch

    def _collect(self, batch: Batch) -> None:
        reader = self._reader
        batch.checksum_errors += reader.checksum_errors
        batch.header_errors += reader.header_errors
        batch.ignored += reader.ignored
        _unpack(self._records, reader.count, self._buffer, batch)


def _unpack(records: Buffer, count: int, buffer: memoryview, batch: Batch) -> None:  # hot
    """Append what the first `count` records stand for to the batch; their offsets are into buffer."""
    # One is by far the most frequent where each microsecond counts; to slice and iterate costs as much as it does.
    rows = (_RECEIVED.unpack_from(records),) if count == 1 else _RECEIVED.iter_unpack(records[: count * _RECORD])
    segments = batch.segments
    at = 0
    for row in rows:
        segment = _new(Segment)  # field by field: the constructor's call alone would cost as much as half of this
        (
            segment.flow,
            segment.seq,
            segment.ack,
            segment.ts_val,
            segment.ts_ecr,
            offset,
            length,
            segment.gso_size,
            segment.flags,
            segment.window,
            segment.urgent,
            segment.ident,
            segment.packets,
            mss,
            segment.tos,
            wscale,
            present,
        ) = row
        segment.length = length
        segment.payload = (buffer[offset : offset + length],) if length else ()
        segment.sack = ()
        segment.mss = segment.wscale = None
        segment.sack_ok = False
        segment.options = b""
        if present == 1:  # _HAS_TIMESTAMP alone
            segments.append(segment)
        elif present == _IS_PACKET:
            batch.packets.append(buffer[offset : offset + length])
        else:
            _other_options(segment, present, mss, wscale, records[at : at + _RECORD])
            if segment.options:
                batch.has_options = True
            segments.append(segment)
        at += _RECORD


def _other_options(segment: Segment, present: int, mss: int, wscale: int, record: Buffer) -> None:
    """Put the options into a received segment that has others than the timestamp, or not that."""
    if not present & _HAS_TIMESTAMP:
        segment.ts_val = None
    if present <= _HAS_TIMESTAMP:
        return
    if present & _HAS_MSS:
        segment.mss = mss
    if present & _HAS_WSCALE:
        segment.wscale = wscale
    segment.sack_ok = bool(present & _HAS_SACK_OK)
    sack_count, options_length, sack, options = _RARE.unpack(record)
    if present & _HAS_SACK:
        segment.sack = tuple(_BLOCK.iter_unpack(sack[: 8 * sack_count]))
    if present & _HAS_OPTIONS:
        segment.options = options[:options_length]


def parse_datagram(data: Buffer) -> Segment | None:
    """Return the segment in one whole IPv4 packet, or None where it holds no valid one. The payload views data."""
    record = bytearray(_RECORD)
    if not lib.ts_parse_datagram(_from_buffer(data), len(data), _from_buffer(record)):
        return None
    batch = Batch()
    _unpack(record, 1, memoryview(data), batch)
    return batch.segments[0]


def _record(segment: Segment, ttl: int) -> bytes:  # hot
    """Pack a segment for C; its payload goes beside."""
    ts_val = segment.ts_val
    if segment.mss is None and segment.wscale is None and not segment.sack and not segment.sack_ok and not segment.options:
        return _PLAIN.pack(
            segment.flow,
            segment.seq,
            segment.ack,
            ts_val or 0,
            segment.ts_ecr,
            segment.gso_size,
            segment.flags,
            segment.window,
            segment.urgent,
            segment.ident,
            segment.tos,
            ttl,
            ts_val is not None,
        )
    further = checked_options(segment)
    sack = segment.sack[:4]
    present = (
        (0 if ts_val is None else _HAS_TIMESTAMP)
        | (0 if segment.mss is None else _HAS_MSS)
        | (0 if segment.wscale is None else _HAS_WSCALE)
        | (_HAS_SACK_OK if segment.sack_ok else 0)
        | (_HAS_SACK if sack else 0)
        | (_HAS_OPTIONS if further else 0)
    )
    return _FULL.pack(
        segment.flow,
        segment.seq,
        segment.ack,
        ts_val or 0,
        segment.ts_ecr,
        segment.gso_size,
        segment.flags,
        segment.window,
        segment.urgent,
        segment.ident,
        segment.mss or 0,
        segment.tos,
        ttl,
        segment.wscale or 0,
        present,
        len(sack),
        len(further),
        b"".join([_BLOCK.pack(*block) for block in sack]),
        further,
    )


def encode(segment: Segment, ttl: int = 64) -> list[bytes]:
    """Return the packets of a segment, cut to its gso_size, with full checksums."""
    payload: Buffer = segment.payload[0] if len(segment.payload) == 1 else b"".join(segment.payload)
    length = len(payload)
    size = segment.gso_size or length
    packets = -(-length // size) if length else 1
    out = bytearray(packets * lib.TS_MAX_HEADER + length)
    used = lib.ts_encode(_record(segment, ttl), _from_buffer(payload), length, _from_buffer(out), len(out))
    if used < 0:
        raise _error(used)
    frames: list[bytes] = []
    at = 0
    while at < used:
        total_length = out[at + 2] << 8 | out[at + 3]
        frames.append(bytes(out[at : at + total_length]))
        at += total_length
    return frames


class Writer:
    """As twin.Writer."""

    def __init__(self, fd: int, vnet: bool, tso: bool, ttl: int = 64) -> None:
        if tso and not vnet:
            raise ValueError("segmentation offload needs the virtio header")
        self._ttl = ttl
        self._writer: Any = ffi.new("struct ts_writer *")
        self._writer.fd = fd
        self._writer.vnet = vnet
        self._writer.tso = tso

    @property
    def lost(self) -> int:
        """Packets at the end of a run that found the queue full."""
        lost: int = self._writer.lost
        return lost

    @property
    def octets(self) -> int:
        """Octets of IPv4 packets, or super-segments, that were sent, ever."""
        octets: int = self._writer.octets
        return octets

    def close(self) -> None:
        """Know the descriptor no more: whoever closes it may find its number in other hands."""
        self._writer.fd = -1

    def write(self, segment: Segment) -> bool:  # hot
        """Send a segment; return False, nothing having been sent, where it would block."""
        record = _record(segment, self._ttl)
        payload = segment.payload
        if not payload:
            result = _send(self._writer, record, _NULL, 0)
        elif len(payload) == 1:
            view = payload[0]
            # cffi takes bytes as they are; a view needs an object of its own for the call
            result = _send(self._writer, record, view if type(view) is bytes else _from_buffer(view), len(view))
        else:
            result = self._send_views(record, payload)
        if result < 0:
            raise _error(result)
        return bool(result > 0)

    def _send_views(self, record: bytes, payload: Sequence[bytes | memoryview]) -> int:
        if len(payload) > _MAX_VIEWS:  # to copy 64 KB costs less than to hand over many views
            whole = b"".join(payload)
            sent: int = _send(self._writer, record, _from_buffer(whole), len(whole))
            return sent
        pins = [_from_buffer(view) for view in payload]  # before the first push: nothing may fail between that and the send
        for pin in pins[:-1]:
            lib.ts_writer_push(self._writer, pin, len(pin))
        sent = _send(self._writer, record, pins[-1], len(pins[-1]))
        return sent

    def write_packet(self, data: Buffer) -> bool:
        """Send one whole IPv4 packet; return False where it would block."""
        result = lib.ts_writer_send_packet(self._writer, _from_buffer(data), len(data))
        if result < 0:
            raise _error(result)
        return bool(result)
