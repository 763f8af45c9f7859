"""The filter language of ss (M-60)."""

from __future__ import annotations

import operator
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunstack.inspect.filter import (
    ALL,
    DEPTH_MAX,
    OPERATORS,
    STATE_GROUPS,
    TOKENS_MAX,
    Address,
    And,
    Expression,
    Filter,
    FilterError,
    Not,
    Or,
    Port,
    from_json,
    parse,
    parse_expression,
    tokenize,
)
from tunstack.inspect.record import SocketRecord

HERE = SocketRecord("ESTABLISHED", "10.77.0.2", 80, "10.77.0.1", 40000)


def takes(text: str, record: SocketRecord = HERE) -> bool:
    return parse(text.split(), ALL).matches(record)


@pytest.mark.parametrize(
    "text",
    [
        *("sport = :80", "sport = 80", "sport 80", "sport = :http", "sport == :http", "sport eq :80", "sport=:80", "( sport = :80 )"),
        *("dport > :1024", r"dport \> :1024", "dport gt 1024", "dport >= :40000", "dport ge :40000", "dport != :80", "dport neq :80"),
        *("src 10.77.0.0/24", "src 10.77/16", "src 10.77.0.2", "src 10.77.0.2:80", "src 10.77.0.2:http", "src :80", "src = 10.77.0.2"),
        *("dst 0.0.0.0/0", "dst *:40000", "dst != 10.77.0.2", "not sport = :81", "! sport = :81", "not ( sport = :81 or dport = :5 )"),
        *("sport = :80 and dport = :40000", "sport = :80 dport = :40000", "sport = :81 or sport = :80", "sport = :81 || sport = :80"),
        "( sport = :http or dport = :http )",
        "sport = :80 or sport = :81 and dport = :1",  # `and` binds more
        "state established sport = :80",
        "state all",
        "state connected",
        "state synchronized",
        "state big",
        "exclude time-wait",
        "state connected exclude syn-sent",
        "state syn-sent state ESTABLISHED",
    ],
)
def test_filters_as_people_type_them(text: str) -> None:
    """M-60: all of these take the connection at hand."""
    assert takes(text)


@pytest.mark.parametrize(
    "text",
    [
        *("sport = :81", "sport < :80", "sport != 80", "dport le :39999", "src 10.77.1.0/24", "src 10.77.0.2:81", "dst 10.77.0.2"),
        *("not sport = :80", "sport = :80 and dport = :1", "sport = :80 dport = :1", "( sport = :81 or sport = :80 ) and dport = :1"),
        *("state time-wait", "exclude established", "state connected exclude established", "state listening", "state bucket"),
        "not not sport = :81",
    ],
)
def test_filters_that_take_others(text: str) -> None:
    """M-60."""
    assert not takes(text)


