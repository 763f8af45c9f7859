"""scripts/conformance.py and the port of FreeBSD's scripts, with a packetdrill that only pretends."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
IS_ROOT = os.geteuid() == 0

PRETENDER = """#!/bin/sh
for script; do :; done
case $script in
good.pkt) exit 0 ;;
slow.pkt) sleep 60 ;;
esac
echo "$script:7: error handling packet: live packet field tcp_psh: expected: 1 vs actual: 0" >&2
echo "script packet:  0.1 P. 1:2(1) ack 1 " >&2
echo "actual packet:  0.1 . 1:2(1) ack 1 " >&2
exit 1
"""


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(SCRIPTS))


port = load("freebsd_port").port
conformance = load("conformance")


def test_the_port_keeps_what_every_stack_must_do() -> None:
    ported = port(
        """// a comment
--ip_version=ipv4
 0.00 `sysctl -w net.inet.tcp.rfc1323=1`
+0.00 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0.00 getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
+0.00 > S  0:0(0)       win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.10 < S. 0:0(0) ack 1 win 32767 <mss 1460,sackOK,eol,eol>
+0.00 >  . 1:1(0) ack 1 win 65535 <nop,nop,sack 2:3>
+0.25 %{ assert tcpi_state == 1
assert tcpi_rto }%
+0.10 getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
#ifdef STANDARD
+0.00 > . 1:1(0) ack 2 win 1
#endif
#ifdef FreeBSD
+0.00 > R 1:1(0) win 0
#endif
+0.50 `sockstat -4`
+0.50 close(3) = 0//
"""
    )
    assert ported.splitlines() == [
        "--ip_version=ipv4",
        " 0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3",
        "+0 > S  0:0(0) <...>",
        "+0.1 < S. 0:0(0) ack 1 win 32767 <mss 1460,sackOK,eol,eol>",
        "+0 >  . 1:1(0) ack 1 <nop,nop,sack 2:3>",
        "+0.35 getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0",
        "+0 > . 1:1(0) ack 2",
        "+1 close(3) = 0",
    ]


def test_the_first_difference_is_told_with_both_packets() -> None:
    output = "sysctl: nothing\nx.pkt:3: error handling packet: wrong\nscript packet: A\nactual packet: B\nmore\n"
    assert conformance.difference(output, "x.pkt") == "3: error handling packet: wrong | script packet: A | actual packet: B"
    assert conformance.difference("Traceback\nValueError: bad\nx.pkt:3: e\n", "x.pkt") == "3: e | ValueError: bad"
    assert conformance.difference("x.pkt:3: error in Python code\nAssertionError: 7", "x.pkt").endswith("AssertionError: 7")
    assert conformance.difference("", "x.pkt") == ""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three scripts, the list of them, a library that is none and a packetdrill that pretends."""
    (tmp_path / "suite" / "close").mkdir(parents=True)
    for name in ("good", "bad", "slow"):
        (tmp_path / "suite" / "close" / f"{name}.pkt").write_text("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n")
    lines = ["suite\tscript\ttier\ttopic"]
    lines += [f"google\tclose/{name}.pkt\t{tier}\tclosing" for name, tier in (("good", "core"), ("bad", "core"), ("slow", "ext"))]
    lines += ["gvisor\tother.pkt\tcore\tother"]
    (tmp_path / "list.tsv").write_text("\n".join(lines) + "\n")
    pretender = tmp_path / "packetdrill"
    pretender.write_text(PRETENDER)
    pretender.chmod(0o755)
    (tmp_path / "plugin.so").touch()
    return tmp_path


def run(suite: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "conformance.py"), "--packetdrill", str(suite / "packetdrill")]
    command += ["--list", str(suite / "list.tsv"), "--suite", f"google={suite / 'suite'}", "--plugin", str(suite / "plugin.so"), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="needs root, to make a network namespace")
def test_what_fails_is_told_and_a_table_says_how_many_pass(suite: Path) -> None:
    done = run(suite, "--linux", "--timeout", "3")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    expected = "7: error handling packet: live packet field tcp_psh: expected: 1 vs actual: 0"
    for system in ("tunstack", "linux"):
        told = [line for line in lines if line.startswith(f"FAIL {system} ")]
        assert len(told) == 2
        assert told[0].startswith(f"FAIL {system} core google/close/bad.pkt: ")
        assert expected in told[0] and "actual packet:  0.1 . 1:2(1) ack 1" in told[0]
        assert told[1] == f"FAIL {system} ext google/close/slow.pkt: not done after 3 s"
    words = [line.split() for line in lines]
    assert ["google/close", "3", "1", "1"] in words
    assert ["=", "google", "core", "2", "1", "1"] in words
    assert ["=", "all", "3", "1", "1"] in words
    assert "left out for want of --suite: gvisor" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="needs root, to make a network namespace")
def test_a_run_that_passes_ends_with_status_0(suite: Path) -> None:
    done = run(suite, "--match", "good")
    assert done.returncode == 0
    assert "FAIL" not in done.stdout


@pytest.mark.skipif(not IS_ROOT, reason="without root it says only that it needs it")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--suite", "gvisor"], "--suite gvisor: it is name=value"),
        (["--suite", "gvisor=/no/such"], "--suite gvisor: no folder /no/such"),
        (["--plugin", "/no/such.so"], "no library /no/such.so; make packetdrill-plugin builds it"),
        (["--packetdrill", "/no/such"], "no program /no/such"),
        (["--sysctl", "tcp_sack=0"], "--sysctl tcp_sack=0: it is suite:name=value"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_status_2(suite: Path, arguments: list[str], line: str) -> None:
    done = run(suite, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"conformance: {line}\n")
