"""The filter language of ss(8): which sockets one wants to see.

    [ state STATE | exclude STATE ]... [ EXPRESSION ]

An expression has conditions on ports (`sport = :http`, `dport > :1024`) and addresses (`src 10.0.0.0/24`, `dst 10.0.0.1:80`), joined by
`and`, `or`, `not` and parentheses; conditions side by side are joined by `and`. `Filter.to_json` is what goes over the control socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from tunstack.inspect.names import FILTER_STATES, service_port
from tunstack.inspect.record import SocketRecord

TOKENS_MAX = 1000
DEPTH_MAX = 50  # parentheses and `not`s within each other

ALL = frozenset(FILTER_STATES.values())
STATE_GROUPS = {name: frozenset((state,)) for name, state in FILTER_STATES.items()} | {
    "all": ALL,
    "connected": ALL - {"CLOSED", "LISTEN"},
    "synchronized": ALL - {"CLOSED", "LISTEN", "SYN_SENT"},
    "bucket": frozenset(("SYN_RECEIVED", "TIME_WAIT")),
    "big": ALL - {"SYN_RECEIVED", "TIME_WAIT"},
    "listen": frozenset(("LISTEN",)),
    "syn-rcv": frozenset(("SYN_RECEIVED",)),
    "fin-wait": frozenset(("FIN_WAIT_1", "FIN_WAIT_2")),
}
OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    "=": lambda have, want: have == want,
    "!=": lambda have, want: have != want,
    ">": lambda have, want: have > want,
    "<": lambda have, want: have < want,
    ">=": lambda have, want: have >= want,
    "<=": lambda have, want: have <= want,
}
SPELLINGS = {name: name for name in OPERATORS} | {
    **{"==": "=", "eq": "=", "ne": "!=", "neq": "!="},
    **{"gt": ">", "lt": "<", "ge": ">=", "geq": ">=", "le": "<=", "leq": "<="},
}
AND = frozenset(("and", "&", "&&"))
OR = frozenset(("or", "|", "||"))
NOT = frozenset(("not", "!"))
CONDITIONS = frozenset(("sport", "dport", "src", "dst"))
TOKEN = re.compile(r"\s*(\(|\)|&&?|\|\|?|!=|!|==|>=|<=|=|>|<|[^\s()&|!=<>]+)")


class FilterError(ValueError):
    """A filter that is none; one line."""


@dataclass(frozen=True, slots=True)
class Port:
    """A condition on a port."""

    is_local: bool
    operator: str
    port: int

    def matches(self, record: SocketRecord) -> bool:
        return OPERATORS[self.operator](record.local_port if self.is_local else record.remote_port, self.port)

    def __str__(self) -> str:
        return f"{'sport' if self.is_local else 'dport'} {self.operator} :{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """A condition on an address, with a port or without."""

    is_local: bool
    network: IPv4Network | None  # None: any
    port: int | None

    def matches(self, record: SocketRecord) -> bool:
        if self.port is not None and self.port != (record.local_port if self.is_local else record.remote_port):
            return False
        return self.network is None or IPv4Address(record.local if self.is_local else record.remote) in self.network

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{'src' if self.is_local else 'dst'} {'*' if self.network is None else self.network}{port}"


@dataclass(frozen=True, slots=True)
class Not:
    """All but what another expression takes."""

    expression: Expression

    def matches(self, record: SocketRecord) -> bool:
        return not self.expression.matches(record)

    def __str__(self) -> str:
        return f"not ( {self.expression} )"


@dataclass(frozen=True, slots=True)
class And:
    """What all of several expressions take."""

    expressions: tuple[Expression, ...]

    def matches(self, record: SocketRecord) -> bool:
        return all(each.matches(record) for each in self.expressions)

    def __str__(self) -> str:
        return " and ".join(f"( {each} )" for each in self.expressions)


@dataclass(frozen=True, slots=True)
class Or:
    """What one of several expressions takes."""

    expressions: tuple[Expression, ...]

    def matches(self, record: SocketRecord) -> bool:
        return any(each.matches(record) for each in self.expressions)

    def __str__(self) -> str:
        return " or ".join(f"( {each} )" for each in self.expressions)


Expression = Port | Address | Not | And | Or


@dataclass(frozen=True, slots=True)
class Filter:
    """Which states, and which sockets in them. `str` gives the expression in a form that parses to the same."""

    states: frozenset[str] = ALL
    expression: Expression | None = None

    def matches(self, record: SocketRecord) -> bool:
        """Tell whether a socket is wanted."""
        return record.state in self.states and (self.expression is None or self.expression.matches(record))

    def to_json(self) -> dict[str, object]:
        """Return the filter as it goes over the control socket."""
        json: dict[str, object] = {}
        if self.states != ALL:
            json["states"] = sorted(self.states)
        if self.expression is not None:
            json["expression"] = str(self.expression)
        return json


def from_json(value: object) -> Filter:
    """Make the filter of what `to_json` gave, or of what somebody wrote by hand; FilterError if it is none."""
    if value is None:
        return Filter()
    if not isinstance(value, dict) or not value.keys() <= {"states", "expression"}:
        raise FilterError("a filter is an object that has `states`, `expression`, both or neither")
    states, expression = value.get("states"), value.get("expression")
    if states is not None and not (isinstance(states, list) and all(isinstance(state, str) and state in ALL for state in states)):
        raise FilterError(f"`states` is a list of {', '.join(sorted(ALL))}")
    if expression is not None and not isinstance(expression, str):
        raise FilterError("`expression` is a string")
    return Filter(ALL if states is None else frozenset(states), None if expression is None else parse_expression(tokenize(expression)))


def parse(words: Sequence[str], default: frozenset[str]) -> Filter:
    """Parse what stands on a command line behind the options; `default` are the states where none is named."""
    tokens = tokenize(" ".join(words))
    states: frozenset[str] | None = None
    at = 0
    while at < len(tokens) and tokens[at] in ("state", "exclude", "excl"):
        if at + 1 == len(tokens):
            raise FilterError(f"a state is missing behind {tokens[at]!r}")
        group = STATE_GROUPS.get(tokens[at + 1].lower())
        if group is None:
            raise FilterError(f"wrong state name: {tokens[at + 1]} (there are {', '.join(STATE_GROUPS)})")
        states = (states or frozenset()) | group if tokens[at] == "state" else (ALL if states is None else states) - group
        at += 2
    expression = parse_expression(tokens[at:]) if at < len(tokens) else None
    return Filter(default if states is None else states, expression)


def tokenize(text: str) -> list[str]:
    """Cut a filter into words, operators and parentheses. A backslash that a shell left is ignored."""
    tokens = TOKEN.findall(text.replace("\\", ""))
    if len(tokens) > TOKENS_MAX:
        raise FilterError(f"the filter has more than {TOKENS_MAX} words")
    return tokens


def parse_expression(tokens: Sequence[str]) -> Expression:
    """Parse an expression; FilterError says what is wrong with it."""
    parser = _Parser(tokens)
    expression = parser.either(0)
    if not parser.is_done:
        raise FilterError(f"the filter has {parser.peek()!r} where it should end")
    return expression


class _Parser:
    """Recursive descent: `or` binds least, then `and`, then `not`."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._tokens)

    def peek(self) -> str:
        return "" if self.is_done else self._tokens[self._at]

    def next(self, what: str) -> str:
        if self.is_done:
            raise FilterError(f"the filter ends where {what} should follow")
        self._at += 1
        return self._tokens[self._at - 1]

    def either(self, depth: int) -> Expression:
        terms = [self.both(depth)]
        while self.peek() in OR:
            self._at += 1
            terms.append(self.both(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def both(self, depth: int) -> Expression:
        terms = [self.term(depth)]
        while not self.is_done and self.peek() != ")" and self.peek() not in OR:
            if self.peek() in AND:
                self._at += 1
            terms.append(self.term(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def term(self, depth: int) -> Expression:
        if depth > DEPTH_MAX:
            raise FilterError(f"the filter is more than {DEPTH_MAX} levels deep")
        token = self.next("a condition")
        if token == "(":
            expression = self.either(depth + 1)
            if self.next("')'") != ")":
                raise FilterError("a ')' is missing in the filter")
            return expression
        if token in NOT:
            return Not(self.term(depth + 1))
        if token not in CONDITIONS:
            raise FilterError(
                f"there is no condition {token!r} in a filter (there are sport, dport, src and dst, and, or, not, parentheses)"
            )
        operator = SPELLINGS.get(self.peek())
        if operator is not None:
            self._at += 1
        value = self.next("an address" if token in ("src", "dst") else "a port")
        if token in ("sport", "dport"):
            return Port(token == "sport", operator or "=", _port(value.removeprefix("*").removeprefix(":")))
        if operator not in (None, "=", "!="):
            raise FilterError(f"addresses are compared by = and != only, not by {operator}")
        address = _address(token == "src", value)
        return Not(address) if operator == "!=" else address


def _port(text: str) -> int:
    if text.isascii() and text.isdigit():
        port: int | None = int(text) if len(text) <= 5 and int(text) <= 65535 else None
    else:
        port = service_port(text)
    if port is None:
        raise FilterError(f"{text!r} does not look like a port")
    return port


def _address(is_local: bool, text: str) -> Address:
    host, _, port = text.partition(":")
    network = None
    if host not in ("", "*"):
        octets, slash, length = host.partition("/")
        try:
            # 10/8 and 10.1 are addresses too, the rest being zeros.
            filled = ".".join([*octets.split("."), "0", "0", "0"][: max(4, octets.count(".") + 1)])
            network = IPv4Network(filled + slash + length, strict=False)
        except ValueError as error:
            raise FilterError(f"{host!r} does not look like an IPv4 address or prefix") from error
    return Address(is_local, network, _port(port) if port not in ("", "*") else None)


def join(filters: Iterable[Filter]) -> Filter:
    """Return the filter that takes what all of several take."""
    states, expressions = ALL, []
    for each in filters:
        states &= each.states
        if each.expression is not None:
            expressions.append(each.expression)
    return Filter(states, And(tuple(expressions)) if len(expressions) > 1 else (expressions[0] if expressions else None))
