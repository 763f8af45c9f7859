"""Congestion control: algorithms by name."""

from tunstack.congestion.base import CongestionControl, Factory
from tunstack.congestion.registry import available, lookup, register

__all__ = ["CongestionControl", "Factory", "available", "lookup", "register"]
