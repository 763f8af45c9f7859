"""The knobs, under Linux's names, with Linux's defaults, ranges and units: the one table of them.

Documentation/networking/ip-sysctl in Linux. One `Sysctl` a stack; hot code reads its fields, whoever takes a value from people uses
`set`, which checks it. A knob is declared once, here: `knob(default, documentation, unit, low=, high=, ...)` (knob.py).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType

from tunstack.engine.knob import SECONDS_MAX, Knob, Value, knob, parse_keys, parse_ports

_AVAILABLE = "net.ipv4.tcp_available_congestion_control"


@dataclass(slots=True)
class Sysctl:
    """Settings of one stack. What is written into a field past `set` is not checked."""

    version: int = field(default=0, init=False, repr=False, compare=False)  # grows with whatever changes

    # The interface's and the sockets' limits.
    busy_poll: int = knob(
        0, "after a frame the loop looks for the next so long without sleeping: latency for CPU time", "us", folder="net.core."
    )
    netdev_max_backlog: int = knob(
        16_384,
        "wait in the interface's queue at most, until we read them",
        "frames",
        low=1,
        folder="net.core.",
        effect="start",
        deviates="1000 in Linux, which is less than one of tcp_rmem's largest windows, and than 1,000 connections send at once",
    )
    rmem_max: int = knob(4194304, "largest SO_RCVBUF, before it is doubled", "octets", low=2304, folder="net.core.")
    somaxconn: int = knob(4096, "longest accept queue that a backlog can ask for", "connections", folder="net.core.")
    wmem_max: int = knob(4194304, "largest SO_SNDBUF, before it is doubled", "octets", low=4608, folder="net.core.")

    # IP and ICMP.
    icmp_echo_ignore_all: bool = knob(False, "do not answer pings")
    icmp_msgs_burst: int = knob(50, "ICMP errors at once, to all targets together")
    icmp_msgs_per_sec: int = knob(1000, "ICMP errors a second, to all targets together")
    icmp_ratelimit: int = knob(1000, "time between two ICMP errors to one target; 0: no limit", "ms")
    ip_default_ttl: int = knob(64, "time to live of what we send", "hops", low=1, high=255)
    ip_local_port_range: tuple[int, int] = knob((32768, 60999), "ports that connections out are given", low=1024, high=65535)
    ip_local_reserved_ports: str = knob(
        "", "ports given to nobody who does not ask for them", check=parse_ports, form="ports and ranges of ports, with commas"
    )
    ipfrag_high_thresh: int = knob(4194304, "held for reassembly, all datagrams together", "octets")
    ipfrag_time: int = knob(30, "a datagram's fragments are waited for", "s", high=SECONDS_MAX)
    min_pmtu: int = knob(
        552, "path MTU: what a router says of less is not believed", "octets", low=68, high=65535, folder="net.ipv4.route."
    )
    mtu_expires: int = knob(600, "a path MTU is remembered", "s", low=1, high=SECONDS_MAX, folder="net.ipv4.route.")

    # Listening and opening.
    tcp_abort_on_overflow: bool = knob(False, "reset what the accept queue has no room for, instead of ignoring it")
    tcp_fastopen: int = knob(
        1, "Fast Open (RFC 7413), bits; 1: clients, 2: listeners, 4 and 0x200: without cookies, 0x400: every listener", high=0x7FFFFFFF
    )
    tcp_fastopen_blackhole_timeout_sec: int = knob(
        0, "clients leave Fast Open after three timeouts in a row for so long, doubled each time; 0: never", "s"
    )
    tcp_fastopen_key: str = knob(
        "",
        "of Fast Open's cookies; after a comma the one of before; empty: made by the stack",
        check=parse_keys,
        form="a key or two with a comma, each four hexadecimal numbers with hyphens",
        secret=True,
        deviates="Linux shows zeros until it has made one",
    )
    tcp_max_syn_backlog: int = knob(
        4096, "longest SYN queue of a listener", "connections", deviates="Linux's default depends on the machine's memory"
    )
    tcp_reflect_tos: bool = knob(False, "a connection that is accepted answers with the DSCP of its SYN", effect="new connections")
    tcp_syn_linear_timeouts: int = knob(
        0,
        "a SYN is sent again so often after 1 s each, before the time doubles",
        high=127,
        deviates="4 in Linux, which then sends at 1, 2, 3, 4, 5, 7, 11 s",
    )
    tcp_syn_retries: int = knob(6, "a SYN is sent again so often", low=1, high=127)
    tcp_synack_retries: int = knob(5, "a SYN-ACK is sent again so often", high=255)
    tcp_syncookies: int = knob(1, "SYN cookies (RFC 4987 3.6); 0: never, 1: when the SYN queue is full, 2: always", high=2)

    # Options of the handshake.
    tcp_ecn: int = knob(2, "ECN (RFC 3168); 0: never, 1: ask and agree, 2: agree when asked", high=2, effect="new connections")
    tcp_ecn_fallback: bool = knob(True, "a SYN that is sent again does not ask for ECN")
    tcp_sack: bool = knob(True, "selective acknowledgments (RFC 2018)", effect="new connections")
    tcp_timestamps: bool = knob(True, "timestamps (RFC 7323)", effect="new connections")
    tcp_window_scaling: bool = knob(True, "windows beyond 64 KiB (RFC 7323)", effect="new connections")

    # Buffers.
    tcp_adv_win_scale: int = knob(1, "nothing any more, as in Linux since 6.6", low=-31, high=31)
    tcp_moderate_rcvbuf: bool = knob(True, "the receive buffer grows by itself", effect="new connections")
    tcp_rmem: tuple[int, int, int] = knob(
        (4096, 131072, 6291456),
        "receive buffer: least, default, most that it grows to",
        "octets",
        low=1,
        effect="new connections",
        deviates="Linux 6.18 lets it grow to 32 MB",
    )
    tcp_wmem: tuple[int, int, int] = knob(
        (4096, 16384, 4194304), "send buffer: least, default, most that it grows to", "octets", low=1, effect="new connections"
    )

    # Segments and path MTU.
    tcp_base_mss: int = knob(1024, "the search for the path MTU begins with segments of", "octets", high=65535, effect="new connections")
    tcp_min_snd_mss: int = knob(48, "what a hostile MSS option is raised to, options counted", "octets", low=48, high=65535)
    tcp_mtu_probe_floor: int = knob(48, "smallest segment that the search comes down to", "octets", low=48, high=65535)
    tcp_mtu_probing: int = knob(0, "path MTU discovery without ICMP (RFC 4821); 0: never, 1: in a black hole, 2: always", high=2)
    tcp_probe_interval: int = knob(600, "after that the search begins anew", "s", high=SECONDS_MAX)
    tcp_probe_threshold: int = knob(8, "a smaller gap ends the search", "octets")

    # Loss detection and repair.
    tcp_dsack: bool = knob(True, "tell of what was received twice (RFC 2883)")
    tcp_early_retrans: int = knob(3, "tail loss probes (RFC 8985 7); 0: none, 3 and 4: for peers with SACK", high=4)
    tcp_frto: int = knob(2, "find spurious timeouts (RFC 5682); 0: no", high=255)
    tcp_max_reordering: int = knob(300, "reordering that is believed at most", "segments", low=1)
    tcp_min_rtt_wlen: int = knob(300, "the least round-trip time is believed", "s", high=86400, effect="new connections")
    tcp_recovery: int = knob(1, "bits; 1: RACK, 2: with a window that does not adapt, 4: without a threshold of three", high=255)
    tcp_reordering: int = knob(3, "threshold of duplicate ACKs to begin with", "segments", low=1, high=300, effect="new connections")
    tcp_retries1: int = knob(3, "timeouts after which the path is doubted", high=255)
    tcp_retries2: int = knob(15, "timeouts after which a connection is given up", high=255)

    # Windows and pacing.
    tcp_congestion_control: str = knob("cubic", "congestion control, by name", effect="new connections")
    tcp_hystart: int = knob(
        1, "HyStart++ (RFC 9406); 0: nobody, 1: cubic, 2: all that slow-start", high=2, effect="new connections", linux=False
    )
    tcp_initial_cwnd: int = knob(
        10,
        "first congestion window (RFC 6928); a route's initcwnd in Linux",
        "segments",
        low=1,
        high=1000,
        effect="new connections",
        linux=False,
    )
    tcp_initial_ssthresh: int = knob(
        0, "first ssthresh, 0: none; a route's ssthresh in Linux", "segments", high=1000000, effect="new connections", linux=False
    )
    tcp_min_tso_segs: int = knob(2, "leave together at least", "segments", low=1, high=255)
    tcp_pacing_ca_ratio: int = knob(120, "rate of pacing, of cwnd / srtt", "percent", low=1, high=1000)
    tcp_pacing_ss_ratio: int = knob(200, "rate of pacing in slow start, of cwnd / srtt", "percent", low=1, high=1000)
    tcp_slow_start_after_idle: bool = knob(True, "begin with the first window again after a pause (RFC 2861)")
    tcp_tso_rtt_log: int = knob(9, "bursts may be larger where the round trip is shorter than 2 to the power of this", "us", high=255)

    # Keepalive and the user timeout.
    tcp_keepalive_intvl: int = knob(75, "from one keepalive probe to the next", "s", low=1, high=SECONDS_MAX)
    tcp_keepalive_probes: int = knob(9, "keepalive probes without an answer that end a connection", high=255)
    tcp_keepalive_time: int = knob(7200, "silence before the first keepalive probe", "s", low=1, high=SECONDS_MAX)
    tcp_user_timeout_max: int = knob(
        3600, "the most that a peer's UTO option brings (U_LIMIT of RFC 5482)", "s", high=SECONDS_MAX, linux=False
    )
    tcp_user_timeout_min: int = knob(
        100, "the least that a peer's UTO option brings (L_LIMIT of RFC 5482)", "s", high=SECONDS_MAX, linux=False
    )
    tcp_user_timeout_option: bool = knob(False, "UTO options on every connection (RFC 5482)", effect="new connections", linux=False)

    # Closing and guards.
    tcp_challenge_ack_limit: int = knob(1000, "challenge ACKs (RFC 5961 7)", "a second", deviates="Linux has had no limit since 6.0")
    tcp_fin_timeout: int = knob(60, "an orphan waits in FIN-WAIT-2", "s", low=1, high=SECONDS_MAX)
    tcp_invalid_ratelimit: int = knob(500, "time between two ACKs of a connection for what is outside its window", "ms")
    tcp_max_orphans: int = knob(
        65536,
        "orphans that are kept; what is beyond that is reset",
        "connections",
        deviates="Linux's default depends on the machine's memory",
    )
    tcp_max_tw_buckets: int = knob(262144, "connections in TIME-WAIT", deviates="Linux's default depends on the machine's memory")
    tcp_mem: tuple[int, int, int] = knob(
        (92160, 122880, 184320),
        "memory of all connections: no pressure, pressure, the end",
        "pages",
        deviates="Linux's default depends on the machine's memory",
    )
    tcp_orphan_retries: int = knob(0, "timeouts after which an orphan is given up; 0: 8", high=255)
    tcp_rfc1337: bool = knob(True, "a RST does not end TIME-WAIT", deviates="off in Linux, where an exact RST ends it (M-54 forbids that)")
    tcp_tw_reuse: int = knob(2, "connect() may take a four-tuple in TIME-WAIT; 0: never, 1: always, 2: on loopback only", high=2)
    tcp_tw_reuse_delay: int = knob(1000, "TIME-WAIT lasts at least so long before it is reused", "ms", low=1, high=60000)
    tcp_stdurg: bool = knob(False, "the urgent pointer points at the last urgent octet, not behind it (RFC 6093)")

    # Not a knob: the congestion controls that the stack has, for `set`. None: no stack has it yet, and no name is checked.
    algorithms: Mapping[str, object] | None = field(default=None, init=False, repr=False, compare=False)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name != "version":
            object.__setattr__(self, "version", self.version + 1)

    def get(self, name: str) -> Value:
        """Return a knob's value by its full name (`net.ipv4.tcp_sack`; slashes do too); OSError ENOENT if there is none."""
        name = dotted(name)
        if name == _AVAILABLE:
            return " ".join(self.algorithms or ())
        value: Value = getattr(self, find(name).field)
        return value

    def set(self, name: str, value: object) -> None:
        """Set a knob by its full name, to a text as Linux takes it or to a plain value.

        OSError as writing to /proc/sys gives it, with a text that says what is wrong: ENOENT if there is no such knob or algorithm,
        EINVAL for a value that it does not take, EACCES if it can only be read, or only be set before there is a stack.
        """
        name = dotted(name)
        entry = find(name)
        if entry.effect == "never":
            raise OSError(errno.EACCES, "can only be read; to choose, set net.ipv4.tcp_congestion_control")
        if entry.effect == "start" and self.algorithms is not None:
            raise OSError(errno.EACCES, "counts when the interface is opened: set it in the configuration, or with --sysctl")
        taken = entry.take(value)
        if entry.field == "tcp_congestion_control" and self.algorithms is not None and taken not in self.algorithms:
            raise OSError(errno.ENOENT, f"there is no {taken!r}; there is {', '.join(self.algorithms)}")
        setattr(self, entry.field, taken)


