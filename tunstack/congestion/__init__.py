"""Congestion control: algorithms by name."""

from tunstack.congestion.base import INFINITE, CongestionControl, Factory, RateSample
from tunstack.congestion.cubic import Cubic
from tunstack.congestion.registry import Algorithms, available
from tunstack.congestion.reno import Reno
from tunstack.congestion.tahoe import Tahoe

__all__ = ["INFINITE", "Algorithms", "CongestionControl", "Cubic", "Factory", "RateSample", "Reno", "Tahoe", "available"]
