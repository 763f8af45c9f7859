"""Counters in Linux's tables, and as netstat -s, nstat and Prometheus have them (M-61)."""

from __future__ import annotations

import json
import random
import re
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tunstack.cli.nstat import read, write
from tunstack.daemon.errors import UserError
from tunstack.engine import Stack, StackConfig, pack_address
from tunstack.engine.counters import Counters
from tunstack.inspect import netstatwords, nstat, snmp, snmpvalues
from tunstack.inspect.prometheus import StackCollector, metric_name

OURS = {"TcpExtTCPCongestionFallback", "TcpExtTCPHandedOver"}  # what Linux has not


@pytest.fixture
def stack() -> Stack:
    """A stack in which no two counters are equal."""
    stack = Stack(StackConfig((pack_address("10.77.0.2"),)), random.Random(1), bytes(16))
    for number, field in enumerate(fields(Counters), 1001):
        setattr(stack.counters, field.name, number)
    return stack


def test_every_counter_is_in_one_table(stack: Stack) -> None:
    """M-61: under nstat's name, with its own value; and each name is Linux's."""
    flat = snmpvalues.values(stack)
    linux = {table + name for table, names in snmp.TABLES.items() for name in names}
    assert flat.keys() - linux == OURS
    counted = sorted(value for name, value in flat.items() if value > 1000 and name not in snmp.GAUGES | {"IpOutTransmits"})
    assert counted == sorted(getattr(stack.counters, field.name) for field in fields(Counters))
    assert flat["TcpExtTCPTimeouts"] == stack.counters.TCPTimeouts
    assert flat["IpExtReasmOverlaps"] == stack.counters.IpExtReasmOverlaps


def test_names_are_the_kernels() -> None:
    """M-61: in the kernel's tables and in its order."""
    kernel: dict[str, list[str]] = {}
    for path in ("/proc/net/snmp", "/proc/net/netstat"):
        for line in Path(path).read_text().splitlines()[::2]:
            table, _, names = line.partition(":")
            kernel[table] = names.split()
    for table, names in snmp.TABLES.items():
        newer = {"OutTransmits", "OutRateLimitGlobal", "OutRateLimitHost", "ReasmOverlaps"}  # than some kernels
        newer |= set(names) if table == "TcpExt" else set()
        there = [name for name in names if name in kernel[table]]
        assert set(names) - set(there) <= newer
        assert there == sorted(there, key=kernel[table].index)


def test_gauges_are_those_of_a_host(stack: Stack) -> None:
    """M-61: RFC 4022's tcpRtoAlgorithm and its like, in Linux's units."""
    tcp = snmp.tables(snmpvalues.values(stack))["Tcp"]
    assert (tcp["RtoAlgorithm"], tcp["RtoMin"], tcp["RtoMax"], tcp["MaxConn"], tcp["CurrEstab"]) == (1, 200, 120_000, -1, 0)


# What net-tools 2.10 printed where every counter was 0.
ZEROS = """\
Ip:
    Forwarding: 2
    0 total packets received
    0 forwarded
    0 incoming packets discarded
    0 incoming packets delivered
    0 requests sent out
Icmp:
    0 ICMP messages received
    0 input ICMP message failed
    ICMP input histogram:
    0 ICMP messages sent
    0 ICMP messages failed
    ICMP output histogram:
Tcp:
    0 active connection openings
    0 passive connection openings
    0 failed connection attempts
    0 connection resets received
    0 connections established
    0 segments received
    0 segments sent out
    0 segments retransmitted
    0 bad segments received
    0 resets sent
Udp:
    0 packets received
    0 packets to unknown port received
    0 packet receive errors
    0 packets sent
    0 receive buffer errors
    0 send buffer errors
TcpExt:
    0 packet headers predicted
IpExt:"""


def test_netstat_s_leaves_out_what_net_tools_leaves_out() -> None:
    """M-61: zeros, but for those that are always there."""
    fresh = Stack(StackConfig((pack_address("10.77.0.2"),)), random.Random(1), bytes(16))
    assert "\n".join(netstatwords.lines(snmp.tables(snmpvalues.values(fresh)))) == ZEROS


def test_netstat_s_has_each_counter_once(stack: Stack) -> None:
    """M-61: no counter is lost between the words."""
    flat = snmpvalues.values(stack) | {"IpOutTransmits": 0}  # which follows from others
    text = "\n".join(netstatwords.lines(snmp.tables(flat)))
    for field in fields(Counters):
        assert len(re.findall(rf"\b{getattr(stack.counters, field.name)}\b", text)) == 1, field.name
    assert f"    Quick ack mode was activated {stack.counters.DelayedACKLost} times" in text
    assert f"    TCPTimeouts: {stack.counters.TCPTimeouts}" in text


def test_netstat_st_is_tcp_alone(stack: Stack) -> None:
    """M-61: netstat -st; IpExt is there too, as with net-tools."""
    tables = snmp.tables(snmpvalues.values(stack))
    titles = [line for line in netstatwords.lines(tables, frozenset(("Tcp",))) if not line.startswith(" ")]
    assert titles == ["Tcp:", "TcpExt:", "IpExt:"]