def dotted(name: str) -> str:
    """Return a name with dots for slashes, as sysctl(8) takes either: the first one says which separates."""
    slash, dot = name.find("/"), name.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name.replace("/", "\0").replace(".", "/").replace("\0", ".")
    return name


# By full name, in the order of the names: what can be set, and what can only be read.
KNOBS: Mapping[str, Knob] = MappingProxyType(
    dict(
        sorted(
            (knob.name, knob)
            for knob in (
                *(Knob.of(entry.name, entry.default, entry.metadata) for entry in fields(Sysctl) if entry.init),
                Knob(
                    "tcp_available_congestion_control", "", "congestion controls that there are", "", 0, 0, "net.ipv4.", "never", True, ""
                ),
            )
        )
    )
)

# What Linux has, or had, and we have not; why.
ABSENT: Mapping[str, str] = MappingProxyType(
    {
        "net.core.rmem_default": "TCP's is the second number of net.ipv4.tcp_rmem, in Linux too",
        "net.core.wmem_default": "TCP's is the second number of net.ipv4.tcp_wmem, in Linux too",
        "net.core.optmem_max": "options of sockets are held in no memory of the kernel's",
        "net.ipv4.ip_forward": "an endpoint forwards nothing",
        "net.ipv4.tcp_autocorking": "what the application writes in one turn of the loop leaves together anyway",
        "net.ipv4.tcp_early_demux": "there is no routing to be spared",
        "net.ipv4.tcp_fack": "nothing any more in Linux either; RACK took its place",
        "net.ipv4.tcp_low_latency": "nothing any more in Linux either",
        "net.ipv4.tcp_no_metrics_save": "nothing is remembered of a destination but its path MTU",
        "net.ipv4.tcp_notsent_lowat": "a transport's write buffer counts what is unsent: set_write_buffer_limits, or the socket option",
        "net.ipv4.tcp_tw_recycle": "it broke connections of clients that share an address behind NAT, and Linux removed it in 4.12; what is"
        " safe of it is net.ipv4.tcp_tw_reuse",
    }
)


def find(name: str) -> Knob:
    """Return a knob by its full name with dots; OSError ENOENT, with a hint, if there is none."""
    knob = KNOBS.get(name)
    if knob is None:
        raise OSError(errno.ENOENT, f"there is no such knob: {ABSENT[name]}" if name in ABSENT else f"there is no such knob{_hint(name)}")
    return knob


def _hint(name: str) -> str:
    """Name the knob that was probably meant, if one is near."""
    last = name.rpartition(".")[2]
    names = {entry.field: entry.name for entry in KNOBS.values()}
    if last in names:
        return f" (did you mean {names[last]}?)"
    near = get_close_matches(last, names, n=1, cutoff=0.75) if last else []
    return f" (did you mean {near[0]}?)" if near else ""
