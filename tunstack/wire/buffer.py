"""What holds octets. `collections.abc.Buffer` says it better, from Python 3.12 on."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview  # a memoryview is contiguous and its items are octets
