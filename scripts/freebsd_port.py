"""Turns a script of freebsd-net/tcp-testsuite into one that any packetdrill and any stack can be asked about.

Mechanical: dropped are shell lines, code (`%{ }%`), buffer options and comments; of two branches the one that is not FreeBSD's is kept;
an outbound packet's `win` is dropped, an outbound SYN's options become `<...>`. What a line of a script waited for before it was
dropped, the next one waits for.
"""

from __future__ import annotations

import re

TIME = re.compile(r"^\s*(?P<sign>\+?)\s*(?P<time>\d+\.\d*|\.\d+|\d+)\s+(?P<rest>.*)$")
BUFFER_OPTION = re.compile(r"\b[gs]etsockopt\(.*\bSO_(RCV|SND)BUF\b")
COMMENT = re.compile(r"//.*$|/\*.*?\*/")
OUTBOUND = re.compile(r"^>\s")
OUTBOUND_SYN = re.compile(r"^>\s+S[.EWA]*\s")
WINDOW = re.compile(r"\s+win\s+\d+")
OPTIONS = re.compile(r"<[^>]*>\s*$")


def port(text: str) -> str:
    """Return the ported script."""
    ported = []
    waiting = 0.0  # s that dropped lines waited
    is_absolute = False  # the time of a dropped line is a point, not a wait
    branches: list[bool] = []  # of the #ifdefs that we are in: whether their lines count
    is_code = False
    for line in text.splitlines():
        words = line.split()
        if words[:1] in (["#ifdef"], ["#if"]):
            branches.append("FreeBSD" not in line)
            continue
        if words[:1] == ["#ifndef"]:
            branches.append("FreeBSD" in line)
            continue
        if words[:1] in (["#else"], ["#elif"]):
            branches[-1] = not branches[-1]
            continue
        if words[:1] == ["#endif"]:
            branches.pop()
            continue
        if not all(branches):
            continue
        if is_code:
            is_code = "}%" not in line
            continue
        line = line if "`" in line else COMMENT.sub("", line).rstrip()
        if not line.strip():
            continue
        found = TIME.match(line)
        if found is None:
            ported.append(line)
            continue
        rest = found["rest"].strip()
        if rest.startswith(("`", "%{")) or BUFFER_OPTION.search(rest):
            is_code = rest.startswith("%{") and "}%" not in rest
            if found["sign"]:
                waiting += float(found["time"])
            else:
                waiting, is_absolute = float(found["time"]), True
            continue
        time = float(found["time"])
        sign = found["sign"]
        if sign:
            time += waiting
            if is_absolute:
                sign = ""
        waiting, is_absolute = 0.0, False
        ported.append(f"{sign or ' '}{time:.6g} {_outbound(rest)}")
    return "\n".join(ported) + "\n"


def _outbound(rest: str) -> str:
    """Drop from an outbound packet what is each stack's own choice."""
    if not OUTBOUND.match(rest):
        return rest
    rest = WINDOW.sub("", rest)
    return OPTIONS.sub("<...>", rest) if OUTBOUND_SYN.match(rest) else rest
