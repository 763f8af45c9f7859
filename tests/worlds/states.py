"""The whole state of a host's connections, field by field: what two runs of a world are compared by after every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b

from tunstack.engine.connection import Connection
from tunstack.engine.stack import Stack

# What belongs to others: the stack and what all its connections share, the application, what was set and does not change.
SHARED = frozenset(("stack", "sink", "listener", "counters", "memory", "options", "_sysctl", "on_urgent", "__weakref__", "_failed"))
PREDICTED = ("TCPHP", "TCPPureAcks")  # counters that tell which way was taken
VALUES = (int, str, bool, float, type(None))
LONG = 64  # octets

Fields = dict[str, object]


def fields(stack: Stack) -> Fields:
    """Return every field of every connection of a stack by its path, its counters, and what it counts of all."""
    found: Fields = {f"counters.{name}": value for name, value in stack.counters.as_dict().items() if not name.startswith(PREDICTED)}
    found["memory"] = (stack.memory.pages, stack.memory.is_pressed, stack.memory.is_exhausted)
    found["writable"] = [conn.flow for conn in stack.writable]
    for flow, owner in stack.flows.items():
        if isinstance(owner, Connection):
            found.update(_walk(owner, flow.hex(), set()))
        else:
            found[flow.hex()] = type(owner).__name__
    return found


def digest(stack: Stack) -> bytes:
    """Return the same as a few octets."""
    return blake2b(repr(fields(stack)).encode(), digest_size=8).digest()


def _walk(thing: object, path: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    if isinstance(thing, bytes | memoryview):
        yield path, bytes(thing) if len(thing) < LONG else len(thing)  # the streams are compared elsewhere
    elif isinstance(thing, VALUES):
        yield path, thing
    elif isinstance(thing, list | tuple | deque):
        yield f"{path}.length", len(thing)
        for index, item in enumerate(thing):
            yield from _walk(item, f"{path}[{index}]", seen)
    elif id(thing) not in seen:
        seen.add(id(thing))
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())] + list(getattr(thing, "__dict__", ()))
        yield path, type(thing).__name__
        for name in names:
            if name == "heap_at":  # one way may look at the timers sooner, neither late; what is to be polled has time
                is_late = thing.heap_at > thing.next_deadline()  # type: ignore[attr-defined]
                assert not is_late or thing.is_dirty, path  # type: ignore[attr-defined]
            elif name not in SHARED and hasattr(thing, name):
                yield from _walk(getattr(thing, name), f"{path}.{name}", seen)
