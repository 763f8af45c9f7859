"""A stack for Prometheus: a collector, read anew on every scrape.

Counters bear Linux's names in Prometheus's spelling (`TcpRetransSegs` is tunstack_tcp_retrans_segs_total, `TcpExtTCPTimeouts` is
tunstack_tcpext_timeouts_total), with Linux's own in their help. States are a gauge with a label.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunstack.engine.state import State
from tunstack.inspect import snmp, snmpvalues
from tunstack.inspect.census import Census, count, finish
from tunstack.wire.flow import format_address

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
        census = self.census or finish(count(self._stack))
        for table, counters in snmp.tables(snmpvalues.values(self._stack, census)).items():
            for field, value in counters.items():
                if table + field not in snmp.GAUGES:
                    yield CounterMetricFamily(metric_name(table, field), f"Linux's {table}{field}", value=value)
        yield self._states(census)
        yield from self._queues()

    def _states(self, census: Census) -> Metric:
        states = Counter({state.name: 0 for state in State if state is not State.CLOSED})
        for state, number in (*census.connections.items(), *census.others.items()):
            states[state.name] += number
        states["LISTEN"] = sum(1 for _ in self._stack.listeners)
        family = GaugeMetricFamily("tunstack_tcp_sockets", "TCP sockets by state", labels=["state"])
        for name, number in states.items():
            family.add_metric([name.lower()], number)
        return family

    def _queues(self) -> Iterator[Metric]:
        names = ["address", "port", "service"]
        accept = GaugeMetricFamily("tunstack_tcp_accept_queue", "connections that wait to be accepted", labels=names)
        limit = GaugeMetricFamily("tunstack_tcp_accept_queue_limit", "how many may wait", labels=names)
        half_open = GaugeMetricFamily("tunstack_tcp_syn_queue", "half-open connections", labels=names)
        for listener in self._stack.listeners:
            labels = [format_address(listener.address), str(listener.port), self._labels.get(listener.port, "")]
            accept.add_metric(labels, listener.acceptable)
            limit.add_metric(labels, listener.backlog_limit)
            half_open.add_metric(labels, listener.half_open)
        yield from (accept, limit, half_open)
