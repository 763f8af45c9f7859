"""The notation: text in, events out.

A line is a time, then what happens or is expected then:

    0      listen 8080 backlog 1
    +0     < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>
    +0     > S. 0:0(0) ack 1 <...>                   # sent by the stack, expected
    +.01   < . 1:1(0) ack 1 win 512
    +0     accept
    +.2~+.3  > P. 1:1001(1000) ack 1                 # between 200 and 300 ms after the event before
    *      closed ECONNRESET                         # at whatever time

Times are seconds, absolute or (`+`) after the event before; none means `+0`. Packets are packetdrill's: sequence numbers count from the two
ISNs, `win` is the header field, options in their order with `nop` and `eol` written out; on an expected packet, what is left out or
`<...>` is not checked, `<>` means none. A packet may begin with `source>destination` ports and with `[ect0]`, `[ce]` or
`[noecn]`, and have `urg N` or `gso N` behind the window. ICMP: `< icmp unreachable frag_needed mtu 1200 [1:1461(1460)]`.
Socket calls: sockets.py, one method each. `b = accept` names a socket, `b.read 10` calls on it. `#` and `//` begin comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunstack.sim.script.packet import ECN_NAMES, LETTERS, Icmp, Option, Packet

UNREACHABLE = {
    "net": 0,
    "net_unreachable": 0,
    "host": 1,
    "host_unreachable": 1,
    "protocol": 2,
    "protocol_unreachable": 2,
    "port": 3,
    "port_unreachable": 3,
    "frag_needed": 4,
    "source_route_failed": 5,
    "net_unknown": 6,
    "host_unknown": 7,
    "net_prohibited": 9,
    "host_prohibited": 10,
    "admin_prohibited": 13,
}
ICMP_TYPES: dict[str, tuple[int, dict[str, int]]] = {
    "unreachable": (3, UNREACHABLE),
    "source_quench": (4, {"": 0}),
    "time_exceeded": (11, {"ttl": 0, "reassembly": 1}),
    "parameter_problem": (12, {"": 0}),
}


# The calls, and how many words each takes.
CALLS = {
    "abort": (0, 0),
    "accept": (0, 1),
    "atmark": (1, 1),
    "close": (0, 0),
    "closed": (0, 1),
    "connect": (1, 20),
    "counter": (1, 20),
    "eof": (0, 0),
    "established": (0, 0),
    "expect": (1, 20),
    "gone": (0, 0),
    "got": (1, 1),
    "idle": (0, 0),
    "listen": (1, 20),
    "oob": (1, 1),
    "open": (0, 0),
    "pause": (0, 0),
    "read": (1, 2),
    "resume": (0, 0),
    "setsockopt": (2, 3),
    "shutdown": (0, 1),
    "skip": (1, 1),
    "state": (1, 1),
    "sysctl": (1, 1),
    "urgent": (1, 2),
    "write": (1, 2),
}


class ScriptSyntaxError(ValueError):
    """A line that cannot be read; the message begins with its number."""


@dataclass(frozen=True, slots=True)
class When:
    """Earliest and latest time of an event, µs; both from the event before if `relative`. `latest` None: no limit."""

    earliest: int
    latest: int | None
    relative: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A socket call, or an expectation of the application's: name, words, the socket it is for and the name it is given."""

    name: str
    words: tuple[str, ...]
    socket: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    line: int
    text: str
    when: When
    direction: str  # "<" into the stack, ">" expected from it, "" a call
    what: Packet | Icmp | Call


def parse(script: str) -> list[Event]:
    """Return the events of a script. ScriptSyntaxError where a line cannot be read."""
    events = []
    for number, raw in enumerate(script.splitlines(), 1):
        text = re.split(r"#|//", raw, maxsplit=1)[0].strip()
        if text:
            try:
                events.append(_parse_line(number, text))
            except ValueError as error:
                raise ScriptSyntaxError(f"line {number}: {error}: {text!r}") from None
    return events


_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_TIME = re.compile(rf"(?P<any>\*)(?=\s)|(?P<plus>\+)?(?P<first>{_NUMBER})(?:~(?P<plus2>\+)?(?P<second>{_NUMBER}))?(?=\s|$)")


def _parse_line(number: int, text: str) -> Event:
    when = When(0, 0, True)
    match = _TIME.match(text)
    rest = text
    if match:
        rest = text[match.end() :].strip()
        when = _parse_time(match)
    if not rest:
        raise ValueError("a time and no event")
    if rest[0] in "<>":
        body = rest[1:].strip()
        what = _parse_icmp(body) if body.startswith("icmp") else _parse_packet(body)
        if rest[0] == ">" and isinstance(what, Icmp):
            raise ValueError("ICMP can be sent to the stack, not expected of it")
        if rest[0] == "<" and when.latest != when.earliest:
            raise ValueError("what is sent to the stack needs one exact time")
        return Event(number, rest, when, rest[0], what)
    return Event(number, rest, when, "", _parse_call(rest))


def _parse_time(match: re.Match[str]) -> When:
    if match["any"]:
        return When(0, None, True)
    relative = bool(match["plus"])
    first = _microseconds(match["first"])
    if match["second"] is None:
        return When(first, first, relative)
    if bool(match["plus2"]) != relative:
        raise ValueError("both ends of a range are absolute, or both relative")
    second = _microseconds(match["second"])
    if second < first:
        raise ValueError("the range ends before it begins")
    return When(first, second, relative)


