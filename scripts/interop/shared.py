"""What the matrix shares with the benchmarks, which live next door and are scripts as it is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))

from namespaces import Namespace

__all__ = ["Namespace"]
