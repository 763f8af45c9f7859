"""What `ss -i` tells of a socket: TCP_INFO in one line, with ss's words in ss's order. What is zero is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunstack.inspect.quantities import bits, milliseconds
from tunstack.inspect.record import Info
from tunstack.inspect.tcpinfo import INFINITE_SSTHRESH

REORDERING_DEFAULT = 3


def describe(info: Info, *, numeric: bool, options: bool, is_listener: bool = False) -> str:
    """Return the words, each with a space before it; with `options` those that the SYNs agreed on too (ss -o)."""
    has: Mapping[str, Any] = info
    words: list[str] = []
    if options:
        words += [word for name, word in (("timestamps", "ts"), ("sack", "sack"), ("ecn", "ecn"), ("ecn_seen", "ecnseen")) if has.get(name)]
    words.append(has.get("congestion", ""))
    if has.get("wscale"):
        words.append(f"wscale:{has.get('snd_wscale', 0)},{has.get('rcv_wscale', 0)}")

    def number(name: str, word: str) -> None:
        if has.get(name):
            words.append(f"{word}:{has[name]}")

    def time(name: str, word: str) -> None:
        if has.get(name):
            words.append(f"{word}:{milliseconds(has[name])}")

    time("rto", "rto")
    number("backoff", "backoff")
    if has.get("rtt"):
        words.append(f"rtt:{milliseconds(has['rtt'])}/{milliseconds(has.get('rttvar', 0))}")
    time("ato", "ato")
    number("snd_mss", "mss")
    number("pmtu", "pmtu")
    number("rcv_mss", "rcvmss")
    number("advmss", "advmss")
    number("snd_cwnd", "cwnd")
    if has.get("snd_ssthresh", INFINITE_SSTHRESH) < INFINITE_SSTHRESH:
        number("snd_ssthresh", "ssthresh")
    for name in ("bytes_sent", "bytes_retrans", "bytes_acked", "bytes_received", "segs_out", "segs_in", "data_segs_out", "data_segs_in"):
        number(name, name)
    words += _algorithm(has, numeric)
    if has.get("rtt") and has.get("snd_mss") and has.get("snd_cwnd"):
        words.append(f"send {bits(has['snd_mss'] * has['snd_cwnd'] * 8e6 / has['rtt'], numeric)}")
    number("last_data_sent", "lastsnd")
    number("last_data_recv", "lastrcv")
    number("last_ack_recv", "lastack")
    if has.get("pacing_rate"):
        most = has.get("max_pacing_rate")
        words.append(f"pacing_rate {bits(has['pacing_rate'] * 8, numeric)}" + (f"/{bits(most * 8, numeric)}" if most else ""))
    if has.get("delivery_rate"):
        words.append(f"delivery_rate {bits(has['delivery_rate'] * 8, numeric)}")
    number("delivered", "delivered")
    number("delivered_ce", "delivered_ce")
    if has.get("app_limited"):
        words.append("app_limited")
    words += _busy(has)
    number("unacked", "unacked")
    if has.get("retrans") or has.get("total_retrans"):
        words.append(f"retrans:{has.get('retrans', 0)}/{has.get('total_retrans', 0)}")
    number("lost", "lost")
    if not is_listener:
        number("sacked", "sacked")
    number("dsack_dups", "dsack_dups")
    if has.get("reordering") != REORDERING_DEFAULT:
        number("reordering", "reordering")
    number("reord_seen", "reord_seen")
    time("rcv_rtt", "rcv_rtt")
    number("rcv_space", "rcv_space")
    number("rcv_ssthresh", "rcv_ssthresh")
    number("notsent_bytes", "notsent")
    time("min_rtt", "minrtt")
    number("rcv_ooopack", "rcv_ooopack")
    number("snd_wnd", "snd_wnd")
    number("rcv_wnd", "rcv_wnd")
    return "".join(f" {word}" for word in words)


def _algorithm(has: Mapping[str, Any], numeric: bool) -> list[str]:
    """What the congestion control tells of itself, as ss has it for bbr."""
    details = has.get("algorithm")
    if not details:
        return []
    parts = []
    for name, value in details.items():
        if name == "bw":
            parts.append(f"bw:{bits(value, numeric)}")
        elif name == "mrtt":
            parts.append(f"mrtt:{milliseconds(value)}")
        elif value:
            parts.append(f"{name}:{value:g}")
    return [f"{has.get('congestion', '')}:({','.join(parts)})"]


def _busy(has: Mapping[str, Any]) -> list[str]:
    """How long it had something to send, and what share of that it was held up by window and buffer."""
    busy = has.get("busy_time")
    if not busy:
        return []
    held = [name for name in ("rwnd_limited", "sndbuf_limited") if has.get(name)]
    return [f"busy:{busy // 1000}ms", *(f"{name}:{has[name] // 1000}ms({has[name] * 100 / busy:.1f}%)" for name in held)]
