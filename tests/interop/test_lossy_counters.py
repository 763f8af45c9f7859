"""Counters of both ends of a link that loses and doubles one direction's frames: they agree where both see the same (M-61)."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop.daemons import need, random_file
from interop.namespaces import Namespace
from interop.test_inspect import CHARGEN, ECHO, Bench, ask, counters, kernel_counters, reset, total, wait_for

pytestmark = pytest.mark.root

LINK = "{way}:loss=3%,dup=2%;delay=1ms,seed=5"
SIZE = 1 << 20
ECHOED = 300_000
ORDERLY = 4  # connections that end by FIN

# What left. A SYN-ACK that is sent again is in both, here as in Linux; Linux sends none in this exchange.
LEFT = {"tunstack": "TcpOutSegs + TcpRetransSegs - TcpExtTCPSynRetrans", "Linux": "TcpOutSegs + TcpRetransSegs"}

Values = dict[str, int]
Row = tuple[str, str]  # what one end counts, and what the other counts of the same


def exchange(bench: Bench, way: str) -> None:
    """Files in both directions, refused connections; resets, which nobody repeats, where none is lost; a window that closes."""
    random_file(bench.daemon.root / "big", SIZE)
    download = bench.connect(80, b"GET /big HTTP/1.0\r\n\r\n", SIZE)
    while download.recv(65536):
        pass
    download.close()
    for _ in range(3):
        bench.connect(ECHO, b"x" * ECHOED, ECHOED).close()
        with pytest.raises(ConnectionRefusedError):
            bench.connect(81)
    if way == "up":
        for _ in range(2):
            reset(bench.connect(ECHO, b"z", 1))
    stuffed = bench.connect(CHARGEN)
    wait_for(lambda: ask(bench, "counters")["TCPWinProbe"])
    reset(stuffed)
    wait_for(lambda: {record["state"] for record in bench.sockets()} <= {"LISTEN", "TIME_WAIT"})


def settled(bench: Bench) -> tuple[Values, Values, dict[str, Values]]:
    """Return our counters, the kernel's and the link's, of a time in which nothing changed."""
    seen: list[tuple[Values, Values, dict[str, Values]]] = []

    def is_quiet() -> bool:
        ours, kernel = counters(bench.run("nstat -asz")), kernel_counters(bench.namespace)
        seen.append((ours, kernel, ask(bench, "status")["link"]))
        return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

    wait_for(is_quiet)
    return seen[-2]


@pytest.mark.parametrize("way", ["up", "down"])
def test_both_ends_of_a_lossy_link_agree(namespace: Namespace, tmp_path: Path, way: str) -> None:
    """M-61: retransmissions, D-SACK, refused and reset connections; `up` is from us to the kernel."""
    need("nstat")
    bench = Bench(namespace, tmp_path, "--no-offload", "--link", LINK.format(way=way))
    exchange(bench, way)
    ours, kernel, link = settled(bench)
    bench.daemon.close()
    bad = link[way]
    ends = {"tunstack": ours, "Linux": kernel}
    sender, receiver = ends if way == "up" else reversed(ends)
    rows: dict[Row, tuple[int, int]] = {}

    def compare(left_end: str, left: str, right_end: str, right: str, change: int = 0) -> None:
        of = f"{change:+}" if change else ""
        rows[f"{left_end} {left}", f"{right_end} {right}{of}"] = total(left, ends[left_end]), total(right, ends[right_end]) + change

    # What was lost never came, what was doubled came twice; in the other direction all came once.
    compare(receiver, "TcpInSegs", sender, LEFT[sender], bad["duplicated"] - bad["lost"])
    compare(sender, "TcpInSegs", receiver, LEFT[receiver])
    compare("tunstack", "TcpPassiveOpens", "Linux", "TcpActiveOpens - TcpAttemptFails")
    compare("tunstack", "TcpEstabResets", "Linux", "TcpEstabResets")
    for (left, right), values in rows.items():
        print(f"{left:<30} {right:<70} {values[0]:>6} {values[1]:>6}")
    assert {row: values for row, values in rows.items() if values[0] != values[1]} == {}
    # What happened at all.
    assert bad["lost"] > 10 and bad["duplicated"] > 5
    assert ends[sender]["TcpRetransSegs"] > 5
    doubled = total("TcpExtTCPDSACKOldSent + TcpExtTCPDSACKOfoSent", ends[receiver])
    assert 0 < doubled <= bad["duplicated"] + ends[sender]["TcpRetransSegs"]
    # What came again below RCV.NXT is acknowledged at once, and those ACKs are not lost; but one about a FIN, or about what was before it,
    # may find the connection over.
    assert 0 <= ends[receiver]["TcpExtTCPDSACKOldSent"] - ends[sender]["TcpExtTCPDSACKRecv"] <= 2 * ORDERLY
    # Those above RCV.NXT may share an ACK, where ACKs are compressed.
    assert ends[sender]["TcpExtTCPDSACKOfoRecv"] <= ends[receiver]["TcpExtTCPDSACKOfoSent"]
    assert kernel["TcpAttemptFails"] == 3 <= ours["TcpOutRsts"]  # a refusal that is lost is repeated for the next SYN
    assert ours["TcpExtTCPWinProbe"] > 0
