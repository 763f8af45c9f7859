"""Quantities as ss writes them."""

from __future__ import annotations


def milliseconds(us: int) -> str:
    """Return a time of ss -i: in milliseconds, six digits at most (C's %g)."""
    return f"{us / 1000:g}"


def remaining(us: int) -> str:
    """Return what is left of a timer: `204ms`, `1.204ms` for seconds with milliseconds, `58sec`, `1min26sec`, `119min`."""
    ms = us // 1000
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    text = ""
    if minutes:
        ms = 0
        if minutes > 9:
            seconds = 0
        text += f"{minutes}min"
    if seconds:
        if seconds > 9:
            ms = 0
        text += f"{seconds}{'.' if ms else 'sec'}"
    if ms:
        text += f"{ms:03}ms"
    return text


def bits(rate: float, numeric: bool) -> str:
    """Return a rate in bit/s: `12345678bps`, or with three digits, `12.3Mbps`."""
    if numeric:
        return f"{rate:.0f}bps"
    for unit in ("", "K", "M", "G"):
        if rate < 1000 or unit == "G":
            break
        rate /= 1000
    return f"{rate:.3g}{unit}bps"
