"""Knobs that are a limit of the whole program: with several workers each has its share of them.

Limits of a listener (somaxconn, tcp_max_syn_backlog) are not among them: every worker listens, as sockets with SO_REUSEPORT do.
"""

from __future__ import annotations

from tunstack.engine.knob import Value

SHARED = frozenset(
    (
        "net.ipv4.icmp_msgs_burst",
        "net.ipv4.icmp_msgs_per_sec",
        "net.ipv4.tcp_challenge_ack_limit",
        "net.ipv4.tcp_max_orphans",
        "net.ipv4.tcp_max_tw_buckets",
        "net.ipv4.tcp_mem",
    )
)


def share(value: Value, workers: int) -> Value:
    """Return each worker's part of a limit, rounded up."""
    if isinstance(value, tuple):
        return tuple(-(-number // workers) for number in value)
    if isinstance(value, int):
        return -(-value // workers)
    raise TypeError(f"no limit: {value!r}")