def test_nstat_tells_what_grew() -> None:
    """M-61: increments, zeros left out, patterns in any case; gauges never."""
    before = nstat.History("run 1", {"TcpInSegs": 10, "TcpOutSegs": 5, "TcpCurrEstab": 1})
    now = nstat.History("run 1", {"TcpInSegs": 17, "TcpOutSegs": 5, "TcpCurrEstab": 4, "IpInReceives": 3})
    assert nstat.select(now, before, [], False) == {"TcpInSegs": 7, "IpInReceives": 3}
    assert nstat.select(now, before, ["tcp*"], True) == {"TcpInSegs": 7, "TcpOutSegs": 0}
    assert nstat.select(now, before, ["IPIN*", "x"], False) == {"IpInReceives": 3}
    assert nstat.select(now, nstat.History(), [], False) == {"TcpInSegs": 17, "TcpOutSegs": 5, "IpInReceives": 3}


def test_nstat_forgets_what_another_run_counted() -> None:
    """M-61: a daemon that started anew counts from 0."""
    before = nstat.History("run 1", {"TcpInSegs": 10})
    assert nstat.select(nstat.History("run 2", {"TcpInSegs": 4}), before, [], False) == {"TcpInSegs": 4}


def test_nstat_prints_as_nstat_does() -> None:
    """M-61: its columns, and its JSON."""
    assert list(nstat.lines({"IpInReceives": 44})) == ["#kernel", "IpInReceives                    44                 0.0"]
    assert nstat.as_json({"IpInReceives": 44}, False) == '{"kernel":{"IpInReceives":44}}'
    assert json.loads(nstat.as_json({"IpInReceives": 44}, True)) == {"kernel": {"IpInReceives": 44}}


def test_a_history_is_kept_and_anything_else_is_none(tmp_path: Path) -> None:
    """M-61."""
    history = nstat.History("1.2", {"TcpInSegs": 10})
    path = tmp_path / "history"
    assert nstat.load(read(path)) == nstat.History()
    write(path, "x" * 10_000)
    write(path, history.dump())
    assert nstat.load(read(path)) == history
    assert path.stat().st_mode & 0o777 == 0o600
    for text in ("", "x", "[]", "{}", '{"epoch": 1, "values": 5}', '{"epoch": 1, "values": {"a": "b"}}', "[" * 100_000):
        assert nstat.load(text) == nstat.History()


def test_a_history_that_others_laid_out_is_refused(tmp_path: Path) -> None:
    """M-61: /tmp is everybody's; no link of any kind is written through."""
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "symbolic").symlink_to(target)
    (tmp_path / "hard").hardlink_to(target)
    (tmp_path / "directory").mkdir()
    for name in ("symbolic", "hard", "directory"):
        for refused in (lambda path: write(path, ""), read):
            with pytest.raises(UserError, match="the history"):
                refused(tmp_path / name)
    with pytest.raises(UserError, match="no such directory"):
        write(tmp_path / "nowhere" / "history", "")
    assert target.read_text() == "precious"


def scrape(stack: Stack) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(StackCollector(stack, {80: "http"}))
    text = generate_latest(registry).decode()
    return {
        (sample.name, sample.labels.get("state") or sample.labels.get("service", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_every_counter(stack: Stack) -> None:
    """M-61: parsed back by its own parser."""
    stack.listen(pack_address("10.77.0.2"), 80, on_acceptable=lambda listener: None, backlog=5)
    samples = scrape(stack)
    for name, value in snmpvalues.values(stack).items():
        if name not in snmp.GAUGES:
            table = next(table for table in ("TcpExt", "IpExt", *snmp.TABLES) if name.startswith(table))
            assert samples[metric_name(table, name.removeprefix(table)) + "_total", ""] == value
    assert samples["tunstack_tcp_sockets", "listen"] == 1
    assert samples["tunstack_tcp_sockets", "time_wait"] == 0
    assert samples["tunstack_tcp_accept_queue_limit", "http"] == 5
    stack.counters.TcpInSegs = 5_000_000
    assert scrape(stack)["tunstack_tcp_in_segs_total", ""] == 5_000_000  # anew each time


def test_prometheus_names_are_words() -> None:
    """M-61: and no two are the same."""
    names = [metric_name(table, field) for table, fields_ in snmp.TABLES.items() for field in fields_]
    assert len(names) == len(set(names))
    assert metric_name("Tcp", "RetransSegs") == "tunstack_tcp_retrans_segs"
    assert metric_name("TcpExt", "TCPSpuriousRTOs") == "tunstack_tcpext_spurious_rtos"
    assert metric_name("TcpExt", "DelayedACKs") == "tunstack_tcpext_delayed_acks"
    assert metric_name("IpExt", "InECT0Pkts") == "tunstack_ipext_in_ect0_pkts"
    assert all(re.fullmatch("[a-z0-9_]+", name) and "__" not in name for name in names)
