"""The knobs, under Linux's names, with Linux's defaults and units.

Documentation/networking/ip-sysctl in Linux. One instance a stack; changed at run time it governs what happens from then on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Sysctl:
    """Settings of one stack. Units are Linux's own: seconds where Linux has seconds, octets, counts."""

    ip_default_ttl: int = 64
    ip_local_port_range: tuple[int, int] = (32768, 60999)
    ipfrag_high_thresh: int = 4 * 1024 * 1024  # octets held for reassembly, all datagrams together
    ipfrag_time: int = 30  # s
    icmp_echo_ignore_all: bool = False
    icmp_msgs_burst: int = 50  # ICMP errors at once, to all targets together
    icmp_msgs_per_sec: int = 1000  # ICMP errors a second, to all targets together
    icmp_ratelimit: int = 1000  # ms between two ICMP errors to one target
    min_pmtu: int = 552  # octets: what a router says of less is not believed; net.ipv4.route. in Linux
    mtu_expires: int = 600  # s that a path MTU is remembered; net.ipv4.route. in Linux
    rmem_max: int = 4194304  # octets, of SO_RCVBUF before it is doubled
    somaxconn: int = 4096
    tcp_abort_on_overflow: bool = False
    tcp_adv_win_scale: int = 1
    tcp_base_mss: int = 1024  # octets of a segment with which the search for the path MTU begins
    tcp_challenge_ack_limit: int = 1000  # challenge ACKs a second (RFC 5961 7)
    tcp_congestion_control: str = "cubic"
    tcp_dsack: bool = True
    tcp_early_retrans: int = 3  # 0: no tail loss probes; 3, 4: for peers with SACK
    tcp_ecn: int = 2  # 0: never; 1: ask and agree; 2: agree when asked (RFC 3168)
    tcp_ecn_fallback: bool = True  # ask no more in a SYN that is sent again
    tcp_fastopen: int = 1  # bits: 1 clients, 2 listeners; 4, 0x200 the same without cookies; 0x400 every listener (RFC 7413)
    tcp_fastopen_blackhole_timeout_sec: int = 0  # s that clients leave it after three timeouts in a row, doubled each time; 0: never
    tcp_fastopen_key: str = ""  # of the cookies, four hexadecimal numbers; after a comma the key of before; empty: made by the stack
    tcp_fin_timeout: int = 60  # s
    tcp_frto: int = 2  # 0: a timeout is never taken for spurious (RFC 5682)
    tcp_hystart: int = 1  # HyStart++ (RFC 9406): 0 nobody, 1 cubic, 2 all that slow-start; a module parameter of cubic in Linux
    tcp_initial_cwnd: int = 10  # segments (RFC 6928); a route attribute (initcwnd) in Linux
    tcp_initial_ssthresh: int = 0  # segments; 0: none; a route attribute (ssthresh) in Linux
    tcp_invalid_ratelimit: int = 500  # ms between two ACKs for out-of-window segments of a connection
    tcp_keepalive_intvl: int = 75  # s
    tcp_keepalive_probes: int = 9
    tcp_keepalive_time: int = 7200  # s
    tcp_max_reordering: int = 300  # segments
    tcp_max_syn_backlog: int = 4096
    tcp_max_tw_buckets: int = 262144
    tcp_min_rtt_wlen: int = 300  # s for which the least round-trip time is believed
    tcp_min_snd_mss: int = 48  # octets, options counted: what a hostile MSS option is raised to
    tcp_moderate_rcvbuf: bool = True  # the receive buffer grows by itself
    tcp_min_tso_segs: int = 2  # packets that leave together at least
    tcp_mtu_probe_floor: int = 48  # octets of the smallest segment that the search comes down to
    tcp_mtu_probing: int = 0  # path MTU discovery without ICMP: 0 never, 1 in a black hole, 2 always
    tcp_orphan_retries: int = 0  # 0 means 8, as in Linux
    tcp_pacing_ca_ratio: int = 120  # percent of cwnd / srtt
    tcp_pacing_ss_ratio: int = 200  # the same in slow start
    tcp_recovery: int = 1  # bits: 1 RACK, 2 with a window that does not adapt, 4 without a threshold of three
    tcp_reflect_tos: bool = False  # a connection that is accepted answers with the DSCP of its SYN
    tcp_reordering: int = 3  # segments: the duplicate-ACK threshold to begin with
    tcp_probe_interval: int = 600  # s after which the search for the path MTU begins anew
    tcp_probe_threshold: int = 8  # octets: a smaller gap ends it
    tcp_retries1: int = 3
    tcp_retries2: int = 15
    tcp_rfc1337: bool = True  # Deviates: False in Linux, where an exact RST ends TIME-WAIT; M-54 forbids that
    tcp_rmem: tuple[int, int, int] = (4096, 131072, 6291456)  # octets: min, default, max
    tcp_sack: bool = True
    tcp_slow_start_after_idle: bool = True
    tcp_stdurg: bool = False  # the urgent pointer points at the last urgent octet, not behind it (RFC 6093)
    tcp_syn_retries: int = 6
    tcp_synack_retries: int = 5
    tcp_timestamps: bool = True
    tcp_tso_rtt_log: int = 9  # bursts may be larger below 2^this us of round-trip time
    tcp_user_timeout_max: int = 3600  # s: what the peer's UTO option can bring (U_LIMIT in RFC 5482); not in Linux
    tcp_user_timeout_min: int = 100  # s: and at least (L_LIMIT, R2 of RFC 1122); not in Linux
    tcp_user_timeout_option: bool = False  # UTO options on every connection (RFC 5482); not in Linux
    tcp_window_scaling: bool = True
    tcp_wmem: tuple[int, int, int] = (4096, 16384, 4194304)  # octets: min, default, max
    wmem_max: int = 4194304  # octets, of SO_SNDBUF before it is doubled
