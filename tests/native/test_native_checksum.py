"""The checksum in C, in Python, and scapy's, at every length and alignment (M-02)."""

from __future__ import annotations

import random

import pytest
from native.support import CODECS
from scapy.utils import checksum as scapy_checksum

from tunstack.wire import native, twin


@pytest.mark.parametrize("shift", range(9))
def test_all_lengths_at_every_alignment(shift: int) -> None:
    data = memoryview(random.Random(shift).randbytes(320))
    for length in range(301):
        view = data[shift : shift + length]
        assert native.checksum(view) == twin.checksum(view) == scapy_checksum(bytes(view)), length


@pytest.mark.parametrize("length", [1447, 1448, 9000, 65535, 65536, 1 << 20, (1 << 20) + 3])
@pytest.mark.parametrize("filling", [None, 0x00, 0xFF])
def test_large_buffers(length: int, filling: int | None) -> None:
    data = memoryview(random.Random(length).randbytes(length + 1) if filling is None else bytes([filling]) * (length + 1))[1:]
    assert native.checksum(data) == twin.checksum(data) == scapy_checksum(bytes(data))


@pytest.mark.parametrize("initial", [0, 1, 0xFFFF, 0x10000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1])
def test_a_sum_to_start_from(initial: int) -> None:
    rng = random.Random(initial)
    for length in (0, 1, 2, 3, 20, 21, 1000):
        data = rng.randbytes(length)
        assert native.checksum(data, initial) == twin.checksum(data, initial)
        assert native.checksum(data, initial) == twin.checksum(initial.to_bytes(8, "big") + data)


@pytest.mark.parametrize("codec", CODECS)
def test_any_buffer_will_do(codec: object) -> None:
    data = b"any buffer"
    assert len({codec.checksum(kind(data)) for kind in (bytes, bytearray, memoryview)}) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("codec", CODECS)
def test_data_with_its_own_checksum_gives_zero(codec: object) -> None:
    for seed in range(50):
        data = bytearray(random.Random(seed).randbytes(2 + 2 * seed))
        data[:2] = b"\0\0"
        data[:2] = codec.checksum(data).to_bytes(2, "big")  # type: ignore[attr-defined]
        assert codec.checksum(data) == 0  # type: ignore[attr-defined]
