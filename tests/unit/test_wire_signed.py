"""Where a signature option stands among option octets, and what it covers."""

from __future__ import annotations

import pytest

from tunstack.wire import codec, signed, tcp
from tunstack.wire.segment import ACK, Segment

MD5 = bytes((19, 18)) + bytes(16)
AO = bytes((29, 16, 1, 2)) + bytes(12)
TIMESTAMP = bytes((1, 1, 8, 10)) + bytes(8)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (b"", signed.NONE),
        (TIMESTAMP, signed.NONE),
        (bytes((1, 1)) + MD5, (19, 2, 18)),
        (TIMESTAMP + AO, (29, 12, 16)),
        (AO + TIMESTAMP, (29, 0, 16)),
        (bytes((0,)) + AO, signed.NONE),  # behind the end
        (bytes((19, 17)) + bytes(15), signed.NONE),  # a wrong length for its kind is no signature
        (bytes((29, 4, 1, 2)), signed.NONE),  # no MAC
        (bytes((29, 5, 1, 2, 3)), (29, 0, 5)),
        (AO + AO, signed.INVALID),
        (MD5 + AO, signed.INVALID),
        (MD5 + MD5, signed.INVALID),
        (AO[:-1], signed.INVALID),  # longer than what is left
        (bytes((8,)), signed.INVALID),
        (bytes((8, 1)) + AO, signed.INVALID),
    ],
)
def test_the_option_is_found_or_there_is_no_telling(options: bytes, found: tuple[int, int, int]) -> None:
    """M-15, M-16."""
    assert signed.find(options) == found


def test_the_header_that_is_covered_is_the_one_that_the_codec_writes() -> None:
    """M-15: octet for octet, but for the checksum."""
    seg = Segment(bytes(range(12)), 1 << 31, 77, ACK | 0x100, 513, (b"data",), 4, ts_val=9, ts_ecr=8, options=AO, urgent=3)
    (packet,) = codec.encode(seg)
    header = bytearray(packet[20:40])
    header[16:18] = b"\0\0"
    options = tcp.build_options(seg)
    assert signed.fixed_header(seg, len(options)) == header
    assert packet[40 : 40 + len(options)] == options


def test_a_batch_says_whether_any_segment_has_options_out_of_the_ordinary() -> None:
    """M-15, M-16: else nobody looks."""
    flow = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + bytes((0, 80, 0, 81))
    plain, odd = Segment(flow, 1, 1, ACK, 9, ts_val=1), Segment(flow, 1, 1, ACK, 9, ts_val=1, options=AO)
    for backend in ("native", "python"):
        codec.select(backend)  # type: ignore[arg-type]
        try:
            reader = codec.Reader(False)
            assert not reader.parse([*codec.encode(plain), *codec.encode(plain)]).has_options
            assert reader.parse([*codec.encode(plain), *codec.encode(odd), *codec.encode(plain)]).has_options
        finally:
            codec.select("native")
