"""What can be asked on the control socket: one table of methods, each with its parameters and a line of documentation.

To add one: write a function `handler(context, params)`, best in a file of its own, and a line in `METHODS`. It returns what JSON can
say, or is a generator, whose records are then sent in pieces while the daemon goes on with its work between them: it must walk over
a snapshot (the table of connections changes meanwhile), and yield None for each that it passes over, so that work is counted.
A generator that returns something has that for its result.
What it raises is the answer: OSError with its errno's name, Failure with a code of its own; anything else is our mistake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tunstack.aio import Endpoint
from tunstack.daemon import socketmethods
from tunstack.daemon.status import Status, version
from tunstack.engine import BACKEND
from tunstack.engine.knob import Knob, to_text
from tunstack.engine.sysctl import KNOBS, dotted, find
from tunstack.inspect import reading
from tunstack.inspect.census import Work, count

log = logging.getLogger(__name__)

PROTOCOL = 1  # version of the protocol; larger when an old client would go wrong

Params = Mapping[str, Any]  # checked against the method's table
Record = Mapping[str, object]


class Failure(Exception):
    """A request cannot be fulfilled. `code` is a word for programs, `str()` a line for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks (SO_PEERCRED)."""

    pid: int
    uid: int

    def __str__(self) -> str:
        return f"pid {self.pid}, uid {self.uid}"


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler has to work with. `status` is what the program tells of itself; its `endpoint` has the stack."""

    endpoint: Endpoint
    status: Status
    peer: Peer


Handler = Callable[[Context, Params], object]


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `params` has the type (or types) of each parameter; a name that ends in `?` may be left out."""

    doc: str
    handler: Handler
    params: Mapping[str, type | tuple[type, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def check(self, given: object) -> Params:
        """Return the parameters of a request; Failure if they are not this method's."""
        if not isinstance(given, dict):
            raise Failure("params", "params must be an object")
        known = {name.removesuffix("?"): kinds for name, kinds in self.params.items()}
        for name in given:
            if name not in known:
                raise Failure("params", f"there is no parameter {name[:40]!r}; there is {', '.join(known) or 'none'}")
        for name, kinds in known.items():
            if name not in given:
                if f"{name}?" not in self.params:
                    raise Failure("params", f"the parameter {name!r} is missing")
            elif not _is(given[name], kinds):
                names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
                raise Failure("params", f"the parameter {name!r} must be of type {names}")
        return given


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether a value is of a type; true and false are no integers here."""
    return type(value) in (kinds if isinstance(kinds, tuple) else (kinds,))


def list_methods(context: Context, params: Params) -> Iterator[Record]:
    for name, method in METHODS.items():
        yield {"name": name, "doc": method.doc, "params": list(method.params)}


def get_version(context: Context, params: Params) -> Record:
    return {"tunstack": version(), "protocol": PROTOCOL, "backend": BACKEND}


def get_status(context: Context, params: Params) -> object:
    return context.status()


def get_counters(context: Context, params: Params) -> Record:
    return context.endpoint.stack.read_counters()


def get_metrics(context: Context, params: Params) -> Work[Record]:
    endpoint = context.endpoint
    return reading.read(endpoint.stack, endpoint.labels, (yield from count(endpoint.stack))).to_json()


def list_knobs(context: Context, params: Params) -> Iterator[Record]:
    for knob in KNOBS.values():
        yield _knob(context, knob)


def get_knob(context: Context, params: Params) -> Record:
    return _knob(context, find(dotted(params["name"])))


def set_knob(context: Context, params: Params) -> Record:
    knobs = context.endpoint.stack.sysctl
    name = dotted(params["name"])
    old = knobs.get(name)
    knobs.set(name, params["value"])
    new = knobs.get(name)
    if find(name).secret:
        log.info("%s set by %s", name, context.peer)
        return {"name": name, "value": to_text(new)}
    log.info("%s = %s (was %s), set by %s", name, *(to_text(value).replace("\t", " ") for value in (new, old)), context.peer)
    return {"name": name, "value": to_text(new), "old": to_text(old)}


def _knob(context: Context, knob: Knob) -> Record:
    return {
        "name": knob.name,
        "value": to_text(context.endpoint.stack.sysctl.get(knob.name)),
        "default": to_text(knob.default),
        "kind": knob.kind,
        "unit": knob.unit,
        "doc": knob.doc,
        "effect": knob.effect,
    }


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "counters": Method("every counter under Linux's name", get_counters),
        "kill": Method(
            "close the sockets that a filter takes, as ss -K does; which (streamed)", socketmethods.kill_sockets, {"filter": dict}
        ),
        "metrics": Method("what Prometheus is given: counters, sockets by state, queues of listeners", get_metrics),
        "methods": Method("what can be asked (streamed)", list_methods),
        "snmp": Method("Linux's tables of counters under nstat's names, gauges too", socketmethods.get_snmp),
        "sockets": Method(
            "sockets, as ss shows them (streamed)", socketmethods.list_sockets, {"filter?": dict, "memory?": bool, "info?": bool}
        ),
        "status": Method("what the program says of itself: interface, services, connections by state", get_status),
        "sysctl.get": Method("one knob: value, default, what it takes, documentation", get_knob, {"name": str}),
        "sysctl.list": Method("every knob, likewise (streamed)", list_knobs),
        "sysctl.set": Method("set a knob to a text as Linux takes it; the old value too", set_knob, {"name": str, "value": str}),
        "version": Method("versions of tunstack and of this protocol", get_version),
    }
)
