"""The table of knobs beside the kernel's own: defaults, ranges and errors, in a network namespace that is fresh (M-62).

The running kernel is the reference, so what it has not is passed over; what differs on purpose is listed here with the reason.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from interop.namespaces import Namespace

from tunstack.engine import Sysctl
from tunstack.engine.knob import Knob, to_text
from tunstack.engine.sysctl import ABSENT, KNOBS

pytestmark = pytest.mark.root

# Edges of the ranges that Linux has for its knobs.
CANDIDATES = sorted(
    {-(2**31) - 1, -(2**31), -1000, -32, -31, -1, 0, 1, 2, 3, 4, 5, 31, 32, 47, 48, 67, 68, 127, 128, 255, 256, 300, 301}
    | {1000, 1001, 1023, 1024, 32767, 32768, 65535, 65536, 86400, 86401, 2**31 - 1, 2**31, 2**32 - 1, 2**63}
)

# The machine may have been given these other values than Linux's, and a namespace inherits them.
INHERITED = {
    "net.ipv4.tcp_congestion_control": "the machine's own choice",
    "net.core.rmem_max": "the machine's; Linux's own is 212992, or 4 MiB since 6.16",
    "net.core.wmem_max": "likewise",
}

# What we refuse although Linux takes it.
STRICTER = {
    "net.ipv4.tcp_mtu_probing": "Linux takes every octet; there are three choices",
    "net.ipv4.tcp_syncookies": "likewise",
    "net.ipv4.tcp_base_mss": "Linux takes every int; a segment has at most 65535 octets",
    "net.ipv4.route.min_pmtu": "likewise",
    "net.ipv4.route.mtu_expires": "0 s is no time",
    "net.ipv4.tcp_fin_timeout": "likewise",
    "net.ipv4.tcp_keepalive_intvl": "likewise",
    "net.ipv4.tcp_keepalive_time": "likewise",
    "net.ipv4.tcp_pacing_ca_ratio": "a rate of 0 sends nothing",
    "net.ipv4.tcp_pacing_ss_ratio": "likewise",
    "net.ipv4.tcp_reordering": "Linux's bound is tcp_max_reordering, ours its default",
}

# What we take although this kernel refuses it, and the other way round.
LAXER = {
    "net.ipv4.icmp_ratelimit": "Linux rounds it to jiffies, and takes and refuses large numbers by what overflows",
    "net.ipv4.tcp_invalid_ratelimit": "likewise",
    "net.ipv4.ipfrag_high_thresh": "Linux's least is ipfrag_low_thresh, which we have not",
}


def path_of(knob: Knob) -> Path:
    return Path("/proc/sys") / knob.name.replace(".", "/")


def shared(namespace: Namespace) -> dict[str, str]:
    """Return the knobs that the kernel has too, with its values in the namespace."""
    found = {}
    with namespace.entered():
        for name, knob in KNOBS.items():
            if knob.linux and path_of(knob).exists():
                found[name] = path_of(knob).read_text()
    return found


def write(path: Path, text: str) -> int:
    """Write a knob of the kernel's; return the errno, 0 if it took it."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError as error:
        return error.errno or -1
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(descriptor)
    return 0


def set_ours(name: str, text: str) -> int:
    try:
        Sysctl().set(name, text)
    except OSError as error:
        return error.errno or -1
    return 0


def test_defaults_are_the_kernels(namespace: Namespace) -> None:
    """M-62."""
    kernel = shared(namespace)
    assert len(kernel) > 50
    different = {
        name: (to_text(knob.default), kernel[name].strip())
        for name, knob in KNOBS.items()
        if name in kernel and knob.effect != "never" and to_text(knob.default) != kernel[name].strip() and not knob.deviates
    }
    assert different.keys() - INHERITED.keys() == set(), different


def test_names_are_the_kernels(namespace: Namespace) -> None:
    """M-62: what says that Linux has it is there, and what we say of the absent is not said of one that we have."""
    with namespace.entered():
        missing = [name for name, knob in KNOBS.items() if knob.linux and not path_of(knob).exists()]
    not_in_namespaces = {"net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans", "net.core.netdev_max_backlog", "net.core.busy_poll"}
    assert set(missing) <= not_in_namespaces
    assert not KNOBS.keys() & ABSENT.keys()


def test_what_the_kernel_refuses_is_refused_with_its_errno(namespace: Namespace) -> None:
    """M-62: every number at the edge of some range, written to every knob that is one number, there and here."""
    kernel = shared(namespace)
    wrong = []
    with namespace.entered():
        for name in kernel:
            knob = KNOBS[name]
            if not isinstance(knob.default, int):
                continue
            path = path_of(knob)
            if write(path, kernel[name]):  # the first namespace's alone
                continue
            for value in CANDIDATES:
                theirs, ours = write(path, str(value)), set_ours(name, str(value))
                if theirs == ours or name in LAXER:
                    continue
                is_on = isinstance(knob.default, bool) and value not in (0, 1)  # Linux takes an octet for most of these
                if ours == errno.EINVAL and (value < 0 or is_on or name in STRICTER):
                    continue
                wrong.append(f"{name} = {value}: errno {theirs} there, {ours} here")
            write(path, kernel[name])
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("net.ipv4.tcp_rmem", "0 1 2"),
        ("net.ipv4.tcp_rmem", "4096 131072 2147483648"),
        ("net.ipv4.tcp_rmem", "4096 x 6291456"),
        ("net.ipv4.tcp_wmem", "-1 16384 4194304"),
        ("net.ipv4.ip_local_port_range", "1023 2000"),
        ("net.ipv4.ip_local_port_range", "2000 65536"),
        ("net.ipv4.ip_local_port_range", "3000 2000"),
        ("net.ipv4.tcp_retries2", "08"),
        ("net.ipv4.tcp_retries2", "7x"),
        ("net.ipv4.tcp_retries2", "+7"),
        ("net.ipv4.tcp_retries2", "0x10"),
        ("net.ipv4.tcp_retries2", "010"),
        ("net.ipv4.tcp_retries2", "\t9 \n"),
        ("net.ipv4.tcp_adv_win_scale", "-0x2"),
        ("net.ipv4.tcp_sack", "0x1"),
        ("net.ipv4.ip_local_port_range", "2000\t3000\n"),
        ("net.ipv4.tcp_available_congestion_control", "reno"),
    ],
)
def test_texts_are_read_as_the_kernel_reads_them(namespace: Namespace, name: str, text: str) -> None:
    """M-62."""
    knobs = Sysctl()
    with namespace.entered():
        path = path_of(KNOBS[name])
        theirs = write(path, text)
        try:
            knobs.set(name, text)
            ours = 0
        except OSError as error:
            ours = error.errno or -1
        assert ours == theirs
        if not ours:
            assert to_text(knobs.get(name)) == path.read_text().strip()


def test_an_algorithm_that_is_not_there_has_the_kernels_errno(namespace: Namespace) -> None:
    """M-62, M-38."""
    with namespace.entered():
        assert write(Path("/proc/sys/net/ipv4/tcp_congestion_control"), "nosuch") == errno.ENOENT
    knobs = Sysctl()
    knobs.algorithms = {"cubic": None}
    with pytest.raises(FileNotFoundError):
        knobs.set("net.ipv4.tcp_congestion_control", "nosuch")