def _microseconds(text: str) -> int:
    return round(float(text) * 1_000_000)


_PACKET = re.compile(
    r"""(?:(?P<sport>\d+)>(?P<dport>\d+)\s+)?
        (?:\[(?P<ecn>\w+)\]\s*)?
        (?P<flags>-|[FSRP.UEWA]+)\s+
        (?P<seq>\d+):(?P<end>\d+)\((?P<length>\d+)\)
        (?:\s+ack\s+(?P<ack>\d+))?
        (?:\s+win\s+(?P<win>\d+))?
        (?:\s+urg\s+(?P<urg>\d+))?
        (?:\s+gso\s+(?P<gso>\d+))?
        (?:\s*<(?P<options>[^>]*)>)?$""",
    re.VERBOSE,
)


def _parse_packet(text: str) -> Packet:
    match = _PACKET.match(text)
    if not match:
        raise ValueError("not a packet (flags seq:end(length) ack N win N <options>)")
    flags = 0
    for letter, bit in LETTERS:
        if match["flags"].count(letter) > 1:
            raise ValueError(f"flag {letter} twice")
        if letter in match["flags"]:
            flags |= bit
    seq, end, length = (int(match[name]) for name in ("seq", "end", "length"))
    if end - seq != length:
        raise ValueError(f"{seq}:{end} is not {length} octets")
    if match["ecn"] and match["ecn"] not in ECN_NAMES:
        raise ValueError(f"no such ECN mark: {match['ecn']}")
    ack = int(match["ack"]) if match["ack"] else None
    if ("." in match["flags"]) != (ack is not None):
        raise ValueError("the flag '.' and 'ack N' go together")
    win = int(match["win"]) if match["win"] else None
    if win is not None and win > 65535:
        raise ValueError("win is the field of the header, at most 65535")
    return Packet(
        flags,
        seq,
        length,
        ack,
        win,
        int(match["urg"] or 0),
        _parse_options(match["options"]),
        ECN_NAMES.index(match["ecn"]) if match["ecn"] else None,
        (int(match["sport"]), int(match["dport"])) if match["sport"] else None,
        int(match["gso"] or 0),
    )


def _parse_options(text: str | None) -> tuple[Option, ...] | None:
    if text is None or text.strip() == "...":
        return None
    return tuple(_parse_option(part.split()) for part in text.split(",") if part.strip())


def _parse_option(words: list[str]) -> Option:
    match words:
        case ["mss" | "wscale" as name, value]:
            return (name, int(value))
        case ["nop" | "eol" | "sackOK" as name]:
            return (name,)
        case ["TS", "val", val, "ecr", ecr]:
            return ("TS", None if val == "*" else int(val), None if ecr == "*" else int(ecr))
        case ["sack", *blocks] if blocks:
            edges: list[int] = []
            for block in blocks:
                left, _, right = block.partition(":")
                edges += int(left), int(right)
            return ("sack", *edges)
        case ["raw", octets]:
            return ("raw", bytes.fromhex(octets))
    raise ValueError(f"no such TCP option: {' '.join(words)}")


_ICMP = re.compile(
    r"icmp\s+(?P<type>\w+)(?:\s+(?P<code>(?!mtu\b)\w+))?(?:\s+mtu\s+(?P<mtu>\d+))?\s*\[(?P<seq>\d+):(?P<end>\d+)\((?P<length>\d+)\)\]$"
)


def _parse_icmp(text: str) -> Icmp:
    match = _ICMP.match(text)
    if not match:
        raise ValueError("not an ICMP error (icmp type code mtu N [seq:end(length)])")
    if match["type"] not in ICMP_TYPES:
        raise ValueError(f"no such ICMP type: {match['type']} (known: {', '.join(ICMP_TYPES)})")
    kind, codes = ICMP_TYPES[match["type"]]
    if (match["code"] or "") not in codes:
        raise ValueError(f"no such code of icmp {match['type']}: {match['code']} (known: {', '.join(filter(None, codes))})")
    seq, end, length = (int(match[name]) for name in ("seq", "end", "length"))
    if end - seq != length:
        raise ValueError(f"{seq}:{end} is not {length} octets")
    return Icmp(kind, codes[match["code"] or ""], int(match["mtu"] or 0), seq, length)


_CALL = re.compile(
    r"(?:(?P<result>[A-Za-z]\w*)\s*=\s*(?=[a-z]+(?:\s|$)))?(?:(?P<socket>[A-Za-z]\w*)\.)?(?P<name>[a-z]+)(?:\s+(?P<words>.*))?$"
)


def _parse_call(text: str) -> Call:
    match = _CALL.match(text)
    if not match:
        raise ValueError("neither a packet nor a call")
    words = tuple((match["words"] or "").split())
    if match["name"] not in CALLS:
        raise ValueError(f"no such call: {match['name']} (known: {', '.join(sorted(CALLS))})")
    least, most = CALLS[match["name"]]
    if not least <= len(words) <= most:
        raise ValueError(f"{match['name']} takes {least}{'' if most == least else f' to {most}'} words, not {len(words)}")
    return Call(match["name"], words, match["socket"], match["result"])
