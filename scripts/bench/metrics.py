"""The figures in the samples of each workload."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from results import Metric, Sample


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 if all have the same, 1/n if one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def _cpu(sample: Sample, end: str) -> float:
    return float(sample[f"{end}_user_s"] + sample[f"{end}_system_s"])


def _costs(count: str, unit: str, scale: float, digits: int) -> tuple[Metric, ...]:
    """CPU time for each of what was counted. Only the sum compares: on which end the kernel does the link's work is chance."""
    return (
        Metric("CPU of the server", unit, lambda sample: _cpu(sample, "server") * scale / sample[count], digits),
        Metric("CPU of the client", unit, lambda sample: _cpu(sample, "client") * scale / sample[count], digits),
        Metric("CPU of both", unit, lambda sample: (_cpu(sample, "server") + _cpu(sample, "client")) * scale / sample[count], digits),
    )


def _rate(count: str, scale: float) -> Callable[[Sample], float]:
    return lambda sample: float(sample[count] * scale / sample["seconds"])


def _field(name: str, scale: float = 1.0) -> Callable[[Sample], float]:
    return lambda sample: float(sample[name]) * scale


def _grown(sample: Sample) -> float:
    return float(sample["resident_after"] - sample["resident_before"]) / float(sample["connections"])


PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def percentile_name(percent: float) -> str:
    """Return p50, p99, p99.9."""
    return f"p{percent:g}"


BULK = (Metric("throughput", "Gbit/s", _rate("octets", 8e-9), 2), *_costs("octets", "s/GB", 1e9, 3))
PING = (
    *(Metric(percentile_name(percent), "us", _field(f"{percentile_name(percent)}_us"), 1) for percent in PERCENTILES),
    Metric("longest", "us", _field("longest_us"), 0),
    *_costs("round_trips", "us/round trip", 1e6, 1),
)
CONNECT = (Metric("connections", "1/s", _rate("connections", 1), 0), *_costs("connections", "us/connection", 1e6, 1))
MANY = (
    Metric("throughput", "Gbit/s", _rate("octets", 8e-9), 2),
    Metric("Jain's index", "", lambda sample: jain(sample["shares"]), 3),
    Metric("least by mean", "", lambda sample: min(sample["shares"]) * len(sample["shares"]) / sum(sample["shares"]), 3),
    *_costs("octets", "s/GB", 1e9, 3),
)
IDLE = (Metric("resident", "octets/connection", _grown, 0), *_costs("connections", "us/connection", 1e6, 1))
LINK = (
    Metric("goodput", "Mbit/s", lambda sample: float(sample["mbit"]) * len(sample["octets"]), 0),
    Metric("CPU of the sender", "%", lambda sample: 100 * float(sample["cpu"]["sender"]), 0),
    Metric("CPU of the receiver", "%", lambda sample: 100 * float(sample["cpu"]["receiver"]), 0),
    Metric("CPU of the link", "%", lambda sample: 100 * float(sample["cpu"]["link"]), 0),
)
