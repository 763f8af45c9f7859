"""Counters in the words of net-tools' `netstat -s`.

It has words for the older counters; the others stand under their names, `TCPTimeouts: 3`. Most are left out while they are zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunstack.inspect.snmp import Tables

ALWAYS = "+"  # before words that are printed for a zero too
HIDDEN = "-"

# One line a counter: its name, then its words with {} for the number; `+`: printed for zero too, `-`: never.
IP = """
DefaultTTL -
InReceives +{} total packets received
InHdrErrors {} with invalid headers
InAddrErrors {} with invalid addresses
ForwDatagrams +{} forwarded
InUnknownProtos {} with unknown protocol
InDiscards +{} incoming packets discarded
InDelivers +{} incoming packets delivered
OutRequests +{} requests sent out
OutDiscards {} outgoing packets dropped
OutNoRoutes {} dropped because of missing route
ReasmTimeout {} fragments dropped after timeout
ReasmReqds {} reassemblies required
ReasmOKs {} packets reassembled ok
ReasmFails {} packet reassemblies failed
FragOKs {} outgoing packets fragmented ok
FragFails {} outgoing packets failed fragmentation
FragCreates {} fragments created
"""
ICMP = """
InMsgs +{} ICMP messages received
InErrors +{} input ICMP message failed
OutMsgs +{} ICMP messages sent
OutErrors +{} ICMP messages failed
"""
ICMP_INPUT = """
InDestUnreachs destination unreachable: {}
InTimeExcds timeout in transit: {}
InParmProbs wrong parameters: {}
InSrcQuenchs source quenches: {}
InRedirects redirects: {}
InEchos echo requests: {}
InEchoReps echo replies: {}
InTimestamps timestamp request: {}
InTimestampReps timestamp reply: {}
InAddrMasks address mask request: {}
InAddrMaskReps address mask replies: {}
"""
ICMP_OUTPUT = """
OutDestUnreachs destination unreachable: {}
OutTimeExcds time exceeded: {}
OutParmProbs wrong parameters: {}
OutSrcQuenchs source quench: {}
OutRedirects redirect: {}
OutEchos echo requests: {}
OutEchoReps echo replies: {}
OutTimestamps timestamp requests: {}
OutTimestampReps timestamp replies: {}
OutAddrMasks address mask requests: {}
OutAddrMaskReps address mask replies: {}
"""
TCP = """
RtoAlgorithm -
RtoMin -
RtoMax -
MaxConn -
ActiveOpens +{} active connection openings
PassiveOpens +{} passive connection openings
AttemptFails +{} failed connection attempts
EstabResets +{} connection resets received
CurrEstab +{} connections established
InSegs +{} segments received
OutSegs +{} segments sent out
RetransSegs +{} segments retransmitted
InErrs +{} bad segments received
OutRsts +{} resets sent
"""
UDP = """
InDatagrams +{} packets received
NoPorts +{} packets to unknown port received
InErrors +{} packet receive errors
OutDatagrams +{} packets sent
RcvbufErrors +{} receive buffer errors
SndbufErrors +{} send buffer errors
"""
TCP_EXT = """
SyncookiesSent {} SYN cookies sent
SyncookiesRecv {} SYN cookies received
SyncookiesFailed {} invalid SYN cookies received
EmbryonicRsts {} resets received for embryonic SYN_RECV sockets
PruneCalled {} packets pruned from receive queue because of socket buffer overrun
RcvPruned {} packets pruned from receive queue
OfoPruned {} packets dropped from out-of-order queue because of socket buffer overrun
OutOfWindowIcmps {} ICMP packets dropped because they were out-of-window
LockDroppedIcmps {} ICMP packets dropped because socket was locked
TW {} TCP sockets finished time wait in fast timer
TWRecycled {} time wait sockets recycled by time stamp
PAWSActive {} active connections rejected because of time stamp
PAWSEstab {} packets rejected in established connections because of timestamp
DelayedACKs {} delayed acks sent
DelayedACKLocked {} delayed acks further delayed because of locked socket
DelayedACKLost Quick ack mode was activated {} times
ListenOverflows {} times the listen queue of a socket overflowed
ListenDrops {} SYNs to LISTEN sockets dropped
TCPHPHits +{} packet headers predicted
TCPPureAcks {} acknowledgments not containing data payload received
TCPHPAcks {} predicted acknowledgments
TCPRenoRecovery {} times recovered from packet loss due to fast retransmit
TCPSACKReorder Detected reordering {} times using SACK
TCPRenoReorder Detected reordering {} times using reno fast retransmit
TCPTSReorder Detected reordering {} times using time stamp
TCPFullUndo {} congestion windows fully recovered without slow start
TCPPartialUndo {} congestion windows partially recovered using Hoe heuristic
TCPLossUndo {} congestion windows recovered without slow start after partial ack
TCPRenoFailures {} timeouts after reno fast retransmit
TCPLossFailures {} timeouts in loss state
TCPFastRetrans {} fast retransmits
TCPSlowStartRetrans {} retransmits in slow start
TCPRcvCollapsed {} packets collapsed in receive queue due to low socket buffer
TCPAbortOnData {} connections reset due to unexpected data
TCPAbortOnClose {} connections reset due to early user close
TCPAbortOnMemory {} connections aborted due to memory pressure
TCPAbortOnTimeout {} connections aborted due to timeout
TCPAbortOnLinger {} connections aborted after user close in linger timeout
TCPAbortFailed {} times unable to send RST due to no memory
TCPMemoryPressures TCP ran low on memory {} times
"""


def _words(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.strip().splitlines())


WORDS: Mapping[str, Mapping[str, str]] = {
    "Ip": _words(IP),
    "Icmp": _words(ICMP),
    "Tcp": _words(TCP),
    "Udp": _words(UDP),
    "TcpExt": _words(TCP_EXT),
    "IpExt": {},
}
HISTOGRAMS = (
    ("OutMsgs", "ICMP input histogram:", _words(ICMP_INPUT)),
    ("", "ICMP output histogram:", _words(ICMP_OUTPUT)),
)  # each stands before the counter that is named first, the last one at the end


def lines(tables: Tables, chosen: frozenset[str] | None = None) -> Iterator[str]:
    """Return the lines. `chosen`: only these tables of a protocol; IpExt is always there, as TcpExt is with Tcp."""
    for table, counters in tables.items():
        if chosen is None or table.removesuffix("Ext") in chosen or table == "IpExt":
            yield f"{table}:"
            yield from _icmp(counters) if table == "Icmp" else _plain(counters, WORDS[table])


def _plain(counters: Mapping[str, int], words: Mapping[str, str]) -> Iterator[str]:
    for name, value in counters.items():
        text = words.get(name, name + ": {}")
        if text != HIDDEN and (value or text.startswith(ALWAYS)):
            yield "    " + text.removeprefix(ALWAYS).format(value)


def _icmp(counters: Mapping[str, int]) -> Iterator[str]:
    shown = dict(counters)
    for before, title, words in HISTOGRAMS:
        plain = {}
        for name in list(shown):
            if name == before:
                break
            if name not in words:
                plain[name] = shown.pop(name)
        yield from _plain(plain, WORDS["Icmp"])
        yield f"    {title}"
        for name, text in words.items():
            if counters.get(name):
                yield "        " + text.format(counters[name])
            shown.pop(name, None)
