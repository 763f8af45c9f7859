"""Giving root up, for good.

capabilities(7), prctl(2), credentials(7). To be called once, when the interface is open and before any thread is started:
capabilities belong to threads. Ports of our own stack, 80 too, are not the kernel's and need no capability.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import struct
import time
from collections.abc import Collection
from enum import IntEnum

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

THREAD_END_TIMEOUT_S = 1.0

CAPABILITY_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """Those that a daemon of ours may be told to keep, under Linux's names and numbers."""

    CAP_NET_BIND_SERVICE = 10
    CAP_NET_ADMIN = 12


class PrivilegeError(Exception):
    """Privileges cannot be given up as asked. `str()` is one line for the user."""


def drop_privileges(user: str = "nobody", keep: Collection[Capability] = ()) -> None:
    """Become `user` (if we are root) and keep no capability but `keep`, whatever is executed later.

    A process that is not root stays who it is and gives up what capabilities it has. PrivilegeError if that fails, with the
    process in a state not to go on with. RuntimeError if there are threads already, which would keep theirs.
    """
    _check_single_thread()
    libc = _Libc()
    try:
        if os.geteuid() == 0:
            _become(_find(user), keep, libc)
        libc.capset(keep)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise PrivilegeError(f"privileges cannot be given up (to become user {user}): {error.strerror}") from error


def end_with(parent: int) -> None:
    """Have the kernel kill this process, at once, when the one that started it ends; OSError. For a process that was just forked."""
    _Libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


def _check_single_thread() -> None:
    """Raise RuntimeError if there are threads, those left out that end right now: Python joins one before the kernel is done with it."""
    end = time.monotonic() + THREAD_END_TIMEOUT_S
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > end:
            raise RuntimeError("privileges are to be given up before threads are started")
        time.sleep(0.001)


def _find(user: str) -> pwd.struct_passwd:
    """Return the account of a name or number; PrivilegeError if there is none."""
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise PrivilegeError(f"unknown user {user!r}: name an account of this machine to run as") from None


def _become(account: pwd.struct_passwd, keep: Collection[Capability], libc: _Libc) -> None:
    # Before the uid changes: it takes CAP_SETPCAP. What is not in the bounding set can never be gained again by execve.
    number = 0
    while libc.is_bounding(number) is not None:
        if number not in keep:
            libc.prctl(PR_CAPBSET_DROP, number)
        number += 1
    if keep:
        libc.prctl(PR_SET_KEEPCAPS, 1)  # else the change of uid clears all; capset() then takes away the rest
    os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if keep:
        libc.prctl(PR_SET_KEEPCAPS, 0)


class _Libc:
    """The two calls that Python's os lacks. They raise OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, option: int, argument: int) -> int:
        result: int = self._libc.prctl(option, *(ctypes.c_ulong(value) for value in (argument, 0, 0, 0)))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def is_bounding(self, capability: int) -> bool | None:
        """Tell whether a capability is in the bounding set; None if the kernel knows no such capability."""
        try:
            return bool(self.prctl(PR_CAPBSET_READ, capability))
        except OSError:
            return None

    def capset(self, keep: Collection[Capability]) -> None:
        """Reduce permitted and effective capabilities to `keep`, inheritable ones to none; the ambient ones go with these."""
        mask = sum(1 << number for number in set(keep))
        header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
        low, high = mask & 0xFFFFFFFF, mask >> 32
        data = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable; twice 32 bits
        if self._libc.capset(header, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