def test_default_states_hold_where_none_is_named() -> None:
    """M-60: ss without -a shows no listeners; a state that is named goes before."""
    default = frozenset(("ESTABLISHED",))
    assert parse([], default) == Filter(default)
    assert parse(["sport", "=", ":80"], default).states == default
    assert parse(["state", "time-wait"], default).states == {"TIME_WAIT"}
    assert parse(["exclude", "established"], default).states == ALL - default


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("state bogus", "wrong state name: bogus"),
        ("state", "a state is missing behind 'state'"),
        ("bogus", "there is no condition 'bogus'"),
        ("sport = :nosuchservice", "'nosuchservice' does not look like a port"),
        ("sport = :65536", "'65536' does not look like a port"),
        ("sport =", "the filter ends where a port should follow"),
        ("dst", "the filter ends where an address should follow"),
        ("dst 1.2.3.4.5", "'1.2.3.4.5' does not look like an IPv4 address or prefix"),
        ("dst 10.0.0.0/33", "'10.0.0.0/33' does not look like"),
        ("dst > 10.0.0.1", "addresses are compared by = and != only, not by >"),
        ("( sport = :80", "the filter ends where ')' should follow"),
        ("sport = :80 )", "the filter has ')' where it should end"),
        ("sport = :80 or", "the filter ends where a condition should follow"),
        ("sport = :80 state established", "there is no condition 'state'"),
        ("not " * (DEPTH_MAX + 2) + "sport = :1", f"more than {DEPTH_MAX} levels"),
        ("sport = :1 and " * TOKENS_MAX + "sport = :1", f"more than {TOKENS_MAX} words"),
    ],
)
def test_mistakes_are_one_line(text: str, message: str) -> None:
    """M-60."""
    with pytest.raises(FilterError) as caught:
        takes(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ports = st.integers(0, 65535)
networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda pair: IPv4Network(pair, strict=False))
conditions = st.one_of(
    st.builds(Port, st.booleans(), st.sampled_from(sorted(OPERATORS)), ports),
    st.builds(Address, st.booleans(), st.none() | networks, st.none() | ports),
)
expressions: st.SearchStrategy[Expression] = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
states = st.frozensets(st.sampled_from(sorted(ALL)), min_size=1)
filters = st.builds(Filter, states, st.none() | expressions)
few = st.sampled_from((1, 80, 1024, 40000, 65535))  # so that conditions meet sockets
addresses = st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
records = st.builds(SocketRecord, st.sampled_from(sorted(ALL)), addresses, few | ports, addresses, few | ports)


@given(filters)
def test_what_is_written_parses_to_the_same(chosen: Filter) -> None:
    """M-60: the form in which a filter goes over the control socket is the filter."""
    assert from_json(chosen.to_json()) == chosen
    if chosen.expression is not None:
        assert parse_expression(tokenize(str(chosen.expression))) == chosen.expression


MEANING = {
    **{"=": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt},
    **{">=": operator.ge, "<=": operator.le},
}


def reference(expression: Expression, record: SocketRecord) -> bool:
    """Decide it anew, in Python's own words."""
    if isinstance(expression, Port):
        port = record.local_port if expression.is_local else record.remote_port
        return bool(MEANING[expression.operator](port, expression.port))
    if isinstance(expression, Address):
        address, port = (record.local, record.local_port) if expression.is_local else (record.remote, record.remote_port)
        network = expression.network
        inside = network is None or int(IPv4Address(address)) >> (32 - network.prefixlen) == int(network[0]) >> (32 - network.prefixlen)
        return inside and expression.port in (None, port)
    if isinstance(expression, Not):
        return not reference(expression.expression, record)
    outcomes = [reference(each, record) for each in expression.expressions]
    return min(outcomes) if isinstance(expression, And) else max(outcomes)


@given(filters, records)
def test_a_socket_is_taken_as_the_words_say(chosen: Filter, record: SocketRecord) -> None:
    """M-60."""
    wanted = record.state in chosen.states and (chosen.expression is None or reference(chosen.expression, record))
    assert chosen.matches(record) == wanted


words = st.lists(
    st.sampled_from([*"()!", "and", "or", "not", "sport", "dport", "src", "dst", "=", ">", "state", ":80", "10.0.0.0/8", "time-wait", "x"])
    | st.text(max_size=6),
    max_size=12,
)


@given(words)
def test_whatever_is_typed_is_a_filter_or_a_line(typed: list[str]) -> None:
    """M-60: no other exception, and no traceback."""
    try:
        chosen = parse(typed, ALL)
    except FilterError as error:
        assert "\n" not in str(error)
    else:
        assert chosen.matches(HERE) in (True, False)


@pytest.mark.parametrize(
    "value",
    [5, [], {"state": []}, {"states": "LISTEN"}, {"states": ["LISTENING"]}, {"states": [[]]}, {"expression": 5}, {"expression": ""}],
)
def test_the_control_socket_takes_no_other_form(value: object) -> None:
    """M-60: what a program writes by hand is checked like what is typed."""
    with pytest.raises(FilterError):
        from_json(value)


def test_no_filter_is_every_socket() -> None:
    """M-60."""
    assert from_json(None) == from_json({}) == Filter()
    assert STATE_GROUPS["all"] == ALL
