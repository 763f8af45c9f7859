"""Congestion control: algorithms by name."""

from tunstack.congestion.base import INFINITE, CongestionControl, Factory, RateSample
from tunstack.congestion.registry import available, lookup, register

__all__ = ["INFINITE", "CongestionControl", "Factory", "RateSample", "available", "lookup", "register"]
