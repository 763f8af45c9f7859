"""Latencies in an HdrHistogram, which keeps three digits of every value and can be added to others of its kind."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

LONGEST_NS = 10_000_000_000
DIGITS = 3


class Latencies:
    """How long things took."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, LONGEST_NS, DIGITS)

    def record(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take in pairs of a latency, ns, and how often it was seen."""
        for value, count in pairs:
            self._histogram.record_value(min(value, LONGEST_NS), count)

    def add(self, encoded: str) -> None:
        """Take in what `encode` gave."""
        self._histogram.decode_and_add(encoded)

    def encode(self) -> str:
        """Return it in HdrHistogram's own format (V2, compressed, base64), which its tools read."""
        encoded: bytes = self._histogram.encode()
        return encoded.decode()

    def percentile(self, percent: float) -> float:
        """Return the latency, us, that so many percent of all do not exceed."""
        return float(self._histogram.get_value_at_percentile(percent)) / 1e3

    def longest(self) -> float:
        """Return the longest latency, us."""
        return float(self._histogram.get_max_value()) / 1e3

    def __len__(self) -> int:
        return int(self._histogram.total_count)
