"""Giving root up: what the kernel says of a process afterwards. As root only; the process is a child that does nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NOTHING = "0" * 16

needs_root = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")]


def after(code: str) -> dict[str, str]:
    """Run code in a child and return what its /proc/self/status says then."""
    program = f"from tunstack.daemon.privileges import *\n{code}\nprint(open('/proc/self/status').read())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert child.returncode == 0, child.stderr
    return dict(line.split(":\t", 1) for line in child.stdout.splitlines() if ":\t" in line)


class TestAsRoot:
    pytestmark = needs_root

    def test_nobody_with_no_capability_is_left(self) -> None:
        before = after("pass")
        assert before["Uid"].split() == ["0"] * 4 and before["CapEff"] != NOTHING
        status = after("drop_privileges()")
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].split() == ["65534"]
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {NOTHING}
        assert status["NoNewPrivs"] == "1"

    def test_another_user_may_be_named_or_numbered(self) -> None:
        for user in ("daemon", "1"):
            status = after(f"drop_privileges({user!r})")
            assert status["Uid"].split() == status["Gid"].split() == ["1"] * 4

    def test_a_capability_that_is_asked_for_is_kept_but_not_inherited(self) -> None:
        status = after("drop_privileges(keep=[Capability.CAP_NET_ADMIN])")
        assert status["Uid"].split() == ["65534"] * 4
        only_net_admin = f"{1 << 12:016x}"
        assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {only_net_admin}
        assert {status[name] for name in ("CapInh", "CapAmb")} == {NOTHING}

    def test_root_does_not_come_back(self) -> None:
        after(
            "import os, subprocess; drop_privileges()\n"
            "for regain in (lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgid(0), lambda: os.setgroups([0])):\n"
            "    try: regain()\n"
            "    except PermissionError: pass\n"
            "    else: raise SystemExit('regained')"
        )

    def test_an_unknown_user_is_named(self) -> None:
        child = (
            "try: drop_privileges({user!r})\n"
            'except PrivilegeError as error: assert str(error) == "unknown user {user!r}: name an account of this machine to run as"\n'
            "else: raise SystemExit('accepted')"
        )
        for user in ("no-such-user", "4123456789", "99999999999999999999", ""):
            status = after(child.format(user=user))
            assert status["Uid"].split() == ["0"] * 4

    def test_capabilities_without_root_are_given_up_too(self) -> None:
        # As systemd's AmbientCapabilities= starts a daemon; setpriv does the same.
        with_net_admin = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin"]
        program = (
            "from tunstack.daemon.privileges import *\n"
            "SETS = ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')\n"
            "def caps(): return [line.split()[1] for line in open('/proc/self/status') if line.startswith(SETS)]\n"
            "before = caps(); drop_privileges(); print(*before, *caps())"
        )
        child = subprocess.run([*with_net_admin, sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
        assert child.returncode == 0, child.stderr
        assert child.stdout.split() == [f"{1 << 12:016x}"] * 4 + [NOTHING] * 4


def test_threads_that_would_keep_theirs_are_refused() -> None:
    status = after(
        "import threading; done = threading.Event(); thread = threading.Thread(target=done.wait); thread.start()\n"
        "try: drop_privileges()\n"
        "except RuntimeError: pass\n"
        "else: raise SystemExit('not refused')\n"
        "finally: done.set()"
    )
    assert status["Uid"].split()[0] == str(os.geteuid())


def test_a_thread_that_is_about_to_end_is_waited_for() -> None:
    """Opening the interface uses one (netlink), and what Python has joined the kernel may still list."""
    assert after("import threading; threading.Timer(0.05, str).start(); drop_privileges()")["NoNewPrivs"] == "1"
