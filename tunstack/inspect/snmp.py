"""A stack's counters in Linux's tables: /proc/net/snmp, /proc/net/netstat (RFC 4022, RFC 4293).

`TABLES` has the names that tools expect, in Linux's order; one that nothing here counts is 0. `gauges` are the values among them that
are not counted but looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunstack.engine.rtt import RTO_MAX, RTO_MIN
from tunstack.inspect.census import Census, count, finish

if TYPE_CHECKING:
    from tunstack.engine.stack import Stack

NOT_FORWARDING = 2  # ipForwarding of a host
RTO_OTHER = 1  # tcpRtoAlgorithm as Linux gives it
MS = 1000  # us

IP = """
Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards
OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits
"""
ICMP = """
InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps
InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds
OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps
"""
TCP = """
RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs
OutRsts InCsumErrors
"""
UDP = "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors"
TCP_EXT = """
SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned OutOfWindowIcmps LockDroppedIcmps
ArpFilter TW TWRecycled TWKilled PAWSActive PAWSEstab BeyondWindow TSEcrRejected PAWSOldAck PAWSTimewait DelayedACKs
DelayedACKLocked DelayedACKLost ListenOverflows ListenDrops TCPHPHits TCPPureAcks TCPHPAcks TCPRenoRecovery TCPSackRecovery
TCPSACKReneging TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo TCPPartialUndo TCPDSACKUndo TCPLossUndo TCPLostRetransmit
TCPRenoFailures TCPSackFailures TCPLossFailures TCPFastRetrans TCPSlowStartRetrans TCPTimeouts TCPLossProbes TCPLossProbeRecovery
TCPRenoRecoveryFail TCPSackRecoveryFail TCPRcvCollapsed TCPBacklogCoalesce TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv
TCPDSACKOfoRecv TCPAbortOnData TCPAbortOnClose TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger TCPAbortFailed
TCPMemoryPressures TCPMemoryPressuresChrono TCPSACKDiscard TCPDSACKIgnoredOld TCPDSACKIgnoredNoUndo TCPSpuriousRTOs TCPMD5NotFound
TCPMD5Unexpected TCPMD5Failure TCPSackShifted TCPSackMerged TCPSackShiftFallback TCPBacklogDrop PFMemallocDrop TCPMinTTLDrop
TCPDeferAcceptDrop IPReversePathFilter TCPTimeWaitOverflow TCPReqQFullDoCookies TCPReqQFullDrop TCPRetransFail TCPRcvCoalesce
TCPOFOQueue TCPOFODrop TCPOFOMerge TCPChallengeACK TCPSYNChallenge TCPFastOpenActive TCPFastOpenActiveFail TCPFastOpenPassive
TCPFastOpenPassiveFail TCPFastOpenListenOverflow TCPFastOpenCookieReqd TCPFastOpenBlackhole TCPSpuriousRtxHostQueues
BusyPollRxPackets TCPAutoCorking TCPFromZeroWindowAdv TCPToZeroWindowAdv TCPWantZeroWindowAdv TCPSynRetrans TCPOrigDataSent
TCPHystartTrainDetect TCPHystartTrainCwnd TCPHystartDelayDetect TCPHystartDelayCwnd TCPACKSkippedSynRecv TCPACKSkippedPAWS
TCPACKSkippedSeq TCPACKSkippedFinWait2 TCPACKSkippedTimeWait TCPACKSkippedChallenge TCPWinProbe TCPKeepAlive TCPMTUPFail
TCPMTUPSuccess TCPDelivered TCPDeliveredCE TCPAckCompressed TCPZeroWindowDrop TCPRcvQDrop TCPWqueueTooBig TCPFastOpenPassiveAltKey
TcpTimeoutRehash TcpDuplicateDataRehash TCPDSACKRecvSegs TCPDSACKIgnoredDubious TCPMigrateReqSuccess TCPMigrateReqFailure
TCPPLBRehash TCPAORequired TCPAOBad TCPAOKeyNotFound TCPAOGood TCPAODroppedIcmps
"""
IP_EXT = """
InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets InMcastOctets OutMcastOctets
InBcastOctets OutBcastOctets InCsumErrors InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts ReasmOverlaps
"""
TABLES: Mapping[str, tuple[str, ...]] = {
    "Ip": tuple(IP.split()),
    "Icmp": tuple(ICMP.split()),
    "Tcp": tuple(TCP.split()),
    "Udp": tuple(UDP.split()),
    "TcpExt": tuple(TCP_EXT.split()),
    "IpExt": tuple(IP_EXT.split()),
}
GAUGES = frozenset(("IpForwarding", "IpDefaultTTL", "TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax", "TcpMaxConn", "TcpCurrEstab"))

Tables = Mapping[str, Mapping[str, int]]


def gauges(stack: Stack, census: Census | None = None) -> dict[str, int]:
    """Return the values that are no counters, under nstat's names; all sockets are counted at once where that is not done before."""
    census = census or finish(count(stack))
    return {
        "IpForwarding": NOT_FORWARDING,
        "IpDefaultTTL": stack.sysctl.ip_default_ttl,
        "TcpRtoAlgorithm": RTO_OTHER,
        "TcpRtoMin": RTO_MIN // MS,
        "TcpRtoMax": RTO_MAX // MS,
        "TcpMaxConn": -1,
        "TcpCurrEstab": census.established,
    }


def values(stack: Stack, census: Census | None = None) -> dict[str, int]:
    """Return all values under nstat's names, the table before the field: `TcpExtTCPTimeouts`, which is TCPTimeouts in Counters."""
    known = stack.counters.as_dict() | gauges(stack, census)
    result = {table + field: known.pop(table + field, 0) or known.pop(field, 0) for table, fields in TABLES.items() for field in fields}
    # Each datagram once, or the fragments that it was cut into.
    result["IpOutTransmits"] = result["IpOutRequests"] - result["IpFragOKs"] + result["IpFragCreates"]
    return result | {"TcpExt" + name: value for name, value in known.items()}  # our own, which Linux has not


def tables(flat: Mapping[str, int]) -> Tables:
    """Sort values under nstat's names into their tables."""
    result: dict[str, dict[str, int]] = {table: {} for table in TABLES}
    prefixes = sorted(TABLES, key=len, reverse=True)
    for name, value in flat.items():
        for table in prefixes:
            if name.startswith(table):
                result[table][name.removeprefix(table)] = value
                break
    return result
