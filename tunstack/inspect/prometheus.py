"""A stack for Prometheus: a collector, read anew on every scrape.

Counters bear Linux's names in Prometheus's spelling (`TcpRetransSegs` is tunstack_tcp_retrans_segs_total, `TcpExtTCPTimeouts` is
tunstack_tcpext_timeouts_total), with Linux's own in their help. States are a gauge with a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunstack.engine.state import State
from tunstack.inspect import reading, snmp
from tunstack.inspect.census import Census, count, finish
from tunstack.inspect.reading import Reading

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

WORD = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z][a-z]+|[A-Z]+\d*|\d+|[a-z]+")


def metric_name(table: str, field: str) -> str:
    """Return the name of a counter, without the `_total` that it ends in."""
    words = WORD.findall(field.removeprefix("TCP").removeprefix("Tcp") if table == "TcpExt" else field)
    return "_".join(["tunstack", table, *words]).lower()


class StackCollector(Collector):
    """Reads one stack. `labels` are the names of what listens on a port.

    prometheus_client has no time for other things while it collects: who has counted the sockets before sets `census`.
    """

    def __init__(self, stack: Stack, labels: Mapping[int, str]) -> None:
        self._stack = stack
        self._labels = labels
        self.census: Census | None = None

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it is now."""
        return families(reading.read(self._stack, self._labels, self.census or finish(count(self._stack))))


class ReadingCollector(Collector):
    """Gives what was read before, of one stack or of several."""

    def __init__(self) -> None:
        self.reading = Reading()

    def collect(self) -> Iterator[Metric]:
        """Give every metric."""
        return families(self.reading)


def families(read: Reading) -> Iterator[Metric]:
    """Give the metrics of a reading."""
    for table, counters in snmp.tables(read.values).items():
        for field, value in counters.items():
            if table + field not in snmp.GAUGES:
                yield CounterMetricFamily(metric_name(table, field), f"Linux's {table}{field}", value=value)
    states = GaugeMetricFamily("tunstack_tcp_sockets", "TCP sockets by state", labels=["state"])
    for state in State:
        if state is not State.CLOSED:
            states.add_metric([state.name.lower()], read.states.get(state.name, 0))
    yield states
    names = ["address", "port", "service"]
    accept = GaugeMetricFamily("tunstack_tcp_accept_queue", "connections that wait to be accepted", labels=names)
    limit = GaugeMetricFamily("tunstack_tcp_accept_queue_limit", "how many may wait", labels=names)
    half_open = GaugeMetricFamily("tunstack_tcp_syn_queue", "half-open connections", labels=names)
    for (address, port, service), queue in read.queues.items():
        labels = [address, str(port), service]
        accept.add_metric(labels, queue.acceptable)
        limit.add_metric(labels, queue.limit)
        half_open.add_metric(labels, queue.half_open)
    yield from (accept, limit, half_open)
