"""Counters under Linux's SNMP and TcpExt names (RFC 4022, RFC 4293; nstat(8))."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counters:
    """One stack's counters; they only grow."""

    IpInReceives: int = 0
    IpInHdrErrors: int = 0
    IpInAddrErrors: int = 0
    IpInUnknownProtos: int = 0
    IpInDiscards: int = 0
    IpInDelivers: int = 0
    IpOutRequests: int = 0
    IpOutDiscards: int = 0
    IpReasmTimeout: int = 0
    IpReasmReqds: int = 0
    IpReasmOKs: int = 0
    IpReasmFails: int = 0
    IpFragOKs: int = 0
    IpFragCreates: int = 0

    IcmpInMsgs: int = 0
    IcmpInErrors: int = 0
    IcmpInCsumErrors: int = 0
    IcmpInDestUnreachs: int = 0
    IcmpInTimeExcds: int = 0
    IcmpInParmProbs: int = 0
    IcmpInSrcQuenchs: int = 0
    IcmpInRedirects: int = 0
    IcmpInEchos: int = 0
    IcmpInEchoReps: int = 0
    IcmpInTimestamps: int = 0
    IcmpInTimestampReps: int = 0
    IcmpInAddrMasks: int = 0
    IcmpInAddrMaskReps: int = 0
    IcmpOutMsgs: int = 0
    IcmpOutDestUnreachs: int = 0
    IcmpOutTimeExcds: int = 0
    IcmpOutEchoReps: int = 0
    IcmpOutErrors: int = 0
    IcmpOutRateLimitGlobal: int = 0
    IcmpOutRateLimitHost: int = 0
    UdpNoPorts: int = 0
    UdpInErrors: int = 0
    UdpInCsumErrors: int = 0

    TcpActiveOpens: int = 0
    TcpPassiveOpens: int = 0
    TcpAttemptFails: int = 0
    TcpEstabResets: int = 0
    TcpInSegs: int = 0
    TcpOutSegs: int = 0
    TcpRetransSegs: int = 0
    TcpInErrs: int = 0
    TcpOutRsts: int = 0
    TcpInCsumErrors: int = 0

    SyncookiesSent: int = 0
    SyncookiesRecv: int = 0
    SyncookiesFailed: int = 0
    EmbryonicRsts: int = 0
    PruneCalled: int = 0
    RcvPruned: int = 0
    OfoPruned: int = 0
    ListenDrops: int = 0
    ListenOverflows: int = 0
    OutOfWindowIcmps: int = 0
    PAWSActive: int = 0
    PAWSEstab: int = 0
    TSEcrRejected: int = 0
    PAWSOldAck: int = 0
    PAWSTimewait: int = 0
    TW: int = 0
    TWRecycled: int = 0
    TWKilled: int = 0
    DelayedACKs: int = 0
    DelayedACKLost: int = 0
    TCPHPHits: int = 0
    TCPHPAcks: int = 0
    TCPPureAcks: int = 0
    TCPRenoRecovery: int = 0
    TCPSackRecovery: int = 0
    TCPSACKReneging: int = 0
    TCPSACKReorder: int = 0
    TCPRenoReorder: int = 0
    TCPTSReorder: int = 0
    TCPFullUndo: int = 0
    TCPPartialUndo: int = 0
    TCPDSACKUndo: int = 0
    TCPLossUndo: int = 0
    TCPLostRetransmit: int = 0
    TCPRenoFailures: int = 0
    TCPSackFailures: int = 0
    TCPLossFailures: int = 0
    TCPRcvCollapsed: int = 0
    TCPFastRetrans: int = 0
    TCPSlowStartRetrans: int = 0
    TCPTimeouts: int = 0
    TCPLossProbes: int = 0
    TCPLossProbeRecovery: int = 0
    TCPRenoRecoveryFail: int = 0
    TCPSackRecoveryFail: int = 0
    TCPDSACKOldSent: int = 0
    TCPDSACKOfoSent: int = 0
    TCPDSACKRecv: int = 0
    TCPDSACKOfoRecv: int = 0
    TCPSACKDiscard: int = 0
    TCPSpuriousRTOs: int = 0
    TCPMD5NotFound: int = 0
    TCPMD5Unexpected: int = 0
    TCPMD5Failure: int = 0
    TCPAbortOnData: int = 0
    TCPAbortOnClose: int = 0
    TCPAbortOnMemory: int = 0
    TCPAbortOnTimeout: int = 0
    TCPAbortOnLinger: int = 0
    TCPMemoryPressures: int = 0
    TCPMemoryPressuresChrono: int = 0
    TCPOFOQueue: int = 0
    TCPOFODrop: int = 0
    TCPOFOMerge: int = 0
    TCPChallengeACK: int = 0
    TCPSYNChallenge: int = 0
    TCPACKSkippedSynRecv: int = 0
    TCPACKSkippedPAWS: int = 0
    TCPACKSkippedSeq: int = 0
    TCPACKSkippedChallenge: int = 0
    TCPACKSkippedFinWait2: int = 0
    TCPACKSkippedTimeWait: int = 0
    TCPKeepAlive: int = 0
    TCPTimeWaitOverflow: int = 0
    TCPWinProbe: int = 0
    BeyondWindow: int = 0
    TCPRcvQDrop: int = 0
    TCPAckCompressed: int = 0
    TCPZeroWindowDrop: int = 0
    TCPFromZeroWindowAdv: int = 0
    TCPToZeroWindowAdv: int = 0
    TCPWantZeroWindowAdv: int = 0
    TCPDeferAcceptDrop: int = 0
    TCPReqQFullDoCookies: int = 0
    TCPReqQFullDrop: int = 0
    TCPMTUPFail: int = 0
    TCPMTUPSuccess: int = 0
    TCPFastOpenActive: int = 0
    TCPFastOpenActiveFail: int = 0
    TCPFastOpenPassive: int = 0
    TCPFastOpenPassiveFail: int = 0
    TCPFastOpenListenOverflow: int = 0
    TCPFastOpenCookieReqd: int = 0
    TCPFastOpenBlackhole: int = 0
    TCPFastOpenPassiveAltKey: int = 0
    TCPSynRetrans: int = 0
    TCPOrigDataSent: int = 0
    TCPDeliveredCE: int = 0
    TCPDSACKRecvSegs: int = 0
    TCPAORequired: int = 0
    TCPAOBad: int = 0
    TCPAOKeyNotFound: int = 0
    TCPAOGood: int = 0
    TCPAODroppedIcmps: int = 0
    TCPCongestionFallback: int = 0  # ours: a user's congestion control raised, and Reno took its place
    TCPHandedOver: int = 0  # ours: segments and ICMP errors that came to another worker's queue, and were handed to it

    IpExtInOctets: int = 0  # these two are the device's: see Stack.read_counters
    IpExtOutOctets: int = 0
    IpExtInNoECTPkts: int = 0
    IpExtInECT1Pkts: int = 0
    IpExtInECT0Pkts: int = 0
    IpExtInCEPkts: int = 0
    IpExtReasmOverlaps: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return all of them by name, in the order of Linux's tables."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
