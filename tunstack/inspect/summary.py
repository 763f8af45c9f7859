"""`ss -s`: how many sockets there are, in ss's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tunstack.inspect.record import SocketRecord

ESTABLISHED_STATES = ("ESTABLISHED", "CLOSE_WAIT")  # TcpCurrEstab


def lines(records: Iterable[SocketRecord]) -> Iterator[str]:
    """Return the lines. Kinds of sockets that there are not have zeros."""
    states: Counter[str] = Counter()
    orphans = 0
    for record in records:
        states[record.state] += 1
        orphans += not record.inode and record.state in ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "LAST_ACK")
    waiting = states["TIME_WAIT"]
    total = states.total()
    established = sum(states[state] for state in ESTABLISHED_STATES)
    inuse = total - waiting - states["SYN_RECEIVED"]
    yield f"Total: {inuse}"
    yield f"TCP:   {total} (estab {established}, closed {waiting + states['CLOSED']}, orphaned {orphans}, timewait {waiting})"
    yield ""
    yield "Transport Total     IP        IPv6"
    for name, count in (("RAW", 0), ("UDP", 0), ("TCP", inuse), ("INET", inuse), ("FRAG", 0)):
        yield f"{name}\t  {count:<9} {count:<9} {0:<9}"
    yield ""
